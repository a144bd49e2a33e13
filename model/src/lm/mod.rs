//! The language models, which read the projected queries and generate the caption.

mod cache;
mod causal;
mod decoding;
pub mod llama;
pub mod opt;
pub mod t5;

pub use decoding::Decoding;

use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::module::embedding;
use burn::tensor::{Device, FloatDType, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::host::is_on_host;
use crate::input::InputError;
use crate::layers::{Linear, cast, product};
use causal::{CausalInput, positions_and_bias};
use llama::{Llama, LlamaConfig};
use opt::{Opt, OptConfig};
use t5::{T5, T5Config};

/// Sizes of a language model: Hugging Face's `text_config`, by its `model_type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type", rename_all = "lowercase")]
pub enum LanguageModelConfig {
    /// Decoder with learned positions.
    Opt(OptConfig),
    /// Encoder and decoder.
    T5(T5Config),
    /// Decoder with rotary positions.
    Llama(LlamaConfig),
}

/// The same expression for every variant.
macro_rules! each {
    ($value:expr, $variant:ident => $result:expr) => {
        match $value {
            Self::Opt($variant) => $result,
            Self::T5($variant) => $result,
            Self::Llama($variant) => $result,
        }
    };
}

impl LanguageModelConfig {
    /// Width of the embedded tokens.
    pub fn width(&self) -> usize {
        match self {
            Self::Opt(config) => config.hidden_size,
            Self::T5(config) => config.d_model,
            Self::Llama(config) => config.hidden_size,
        }
    }

    /// Number of tokens.
    pub fn vocabulary_size(&self) -> usize {
        each!(self, config => config.vocab_size)
    }

    /// Sets the number of tokens.
    pub fn set_vocabulary_size(&mut self, size: usize) {
        each!(self, config => config.vocab_size = size);
    }

    /// Sizes that must not be zero, with their keys.
    pub(crate) fn sizes(&self) -> Vec<(&'static str, usize)> {
        macro_rules! sizes {
            ($config:ident: $($field:ident),*) => {
                vec![$((concat!("text_config.", stringify!($field)), $config.$field)),*]
            };
        }
        match self {
            Self::Opt(opt) => {
                sizes!(opt: vocab_size, hidden_size, ffn_dim, num_attention_heads, max_position_embeddings)
            }
            Self::T5(t5) => sizes!(t5: vocab_size, d_model, d_kv, d_ff, num_heads,
                relative_attention_num_buckets, relative_attention_max_distance),
            Self::Llama(llama) => {
                let mut sizes =
                    sizes!(llama: vocab_size, hidden_size, intermediate_size, num_attention_heads);
                sizes.push(("text_config.num_key_value_heads", llama.key_value_heads()));
                sizes.push(("text_config.head_dim", llama.d_head()));
                sizes
            }
        }
    }

    /// Sizes that must divide others: key, dividend, divisor.
    pub(crate) fn divisions(&self) -> Vec<(&'static str, usize, usize)> {
        match self {
            Self::Opt(config) => {
                vec![("text_config.num_attention_heads", config.hidden_size, config.num_attention_heads)]
            }
            Self::T5(config) => {
                vec![(
                    "text_config.relative_attention_num_buckets/4",
                    config.relative_attention_num_buckets,
                    4,
                )]
            }
            Self::Llama(config) => vec![
                ("text_config.num_key_value_heads", config.num_attention_heads, config.key_value_heads()),
                ("text_config.head_dim/2", config.d_head(), 2),
            ],
        }
    }

    /// Maximum length of a sequence, video and prompt included; T5's relative positions have none.
    pub fn max_positions(&self) -> Option<usize> {
        match self {
            Self::Opt(config) => Some(config.max_position_embeddings),
            Self::Llama(config) => Some(config.max_position_embeddings),
            Self::T5(_) => None,
        }
    }

    /// Number of blocks; for T5, of the longer stack.
    pub(crate) fn layers(&self) -> usize {
        match self {
            Self::Opt(config) => config.num_hidden_layers,
            Self::T5(config) => config.num_layers.max(config.num_decoder_layers),
            Self::Llama(config) => config.num_hidden_layers,
        }
    }

    /// The token that ends a sequence, if there is one.
    pub fn end(&self) -> Option<u32> {
        each!(self, config => config.eos_token_id)
    }

    /// The first token of the decoder, in an encoder-decoder model.
    pub fn start(&self) -> Option<u32> {
        match self {
            Self::T5(config) => Some(config.decoder_start_token_id),
            Self::Opt(_) | Self::Llama(_) => None,
        }
    }

    /// The padding token, if there is one.
    pub fn padding(&self) -> Option<u32> {
        each!(self, config => config.pad_token_id)
    }

    /// The largest dropout rate.
    pub fn dropout(&self) -> f64 {
        match self {
            Self::Opt(config) => config.dropout.max(config.attention_dropout),
            Self::T5(config) => config.dropout_rate,
            Self::Llama(config) => config.attention_dropout,
        }
    }

    /// Sets all dropout rates; LLaMA has only that of the attention's probabilities.
    pub fn set_dropout(&mut self, rate: f64) {
        match self {
            Self::Opt(config) => (config.dropout, config.attention_dropout) = (rate, rate),
            Self::T5(config) => config.dropout_rate = rate,
            Self::Llama(config) => config.attention_dropout = rate,
        }
    }

    /// Makes the model with fresh weights.
    pub fn init(&self, device: &Device) -> LanguageModel {
        match self {
            Self::Opt(config) => LanguageModel::Opt(config.init(device)),
            Self::T5(config) => LanguageModel::T5(config.init(device)),
            Self::Llama(config) => LanguageModel::Llama(config.init(device)),
        }
    }
}

/// Any of the language models.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // there is one a model, and Burn derives no module for a box
pub enum LanguageModel {
    /// Decoder with learned positions.
    Opt(Opt),
    /// Encoder and decoder.
    T5(T5),
    /// Decoder with rotary positions.
    Llama(Llama),
}

/// The input of a language model: the projected queries, then the prompt.
#[derive(Debug, Clone)]
pub struct Prefix {
    /// `[b, s, d]`
    pub embedded: Tensor<3>,
    /// `[b, s]`, 1 for a token and 0 for padding; no padding where absent.
    pub mask: Option<Tensor<2>>,
}

impl Prefix {
    /// The same values without a graph.
    #[must_use]
    pub fn without_autodiff(self) -> Self {
        Self { embedded: self.embedded.without_autodiff(), mask: self.mask.map(Tensor::without_autodiff) }
    }

    /// Some rows.
    #[must_use]
    pub(crate) fn rows(self, rows: Range<usize>) -> Self {
        let part = |mask: Tensor<2>| mask.slice([rows.clone()]);
        Self { embedded: self.embedded.slice([rows.clone()]), mask: self.mask.map(part) }
    }

    /// Repeats every row `times` times; copies are adjacent.
    #[must_use]
    pub fn repeat(self, times: usize) -> Self {
        if times == 1 {
            return self;
        }
        let [b, s, d] = self.embedded.dims();
        Self {
            embedded: self.embedded.unsqueeze_dim::<4>(1).expand([b, times, s, d]).reshape([b * times, s, d]),
            mask: self
                .mask
                .map(|mask| mask.unsqueeze_dim::<3>(1).expand([b, times, s]).reshape([b * times, s])),
        }
    }
}

impl LanguageModel {
    /// Embeds tokens.
    ///
    /// # Shapes
    /// - ids: `[b, t]`
    /// - output: `[b, t, d]`
    pub fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        embedding(self.embedding_table().val(), ids)
    }

    /// Number of tokens.
    pub fn vocabulary_size(&self) -> usize {
        self.embedding_table().lazy_shape()[0]
    }

    /// The type of embedded tokens.
    pub fn dtype(&self) -> FloatDType {
        self.embedding_table().val().dtype().into()
    }

    /// `[v, d]`
    fn embedding_table(&self) -> &Param<Tensor<2>> {
        match self {
            Self::Opt(opt) => &opt.embed_tokens,
            Self::T5(t5) => &t5.shared,
            Self::Llama(llama) => &llama.embed_tokens,
        }
    }

    /// Scores given tokens after a prefix (teacher forcing).
    ///
    /// # Shapes
    /// - targets: `[b, t]`; padding after a sequence may hold any id, as no position attends to a later one
    /// - output: `[b, t, v]`, row `i` scoring `targets[i]`, in f32
    ///
    /// # Errors
    /// If the sequence is longer than the model's positions.
    pub fn score(&self, prefix: Prefix, targets: Tensor<2, Int>) -> Result<Tensor<3>, InputError> {
        self.score_each(prefix, targets, 1)
    }

    /// Rejects a text of `new` tokens after a prefix of `prefix` that is longer than the model's positions.
    ///
    /// # Errors
    /// With the lengths and the maximum.
    pub fn check_length(&self, prefix: usize, new: usize) -> Result<(), InputError> {
        let positions = match self {
            Self::Opt(opt) => Some(opt.max_positions()),
            Self::Llama(llama) => Some(llama.max_positions),
            Self::T5(_) => None,
        };
        InputError::check_length(prefix, new, positions)
    }

    /// As [`score`](Self::score), with `times` texts for each prefix; an encoder reads it once.
    ///
    /// # Shapes
    /// - targets: `[b · times, t]`, those of a prefix adjacent
    /// - output: `[b · times, t, v]`, in f32
    ///
    /// # Errors
    /// If the sequence is longer than the model's positions.
    pub fn score_each(
        &self,
        prefix: Prefix,
        targets: Tensor<2, Int>,
        times: usize,
    ) -> Result<Tensor<3>, InputError> {
        self.check_length(prefix.embedded.dims()[1], targets.dims()[1])?;
        Ok(match self {
            Self::T5(t5) => {
                let embedded = t5.encode(prefix.embedded, prefix.mask.clone());
                let encoded = Prefix { embedded, mask: prefix.mask }.repeat(times);
                t5.decode(targets, &encoded.embedded, encoded.mask)
            }
            Self::Opt(opt) => {
                let (input, s) = self.causal_input(prefix.repeat(times), targets);
                opt.head(scoring_rows(opt.hidden(input), s))
            }
            Self::Llama(llama) => {
                let (input, s) = self.causal_input(prefix.repeat(times), targets);
                llama.head(scoring_rows(llama.hidden(input), s))
            }
        })
    }

    /// Whether a CPU generates faster when each core takes some prompts. The cores then read the weights
    /// separately, which costs more where they do not fit into the cache.
    pub(crate) fn is_small_on_host(&self, prefix: &Prefix) -> bool {
        const WIDEST: usize = 512;
        let [_, _, d] = prefix.embedded.dims();
        d <= WIDEST && is_on_host(&prefix.embedded) && !prefix.embedded.device().is_autodiff()
    }

    /// Prepares the generation of up to `max_new_tokens` tokens after a prefix, without autodiff.
    pub fn decoding(&self, prefix: Prefix, max_new_tokens: usize) -> Decoding<'_> {
        Decoding::new(self, prefix, max_new_tokens)
    }

    /// Visits every dense layer with its Hugging Face path.
    pub fn visit_linears(&mut self, visit: &mut dyn FnMut(&str, &mut Linear)) {
        each!(self, model => model.visit_linears(visit));
    }

    /// `[prefix; embed(targets without the last)]`, and the length of the prefix.
    fn causal_input(&self, prefix: Prefix, targets: Tensor<2, Int>) -> (CausalInput<'static>, usize) {
        let [b, s, _] = prefix.embedded.dims();
        let [_, t] = targets.dims();
        let device = prefix.embedded.device().inner();
        let embedded = if t > 1 {
            Tensor::cat(vec![prefix.embedded, self.embed(targets.slice([0..b, 0..t - 1]))], 1)
        } else {
            prefix.embedded
        };
        let mask = match prefix.mask {
            Some(mask) if t > 1 => Some(Tensor::cat(vec![mask, Tensor::ones([b, t - 1], &device)], 1)),
            mask => mask,
        };
        let (positions, bias) = positions_and_bias(mask, [b, s + t - 1], &device);
        let input = CausalInput { embedded, positions, bias, cache: None };
        (input, s)
    }
}

