//! LoRA on a language model: attaching updates to its layers, listing and merging them. [`Lora`] is the
//! layer.

use burn::tensor::FloatDType;

pub use crate::layers::{Lora, LoraConfig};

use crate::layers::Linear;
use crate::lm::LanguageModel;

/// Gives every targeted layer of a language model a fresh update. Returns the number of layers.
pub fn attach(language_model: &mut LanguageModel, config: &LoraConfig) -> usize {
    let mut attached = 0;
    language_model.visit_linears(&mut |path, linear: &mut Linear| {
        if config.targets(path) {
            let shape = linear.weight.lazy_shape().dims();
            linear.lora = Some(config.init(path, shape, &linear.weight.lazy_device()));
            attached += 1;
        }
    });
    attached
}

/// Adds every update to its weight and removes it. The model computes the same in less time; the updates are
/// lost.
pub fn merge(language_model: &mut LanguageModel) {
    language_model.visit_linears(&mut |_, linear| {
        if let Some(lora) = linear.lora.take() {
            linear.map_weight(|weight| {
                let dtype: FloatDType = weight.dtype().into();
                (weight.cast(FloatDType::F32) + lora.dense().without_autodiff()).cast(dtype)
            });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lm::{LanguageModelConfig, Prefix, llama, opt, t5};
    use crate::parameters::{count, set_trainable};
    use burn::module::Module;
    use burn::tensor::{Device, Distribution, Int, Tensor};

    fn models() -> Vec<(LanguageModel, LoraConfig)> {
        let device = Device::flex();
        let lora = |targets: [&str; 2]| LoraConfig {
            r: 3,
            lora_alpha: 6.0,
            lora_dropout: 0.0,
            target_modules: targets.map(str::to_owned).to_vec(),
            ..LoraConfig::default()
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
        model.score(Prefix { embedded, mask: None }, targets).unwrap()
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
    fn merging_keeps_the_scores() {
        Device::flex().seed(52);
        for (mut model, config) in models() {
            attach(&mut model, &config);
            draw_updates(&mut model);
            let updated = scores(&model);
            merge(&mut model);
            assert!(updates(&mut model).is_empty(), "a merged update is gone");
            assert!(distance(&scores(&model), &updated) < 1e-4);
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
