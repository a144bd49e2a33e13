//! T5 (arXiv:1910.10683) and the instruction-tuned FLAN-T5, as `T5ForConditionalGeneration` in transformers.
//!
//! RMS norms before each sub-layer, no biases, attention without the usual `1/√d`, and positions that enter
//! only as a learned bias on the scores, shared by all layers of a stack. T5 v1.0 has a ReLU MLP and a head
//! tied to the embedding and scaled by `1/√d`; v1.1 and FLAN a gated GELU and a separate head.

mod bias;
mod config;

pub use config::{FeedForward, T5Config};

use burn::module::{Module, Param};
use burn::tensor::module::embedding;
use burn::tensor::{Device, Int, Tensor};

use super::cache::{KeyValues, KeyValuesConfig, grown, indices};
use super::causal::{causal_bias, mask_to_bias};
use super::score_vocabulary;
use crate::layers::{
    Activation, AttentionInput, Dropout, HeadsInput, Linear, RmsNorm, Sources, attend, attend_heads,
    join_heads, split_heads,
};
use crate::recompute::{BlockInput, ModelPart, stack};
use bias::RelativeBias;

/// An encoder-decoder language model.
#[derive(Module, Debug)]
pub struct T5 {
    /// `[v, d]`. It embeds prompts, as `get_input_embeddings` in transformers does even if the encoder has
    /// another table, and the decoder's tokens unless the decoder has another table.
    pub shared: Param<Tensor<2>>,
    encoder: Stack,
    decoder: Stack,
    lm_head: Option<Linear>,
    start: u32,
}

/// Keys and values of all tokens so far, for each block of the decoder.
#[derive(Debug, Clone)]
pub(crate) struct T5Cache {
    blocks: Vec<BlockCache>,
    /// The decoder's relative bias of the newest token: `[1, h, 1, capacity]`, the newest key last.
    bias: Tensor<4>,
    /// Maximum number of tokens.
    limit: usize,
    /// The bias that masks padding of the encoder's output: `[b, 1, 1, s]`.
    cross_bias: Option<Tensor<4>>,
    videos: usize,
    rows: usize,
    length: usize,
}

#[derive(Debug, Clone)]
struct BlockCache {
    own: KeyValues,
    /// Key and value of the encoder's output, computed once: `[b, h, s, d_head]`. The sequences of one video
    /// share them.
    cross: (Tensor<4>, Tensor<4>),
}

impl T5Cache {
    /// Number of sequences.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Makes sequence `i` a copy of sequence `rows[i]`. Those of one video stay adjacent; videos without rows
    /// are dropped.
    pub(crate) fn select(&mut self, rows: &[usize], device: &Device) {
        let width = self.rows / self.videos;
        let mut videos: Vec<usize> = rows.iter().map(|row| row / width).collect();
        videos.dedup();
        if videos.len() < self.videos {
            let kept = indices(&videos, device);
            for block in &mut self.blocks {
                let (keys, values) = &block.cross;
                block.cross = (keys.clone().select(0, kept.clone()), values.clone().select(0, kept.clone()));
            }
            self.cross_bias = self.cross_bias.take().map(|bias| bias.select(0, kept));
            self.videos = videos.len();
        }
        let rows_kept = indices(rows, device);
        for block in &mut self.blocks {
            block.own.select(&rows_kept);
        }
        self.rows = rows.len();
    }
}