/// Scores every token of the vocabulary by the head, or by the embedding if they are tied.
///
/// # Shapes
/// - hidden: `[b, t, d]`
/// - output: `[b, t, v]`, in f32
fn score_vocabulary(hidden: Tensor<3>, head: Option<&Linear>, embedding: &Param<Tensor<2>>) -> Tensor<3> {
    let logits = match head {
        Some(head) => head.forward(hidden),
        None => {
            let ([b, t, d], embedding) = (hidden.dims(), embedding.val());
            let v = embedding.dims()[0];
            product(hidden.reshape([b * t, d]), embedding, None).reshape([b, t, v])
        }
    };
    cast(logits, FloatDType::F32)
}

/// The rows that score the tokens after a prefix of length `s`: from its last row on.
fn scoring_rows(hidden: Tensor<3>, s: usize) -> Tensor<3> {
    let [b, all, d] = hidden.dims();
    hidden.slice([0..b, s - 1..all, 0..d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::NextToken;
    use burn::tensor::{Distribution, Tolerance};

    fn models(device: &Device) -> Vec<LanguageModel> {
        let tied = T5Config { tie_word_embeddings: true, ..t5::tests::tiny() };
        let configs = [
            LanguageModelConfig::Opt(opt::tests::tiny()),
            LanguageModelConfig::T5(t5::tests::tiny()),
            LanguageModelConfig::T5(tied),
            LanguageModelConfig::Llama(llama::tests::tiny()),
        ];
        configs.iter().map(|config| config.init(device)).collect()
    }

    fn prefix(device: &Device, mask: Option<Tensor<2>>) -> Prefix {
        Prefix { embedded: Tensor::random([2, 5, 16], Distribution::Normal(0.0, 1.0), device), mask }
    }

    /// The cache, the positions and the masks of decoding are other code than teacher forcing's, and must
    /// agree: logits of size 1 to 1e-4, as sums run in another order.
    #[test]
    fn decoding_token_by_token_equals_teacher_forcing() {
        let device = Device::flex();
        device.seed(11);
        let mask = Tensor::<2>::from_floats([[1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0, 1.0]], &device);
        for model in models(&device) {
            for mask in [None, Some(mask.clone())] {
                let prefix = prefix(&device, mask);
                let rows = [[3, 7, 1, 0], [9, 2, 14, 1]];
                let targets = Tensor::<2, Int>::from_ints(rows, &device);
                let forced = model.score(prefix.clone(), targets).unwrap();
                let mut decoding = model.decoding(prefix, 4);
                let mut logits = decoding.start().unwrap();
                for step in 0..4 {
                    let expected = forced.clone().slice([0..2, step..step + 1]).into_data();
                    let got = burn::tensor::TensorData::new(logits.clone(), [2, 1, 23]);
                    got.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-4));
                    if step < 3 {
                        let tokens = [rows[0][step] as u32, rows[1][step] as u32];
                        logits = decoding.advance(&tokens, &[0, 1]).unwrap();
                    }
                }
            }
        }
    }

    /// Memory for the limit itself would be hundreds of gigabytes.
    #[test]
    fn a_high_limit_costs_nothing_until_it_is_used() {
        let device = Device::flex();
        for model in models(&device) {
            let mut decoding = model.decoding(prefix(&device, None), 1_000_000_000);
            decoding.start().unwrap();
            decoding.advance(&[3, 4], &[0, 1]).unwrap();
        }
    }

    #[test]
    fn rows_that_change_places_keep_their_own_past() {
        let device = Device::flex();
        device.seed(12);
        for model in models(&device) {
            let prefix = prefix(&device, None);
            let mut decoding = model.decoding(prefix.clone(), 4);
            decoding.start().unwrap();
            // three sequences a prompt; the second step swaps and copies some
            decoding.advance(&[3, 4, 5, 6, 7, 8], &[0, 0, 0, 1, 1, 1]).unwrap();
            let got = decoding.advance(&[9, 9, 10, 11, 12, 12], &[2, 1, 1, 3, 5, 4]).unwrap();
            let sequences = [[5, 9], [4, 9], [4, 10], [6, 11], [8, 12], [7, 12]];
            for (row, sequence) in sequences.into_iter().enumerate() {
                let video = row / 3;
                let prefix =
                    Prefix { embedded: prefix.embedded.clone().slice([video..video + 1]), mask: None };
                let targets = Tensor::<2, Int>::from_ints([[sequence[0], sequence[1], 0]], &device);
                let expected = model.score(prefix, targets).unwrap().slice([0..1, 2..3]).into_data();
                let got = burn::tensor::TensorData::new(got[row * 23..(row + 1) * 23].to_vec(), [1, 1, 23]);
                got.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-4));
            }
        }
    }

    #[test]
    fn masked_tokens_of_the_prefix_change_nothing() {
        let device = Device::flex();
        device.seed(13);
        let short = Tensor::<3>::random([1, 3, 16], Distribution::Default, &device);
        let padding = Tensor::<3>::ones([1, 2, 16], &device);
        let targets = Tensor::<2, Int>::from_ints([[3, 7]], &device);
        for model in models(&device) {
            let expected =
                model.score(Prefix { embedded: short.clone(), mask: None }, targets.clone()).unwrap();
            // padding follows the prompt of an encoder and precedes that of a decoder
            let (parts, mask) = match model {
                LanguageModel::T5(_) => (vec![short.clone(), padding.clone()], [[1.0, 1.0, 1.0, 0.0, 0.0]]),
                _ => (vec![padding.clone(), short.clone()], [[0.0, 0.0, 1.0, 1.0, 1.0]]),
            };
            let mask = Some(Tensor::<2>::from_floats(mask, &device));
            let got = model.score(Prefix { embedded: Tensor::cat(parts, 1), mask }, targets.clone()).unwrap();
            got.into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-5));
        }
    }
}
