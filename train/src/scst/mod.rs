//! Self-critical sequence training (Rennie et al., arXiv:1612.00563): the model generates several captions
//! per clip, and those with a higher CIDEr-D than a baseline become more likely.
//!
//! This is plain REINFORCE on whole sequences: no critic, no clipped ratios, no KL term, no normalised
//! reward. Captions are generated without a graph; one teacher-forced pass over all of them gives
//! differentiable log-probabilities, equal to those of generation.
//!
//! One difference from the authors' code in `released` mode: they keep the graph of the beam search, so that
//! the network with dropout chooses the captions. Here the captions are chosen without dropout.

mod config;
mod reward;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use captioner::host::device_of;
use captioner::{Context, HostTokens};
use model::checkpoint::Trained;
use model::generate::{GenerateConfig, Generated, Sample, Search};
use model::lm::Prefix;
use model::loss::{Targets, token_log_probabilities};
use model::parameters::is_frozen;
use model::recompute::share;
use model::{Blip2, Visual};

pub use config::{Baseline, Decoding, Released, RewardMetric, ScstConfig, Standard};
pub use reward::Rewards;

use crate::cross_entropy::{CrossEntropy, mean_by_row};
use crate::metrics::{LOSS, MetricSpec, Metrics};
use crate::objective::{Evaluation, Loss, Objective, StepContext};
use crate::{Batch, TrainError};

/// Mean reward of the generated captions.
pub const REWARD: &str = "Reward";
/// Mean reward of the baseline.
pub const BASELINE: &str = "Baseline";
/// Mean absolute difference of a caption's reward from its baseline.
pub const ADVANTAGE: &str = "Advantage";
/// Mean length of the generated captions in tokens, the end included.
pub const LENGTH: &str = "Caption length";

/// Self-critical training.
#[derive(Debug, Clone)]
pub struct Scst {
    /// Evaluates and saves.
    captions: CrossEntropy,
    rewards: Arc<Rewards>,
}

/// Captions that were generated for a batch, and their rewards.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Captions per clip.
    pub candidates: usize,
    /// Tokens of each caption, clip by clip.
    pub sequences: Vec<Vec<u32>>,
    /// Log-probability of each in generation, in nats.
    pub log_probabilities: Vec<f32>,
    /// Reward of each.
    pub rewards: Vec<f64>,
    /// Baseline of each.
    pub baselines: Vec<f64>,
}

/// A batch on the device, encoded once for all passes of a step.
pub struct Clips {
    /// The language model's input, with the graph of ViT, Q-Former and projection where they are trained.
    prefix: Prefix,
    /// The same without a graph and without dropout, for generation.
    plain: Prefix,
    captions: Option<HostTokens>,
    texts: Vec<String>,
    clips: Vec<usize>,
    items: Vec<usize>,
}

impl Scst {
    /// Captions of a model with this context, and the rewards of its training clips.
    pub fn new(context: Context, rewards: Arc<Rewards>) -> Self {
        Self { captions: CrossEntropy::new(context, 0.0), rewards }
    }

    /// The same, saving only what the run trains, in this stage or before.
    #[must_use]
    pub fn saving(self, trained: Arc<Trained>) -> Self {
        Self { captions: self.captions.saving(trained), ..self }
    }

    /// Uploads and encodes a batch. The ViT runs once, and the Q-Former once: what is generated from is the
    /// value of what the loss has a graph of. Where dropout makes the two differ, there is a pass for each.
    ///
    /// # Errors
    /// When the batch has no clips, or there is an instruction that the model cannot read.
    pub fn encode(&self, model: &Blip2, batch: Batch) -> Result<Clips, TrainError> {
        let Batch::Caption { visual, prompts, captions, texts, clips, items } = batch else {
            return Err(TrainError::WrongBatch {
                task: "self-critical training",
                batch: "anything but clips",
            });
        };
        let device = device_of(model);
        let mut visual = visual.upload(&device);
        let config = &self.context().config;
        let is_same_in_generation =
            is_frozen(&model.vision_model) || config.vision_config.attention_dropout == 0.0;
        if let Visual::Frames(frames) = &visual
            && is_same_in_generation
        {
            visual = Visual::Features(model.vision_features(frames.clone()));
        }
        let prompt = self.context().prompt(prompts, items.len(), &device);
        let prefix = model.prefix(visual.clone(), &prompt)?;
        let plain = if is_same_in_generation && !config.has_qformer_dropout() {
            prefix.clone().without_autodiff()
        } else {
            model.valid().prefix(visual.without_autodiff(), &prompt)?
        };
        // the policy and the mean of the captions' cross-entropy both read it
        let prefix = Prefix { embedded: share(prefix.embedded), ..prefix };
        Ok(Clips { prefix, plain, captions, texts, clips, items })
    }