impl T5 {
    /// Embeds the decoder's tokens.
    fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        embedding(self.decoder.embed_tokens.as_ref().unwrap_or(&self.shared).val(), ids)
    }

    /// Encodes an embedded sequence.
    ///
    /// # Shapes
    /// - embedded: `[b, t, d]`
    /// - mask: `[b, t]`, 1 for a token and 0 for padding; no padding where absent
    /// - output: `[b, t, d]`
    pub fn encode(&self, embedded: Tensor<3>, mask: Option<Tensor<2>>) -> Tensor<3> {
        let [_, t, _] = embedded.dims();
        let mut bias = self.encoder.relative_attention_bias.forward(0..t, t);
        if let Some(mask) = mask {
            bias = bias + mask_to_bias(mask);
        }
        self.encoder.forward(embedded, bias, None)
    }

    /// Scores the next token after each prefix of `targets` (teacher forcing).
    ///
    /// # Shapes
    /// - targets: `[b, t]`; padding may hold any id, as no position attends to a later one
    /// - encoded: `[b, s, d]`
    /// - mask: `[b, s]` as in [`encode`](Self::encode)
    /// - output: `[b, t, v]`, row `i` scoring `targets[i]`, in f32
    pub fn decode(&self, targets: Tensor<2, Int>, encoded: &Tensor<3>, mask: Option<Tensor<2>>) -> Tensor<3> {
        let [b, t] = targets.dims();
        let start = Tensor::full([b, 1], self.start as i64, &targets.device());
        let inputs = Tensor::cat(vec![start, targets.slice([0..b, 0..t - 1])], 1);
        let bias = self.decoder.relative_attention_bias.forward(0..t, t);
        let bias = bias + causal_bias(t, &encoded.device().inner());
        let cross = CrossInput { encoded: encoded.clone(), bias: mask.map(mask_to_bias) };
        self.head(self.decoder.forward(self.embed(inputs), bias, Some(cross)))
    }

    /// Prepares decoding token by token: the cross-attention's keys and values are computed here, once.
    ///
    /// # Shapes
    /// - encoded: `[b, s, d]`
    /// - mask: `[b, s]` as in [`encode`](Self::encode)
    pub(crate) fn start_cache(
        &self,
        encoded: &Tensor<3>,
        mask: Option<Tensor<2>>,
        capacity: usize,
    ) -> T5Cache {
        let [b, _, _] = encoded.dims();
        let device = encoded.device().inner();
        let capacity = capacity.max(1);
        let blocks = self.decoder.block.iter().filter_map(|block| {
            let cross = block.cross_attention.as_ref()?;
            let (key, value) = (cross.k.forward(encoded.clone()), cross.v.forward(encoded.clone()));
            let d_head = key.dims()[2] / cross.heads;
            let dtype = encoded.dtype().into();
            let own = KeyValuesConfig { rows: b, heads: cross.heads, capacity, d_head, dtype };
            Some(BlockCache {
                own: own.init(&device),
                cross: (split_heads(key, cross.heads), split_heads(value, cross.heads)),
            })
        });
        T5Cache {
            blocks: blocks.collect(),
            bias: self.decoder.relative_attention_bias.newest(grown(0, 1, capacity)),
            limit: capacity,
            cross_bias: mask.map(mask_to_bias),
            videos: b,
            rows: b,
            length: 0,
        }
    }

    /// Scores the token after `last`, the newest token of each sequence (the start token in the first step).
    ///
    /// # Shapes
    /// - last: `[rows, 1]`, the sequences of one video adjacent
    /// - output: `[rows, 1, v]`, in f32
    pub(crate) fn decode_step(&self, last: Tensor<2, Int>, cache: &mut T5Cache) -> Tensor<3> {
        let at = cache.length;
        let [_, h, _, room] = cache.bias.dims();
        let capacity = grown(room, at + 1, cache.limit);
        if capacity > room {
            cache.bias = self.decoder.relative_attention_bias.newest(capacity);
        }
        let bias = cache.bias.clone().slice([0..1, 0..h, 0..1, capacity - at - 1..capacity]);
        let mut x = self.embed(last);
        for (block, block_cache) in self.decoder.block.iter().zip(&mut cache.blocks) {
            x = block.step(x, Step { at, bias: &bias, cross_bias: &cache.cross_bias, cache: block_cache });
        }
        cache.length += 1;
        self.head(self.decoder.final_layer_norm.forward(x))
    }

    /// The first token of the decoder.
    pub fn start_token(&self) -> u32 {
        self.start
    }

    /// Visits every dense layer with its Hugging Face path.
    pub(crate) fn visit_linears(&mut self, visit: &mut dyn FnMut(&str, &mut Linear)) {
        for (stack, name) in [(&mut self.encoder, "encoder"), (&mut self.decoder, "decoder")] {
            for (index, block) in stack.block.iter_mut().enumerate() {
                let path = format!("{name}.block.{index}.layer");
                let last = 1 + usize::from(block.cross_attention.is_some());
                let cross = block.cross_attention.as_mut().map(|cross| ("1.EncDecAttention", cross));
                let attentions = [Some(("0.SelfAttention", &mut block.self_attention)), cross];
                for (name, attention) in attentions.into_iter().flatten() {
                    let Attention { q, k, v, o, .. } = attention;
                    for (letter, linear) in [("q", q), ("k", k), ("v", v), ("o", o)] {
                        visit(&format!("{path}.{name}.{letter}"), linear);
                    }
                }
                let Mlp { wi_0, wi_1, wo, .. } = &mut block.feed_forward;
                let first = if wi_1.is_some() { "wi_0" } else { "wi" };
                let inner = [Some((first, wi_0)), wi_1.as_mut().map(|gate| ("wi_1", gate)), Some(("wo", wo))];
                for (name, linear) in inner.into_iter().flatten() {
                    visit(&format!("{path}.{last}.DenseReluDense.{name}"), linear);
                }
            }
        }
        if let Some(head) = &mut self.lm_head {
            visit("lm_head", head);
        }
    }

    fn head(&self, hidden: Tensor<3>) -> Tensor<3> {
        let d = hidden.dims()[2] as f64;
        let hidden = if self.lm_head.is_some() { hidden } else { hidden.mul_scalar(d.powf(-0.5)) };
        score_vocabulary(hidden, self.lm_head.as_ref(), &self.shared)
    }
}

