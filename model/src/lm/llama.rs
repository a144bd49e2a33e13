//! LLaMA (arXiv:2302.13971) and Vicuna, as `LlamaForCausalLM` in transformers: RMS norms before each
//! sub-layer, rotary positions, a SwiGLU MLP, no biases; several query heads may share one head of keys and
//! values.

use burn::module::{Initializer, Module, Param};
use burn::tensor::module::embedding;
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::cache::KeyValuesConfig;
use super::causal::{CausalCache, CausalInput};
use super::score_vocabulary;
use crate::layers::{
    Activation, Dropout, DropoutConfig, HeadsInput, Linear, LinearConfig, RmsNorm, RmsNormConfig,
    attend_heads, join_heads, split_heads,
};
use crate::recompute::{BlockInput, ModelPart, stack};

/// Sizes of a [`Llama`], under the keys of Hugging Face's `text_config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LlamaConfig {
    /// Number of tokens.
    pub vocab_size: usize,
    /// Width.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Heads of the queries.
    pub num_attention_heads: usize,
    /// Heads of keys and values; as many as query heads where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; the width over the heads where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Activation of the MLP's gate.
    pub hidden_act: Activation,
    /// Maximum length of a sequence, with the video's tokens.
    pub max_position_embeddings: usize,
    /// Base of the rotary positions' wavelengths.
    pub rope_theta: f64,
    /// Epsilon of every norm.
    pub rms_norm_eps: f64,
    /// Dropout on the attention's probabilities.
    pub attention_dropout: f64,
    /// Whether the attention's projections have biases.
    pub attention_bias: bool,
    /// Whether the MLP's layers have biases.
    pub mlp_bias: bool,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// Whether the head is tied to the embedding.
    pub tie_word_embeddings: bool,
    /// Padding, where the tokenizer has one.
    pub pad_token_id: Option<u32>,
    /// Start of sequence, if there is one.
    pub bos_token_id: Option<u32>,
    /// End of sequence, if there is one.
    pub eos_token_id: Option<u32>,
}

impl Default for LlamaConfig {
    /// LLaMA-7B and Vicuna-7B.
    fn default() -> Self {
        Self {
            vocab_size: 32_000,
            hidden_size: 4096,
            intermediate_size: 11_008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: None,
            head_dim: None,
            hidden_act: Activation::Silu,
            max_position_embeddings: 2048,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            attention_dropout: 0.0,
            attention_bias: false,
            mlp_bias: false,
            initializer_range: 0.02,
            tie_word_embeddings: false,
            pad_token_id: None,
            bos_token_id: Some(1),
            eos_token_id: Some(2),
        }
    }
}

impl LlamaConfig {
    /// Heads of keys and values.
    pub fn key_value_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Width of a head.
    pub fn d_head(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Makes the model with fresh weights.
    pub fn init(&self, device: &Device) -> Llama {
        let (d, std) = (self.hidden_size, self.initializer_range);
        Llama {
            embed_tokens: Initializer::Normal { mean: 0.0, std }.init([self.vocab_size, d], device),
            layers: (0..self.num_hidden_layers).map(|_| self.init_block(device)).collect(),
            norm: RmsNormConfig::new(d, self.rms_norm_eps).init(device),
            lm_head: (!self.tie_word_embeddings)
                .then(|| LinearConfig::new(d, self.vocab_size, std).without_bias().init(device)),
            rotary: Rotary { theta: self.rope_theta, d_head: self.d_head() },
            max_positions: self.max_position_embeddings,
        }
    }

    fn init_block(&self, device: &Device) -> Block {
        let (d, inner) = (self.hidden_size, self.num_attention_heads * self.d_head());
        let d_keys = self.key_value_heads() * self.d_head();
        let norm = RmsNormConfig::new(d, self.rms_norm_eps);
        let linear = |d_input, d_output, bias| {
            LinearConfig { bias, ..LinearConfig::new(d_input, d_output, self.initializer_range) }.init(device)
        };
        Block {
            input_layernorm: norm.init(device),
            self_attn: Attention {
                q_proj: linear(d, inner, self.attention_bias),
                k_proj: linear(d, d_keys, self.attention_bias),
                v_proj: linear(d, d_keys, self.attention_bias),
                o_proj: linear(inner, d, self.attention_bias),
                dropout: DropoutConfig::new(self.attention_dropout).init(),
                heads: self.num_attention_heads,
                key_value_heads: self.key_value_heads(),
            },
            post_attention_layernorm: norm.init(device),
            mlp: Mlp {
                gate_proj: linear(d, self.intermediate_size, self.mlp_bias),
                up_proj: linear(d, self.intermediate_size, self.mlp_bias),
                down_proj: linear(self.intermediate_size, d, self.mlp_bias),
                activation: self.hidden_act,
            },
        }
    }
}

/// A decoder-only language model.
#[derive(Module, Debug)]
pub struct Llama {
    /// `[v, d]`
    pub embed_tokens: Param<Tensor<2>>,
    layers: Vec<Block>,
    norm: RmsNorm,
    lm_head: Option<Linear>,
    #[module(skip)]
    rotary: Rotary,
    /// Maximum length of a sequence.
    pub(crate) max_positions: usize,
}

impl Llama {
    /// Reads embedded tokens.
    ///
    /// # Shapes
    /// - output: `[b, t, d]`, normalised
    pub(crate) fn hidden(&self, input: CausalInput<'_>) -> Tensor<3> {
        let CausalInput { embedded: x, positions, bias, cache } = input;
        let [_, t, _] = x.dims();
        let end = t + cache.as_ref().map_or(0, |cache| cache.length);
        let angles = self.rotary.angles(&positions, end, x.dtype().into());
        let x = match cache {
            Some(cache) => (self.layers.iter().enumerate())
                .fold(x, |x, (index, layer)| layer.forward(x, &angles, &bias, Some((&mut *cache, index)))),
            None => stack(ModelPart::LanguageModel, &self.layers, BlockInput::new(x), move |layer, input| {
                layer.forward(input.hidden, &angles, &bias, None)
            }),
        };
        self.norm.forward(x)
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
        let config = KeyValuesConfig {
            rows,
            heads: self.layers.first().map_or(1, |layer| layer.self_attn.key_value_heads),
            capacity,
            d_head: self.rotary.d_head,
            dtype: weight.dtype().into(),
        };
        CausalCache::new(self.layers.len(), &config, &weight.device().inner())
    }

