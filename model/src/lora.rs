//! LoRA (arXiv:2106.09685): a frozen matrix gets a trained update of low rank beside it, `y = W x + (α/r)·B A x`.
//!
//! The dense product `B A` is never formed in training (Burn's own LoRA does, in every forward pass): two thin products
//! are. The factors are f32 whatever the weight's type, as `peft` keeps them.

use burn::module::{Initializer, Module, Param};
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, FloatDType, Tensor};
use serde::{Deserialize, Serialize};

use crate::layers::{Linear, product};
use crate::lm::LanguageModel;

/// Which layers get an update, and of what rank; keys as in `peft`'s `adapter_config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoraConfig {
    /// Rank of the update.
    pub r: usize,
    /// The update is scaled by this over the rank.
    pub lora_alpha: f64,
    /// Dropout on the update's input.
    pub lora_dropout: f64,
    /// Names of layers, as Hugging Face names them: the last part of the path (`q`) or several (`SelfAttention.q`).
    pub target_modules: Vec<String>,
}

impl Default for LoraConfig {
    /// What the paper's authors train FLAN-T5 with.
    fn default() -> Self {
        Self {
            r: 8,
            lora_alpha: 16.0,
            lora_dropout: 0.05,
            target_modules: vec!["q".to_owned(), "v".to_owned()],
        }
    }
}

impl LoraConfig {
    /// Whether a layer of this path, in Hugging Face's names, gets an update.
    pub fn targets(&self, path: &str) -> bool {
        self.target_modules.iter().any(|target| {
            path.strip_suffix(target.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }

    /// A fresh update of a layer: `A` as `peft` draws it (uniform, `±1/√in`), `B` zero, so that it changes nothing yet.
    pub fn init(&self, d_input: usize, d_output: usize, device: &Device) -> Lora {
        let bound = (d_input as f64).powf(-0.5);
        Lora {
            a: Initializer::Uniform { min: -bound, max: bound }.init([self.r, d_input], device),
            b: Initializer::Zeros.init([d_output, self.r], device),
            dropout: DropoutConfig::new(self.lora_dropout).init(),
            scale: self.lora_alpha / self.r as f64,
        }
    }
}

/// The update of one layer.
#[derive(Module, Debug)]
pub struct Lora {
    /// `[r, in]`
    pub a: Param<Tensor<2>>,
    /// `[out, r]`
    pub b: Param<Tensor<2>>,
    dropout: Dropout,
    scale: f64,
}

impl Lora {
    /// The update's part of the output.
    ///
    /// # Shapes
    /// - input: `[rows, in]`
    /// - output: `[rows, out]`, in f32
    pub fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        let input = self.dropout.forward(input.cast(FloatDType::F32));
        product(product(input, self.a.val(), None), self.b.val(), None).mul_scalar(self.scale)
    }

    /// The update as a dense matrix, `(α/r)·B A`: `[out, in]`.
    pub fn dense(&self) -> Tensor<2> {
        self.b.val().matmul(self.a.val()).mul_scalar(self.scale)
    }
}

/// Gives every targeted layer of a language model a fresh update; gives back how many layers there were.
pub fn attach(language_model: &mut LanguageModel, config: &LoraConfig) -> usize {
    let mut attached = 0;
    language_model.visit_linears(&mut |path, linear: &mut Linear| {
        if config.targets(path) {
            let [d_output, d_input] = linear.weight.lazy_shape().dims();
            linear.lora = Some(config.init(d_input, d_output, &linear.weight.lazy_device()));
            attached += 1;
        }
    });
    attached
}

/// Adds every update to its weight and drops it: the model computes the same, and faster, but can no longer be told
/// from one that was trained whole.
pub fn merge(language_model: &mut LanguageModel) {
    language_model.visit_linears(&mut |_, linear| {
        if let Some(lora) = linear.lora.take() {
            add_to_weight(linear, lora.dense());
        }
    });
}

/// Takes updates that were merged out of the weights again and attaches them; exact up to rounding.
pub fn unmerge(language_model: &mut LanguageModel, updates: &[(String, Lora)]) {
    language_model.visit_linears(&mut |path, linear| {
        if let Some((_, lora)) = updates.iter().find(|(name, _)| name == path) {
            add_to_weight(linear, lora.dense().neg());
            linear.lora = Some(lora.clone());
        }
    });
}

/// The updates that a language model has, by the path of their layers in Hugging Face's names.
pub fn updates(language_model: &mut LanguageModel) -> Vec<(String, Lora)> {
    let mut updates = Vec::new();
    language_model.visit_linears(&mut |path, linear| {
        if let Some(lora) = &linear.lora {
            updates.push((path.to_owned(), lora.clone()));
        }
    });
    updates
}

fn add_to_weight(linear: &mut Linear, update: Tensor<2>) {
    let weight = linear.weight.clone();
    linear.weight = weight.map(|weight| {
        let dtype: FloatDType = weight.dtype().into();
        let update = update.without_autodiff();
        (weight.cast(FloatDType::F32) + update).cast(dtype)
    });
}