/// The encoder or the decoder.
#[derive(Module, Debug)]
struct Stack {
    /// `[v, d]`, if it differs from `shared`. The encoder's is only kept: BLIP-2 gives the encoder embedded
    /// tokens.
    embed_tokens: Option<Param<Tensor<2>>>,
    block: Vec<Block>,
    relative_attention_bias: RelativeBias,
    final_layer_norm: RmsNorm,
    dropout: Dropout,
}

/// The encoder's output and its mask.
struct CrossInput {
    encoded: Tensor<3>,
    bias: Option<Tensor<4>>,
}

impl Stack {
    fn forward(&self, x: Tensor<3>, bias: Tensor<4>, cross: Option<CrossInput>) -> Tensor<3> {
        let (memory, cross_bias) = match cross {
            Some(CrossInput { encoded, bias }) => (Some(encoded), bias),
            None => (None, None),
        };
        let input = BlockInput { hidden: self.dropout.forward(x), memory, bias: Some(bias) };
        let x = stack(ModelPart::LanguageModel, &self.block, input, move |block, input| {
            block.forward(input, cross_bias.clone())
        });
        self.dropout.forward(self.final_layer_norm.forward(x))
    }
}

#[derive(Module, Debug)]
struct Block {
    self_attention_norm: RmsNorm,
    self_attention: Attention,
    cross_attention_norm: Option<RmsNorm>,
    cross_attention: Option<Attention>,
    feed_forward_norm: RmsNorm,
    feed_forward: Mlp,
    dropout: Dropout,
}

impl Block {
    fn forward(&self, input: BlockInput, cross_bias: Option<Tensor<4>>) -> Tensor<3> {
        let BlockInput { hidden: x, memory: encoded, bias } = input;
        let normed = self.self_attention_norm.forward(x.clone());
        let x = x + self.dropout.forward(self.self_attention.forward(normed, None, bias));
        let x = match (&self.cross_attention_norm, &self.cross_attention, encoded) {
            (Some(norm), Some(attention), Some(encoded)) => {
                let normed = norm.forward(x.clone());
                x + self.dropout.forward(attention.forward(normed, Some(&encoded), cross_bias))
            }
            _ => x,
        };
        x.clone() + self.dropout.forward(self.feed_forward.forward(self.feed_forward_norm.forward(x)))
    }

