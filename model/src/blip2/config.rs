//! Sizes of a BLIP-2, and a model with fresh weights.

use burn::module::Initializer;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::Blip2;
use crate::fusion::{Fusion, Temporal};
use crate::input::InputError;
use crate::layers::LinearConfig;
use crate::lm::LanguageModelConfig;
use crate::lm::t5::T5Config;
use crate::lora::{LoraConfig, attach};
use crate::qformer::QFormerConfig;
use crate::vit::VitConfig;

/// Sizes of a [`Blip2`], under the keys of Hugging Face's `config.json`. `fusion`, `temporal` and
/// `max_frames` are additions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Blip2Config {
    /// The image encoder.
    pub vision_config: VitConfig,
    /// The Q-Former.
    pub qformer_config: QFormerConfig,
    /// The language model.
    pub text_config: LanguageModelConfig,
    /// Number of queries.
    pub num_query_tokens: usize,
    /// How frames are fused.
    pub fusion: Fusion,
    /// Whether frames have a temporal embedding.
    pub temporal: Temporal,
    /// Maximum number of frames of a temporal embedding.
    pub max_frames: usize,
    /// Low-rank updates of the language model, which are stored in separate files.
    #[serde(skip)]
    pub lora: Option<LoraConfig>,
}

impl Default for Blip2Config {
    /// BLIP-2 with FLAN-T5-XL.
    fn default() -> Self {
        Self {
            vision_config: VitConfig::default(),
            qformer_config: QFormerConfig::default(),
            text_config: LanguageModelConfig::T5(T5Config::default()),
            num_query_tokens: 32,
            fusion: Fusion::Concat,
            temporal: Temporal::None,
            max_frames: 32,
            lora: None,
        }
    }
}

impl Blip2Config {
    /// Sets the rates of dropout in the Q-Former and the language model.
    pub fn set_dropout(&mut self, rate: f64) {
        self.qformer_config.hidden_dropout_prob = rate;
        self.qformer_config.attention_probs_dropout_prob = rate;
        self.text_config.set_dropout(rate);
        if let Some(lora) = &mut self.lora {
            lora.lora_dropout = rate;
        }
    }

    /// Whether any layer has dropout.
    pub fn has_dropout(&self) -> bool {
        let lora = self.lora.as_ref().map(|lora| lora.lora_dropout);
        self.dropout_rates().into_iter().map(|(_, rate)| rate).chain(lora).any(|rate| rate > 0.0)
    }

    /// Whether the output of the Q-Former differs between training and generation.
    pub fn has_qformer_dropout(&self) -> bool {
        let qformer = &self.qformer_config;
        [qformer.hidden_dropout_prob, qformer.attention_probs_dropout_prob].iter().any(|&rate| rate > 0.0)
    }

    fn dropout_rates(&self) -> [(&'static str, f64); 4] {
        let (vision, qformer) = (&self.vision_config, &self.qformer_config);
        [
            ("vision_config.attention_dropout", vision.attention_dropout),
            ("qformer_config.hidden_dropout_prob", qformer.hidden_dropout_prob),
            ("qformer_config.attention_probs_dropout_prob", qformer.attention_probs_dropout_prob),
            ("text_config's dropout", self.text_config.dropout()),
        ]
    }

    /// Rejects sizes that make no model.
    ///
    /// # Errors
    /// The key, its value and what is expected, in one line.
    pub fn check(&self) -> Result<(), String> {
        let (vision, qformer) = (&self.vision_config, &self.qformer_config);
        let sizes = [
            ("num_query_tokens", self.num_query_tokens),
            ("max_frames", self.max_frames),
            ("vision_config.hidden_size", vision.hidden_size),
            ("vision_config.intermediate_size", vision.intermediate_size),
            ("vision_config.patch_size", vision.patch_size),
            ("vision_config.num_attention_heads", vision.num_attention_heads),
            ("qformer_config.hidden_size", qformer.hidden_size),
            ("qformer_config.intermediate_size", qformer.intermediate_size),
            ("qformer_config.num_attention_heads", qformer.num_attention_heads),
            ("qformer_config.cross_attention_frequency", qformer.cross_attention_frequency),
        ];
        let of_text = [
            ("qformer_config.vocab_size", qformer.vocab_size),
            ("qformer_config.max_position_embeddings", qformer.max_position_embeddings),
        ];
        let of_text = of_text.into_iter().filter(|_| qformer.reads_text);
        let sizes = sizes.into_iter().chain(of_text).chain(self.text_config.sizes());
        for (key, size) in sizes {
            // no model is larger, and the square of a larger size could overflow
            if size == 0 || size > 1 << 24 {
                return Err(format!("{key} is {size}"));
            }
        }
        if vision.image_size == 0 || vision.image_size > 1 << 14 {
            return Err(format!("vision_config.image_size is {}, expected 1 to 16384", vision.image_size));
        }
        let divisions = [
            ("vision_config.num_attention_heads", vision.hidden_size, vision.num_attention_heads),
            ("qformer_config.num_attention_heads", qformer.hidden_size, qformer.num_attention_heads),
            ("vision_config.patch_size", vision.image_size, vision.patch_size),
        ];
        for (key, whole, part) in divisions.into_iter().chain(self.text_config.divisions()) {
            if whole % part != 0 {
                return Err(format!("{key} is {part}, which does not divide {whole}"));
            }
        }
        if qformer.encoder_hidden_size != vision.hidden_size {
            let (expected, found) = (vision.hidden_size, qformer.encoder_hidden_size);
            return Err(format!(
                "qformer_config.encoder_hidden_size is {found}, expected {expected}, the ViT's width"
            ));
        }
        for (key, rate) in self.dropout_rates() {
            if !(0.0..1.0).contains(&rate) {
                return Err(format!("{key} is {rate}, expected 0 or more and less than 1"));
            }
        }
        if let Some(lora) = &self.lora {
            lora.check().map_err(|reason| format!("lora.{reason}"))?;
        }
        let layers = [vision.num_hidden_layers, qformer.num_hidden_layers, self.text_config.layers()];
        if layers.iter().any(|&layers| layers > 1000) {
            return Err(format!("a model of {layers:?} layers"));
        }
        Ok(())
    }

    /// Rejects a text of `new` tokens, after `frames` frames and a prompt, that is longer than the language
    /// model's positions.
    ///
    /// # Errors
    /// With the lengths and the maximum.
    pub fn check_length(&self, frames: usize, prompt: usize, new: usize) -> Result<(), InputError> {
        let times = if self.fusion == Fusion::ConcatQueries { frames } else { 1 };
        let prefix = self.num_query_tokens.saturating_mul(times).saturating_add(prompt);
        InputError::check_length(prefix, new, self.text_config.max_positions())
    }

    /// Makes the model with fresh weights.
    pub fn init(&self, device: &Device) -> Blip2 {
        let (d_image, d_query) = (self.vision_config.hidden_size, self.qformer_config.hidden_size);
        let std = self.qformer_config.initializer_range;
        let mut language_model = self.text_config.init(device);
        if let Some(lora) = &self.lora {
            attach(&mut language_model, lora);
        }
        Blip2 {
            vision_model: self.vision_config.init(device),
            ln_vision: self.vision_config.ln_vision().init(device),
            temporal: self.temporal.init(self.max_frames, d_image, device),
            query_tokens: Initializer::Normal { mean: 0.0, std }
                .init([1, self.num_query_tokens, d_query], device),
            qformer: self.qformer_config.init(device),
            language_projection: LinearConfig::new(d_query, self.text_config.width(), std).init(device),
            language_model,
            fusion: self.fusion,
        }
    }
}
