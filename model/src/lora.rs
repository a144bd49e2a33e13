//! LoRA (arXiv:2106.09685): a frozen matrix gets a trained update of low rank beside it, `y = W x + (α/r)·B A x`.
//!
//! The dense product `B A` is never formed in training (Burn's own LoRA does, in every forward pass): two thin products
//! are. The factors are f32 whatever the weight's type, as `peft` keeps them.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, FloatDType, Tensor};
use serde::{Deserialize, Serialize};

use crate::layers::{Dropout, DropoutConfig, Linear, product};
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lm::{LanguageModelConfig, Prefix, llama, opt, t5};
    use crate::parameters::{count, set_trainable};
    use burn::tensor::{Distribution, Int};

    fn models() -> Vec<(LanguageModel, LoraConfig)> {
        let device = Device::flex();
        let lora = |targets: [&str; 2]| LoraConfig {
            r: 3,
            lora_alpha: 6.0,
            lora_dropout: 0.0,
            target_modules: targets.map(str::to_owned).to_vec(),
        };
        let model = |config: LanguageModelConfig| config.init(&device);
        vec![
            (model(LanguageModelConfig::T5(t5::tests::tiny())), lora(["q", "EncDecAttention.v"])),
            (model(LanguageModelConfig::Opt(opt::tests::tiny())), lora(["q_proj", "fc1"])),
            (model(LanguageModelConfig::Llama(llama::tests::tiny())), lora(["v_proj", "mlp.up_proj"])),
        ]
    }

    fn scores(model: &LanguageModel) -> Tensor<3> {
        let device = Device::flex();
        let embedded = Tensor::<1, Int>::arange(0..2 * 4 * 16, &device).float().reshape([2, 4, 16]).sin();
        let targets = Tensor::<2, Int>::from_ints([[3, 7, 1], [9, 2, 14]], &device);
        model.score(Prefix { embedded, mask: None }, targets)
    }

    fn draw_updates(model: &mut LanguageModel) {
        model.visit_linears(&mut |_, linear| {
            if let Some(lora) = &mut linear.lora {
                let b = lora.b.clone();
                lora.b = b.map(|b| b.random_like(Distribution::Normal(0.0, 0.5)));
            }
        });
    }

    fn distance(a: &Tensor<3>, b: &Tensor<3>) -> f32 {
        (a.clone() - b.clone()).abs().max().into_scalar::<f32>()
    }

    #[test]
    fn a_fresh_update_changes_nothing_and_a_drawn_one_does() {
        Device::flex().seed(51);
        for (mut model, config) in models() {
            let before = scores(&model);
            assert!(attach(&mut model, &config) > 0);
            assert_eq!(scores(&model).into_data(), before.clone().into_data());
            draw_updates(&mut model);
            assert!(distance(&scores(&model), &before) > 1e-2);
        }
    }

    /// The merged weight sums in another order: 1e-4 on logits of size 1 to 10.
    #[test]
    fn merging_keeps_the_scores_and_unmerging_the_weights() {
        Device::flex().seed(52);
        for (mut model, config) in models() {
            let plain = scores(&model);
            attach(&mut model, &config);
            draw_updates(&mut model);
            let updated = scores(&model);
            let kept = updates(&mut model);
            merge(&mut model);
            assert!(updates(&mut model).is_empty(), "a merged update is gone");
            assert!(distance(&scores(&model), &updated) < 1e-4);
            unmerge(&mut model, &kept);
            assert!(distance(&scores(&model), &updated) < 1e-4);
            model.visit_linears(&mut |_, linear| linear.lora = None);
            assert!(distance(&scores(&model), &plain) < 1e-4);
        }
    }

    #[test]
    fn only_the_factors_get_gradients_when_only_they_are_trained() {
        Device::flex().seed(53);
        for (mut model, config) in models() {
            let attached = attach(&mut model, &config);
            draw_updates(&mut model);
            let model = set_trainable(model.train(), |name| name.contains(".lora."));
            let gradients = scores(&model).square().sum().backward();
            let gradients = burn::optim::GradientsParams::from_grads(gradients, &model);
            assert_eq!(gradients.len(), 2 * attached);
            assert!(count(&model, |name| name.contains(".lora.")) < count(&model, |_| true) / 2);
        }
    }

    #[test]
    fn targets_are_whole_parts_of_a_path() {
        let config = LoraConfig {
            target_modules: vec!["q".to_owned(), "SelfAttention.v".to_owned()],
            ..LoraConfig::default()
        };
        assert!(config.targets("decoder.block.0.layer.0.SelfAttention.q"));
        assert!(config.targets("decoder.block.0.layer.0.SelfAttention.v"));
        assert!(!config.targets("decoder.block.0.layer.1.EncDecAttention.v"));
        assert!(!config.targets("decoder.block.0.layer.0.SelfAttention.qq"));
    }
}
