//! OPT (arXiv:2205.01068), as `OPTForCausalLM` in transformers: a decoder with learned positions, norms
//! before each sub-layer, a ReLU MLP and a tied head.

use burn::module::{Initializer, Module, Param};
use burn::tensor::module::embedding;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::cache::KeyValuesConfig;
use super::causal::{CausalCache, CausalInput};
use super::score_vocabulary;
use crate::layers::{
    Activation, AttentionInput, Dropout, DropoutConfig, HeadsInput, LayerNorm, LayerNormConfig, Linear,
    LinearConfig, Sources, attend, attend_heads, join_heads, split_heads,
};
use crate::recompute::{BlockInput, ModelPart, stack};

/// Unused rows at the start of the table of positions: fairseq counts positions from the padding id on.
const POSITION_OFFSET: usize = 2;

/// Sizes of an [`Opt`], under the keys of Hugging Face's `text_config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OptConfig {
    /// Number of tokens.
    pub vocab_size: usize,
    /// Width.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Heads of the attention.
    pub num_attention_heads: usize,
    /// Width inside the MLP.
    pub ffn_dim: usize,
    /// Maximum length of a sequence, with the video's tokens.
    pub max_position_embeddings: usize,
    /// Activation of the MLP.
    pub activation_function: Activation,
    /// Dropout after each sub-layer.
    pub dropout: f64,
    /// Dropout on the attention's probabilities.
    pub attention_dropout: f64,
    /// Standard deviation of fresh weights.
    pub init_std: f64,
    /// Whether the head is tied to the embedding.
    pub tie_word_embeddings: bool,
    /// Padding, if there is any.
    pub pad_token_id: Option<u32>,
    /// Start of sequence, if there is one.
    pub bos_token_id: Option<u32>,
    /// End of sequence, if there is one. BLIP-2 ends its captions with a line break (50118) instead.
    pub eos_token_id: Option<u32>,
}

impl Default for OptConfig {
    /// OPT-2.7B.
    fn default() -> Self {
        Self {
            vocab_size: 50_272,
            hidden_size: 2560,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            ffn_dim: 10_240,
            max_position_embeddings: 2048,
            activation_function: Activation::Relu,
            dropout: 0.1,
            attention_dropout: 0.0,
            init_std: 0.02,
            tie_word_embeddings: true,
            pad_token_id: Some(1),
            bos_token_id: Some(2),
            eos_token_id: Some(2),
        }
    }
}

impl OptConfig {
    /// Makes the model with fresh weights.
    pub fn init(&self, device: &Device) -> Opt {
        let (d, std) = (self.hidden_size, self.init_std);
        let normal = Initializer::Normal { mean: 0.0, std };
        Opt {
            embed_tokens: normal.init([self.vocab_size, d], device),
            embed_positions: normal.init([self.max_position_embeddings + POSITION_OFFSET, d], device),
            layers: (0..self.num_hidden_layers).map(|_| self.init_block(device)).collect(),
            final_layer_norm: LayerNormConfig::new(d, LAYER_NORM_EPSILON).init(device),
            lm_head: (!self.tie_word_embeddings)
                .then(|| LinearConfig::new(d, self.vocab_size, std).without_bias().init(device)),
        }
    }

    fn init_block(&self, device: &Device) -> Block {
        let (d, std) = (self.hidden_size, self.init_std);
        let norm = LayerNormConfig::new(d, LAYER_NORM_EPSILON);
        let projection = LinearConfig::new(d, d, std);
        Block {
            self_attn_layer_norm: norm.init(device),
            self_attn: Attention {
                q_proj: projection.init(device),
                k_proj: projection.init(device),
                v_proj: projection.init(device),
                out_proj: projection.init(device),
                dropout: DropoutConfig::new(self.attention_dropout).init(),
                heads: self.num_attention_heads,
            },
            final_layer_norm: norm.init(device),
            fc1: LinearConfig::new(d, self.ffn_dim, std).init(device),
            fc2: LinearConfig::new(self.ffn_dim, d, std).init(device),
            activation: self.activation_function,
            dropout: DropoutConfig::new(self.dropout).init(),
        }
    }
}

/// PyTorch's default; OPT has no key for it.
const LAYER_NORM_EPSILON: f64 = 1e-5;

/// A decoder-only language model.
#[derive(Module, Debug)]
pub struct Opt {
    /// `[v, d]`
    pub embed_tokens: Param<Tensor<2>>,
    /// `[positions + 2, d]`
    embed_positions: Param<Tensor<2>>,
    layers: Vec<Block>,
    final_layer_norm: LayerNorm,
    lm_head: Option<Linear>,
}

