//! Rewards: CIDEr-D of generated captions and a share of BLEU-4, or the exact match of answers.

use metrics::bleu::BleuStatistics;
use metrics::ptb::tokenize_all;
use metrics::reward::{ReferenceChoice, Reward};
use metrics::vqa::accuracy;

use super::config::{RewardMetric, ScstConfig, Standard};
use crate::TrainError;

/// Rewards of captions, or answers, of the training clips.
#[derive(Debug)]
pub struct Rewards {
    pub(super) config: ScstConfig,
    /// None where answers are rewarded, which need no statistics.
    captions: Option<Captions>,
}

/// The captions that others are scored against.
#[derive(Debug)]
struct Captions {
    reward: Reward,
    /// Tokenized captions of each training clip.
    references: Vec<Vec<String>>,
}

impl Rewards {
    /// Tokenizes the captions of all training clips, and counts their n-grams.
    ///
    /// # Errors
    /// When a setting is invalid, captions are needed and there are none, or one cannot be tokenized.
    pub fn new<S: AsRef<str>>(config: ScstConfig, captions: &[Vec<S>]) -> Result<Self, TrainError> {
        config.check().map_err(TrainError::Data)?;
        if config.settings().metric == RewardMetric::ExactMatch {
            return Ok(Self { config, captions: None });
        }
        let all: Vec<&str> = captions.iter().flatten().map(AsRef::as_ref).collect();
        let mut tokenized = tokenize_all(&all)?.captions.into_iter();
        let references: Vec<Vec<String>> =
            captions.iter().map(|captions| tokenized.by_ref().take(captions.len()).collect()).collect();
        let reward = Reward::new(config.reward(), &references)?;
        Ok(Self { config, captions: Some(Captions { reward, references }) })
    }

    /// The reward of each caption. `captions[i]` describes row `rows[i]` of a batch whose clips are `clips`
    /// and whose own captions are `texts`.
    ///
    /// # Errors
    /// When a caption cannot be tokenized, or a clip is not in the training split.
    pub fn rewards(
        &self,
        captions: &[String],
        rows: &[usize],
        clips: &[usize],
        texts: &[String],
    ) -> Result<Vec<f64>, TrainError> {
        let Some(own) = &self.captions else { return exact_matches(captions, rows, texts) };
        own.rewards(&self.config.settings(), captions, rows, clips, texts)
    }
}

/// 1 where an answer is that of its row, else 0.
fn exact_matches(answers: &[String], rows: &[usize], texts: &[String]) -> Result<Vec<f64>, TrainError> {
    let of = |(answer, &row): (&String, &usize)| {
        let expected = texts.get(row).ok_or_else(|| {
            TrainError::Data(format!("a reward needs the answer of row {row}, and there are {}", texts.len()))
        })?;
        Ok(accuracy(answer, &[expected]))
    };
    answers.iter().zip(rows).map(of).collect()
}

impl Captions {
    fn rewards(
        &self,
        settings: &Standard,
        captions: &[String],
        rows: &[usize],
        clips: &[usize],
        texts: &[String],
    ) -> Result<Vec<f64>, TrainError> {
        // a line break ends a caption in OPT, and the tokenizer reads one caption per line
        let plain: Vec<String> = captions.iter().map(|text| text.replace(['\r', '\n'], " ")).collect();
        let captions = tokenize_all(&plain)?.captions;
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
        let mut rewards = self.reward.rewards(&captions, &references);
        if settings.bleu_4 > 0.0 {
            for ((reward, caption), references) in rewards.iter_mut().zip(&captions).zip(&references) {
                *reward += settings.bleu_4 * BleuStatistics::of(caption, references).scores()[3];
            }
        }
        Ok(rewards)
    }
}