    /// Visits every dense layer with its Hugging Face path.
    pub(crate) fn visit_linears(&mut self, visit: &mut dyn FnMut(&str, &mut Linear)) {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            let Block { self_attn: Attention { q_proj, k_proj, v_proj, o_proj, .. }, mlp, .. } = layer;
            let Mlp { gate_proj, up_proj, down_proj, .. } = mlp;
            let own = [
                ("self_attn.q_proj", q_proj),
                ("self_attn.k_proj", k_proj),
                ("self_attn.v_proj", v_proj),
                ("self_attn.o_proj", o_proj),
                ("mlp.gate_proj", gate_proj),
                ("mlp.up_proj", up_proj),
                ("mlp.down_proj", down_proj),
            ];
            for (name, linear) in own {
                visit(&format!("model.layers.{index}.{name}"), linear);
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
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

impl Block {
    fn forward(
        &self,
        x: Tensor<3>,
        angles: &Angles,
        bias: &Tensor<4>,
        cache: Option<(&mut CausalCache, usize)>,
    ) -> Tensor<3> {
        let normed = self.input_layernorm.forward(x.clone());
        let x = x + self.self_attn.forward(normed, angles, bias.clone(), cache);
        x.clone() + self.mlp.forward(self.post_attention_layernorm.forward(x))
    }
}

#[derive(Module, Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    dropout: Dropout,
    heads: usize,
    key_value_heads: usize,
}

impl Attention {
    fn forward(
        &self,
        x: Tensor<3>,
        angles: &Angles,
        bias: Tensor<4>,
        cache: Option<(&mut CausalCache, usize)>,
    ) -> Tensor<3> {
        let query = angles.turn(split_heads(self.q_proj.forward(x.clone()), self.heads));
        let key = angles.turn(split_heads(self.k_proj.forward(x.clone()), self.key_value_heads));
        let value = split_heads(self.v_proj.forward(x), self.key_value_heads);
        let (key, value) = CausalCache::extend(cache, key, value);
        let scale = (query.dims()[3] as f64).powf(-0.5);
        let attended = attend_heads(HeadsInput {
            query,
            key: self.share(key),
            value: self.share(value),
            scale,
            bias: Some(bias),
            dropout: &self.dropout,
        });
        self.o_proj.forward(join_heads(attended))
    }

    /// Repeats each head of keys or values for the query heads that share it.
    fn share(&self, x: Tensor<4>) -> Tensor<4> {
        let times = self.heads / self.key_value_heads;
        if times == 1 {
            return x;
        }
        let [b, h, t, d] = x.dims();
        x.reshape([b, h, 1, t, d]).expand([b, h, times, t, d]).reshape([b, h * times, t, d])
    }
}

/// `down(act(gate(x)) · up(x))`.
#[derive(Module, Debug)]
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let gate = self.gate_proj.forward(x.clone());
        self.down_proj.forward(self.activation.forward_gated(gate, self.up_proj.forward(x)))
    }
}

/// Rotary positions (arXiv:2104.09864) in the layout of LLaMA: channel `i` is rotated with channel `i + d/2`.
/// (Burn's layer rotates neighbouring channels, as GPT-J.)
#[derive(Debug, Clone, Copy)]
struct Rotary {
    theta: f64,
    d_head: usize,
}

impl Rotary {
    /// The angles at given positions, in the type of queries and keys.
    fn angles(&self, positions: &Tensor<2, Int>, end: usize, dtype: FloatDType) -> Angles {
        let half = self.d_head / 2;
        // in f32 as in the reference, which rounds wavelengths before the product with positions
        let frequency = |channel: usize| self.theta.powf(-2.0 * channel as f64 / self.d_head as f64) as f32;
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        let angle = |position: usize, channel: usize| position as f32 * frequencies[channel];
        let table = |function: fn(f32) -> f32| {
            let values: Vec<f32> =
                (0..end * half).map(|index| function(angle(index / half, index % half))).collect();
            let table =
                Tensor::<2>::from_data(TensorData::new(values, [end, half]), &positions.device().inner());
            let [b, t] = positions.dims();
            embedding(table, positions.clone()).reshape([b, 1, t, half]).cast(dtype)
        };
        Angles { cos: table(f32::cos), sin: table(f32::sin) }
    }
}

/// Cosine and sine of the angles of some tokens, `[b, 1, t, d_head / 2]`.
struct Angles {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Angles {
    fn turn(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let (low, high) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let (cos, sin) = (self.cos.clone(), self.sin.clone());
        Tensor::cat(vec![low.clone() * cos.clone() - high.clone() * sin.clone(), high * cos + low * sin], 3)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn tiny() -> LlamaConfig {
        LlamaConfig {
            vocab_size: 23,
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: Some(2),
            head_dim: Some(4),
            max_position_embeddings: 20,
            initializer_range: 0.3,
            ..LlamaConfig::default()
        }
    }
}