impl Opt {
    /// Reads embedded tokens.
    ///
    /// # Shapes
    /// - output: `[b, t, d]`, normalised
    pub(crate) fn hidden(&self, input: CausalInput<'_>) -> Tensor<3> {
        let CausalInput { embedded, positions, bias, cache } = input;
        let positions = embedding(self.embed_positions.val(), positions + POSITION_OFFSET as i64);
        let x = embedded + positions;
        let x = match cache {
            Some(cache) => (self.layers.iter().enumerate())
                .fold(x, |x, (index, layer)| layer.forward(x, &bias, Some((&mut *cache, index)))),
            None => stack(ModelPart::LanguageModel, &self.layers, BlockInput::new(x), move |layer, input| {
                layer.forward(input.hidden, &bias, None)
            }),
        };
        self.final_layer_norm.forward(x)
    }

    /// Maximum length of a sequence.
    pub(crate) fn max_positions(&self) -> usize {
        self.embed_positions.lazy_shape()[0].saturating_sub(POSITION_OFFSET)
    }

    /// Scores every token of the vocabulary.
    ///
    /// # Shapes
    /// - hidden: `[b, t, d]`
    /// - output: `[b, t, v]`, in f32
    pub(crate) fn head(&self, hidden: Tensor<3>) -> Tensor<3> {
        score_vocabulary(hidden, self.lm_head.as_ref(), &self.embed_tokens)
    }

    /// An empty cache for sequences of up to `capacity` tokens.
    pub(crate) fn start_cache(&self, rows: usize, capacity: usize) -> CausalCache {
        let weight = self.embed_tokens.val();
        let heads = self.layers.first().map_or(1, |layer| layer.self_attn.heads);
        let config = KeyValuesConfig {
            rows,
            heads,
            capacity,
            d_head: weight.dims()[1] / heads,
            dtype: weight.dtype().into(),
        };
        CausalCache::new(self.layers.len(), &config, &weight.device().inner())
    }

    /// Visits every dense layer with its Hugging Face path.
    pub(crate) fn visit_linears(&mut self, visit: &mut dyn FnMut(&str, &mut Linear)) {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            let Block { self_attn: Attention { q_proj, k_proj, v_proj, out_proj, .. }, fc1, fc2, .. } = layer;
            let own = [
                ("self_attn.q_proj", q_proj),
                ("self_attn.k_proj", k_proj),
                ("self_attn.v_proj", v_proj),
                ("self_attn.out_proj", out_proj),
                ("fc1", fc1),
                ("fc2", fc2),
            ];
            for (name, linear) in own {
                visit(&format!("model.decoder.layers.{index}.{name}"), linear);
            }
        }
        if let Some(head) = &mut self.lm_head {
            visit("lm_head", head);
        }
    }
}

/// `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Module, Debug)]
struct Block {
    self_attn_layer_norm: LayerNorm,
    self_attn: Attention,
    final_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    activation: Activation,
    dropout: Dropout,
}

impl Block {
    fn forward(&self, x: Tensor<3>, bias: &Tensor<4>, cache: Option<(&mut CausalCache, usize)>) -> Tensor<3> {
        let normed = self.self_attn_layer_norm.forward(x.clone());
        let x = x + self.dropout.forward(self.self_attn.forward(normed, bias.clone(), cache));
        let inner = self.activation.forward_dense(&self.fc1, self.final_layer_norm.forward(x.clone()));
        x + self.dropout.forward(self.fc2.forward(inner))
    }
}

#[derive(Module, Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    dropout: Dropout,
    heads: usize,
}

impl Attention {
    fn forward(&self, x: Tensor<3>, bias: Tensor<4>, cache: Option<(&mut CausalCache, usize)>) -> Tensor<3> {
        let scale = ((x.dims()[2] / self.heads) as f64).powf(-0.5);
        if cache.is_none() {
            let sources = Sources::own([&self.q_proj, &self.k_proj, &self.v_proj], x);
            let (heads, bias, dropout) = (self.heads, Some(bias), &self.dropout);
            return self.out_proj.forward(attend(AttentionInput { sources, heads, scale, bias, dropout }));
        }
        let query = split_heads(self.q_proj.forward(x.clone()), self.heads);
        let key = split_heads(self.k_proj.forward(x.clone()), self.heads);
        let value = split_heads(self.v_proj.forward(x), self.heads);
        let (key, value) = CausalCache::extend(cache, key, value);
        let attended =
            attend_heads(HeadsInput { query, key, value, scale, bias: Some(bias), dropout: &self.dropout });
        self.out_proj.forward(join_heads(attended))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn tiny() -> OptConfig {
        OptConfig {
            vocab_size: 23,
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            ffn_dim: 24,
            max_position_embeddings: 20,
            dropout: 0.0,
            init_std: 0.3,
            ..OptConfig::default()
        }
    }
}
