//! Self-critical sequence training (Rennie et al., arXiv:1612.00563): the model writes several captions of a clip, and
//! those that CIDEr-D finds better than a baseline become likelier.
//!
//! There is no critic, no clipping of ratios, no KL term and no normalised reward: plain REINFORCE on whole sequences.
//! Captions are written without a graph; one teacher-forced pass over all of them then gives log-probabilities that can be
//! differentiated, equal to those of writing.
//!
//! What departs from the authors' code in `released` mode: they keep the graph of the beam search itself, so that a
//! dropped-out network chooses the captions that it is trained on, while here they are chosen without dropout.

use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use metrics::bleu::BleuStatistics;
use metrics::ptb::tokenize_all;
use metrics::reward::{Idf, ReferenceChoice, Reward, RewardConfig};
use model::Blip2;
use model::generate::{GenerateConfig, Generated, Sample, Search};
use model::loss::{Targets, token_log_probabilities};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::batch::{Batch, HostTokens};
use crate::captioner::Captioner;
use crate::dashboard::{LOSS, MetricSpec, Metrics};
use crate::task::{Evaluated, Loss, StepContext, Task, device_of};

/// Mean reward of the written captions.
pub const REWARD: &str = "Reward";
/// Mean reward of what they are compared with.
pub const BASELINE: &str = "Baseline";
/// Mean distance of a caption's reward from its baseline.
pub const ADVANTAGE: &str = "Advantage";
/// Mean length of the written captions in tokens, their end counted.
pub const LENGTH: &str = "Caption length";

/// How captions are rewarded. The two modes share no setting, so that a report never mixes them up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum ScstConfig {
    /// As published.
    Standard(Standard),
    /// As the paper's code does it.
    Released(Released),
}

/// The method as published, and what is known to help it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Standard {
    /// Captions written of each clip.
    pub candidates: usize,
    /// How they are written.
    pub write: Write,
    /// Divides the logits where captions are drawn.
    pub temperature: f64,
    /// What they are compared with.
    pub baseline: Baseline,
    /// Weight of a caption's own BLEU-4 beside its CIDEr-D.
    pub bleu_4: f64,
    /// How many captions of the clip they are scored against.
    pub references: ReferenceChoice,
    /// Where the frequencies of words come from.
    pub idf: Idf,
    /// Whether dropout is on in the teacher-forced pass.
    pub dropout: bool,
    /// Whether a caption's log-probability is divided by its length.
    pub group_by_length: bool,
    /// Share of cross-entropy on the clip's own caption in the loss.
    pub cross_entropy: f64,
}

impl Default for Standard {
    fn default() -> Self {
        Self {
            candidates: 5,
            write: Write::Sample,
            temperature: 1.0,
            baseline: Baseline::LeaveOneOut,
            bleu_4: 0.0,
            references: ReferenceChoice::All,
            idf: Idf::TrainingSplit,
            dropout: false,
            group_by_length: true,
            cross_entropy: 0.0,
        }
    }
}

/// The released recipe: beams, their mean as baseline, one reference, roles swapped, frequencies of the batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Released {
    /// Beams of each clip, all of which are trained on.
    pub beams: usize,
    /// Whether dropout is on in the teacher-forced pass, as the authors left it.
    pub dropout: bool,
}

impl Default for Released {
    fn default() -> Self {
        Self { beams: 5, dropout: true }
    }
}

/// How captions are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Write {
    /// Each token is drawn.
    Sample,
    /// The best beams.
    Beams,
}

/// What a caption's reward is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Baseline {
    /// The reward of the greedy caption.
    Greedy,
    /// The mean reward of the clip's other captions.
    LeaveOneOut,
    /// The mean reward of all of the clip's captions.
    Mean,
}

impl ScstConfig {
    /// Every setting, whichever mode.
    pub fn settings(&self) -> Standard {
        match self {
            Self::Standard(standard) => standard.clone(),
            Self::Released(released) => Standard {
                candidates: released.beams,
                write: Write::Beams,
                baseline: Baseline::Mean,
                dropout: released.dropout,
                references: ReferenceChoice::One,
                idf: Idf::Batch,
                ..Standard::default()
            },
        }
    }

    fn reward(&self) -> RewardConfig {
        match self {
            Self::Standard(standard) => RewardConfig {
                references: standard.references,
                idf: standard.idf.clone(),
                ..RewardConfig::standard()
            },
            Self::Released(_) => RewardConfig::released(),
        }
    }

