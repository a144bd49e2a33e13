//! A language model during generation: keys and values of earlier tokens, and the scores of the next one.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::cache::indices;
use super::causal::{CausalCache, CausalInput, mask_to_bias, positions_and_bias};
use super::llama::Llama;
use super::opt::Opt;
use super::t5::{T5, T5Cache};
use super::{LanguageModel, Prefix};
use crate::device::{DeviceError, values};
use crate::generate::NextToken;

/// Sequences being generated, one or more for each prompt.
pub struct Decoding<'a> {
    device: Device,
    state: State<'a>,
}

#[allow(clippy::large_enum_variant)] // there is one a batch
enum State<'a> {
    T5 { model: &'a T5, prompts: usize, cache: T5Cache },
    Causal(Causal<'a>),
}

/// A decoder-only model's state.
struct Causal<'a> {
    model: CausalModel<'a>,
    /// The input of the first step.
    prefix: Option<Prefix>,
    cache: CausalCache,
    /// 1 for a token and 0 for padding: `[rows, t]`.
    mask: Tensor<2>,
    /// Positions of the newest tokens: `[rows, 1]`.
    next: Tensor<2, Int>,
}

#[derive(Clone, Copy)]
enum CausalModel<'a> {
    Opt(&'a Opt),
    Llama(&'a Llama),
}

impl CausalModel<'_> {
    fn scores(self, input: CausalInput<'_>) -> Tensor<3> {
        let [b, t, d] = input.embedded.dims();
        let last = |hidden: Tensor<3>| hidden.slice([0..b, t - 1..t, 0..d]);
        match self {
            Self::Opt(opt) => opt.head(last(opt.hidden(input))),
            Self::Llama(llama) => llama.head(last(llama.hidden(input))),
        }
    }

    fn embed(self, ids: Tensor<2, Int>) -> Tensor<3> {
        let (Self::Opt(Opt { embed_tokens, .. }) | Self::Llama(Llama { embed_tokens, .. })) = self;
        burn::tensor::module::embedding(embed_tokens.val(), ids)
    }
}

impl<'a> Decoding<'a> {
    pub(super) fn new(model: &'a LanguageModel, prefix: Prefix, max_new_tokens: usize) -> Self {
        let device = prefix.embedded.device();
        let [b, s, _] = prefix.embedded.dims();
        let state = match model {
            LanguageModel::T5(model) => {
                let encoded = model.encode(prefix.embedded, prefix.mask.clone());
                let cache = model.start_cache(&encoded, prefix.mask, max_new_tokens);
                State::T5 { model, prompts: b, cache }
            }
            LanguageModel::Opt(opt) => {
                let cache = opt.start_cache(b, s + max_new_tokens);
                State::Causal(Causal::new(CausalModel::Opt(opt), prefix, cache))
            }
            LanguageModel::Llama(llama) => {
                let cache = llama.start_cache(b, s + max_new_tokens);
                State::Causal(Causal::new(CausalModel::Llama(llama), prefix, cache))
            }
        };
        Self { device, state }
    }
}

impl<'a> Causal<'a> {
    fn new(model: CausalModel<'a>, prefix: Prefix, cache: CausalCache) -> Self {
        let [b, s, _] = prefix.embedded.dims();
        let device = prefix.embedded.device();
        let mask = prefix.mask.clone().unwrap_or_else(|| Tensor::ones([b, s], &device));
        let next = mask.clone().sum_dim(1).int();
        Self { model, prefix: Some(prefix), cache, mask, next }
    }
}

