//! Sizes of a T5, and a model with fresh weights.

use burn::module::{Initializer, Param};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::bias::RelativeBias;
use super::{Attention, Block, Mlp, Stack, T5};
use crate::layers::{Activation, DropoutConfig, LinearConfig, RmsNormConfig};

/// The MLP of a T5, as named in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedForward {
    /// `wo(relu(wi(x)))`: T5 v1.0.
    Relu,
    /// `wo(gelu(wi_0(x)) · wi_1(x))`: T5 v1.1 and FLAN.
    GatedGelu,
}

/// Sizes of a [`T5`], under the keys of Hugging Face's `text_config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct T5Config {
    /// Number of tokens.
    pub vocab_size: usize,
    /// Width.
    pub d_model: usize,
    /// Width of a head; times the heads it may differ from `d_model`.
    pub d_kv: usize,
    /// Width inside the MLP.
    pub d_ff: usize,
    /// Blocks of the encoder.
    pub num_layers: usize,
    /// Blocks of the decoder.
    pub num_decoder_layers: usize,
    /// Heads of each attention.
    pub num_heads: usize,
    /// Number of buckets of relative distances.
    pub relative_attention_num_buckets: usize,
    /// Distance from which on all are in the last bucket.
    pub relative_attention_max_distance: usize,
    /// Dropout rate.
    pub dropout_rate: f64,
    /// Epsilon of every norm.
    pub layer_norm_epsilon: f64,
    /// Scale of fresh weights.
    pub initializer_factor: f64,
    /// Form of the MLP.
    pub feed_forward_proj: FeedForward,
    /// Activation of the MLP if it is not that of `feed_forward_proj` (LAVIS sets "gelu").
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense_act_fn: Option<Activation>,
    /// Whether the head is tied to the embedding.
    pub tie_word_embeddings: bool,
    /// Whether the encoder has an embedding that differs from `shared`: a property of the weights, not of
    /// `config.json`.
    #[serde(skip)]
    pub encoder_has_embedding: bool,
    /// The same for the decoder.
    #[serde(skip)]
    pub decoder_has_embedding: bool,
    /// Padding, if there is any.
    pub pad_token_id: Option<u32>,
    /// End of sequence, if there is one.
    pub eos_token_id: Option<u32>,
    /// First token of the decoder.
    pub decoder_start_token_id: u32,
}

impl Default for T5Config {
    /// FLAN-T5-XL.
    fn default() -> Self {
        Self {
            vocab_size: 32_128,
            d_model: 2048,
            d_kv: 64,
            d_ff: 5120,
            num_layers: 24,
            num_decoder_layers: 24,
            num_heads: 32,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            dropout_rate: 0.1,
            layer_norm_epsilon: 1e-6,
            initializer_factor: 1.0,
            feed_forward_proj: FeedForward::GatedGelu,
            dense_act_fn: None,
            tie_word_embeddings: false,
            encoder_has_embedding: false,
            decoder_has_embedding: false,
            pad_token_id: Some(0),
            eos_token_id: Some(1),
            decoder_start_token_id: 0,
        }
    }
}

impl T5Config {
    /// Makes the model with fresh weights, distributed as in Mesh TensorFlow's T5.
    pub fn init(&self, device: &Device) -> T5 {
        let std = self.initializer_factor;
        T5 {
            shared: self.init_embedding(device),
            encoder: self.init_stack(self.num_layers, false, device),
            decoder: self.init_stack(self.num_decoder_layers, true, device),
            lm_head: (!self.tie_word_embeddings)
                .then(|| LinearConfig::new(self.d_model, self.vocab_size, std).without_bias().init(device)),
            start: self.decoder_start_token_id,
        }
    }

    fn init_embedding(&self, device: &Device) -> Param<Tensor<2>> {
        let normal = Initializer::Normal { mean: 0.0, std: self.initializer_factor };
        normal.init([self.vocab_size, self.d_model], device)
    }

    fn init_stack(&self, blocks: usize, is_decoder: bool, device: &Device) -> Stack {
        let std = self.initializer_factor * (self.d_model as f64).powf(-0.5);
        let has_embedding = if is_decoder { self.decoder_has_embedding } else { self.encoder_has_embedding };
        Stack {
            embed_tokens: has_embedding.then(|| self.init_embedding(device)),
            block: (0..blocks).map(|_| self.init_block(is_decoder, device)).collect(),
            relative_attention_bias: RelativeBias {
                weight: Initializer::Normal { mean: 0.0, std }
                    .init([self.relative_attention_num_buckets, self.num_heads], device),
                max_distance: self.relative_attention_max_distance,
                is_bidirectional: !is_decoder,
            },
            final_layer_norm: RmsNormConfig::new(self.d_model, self.layer_norm_epsilon).init(device),
            dropout: DropoutConfig::new(self.dropout_rate).init(),
        }
    }

    fn init_block(&self, is_decoder: bool, device: &Device) -> Block {
        let norm = RmsNormConfig::new(self.d_model, self.layer_norm_epsilon);
        Block {
            self_attention_norm: norm.init(device),
            self_attention: self.init_attention(device),
            cross_attention_norm: is_decoder.then(|| norm.init(device)),
            cross_attention: is_decoder.then(|| self.init_attention(device)),
            feed_forward_norm: norm.init(device),
            feed_forward: self.init_feed_forward(device),
            dropout: DropoutConfig::new(self.dropout_rate).init(),
        }
    }

    fn init_attention(&self, device: &Device) -> Attention {
        let (d, inner, factor) = (self.d_model, self.num_heads * self.d_kv, self.initializer_factor);
        let linear = |d_input, d_output, fan: usize| {
            LinearConfig::new(d_input, d_output, factor * (fan as f64).powf(-0.5)).without_bias().init(device)
        };
        Attention {
            q: linear(d, inner, d * self.d_kv),
            k: linear(d, inner, d),
            v: linear(d, inner, d),
            o: linear(inner, d, inner),
            dropout: DropoutConfig::new(self.dropout_rate).init(),
            heads: self.num_heads,
        }
    }

    fn init_feed_forward(&self, device: &Device) -> Mlp {
        let (d, d_ff, factor) = (self.d_model, self.d_ff, self.initializer_factor);
        let linear = |d_input: usize, d_output| {
            let std = factor * (d_input as f64).powf(-0.5);
            LinearConfig::new(d_input, d_output, std).without_bias().init(device)
        };
        let (wi_1, activation) = match self.feed_forward_proj {
            FeedForward::Relu => (None, Activation::Relu),
            FeedForward::GatedGelu => (Some(linear(d, d_ff)), Activation::GeluNew),
        };
        Mlp {
            wi_0: linear(d, d_ff),
            wi_1,
            wo: linear(d_ff, d),
            activation: self.dense_act_fn.unwrap_or(activation),
            dropout: DropoutConfig::new(self.dropout_rate).init(),
        }
    }
}