    fn context(&self) -> &Context {
        &self.captions.context
    }

    /// Generates captions, without a graph, and scores them. What is sampled depends on `seed` and the
    /// batch's items.
    ///
    /// # Errors
    /// When the device or the tokenizer fails.
    pub fn generate(&self, model: &Blip2, batch: &Clips, seed: u64) -> Result<Scored, TrainError> {
        let settings = self.rewards.config.settings();
        let Clips { plain, texts, clips, items, .. } = batch;
        let model = model.valid();
        let streams: Vec<u64> = items.iter().map(|&item| item as u64).collect();
        let greedy = GenerateConfig {
            max_new_tokens: self.context().generate.max_new_tokens,
            end_tokens: self.context().generate.end_tokens.clone(),
            ..GenerateConfig::default()
        };
        let k = settings.candidates;
        let config = match settings.decoding {
            Decoding::Sample => {
                let sample = Sample { temperature: settings.temperature, seed, ..Sample::default() };
                GenerateConfig { num_return_sequences: k, search: Search::Sample(sample), ..greedy.clone() }
            }
            Decoding::Beams => GenerateConfig { num_beams: k, num_return_sequences: k, ..greedy.clone() },
        };
        let generate = |config: &GenerateConfig| -> Result<(Vec<Generated>, Vec<String>), TrainError> {
            let rows = model.generate(plain.clone(), Some(&streams), config)?;
            let expected = config.num_return_sequences;
            if let Some(row) = rows.iter().find(|row| row.len() != expected) {
                return Err(TrainError::Data(format!(
                    "a beam search found {} captions of a clip, expected {expected}",
                    row.len()
                )));
            }
            let generated: Vec<Generated> = rows.into_iter().flatten().collect();
            let text = |one: &Generated| self.context().tokenizer.decode(&one.ids);
            let texts = generated.iter().map(text).collect::<data::Result<_>>()?;
            Ok((generated, texts))
        };
        let (generated, captions) = generate(&config)?;
        let rows: Vec<usize> = (0..generated.len()).map(|at| at / k).collect();
        let rewards = self.rewards.rewards(&captions, &rows, clips, texts)?;
        let baselines = match settings.baseline {
            Baseline::Greedy => {
                let (_, captions) = generate(&greedy)?;
                let rows: Vec<usize> = (0..captions.len()).collect();
                let greedy = self.rewards.rewards(&captions, &rows, clips, texts)?;
                greedy.iter().flat_map(|&reward| std::iter::repeat_n(reward, k)).collect()
            }
            Baseline::LeaveOneOut => compare(&rewards, k, |sum, own| (sum - own) / (k - 1) as f64),
            Baseline::Mean => compare(&rewards, k, |sum, _| sum / k as f64),
        };
        let log_probabilities = generated.iter().map(|one| one.log_probability).collect();
        let sequences = generated.into_iter().map(|one| one.ids).collect();
        Ok(Scored { candidates: k, sequences, log_probabilities, rewards, baselines })
    }