impl NextToken for Decoding<'_> {
    type Error = DeviceError;

    fn start(&mut self) -> Result<Vec<f32>, DeviceError> {
        let scores = match &mut self.state {
            State::T5 { model, prompts, cache } => {
                let start = Tensor::full([*prompts, 1], i64::from(model.start_token()), &self.device);
                model.decode_step(start, cache)
            }
            State::Causal(Causal { model, prefix, cache, .. }) => {
                let Some(Prefix { embedded, mask }) = prefix.take() else {
                    return Err(DeviceError::new("decoding was started twice"));
                };
                let [b, s, _] = embedded.dims();
                let (positions, bias) = positions_and_bias(mask, [b, s], &self.device);
                let input = CausalInput { embedded, positions, bias, cache: Some(&mut *cache) };
                let scores = model.scores(input);
                cache.length += s;
                scores
            }
        };
        values(scores)
    }

    fn advance(&mut self, tokens: &[u32], parents: &[usize]) -> Result<Vec<f32>, DeviceError> {
        let rows = tokens.len();
        let ids: Vec<i32> = tokens.iter().map(|&id| id as i32).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [rows, 1]), &self.device);
        let scores = match &mut self.state {
            State::T5 { model, cache, .. } => {
                if !in_place(parents, cache.rows()) {
                    cache.select(parents, &self.device);
                }
                model.decode_step(ids, cache)
            }
            State::Causal(Causal { model, cache, mask, next, .. }) => {
                if !in_place(parents, mask.dims()[0]) {
                    let rows = indices(parents, &self.device);
                    for layer in &mut cache.layers {
                        layer.select(&rows);
                    }
                    *mask = mask.clone().select(0, rows.clone());
                    *next = next.clone().select(0, rows);
                }
                *mask = Tensor::cat(vec![mask.clone(), Tensor::ones([rows, 1], &self.device)], 1);
                let input = CausalInput {
                    embedded: model.embed(ids),
                    positions: next.clone(),
                    bias: mask_to_bias(mask.clone()),
                    cache: Some(&mut *cache),
                };
                let scores = model.scores(input);
                cache.length += 1;
                *next = next.clone() + 1;
                scores
            }
        };
        values(scores)
    }
}

/// Whether every row is its own parent.
fn in_place(parents: &[usize], rows: usize) -> bool {
    parents.len() == rows && parents.iter().enumerate().all(|(row, &parent)| row == parent)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;
    use crate::device::tests::READS;
    use crate::generate::{DiverseBeam, GenerateConfig, PromptInfo, Request, Sample, Search, generate};
    use crate::lm::{LanguageModelConfig, llama, opt, t5};

    fn searches() -> [GenerateConfig; 4] {
        let base = GenerateConfig { max_new_tokens: 7, min_new_tokens: 7, ..GenerateConfig::default() };
        let beams = GenerateConfig { num_beams: 4, ..base.clone() };
        let groups = Search::DiverseBeam(DiverseBeam { groups: 2, penalty: 0.5 });
        let sample =
            GenerateConfig { num_beams: 1, search: Search::Sample(Sample::default()), ..base.clone() };
        [
            GenerateConfig { num_beams: 1, ..base },
            beams.clone(),
            GenerateConfig { search: groups, ..beams },
            GenerateConfig { num_return_sequences: 3, ..sample },
        ]
    }

    /// On a GPU each read waits for the device, so that a token costs one wait, whatever the search.
    #[test]
    fn a_new_token_costs_one_read_from_the_device() {
        let device = Device::flex();
        let configs = [
            LanguageModelConfig::Opt(opt::tests::tiny()),
            LanguageModelConfig::T5(t5::tests::tiny()),
            LanguageModelConfig::Llama(llama::tests::tiny()),
        ];
        for model in configs.iter().map(|config| config.init(&device)) {
            for config in searches() {
                let embedded = Tensor::random([2, 5, 16], Distribution::Normal(0.0, 1.0), &device);
                let mut decoding = model.decoding(Prefix { embedded, mask: None }, config.max_new_tokens);
                let prompts = [PromptInfo::default(), PromptInfo { stream: 1, ..PromptInfo::default() }];
                let request = Request { prompts: &prompts, vocabulary: 23, config: &config };
                READS.set(0);
                let generated = generate(&mut decoding, request).unwrap();
                assert!(generated.iter().flatten().all(|sequence| sequence.ids.len() == 7));
                assert_eq!(READS.get(), 7, "{config:?}");
            }
        }
    }
}