    /// Refuses what cannot be, naming the key.
    ///
    /// # Errors
    /// What is wrong, in one line.
    pub fn check(&self) -> Result<(), String> {
        let Standard { candidates, write, temperature, baseline, bleu_4, cross_entropy, .. } =
            self.settings();
        if candidates == 0 {
            return Err("scst: 0 captions of a clip teach nothing".to_owned());
        }
        if candidates == 1 && baseline != Baseline::Greedy {
            return Err("scst: with one caption of a clip the baseline must be \"greedy\"".to_owned());
        }
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(format!("scst.temperature is {temperature}, expected a number above 0"));
        }
        if write == Write::Beams && temperature != 1.0 {
            return Err("scst.temperature changes drawn captions only, and write is \"beams\"".to_owned());
        }
        if !(bleu_4 >= 0.0 && bleu_4.is_finite()) {
            return Err(format!("scst.bleu_4 is {bleu_4}, expected 0 or more"));
        }
        if !(0.0..1.0).contains(&cross_entropy) {
            return Err(format!("scst.cross_entropy is {cross_entropy}, expected 0 or more and less than 1"));
        }
        Ok(())
    }
}

/// Rewards captions of the training clips.
#[derive(Debug)]
pub struct Rewards {
    config: ScstConfig,
    reward: Reward,
    /// Tokenised captions of each training clip.
    references: Vec<Vec<String>>,
}

impl Rewards {
    /// Tokenises the captions of every training clip, and counts their words.
    ///
    /// # Errors
    /// When a setting cannot be, there are no captions where they are needed, or one cannot be tokenised.
    pub fn new<S: AsRef<str>>(config: ScstConfig, captions: &[Vec<S>]) -> Result<Self, TrainError> {
        config.check().map_err(TrainError::Data)?;
        let all: Vec<&str> = captions.iter().flatten().map(AsRef::as_ref).collect();
        let mut tokenized = tokenize_all(&all)?.captions.into_iter();
        let references: Vec<Vec<String>> =
            captions.iter().map(|captions| tokenized.by_ref().take(captions.len()).collect()).collect();
        let reward = Reward::new(config.reward(), &references)?;
        Ok(Self { config, reward, references })
    }

    /// The reward of each written caption. `written[i]` is of row `rows[i]` of a batch whose clips are `clips` and whose
    /// own captions are `texts`.
    ///
    /// # Errors
    /// When a caption cannot be tokenised, or a clip is not one of the training split.
    pub fn of(
        &self,
        written: &[String],
        rows: &[usize],
        clips: &[usize],
        texts: &[String],
    ) -> Result<Vec<f64>, TrainError> {
        let settings = self.config.settings();
        // a line break ends a caption in OPT, and the tokeniser reads one caption a line
        let plain: Vec<String> = written.iter().map(|text| text.replace(['\r', '\n'], " ")).collect();
        let written = tokenize_all(&plain)?.captions;
        let own;
        let references: Option<Vec<&[String]>> = match settings.references {
            ReferenceChoice::One => {
                own = tokenize_all(texts)?.captions;
                rows.iter().map(|&row| own.get(row..=row)).collect()
            }
            ReferenceChoice::All => rows
                .iter()
                .map(|&row| clips.get(row).and_then(|&clip| self.references.get(clip)).map(Vec::as_slice))
                .collect(),
        };
        let references = references
            .ok_or_else(|| TrainError::Data("a reward needs each row's clip and caption".to_owned()))?;
        let mut rewards = self.reward.rewards(&written, &references);
        if settings.bleu_4 > 0.0 {
            for ((reward, caption), references) in rewards.iter_mut().zip(&written).zip(&references) {
                *reward += settings.bleu_4 * BleuStatistics::of(caption, references).scores()[3];
            }
        }
        Ok(rewards)
    }
}

/// The model and its reward.
#[derive(Debug, Clone)]
pub struct Scst {
    captioner: Captioner,
    rewards: Arc<Rewards>,
}

/// Captions written of a batch, and what they are worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Captions of each clip.
    pub candidates: usize,
    /// Tokens of each caption, clip by clip.
    pub sequences: Vec<Vec<u32>>,
    /// Log-probability of each as writing had it.
    pub log_probabilities: Vec<f32>,
    /// Reward of each.
    pub rewards: Vec<f64>,
    /// What each is compared with.
    pub baselines: Vec<f64>,
}