    /// One token of each sequence through a decoder block; no dropout, as decoding runs on a model in
    /// evaluation.
    fn step(&self, x: Tensor<3>, step: Step<'_>) -> Tensor<3> {
        let Step { at, bias, cross_bias, cache } = step;
        let attention = &self.self_attention;
        let normed = self.self_attention_norm.forward(x.clone());
        let key = split_heads(attention.k.forward(normed.clone()), attention.heads);
        let value = split_heads(attention.v.forward(normed.clone()), attention.heads);
        let (keys, values) = cache.own.extend(at, key, value);
        let x = x + attention.read(normed, keys, values, Some(bias.clone()));
        let x = match (&self.cross_attention_norm, &self.cross_attention) {
            (Some(norm), Some(attention)) => {
                let (keys, values) = cache.cross.clone();
                // the sequences of one video share their keys, like tokens of one sequence
                let ([rows, t, d], [b, ..]) = (x.dims(), keys.dims());
                let normed = norm.forward(x.clone()).reshape([b, rows / b * t, d]);
                x + attention.read(normed, keys, values, cross_bias.clone()).reshape([rows, t, d])
            }
            _ => x,
        };
        x.clone() + self.feed_forward.forward(self.feed_forward_norm.forward(x))
    }
}

/// Inputs of a decoder block besides the newest tokens.
struct Step<'a> {
    at: usize,
    bias: &'a Tensor<4>,
    cross_bias: &'a Option<Tensor<4>>,
    cache: &'a mut BlockCache,
}

#[derive(Module, Debug)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    dropout: Dropout,
    heads: usize,
}

impl Attention {
    /// Attends to `memory`, or to the tokens themselves.
    fn forward(&self, x: Tensor<3>, memory: Option<&Tensor<3>>, bias: Option<Tensor<4>>) -> Tensor<3> {
        let layers = [&self.q, &self.k, &self.v];
        self.o.forward(attend(AttentionInput {
            sources: match memory {
                Some(memory) => Sources::crossed(layers, x, memory),
                None => Sources::own(layers, x),
            },
            heads: self.heads,
            scale: 1.0,
            bias,
            dropout: &self.dropout,
        }))
    }

    /// Attends to given keys and values.
    fn read(&self, x: Tensor<3>, key: Tensor<4>, value: Tensor<4>, bias: Option<Tensor<4>>) -> Tensor<3> {
        let query = split_heads(self.q.forward(x), self.heads);
        let attended =
            attend_heads(HeadsInput { query, key, value, scale: 1.0, bias, dropout: &self.dropout });
        self.o.forward(join_heads(attended))
    }
}

/// The MLP; checkpoints without a gate call `wi_0` `wi`.
#[derive(Module, Debug)]
struct Mlp {
    wi_0: Linear,
    wi_1: Option<Linear>,
    wo: Linear,
    #[module(skip)]
    activation: Activation,
    dropout: Dropout,
}

impl Mlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let inner = match &self.wi_1 {
            Some(gate) => self.activation.forward_gated(self.wi_0.forward(x.clone()), gate.forward(x)),
            None => self.activation.forward(self.wi_0.forward(x)),
        };
        self.wo.forward(self.dropout.forward(inner))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn tiny() -> T5Config {
        T5Config {
            vocab_size: 23,
            d_model: 16,
            d_kv: 6,
            d_ff: 24,
            num_layers: 2,
            num_decoder_layers: 2,
            num_heads: 3,
            dropout_rate: 0.0,
            ..T5Config::default()
        }
    }
}
