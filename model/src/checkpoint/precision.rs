//! The number types of a checkpoint's weights on a device.

use burn::tensor::{Device, FloatDType};

use crate::lm::LanguageModelConfig;

/// The types of the weights. Everything between ViT and language model is f32, and trained weights should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Precision {
    /// Of the ViT.
    pub vision_model: FloatDType,
    /// Of the language model.
    pub language_model: FloatDType,
    /// Whether the dense layers of both have integer weights of one byte, with a scale for each output. Only
    /// the CPU computes with them. Embeddings, norms, biases and the head over the vocabulary are f32.
    pub int8: bool,
}

impl Default for Precision {
    fn default() -> Self {
        Self { vision_model: FloatDType::F32, language_model: FloatDType::F32, int8: false }
    }
}

impl Precision {
    /// One byte a weight of a dense layer.
    pub fn int8() -> Self {
        Self { int8: true, ..Self::default() }
    }

    /// Two bytes a weight, as far as a device computes with such a type: bf16, where it has it, else f16. T5
    /// has f32 where there is no bf16, because its activations overflow in f16.
    pub fn half(device: &Device, language_model: &LanguageModelConfig) -> Self {
        let is_t5 = matches!(language_model, LanguageModelConfig::T5(_));
        Self::half_of(|dtype| device.supports_dtype(dtype), is_t5)
    }

    fn half_of(supports: impl Fn(FloatDType) -> bool, is_t5: bool) -> Self {
        let first = |of: &[FloatDType]| of.iter().copied().find(|dtype| supports(*dtype));
        let of = |of| first(of).unwrap_or(FloatDType::F32);
        Self {
            vision_model: of(&[FloatDType::BF16, FloatDType::F16]),
            language_model: of(if is_t5 {
                &[FloatDType::BF16]
            } else {
                &[FloatDType::BF16, FloatDType::F16]
            }),
            int8: false,
        }
    }

    /// The type of a parameter, by its name in [`crate::Blip2`].
    pub fn of(self, ours: &str) -> FloatDType {
        if ours.starts_with("vision_model.") {
            self.vision_model
        } else if ours.starts_with("language_model.") {
            self.language_model
        } else {
            FloatDType::F32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FloatDType::{BF16, F16, F32};

    #[test]
    fn t5_is_never_in_f16() {
        let of = |types: &'static [FloatDType], is_t5| {
            let Precision { vision_model, language_model, .. } =
                Precision::half_of(move |dtype| types.contains(&dtype), is_t5);
            (vision_model, language_model)
        };
        assert_eq!(of(&[F32, F16, BF16], true), (BF16, BF16));
        assert_eq!(of(&[F32, F16], false), (F16, F16));
        assert_eq!(of(&[F32, F16], true), (F16, F32));
        assert_eq!(of(&[F32], false), (F32, F32));
    }

    #[test]
    fn everything_between_the_two_models_is_f32() {
        let half = Precision { vision_model: BF16, language_model: F16, int8: false };
        let names =
            ["vision_model.layers.0", "language_model.shared", "qformer.layers.0", "ln_vision.weight"];
        assert_eq!(names.map(|name| half.of(name)), [BF16, F16, F32, F32]);
    }
}