impl Scst {
    /// Joins a captioner and the reward of its training clips.
    pub fn new(captioner: Captioner, rewards: Arc<Rewards>) -> Self {
        Self { captioner, rewards }
    }

    /// The captioner alone.
    pub fn into_captioner(self) -> Captioner {
        self.captioner
    }

    /// Writes captions of a batch, on a model without a graph, and scores them.
    ///
    /// # Errors
    /// When the batch has no clips, the device or the tokenizer fails.
    pub fn write(&self, batch: Batch, seed: u64) -> Result<Scored, TrainError> {
        let Batch::Caption { visual, prompts, texts, clips, items, .. } = batch else {
            return Err(wrong_batch());
        };
        let settings = self.rewards.config.settings();
        let context = self.captioner.context();
        let blip2 = self.captioner.blip2.valid();
        let device = device_of(&blip2);
        let visual = visual.upload(&device);
        let prompt = self.captioner.prompt(prompts, visual.batch_size(), &device);
        let prefix = blip2.prefix(visual, &prompt)?;
        let streams: Vec<u64> = items.iter().map(|&item| item as u64).collect();
        let plain = GenerateConfig {
            max_new_tokens: context.generate.max_new_tokens,
            end_tokens: context.generate.end_tokens.clone(),
            ..GenerateConfig::default()
        };
        let k = settings.candidates;
        let config = match settings.write {
            Write::Sample => {
                let sample = Sample { temperature: settings.temperature, seed, ..Sample::default() };
                GenerateConfig { num_return_sequences: k, search: Search::Sample(sample), ..plain.clone() }
            }
            Write::Beams => GenerateConfig { num_beams: k, num_return_sequences: k, ..plain.clone() },
        };
        let write = |config: &GenerateConfig| {
            let written = blip2.generate(prefix.clone(), Some(&streams), config);
            written.map_err(|error| TrainError::Device(error.to_string()))
        };
        let written = write(&config)?;
        if let Some(row) = written.iter().position(|of_clip| of_clip.len() != k) {
            let found = written[row].len();
            return Err(TrainError::Data(format!(
                "a beam search found {found} captions of a clip, expected {k}"
            )));
        }
        let decode = |written: Vec<Vec<Generated>>| -> Result<(Vec<Generated>, Vec<String>), TrainError> {
            let written: Vec<Generated> = written.into_iter().flatten().collect();
            let text = |one: &Generated| context.tokenizer.decode(&one.ids);
            let texts = written.iter().map(text).collect::<data::Result<_>>()?;
            Ok((written, texts))
        };
        let (written, captions) = decode(written)?;
        let rows: Vec<usize> = (0..written.len()).map(|at| at / k).collect();
        let rewards = self.rewards.of(&captions, &rows, &clips, &texts)?;
        let baselines = match settings.baseline {
            Baseline::Greedy => {
                let (_, captions) = decode(write(&plain)?)?;
                let rows: Vec<usize> = (0..captions.len()).collect();
                let greedy = self.rewards.of(&captions, &rows, &clips, &texts)?;
                greedy.iter().flat_map(|&reward| std::iter::repeat_n(reward, k)).collect()
            }
            Baseline::LeaveOneOut => compare(&rewards, k, |sum, own| (sum - own) / (k - 1) as f64),
            Baseline::Mean => compare(&rewards, k, |sum, _| sum / k as f64),
        };
        let log_probabilities = written.iter().map(|one| one.log_probability).collect();
        let sequences = written.into_iter().map(|one| one.ids).collect();
        Ok(Scored { candidates: k, sequences, log_probabilities, rewards, baselines })
    }

