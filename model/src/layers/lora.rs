//! The low-rank update of a dense layer (LoRA, arXiv:2106.09685): `y = W x + (α/r)·B A x` with `W` frozen.
//!
//! Training never forms the dense product `B A`, as Burn's own LoRA does in every forward pass: it multiplies
//! by `A`, then by `B`. The factors are f32 whatever the weight's type, as `peft` keeps them.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, FloatDType, Tensor};
use serde::{Deserialize, Serialize};

use super::{Dropout, DropoutConfig, product};

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
    /// Names of layers, as Hugging Face names them: the last part of the path (`q`) or several
    /// (`SelfAttention.q`).
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

    /// A fresh update of a layer: `A` as `peft` draws it (uniform, `±1/√in`), `B` zero, so that it changes
    /// nothing yet.
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