    /// Log-probability of each generated caption, in one teacher-forced pass.
    ///
    /// # Shapes
    /// - output: `[b · candidates]`, in nats; in nats per token with `normalize_length`
    ///
    /// # Errors
    /// When a caption is longer than the language model's positions.
    pub fn log_probabilities(
        &self,
        model: &Blip2,
        batch: &Clips,
        scored: &Scored,
    ) -> Result<Tensor<1>, TrainError> {
        let Targets { ids, mask } = HostTokens::pad(&scored.sequences).upload(&device_of(model));
        let [rows, _] = ids.dims();
        let logits = model.language_model.score_each(batch.prefix.clone(), ids.clone(), scored.candidates)?;
        let Standard { temperature, normalize_length, .. } = self.rewards.config.settings();
        let each = token_log_probabilities(logits.div_scalar(temperature), ids) * mask.clone();
        let sums = each.clone().sum_dim(1).reshape([rows]);
        if !normalize_length {
            return Ok(sums);
        }
        let counted = match self.rewards.config {
            ScstConfig::Standard(_) => mask,
            // as in the authors' code, a token whose log-probability rounds to 0 does not count
            ScstConfig::Released(_) => each.without_autodiff().lower_elem(0.0).float(),
        };
        Ok(sums / counted.sum_dim(1).reshape([rows]).clamp_min(1.0))
    }

    /// The policy loss: the mean of `-(reward - baseline) · log-probability`.
    ///
    /// # Shapes
    /// - output: `[1]`
    ///
    /// # Errors
    /// As [`log_probabilities`](Self::log_probabilities).
    pub fn policy_loss(
        &self,
        model: &Blip2,
        batch: &Clips,
        scored: &Scored,
    ) -> Result<Tensor<1>, TrainError> {
        let log_probabilities = self.log_probabilities(model, batch, scored)?;
        let advantages: Vec<f32> = scored.advantages().map(|advantage| advantage as f32).collect();
        let rows = advantages.len();
        let device = log_probabilities.device().inner();
        let advantages = Tensor::<1>::from_data(TensorData::new(advantages, [rows]), &device);
        Ok((log_probabilities * advantages).mean().neg())
    }
}

impl Scored {
    fn advantages(&self) -> impl Iterator<Item = f64> {
        self.rewards.iter().zip(&self.baselines).map(|(reward, baseline)| reward - baseline)
    }

    fn metrics(&self) -> Metrics {
        let mean =
            |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / self.rewards.len().max(1) as f64;
        Metrics::one(REWARD, mean(&mut self.rewards.iter().copied()))
            .with(BASELINE, mean(&mut self.baselines.iter().copied()))
            .with(ADVANTAGE, mean(&mut self.advantages().map(f64::abs)))
            .with(LENGTH, mean(&mut self.sequences.iter().map(|sequence| sequence.len() as f64)))
    }
}

/// The baseline of each reward, a function of the sum over its clip and of itself.
fn compare(rewards: &[f64], candidates: usize, baseline: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let of_clip = |rewards: &[f64]| {
        let sum: f64 = rewards.iter().sum();
        rewards.iter().map(|&own| baseline(sum, own)).collect::<Vec<_>>()
    };
    rewards.chunks(candidates).flat_map(of_clip).collect()
}

impl Objective for Scst {
    type Model = Blip2;

    /// Every clip has the same weight, whatever the length of its captions.
    fn weight(&self, batch: &Batch) -> f64 {
        batch.items().len() as f64
    }

    fn loss(&self, model: &Blip2, batch: Batch, context: &StepContext<'_>) -> Result<Loss, TrainError> {
        let share = self.rewards.config.settings().cross_entropy;
        let clips = self.encode(model, batch)?;
        let scored = self.generate(model, &clips, context.seed)?;
        let policy = self.policy_loss(model, &clips, &scored)?;
        let value = if share > 0.0 {
            let Clips { prefix, captions, .. } = clips;
            policy * (1.0 - share) + mean_by_row(model, prefix, captions)? * share
        } else {
            policy
        };
        Ok(Loss { value, metrics: scored.metrics() })
    }

    fn evaluate(&self, model: &Blip2, batch: Batch) -> Result<Evaluation, TrainError> {
        self.captions.evaluate(model, batch)
    }

    fn save(&self, model: &Blip2, directory: &Path) -> Result<(), TrainError> {
        self.captions.save(model, directory)
    }

    fn metrics(&self) -> Vec<MetricSpec> {
        [(LOSS, false), (REWARD, true), (BASELINE, true), (ADVANTAGE, true), (LENGTH, false)]
            .map(|(name, higher_is_better)| MetricSpec::new(name, higher_is_better))
            .to_vec()
    }
}