    /// Log-probability of each written caption, in one teacher-forced pass.
    ///
    /// # Shapes
    /// - output: `[b · candidates]`, in nats, or nats a token where the recipe divides by the length
    ///
    /// # Errors
    /// When the batch has no clips, or an instruction that the model cannot read.
    pub fn log_probabilities(&self, batch: Batch, scored: &Scored) -> Result<Tensor<1>, TrainError> {
        let Batch::Caption { visual, prompts, .. } = batch else { return Err(wrong_batch()) };
        let blip2 = &self.captioner.blip2;
        let device = device_of(blip2);
        let visual = visual.upload(&device);
        let prompt = self.captioner.prompt(prompts, visual.batch_size(), &device);
        let Targets { ids, mask } = HostTokens::pad(&scored.sequences).upload(&device);
        let [rows, _] = ids.dims();
        let prefix = blip2.prefix(visual, &prompt)?;
        let logits = blip2.language_model.score_each(prefix, ids.clone(), scored.candidates);
        let Standard { temperature, group_by_length, .. } = self.rewards.config.settings();
        let each = token_log_probabilities(logits.div_scalar(temperature), ids) * mask.clone();
        let sums = each.clone().sum_dim(1).reshape([rows]);
        if !group_by_length {
            return Ok(sums);
        }
        let counted = match self.rewards.config {
            ScstConfig::Standard(_) => mask,
            // there a token counts whose log-probability is below 0: not one that is certain to the last bit
            ScstConfig::Released(_) => each.without_autodiff().lower_elem(0.0).float(),
        };
        Ok(sums / counted.sum_dim(1).reshape([rows]).clamp_min(1.0))
    }

    /// The loss of captions that were written: the mean of `-(reward - baseline) · log-probability`.
    ///
    /// # Shapes
    /// - output: `[1]`
    ///
    /// # Errors
    /// As [`log_probabilities`](Self::log_probabilities).
    pub fn policy_loss(&self, batch: Batch, scored: &Scored) -> Result<Tensor<1>, TrainError> {
        let log_probabilities = self.log_probabilities(batch, scored)?;
        let advantages: Vec<f32> = scored
            .rewards
            .iter()
            .zip(&scored.baselines)
            .map(|(reward, base)| (reward - base) as f32)
            .collect();
        let device: Device = log_probabilities.device().inner();
        let rows = advantages.len();
        let advantages = Tensor::<1>::from_data(TensorData::new(advantages, [rows]), &device);
        Ok((log_probabilities * advantages).mean().neg())
    }
}

/// What each reward is compared with, made of the sum over its clip and of itself.
fn compare(rewards: &[f64], candidates: usize, baseline: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let of_clip = |rewards: &[f64]| {
        let sum: f64 = rewards.iter().sum();
        rewards.iter().map(|&own| baseline(sum, own)).collect::<Vec<_>>()
    };
    rewards.chunks(candidates).flat_map(of_clip).collect()
}

fn wrong_batch() -> TrainError {
    TrainError::WrongBatch { task: "self-critical training", batch: "anything but clips" }
}

impl Task for Scst {
    type Model = Blip2;

    fn model(&self) -> &Blip2 {
        self.captioner.model()
    }

    fn into_model(self) -> Blip2 {
        self.captioner.into_model()
    }

    fn with_model(&self, blip2: Blip2) -> Self {
        Self { captioner: self.captioner.with_model(blip2), rewards: self.rewards.clone() }
    }

    /// Every clip counts the same, however long its captions are.
    fn weight(&self, batch: &Batch) -> f64 {
        batch.items().len() as f64
    }

    fn loss(&self, batch: Batch, step_context: &StepContext<'_>) -> Result<Loss, TrainError> {
        let share = self.rewards.config.settings().cross_entropy;
        let scored = self.write(batch.clone(), step_context.seed)?;
        let mean =
            |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / scored.rewards.len().max(1) as f64;
        let metrics = Metrics::one(REWARD, mean(&mut scored.rewards.iter().copied()))
            .with(BASELINE, mean(&mut scored.baselines.iter().copied()))
            .with(
                ADVANTAGE,
                mean(&mut scored.rewards.iter().zip(&scored.baselines).map(|(own, base)| (own - base).abs())),
            )
            .with(LENGTH, mean(&mut scored.sequences.iter().map(|sequence| sequence.len() as f64)));
        let policy = self.policy_loss(batch.clone(), &scored)?;
        let value = if share > 0.0 {
            policy * (1.0 - share) + self.captioner.cross_entropy_by_row(batch)? * share
        } else {
            policy
        };
        Ok(Loss { value, metrics })
    }

    fn evaluate(&self, batch: Batch) -> Result<Evaluated, TrainError> {
        self.captioner.evaluate(batch)
    }

    fn export(&self, directory: &Path) -> Result<(), TrainError> {
        self.captioner.export(directory)
    }

