//! Settings of self-critical training.

use metrics::reward::{Idf, ReferenceChoice, RewardConfig};
use serde::{Deserialize, Serialize};

/// Self-critical training. The two modes share no setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum ScstConfig {
    /// The method as published.
    Standard(Standard),
    /// As in the paper's released code.
    Released(Released),
}

/// The method as published, with common variants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Standard {
    /// Captions generated per clip.
    pub candidates: usize,
    /// How they are generated.
    pub decoding: Decoding,
    /// Sampling temperature: divides the logits.
    pub temperature: f64,
    /// What their rewards are compared with.
    pub baseline: Baseline,
    /// What is rewarded.
    #[serde(skip_serializing_if = "RewardMetric::is_cider")]
    pub metric: RewardMetric,
    /// Weight of the caption's BLEU-4, added to its CIDEr-D.
    pub bleu_4: f64,
    /// Which references of the clip they are scored against.
    pub references: ReferenceChoice,
    /// Source of the document frequencies.
    pub idf: Idf,
    /// Whether dropout is on in the teacher-forced pass.
    pub dropout: bool,
    /// Whether a caption's log-probability is divided by its length.
    pub normalize_length: bool,
    /// Share of cross-entropy on the clip's own caption in the loss.
    pub cross_entropy: f64,
}

impl Default for Standard {
    fn default() -> Self {
        Self {
            candidates: 5,
            decoding: Decoding::Sample,
            temperature: 1.0,
            baseline: Baseline::LeaveOneOut,
            metric: RewardMetric::Cider,
            bleu_4: 0.0,
            references: ReferenceChoice::All,
            idf: Idf::TrainingSplit,
            dropout: false,
            normalize_length: true,
            cross_entropy: 0.0,
        }
    }
}

/// The released recipe: beams, their mean as baseline, one reference, candidate and reference swapped,
/// document frequencies of the batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Released {
    /// Beams per clip, all of which are trained on.
    pub beams: usize,
    /// Whether dropout is on in the teacher-forced pass, as in the authors' code.
    pub dropout: bool,
}

impl Default for Released {
    fn default() -> Self {
        Self { beams: 5, dropout: true }
    }
}

/// What a generated text is rewarded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardMetric {
    /// CIDEr-D of a caption against those of its clip.
    #[default]
    Cider,
    /// 1 for an answer that equals the published one after the normalisation of the VQA challenge, else 0.
    ExactMatch,
}

impl RewardMetric {
    fn is_cider(&self) -> bool {
        *self == Self::Cider
    }
}

/// How captions are generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decoding {
    /// Each token is sampled.
    Sample,
    /// Beam search; all beams are used.
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
    /// All settings, of either mode.
    pub fn settings(&self) -> Standard {
        match self {
            Self::Standard(standard) => standard.clone(),
            Self::Released(released) => Standard {
                candidates: released.beams,
                decoding: Decoding::Beams,
                baseline: Baseline::Mean,
                dropout: released.dropout,
                references: ReferenceChoice::One,
                idf: Idf::Batch,
                ..Standard::default()
            },
        }
    }

    pub(super) fn reward(&self) -> RewardConfig {
        match self {
            Self::Standard(standard) => RewardConfig {
                references: standard.references,
                idf: standard.idf.clone(),
                ..RewardConfig::standard()
            },
            Self::Released(_) => RewardConfig::released(),
        }
    }

    /// Rejects invalid settings.
    ///
    /// # Errors
    /// The key, its value and the expected range, in one line.
    pub fn check(&self) -> Result<(), String> {
        let Standard { candidates, decoding, temperature, baseline, metric, bleu_4, cross_entropy, .. } =
            self.settings();
        let is_positive = temperature > 0.0 && temperature.is_finite();
        let is_weight = bleu_4 >= 0.0 && bleu_4.is_finite();
        let is_share = (0.0..1.0).contains(&cross_entropy);
        let reason = if candidates == 0 {
            "scst.candidates is 0, expected at least 1 caption per clip (0 captions give no loss)".to_owned()
        } else if candidates == 1 && baseline != Baseline::Greedy {
            "scst: with one caption of a clip the baseline must be \"greedy\"".to_owned()
        } else if !is_positive {
            format!("scst.temperature is {temperature}, expected a number above 0")
        } else if decoding == Decoding::Beams && temperature != 1.0 {
            "scst.temperature changes sampled captions only, and decoding is \"beams\"".to_owned()
        } else if metric == RewardMetric::ExactMatch && bleu_4 > 0.0 {
            "scst.bleu_4 is added to CIDEr-D, and the metric is \"exact_match\"".to_owned()
        } else if !is_weight {
            format!("scst.bleu_4 is {bleu_4}, expected 0 or more")
        } else if !is_share {
            format!("scst.cross_entropy is {cross_entropy}, expected 0 or more and less than 1")
        } else {
            return Ok(());
        };
        Err(reason)
    }
}