    fn metrics(&self) -> Vec<MetricSpec> {
        [(LOSS, false), (REWARD, true), (BASELINE, true), (ADVANTAGE, true), (LENGTH, false)]
            .map(|(name, higher_is_better)| MetricSpec::new(name, higher_is_better))
            .to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::freezing::Freezing;
    use crate::optimizer::Groups;
    use crate::testing::{batch, captioner, language_models};
    use burn::optim::GradientsParams;

    fn captions() -> Vec<Vec<String>> {
        (0..6)
            .map(|clip| match batch(&[clip]) {
                Batch::Caption { texts, .. } => vec![texts[0].clone(), "the cat runs".to_owned()],
                _ => Vec::new(),
            })
            .collect()
    }

    fn rewards(config: ScstConfig) -> Arc<Rewards> {
        Arc::new(Rewards::new(config, &captions()).unwrap())
    }

    fn standard(change: impl FnOnce(&mut Standard)) -> ScstConfig {
        let mut standard = Standard::default();
        change(&mut standard);
        ScstConfig::Standard(standard)
    }

    /// Rewards that the authors' own scorer gives in their training step, made by running it on these texts (its `Cider`
    /// with document frequencies of the ten beams it is handed, roles as they pass them).
    #[test]
    fn released_rewards_are_the_authors() {
        let texts = ["a man is playing a guitar on stage", "a woman is slicing an onion"].map(str::to_owned);
        let written = [
            "a man is playing a guitar",
            "a man plays guitar on a stage",
            "a man is singing on stage",
            "a woman is cutting an onion",
            "a woman is slicing onions",
            "a person is cooking",
        ]
        .map(str::to_owned);
        let released = rewards(ScstConfig::Released(Released::default()));
        let found = released.of(&written, &[0, 0, 0, 1, 1, 1], &[], &texts).unwrap();
        let expected = [7.532638, 1.911202, 2.057257, 3.207476, 4.750983, 0.009385];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    /// The cache of writing and the one pass over all captions are other code, whose sums run in another order: 1e-5
    /// relative of log-probabilities of size 10 to 30.
    #[test]
    fn one_pass_gives_the_log_probabilities_that_writing_had() {
        let mut lengths = std::collections::BTreeSet::new();
        for language_model in language_models(0.0) {
            for write in [Write::Sample, Write::Beams] {
                let config = standard(|settings| (settings.write, settings.group_by_length) = (write, false));
                let scst = Scst::new(captioner(language_model.clone(), 5), rewards(config));
                let scored = scst.write(batch(&[0, 3, 4]), 77).unwrap();
                assert_eq!(scored.sequences.len(), 15);
                lengths.extend(scored.sequences.iter().map(Vec::len));
                let again = scst.log_probabilities(batch(&[0, 3, 4]), &scored).unwrap();
                let again = again.into_data().try_to_vec::<f32>().unwrap();
                for (one, other) in again.iter().zip(&scored.log_probabilities) {
                    assert!((one - other).abs() <= 1e-5 * other.abs().max(1.0), "{one} {other}");
                }
            }
        }
        assert!(lengths.len() > 2, "some end early and are padded: {lengths:?}");
    }

    #[test]
    fn what_is_drawn_follows_from_the_seed_and_the_clip_alone() {
        let scst = Scst::new(captioner(language_models(0.0)[0].clone(), 6), rewards(standard(|_| ())));
        let whole = scst.write(batch(&[0, 1, 2, 3]), 9).unwrap();
        let part = scst.write(batch(&[2, 3]), 9).unwrap();
        assert_eq!(whole.sequences[10..], part.sequences[..]);
        assert_ne!(whole.sequences, scst.write(batch(&[0, 1, 2, 3]), 10).unwrap().sequences);
    }

    #[test]
    fn baselines_are_what_they_are_called() {
        let rewards = [1.0, 2.0, 6.0, 0.0, 3.0, 3.0];
        assert_eq!(compare(&rewards, 3, |sum, _| sum / 3.0), [3.0, 3.0, 3.0, 2.0, 2.0, 2.0]);
        assert_eq!(compare(&rewards, 3, |sum, own| (sum - own) / 2.0), [4.0, 3.5, 1.5, 3.0, 1.5, 1.5]);
        let greedy = standard(|settings| (settings.baseline, settings.candidates) = (Baseline::Greedy, 2));
        let scst = Scst::new(captioner(language_models(0.0)[0].clone(), 7), self::rewards(greedy));
        let scored = scst.write(batch(&[1, 2]), 3).unwrap();
        let written = scst.captioner.evaluate(batch(&[1, 2])).unwrap().written;
        let captions: Vec<String> = written.into_iter().map(|written| written.caption).collect();
        let greedy = scst.rewards.of(&captions, &[0, 1], &[1, 2], &[]).unwrap();
        assert_eq!(scored.baselines, [greedy[0], greedy[0], greedy[1], greedy[1]]);
    }

    /// A step against the gradient must make what is worth more than its baseline likelier, and the rest less likely.
    #[test]
    fn a_step_favours_what_is_rewarded() {
        let device = Device::flex().autodiff();
        for language_model in language_models(0.0) {
            let captioner = captioner(language_model, 8);
            let scst = Scst::new(captioner, rewards(standard(|settings| settings.candidates = 2)));
            let scst = scst.with_model(scst.model().clone().fork(&device).train());
            let scored = Scored {
                candidates: 2,
                sequences: vec![vec![3, 4, 6, 1], vec![3, 5, 6, 7, 1]],
                log_probabilities: vec![0.0; 2],
                rewards: vec![2.0, 1.0],
                baselines: vec![1.5, 1.5],
            };
            let before = scst.log_probabilities(batch(&[0]), &scored).unwrap();
            let before = before.into_data().try_to_vec::<f32>().unwrap();
            let loss = scst.policy_loss(batch(&[0]), &scored).unwrap();
            let gradients = GradientsParams::from_grads(loss.backward(), scst.model());
            let everything = Groups::new(scst.model(), &Freezing::default());
            let mut optimizer = burn::optim::SgdConfig::new().init();
            let model = optimizer.step(everything.rates(0.01), scst.model().clone(), gradients);
            let stepped = scst.with_model(model);
            let after = stepped.log_probabilities(batch(&[0]), &scored).unwrap();
            let after = after.into_data().try_to_vec::<f32>().unwrap();
            assert!(after[0] > before[0] && after[1] < before[1], "{before:?} {after:?}");
        }
    }

    #[test]
    fn the_two_modes_share_no_setting() {
        let read = |text: &str| serde_json::from_str::<ScstConfig>(text);
        assert_eq!(read(r#"{"mode": "released"}"#).unwrap(), ScstConfig::Released(Released::default()));
        let set = read(r#"{"mode": "standard", "baseline": "greedy", "bleu_4": 0.5}"#).unwrap();
        assert_eq!((set.settings().baseline, set.settings().bleu_4), (Baseline::Greedy, 0.5));
        for mixed in [
            r#"{"mode": "released", "baseline": "greedy"}"#,
            r#"{"mode": "standard", "beams": 5}"#,
            r#"{"mode": "both"}"#,
            r#"{"baseline": "greedy"}"#,
        ] {
            assert!(read(mixed).is_err(), "{mixed}");
        }
        let released = ScstConfig::Released(Released::default()).settings();
        assert_eq!(
            (released.write, released.baseline, released.candidates),
            (Write::Beams, Baseline::Mean, 5)
        );
    }

    #[test]
    fn impossible_settings_are_named() {
        for (config, word) in [
            (standard(|settings| settings.candidates = 0), "0 captions"),
            (standard(|settings| settings.candidates = 1), "greedy"),
            (standard(|settings| settings.temperature = 0.0), "temperature"),
            (standard(|settings| settings.bleu_4 = -1.0), "bleu_4"),
            (standard(|settings| settings.cross_entropy = 1.0), "cross_entropy"),
            (
                standard(|settings| (settings.write, settings.temperature) = (Write::Beams, 2.0)),
                "temperature",
            ),
        ] {
            assert!(config.check().unwrap_err().contains(word), "{word}");
            assert!(Rewards::new(config, &captions()).unwrap_err().to_string().contains(word));
        }
        let nothing: [Vec<String>; 0] = [];
        assert!(Rewards::new(standard(|_| ()), &nothing).is_err(), "no training captions");
        let scst = rewards(standard(|_| ()));
        assert!(scst.of(&["a".to_owned()], &[0], &[99], &[]).is_err(), "no such clip");
    }
}
