//! `summary.json`, `result.json` and `timing.json`.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use train::Metrics;
use train::checkpoint::{EpochRecord, Seconds};

use super::{RESTORE, SUMMARY, read_json};
use crate::config::Published;

/// `summary.json`: every score of a study. It holds no times, so that the same command writes the same file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Summary {
    pub ablation: String,
    pub question: String,
    /// Figure or table of the paper.
    pub paper: String,
    pub profile: String,
    /// Name of the data set.
    pub data_set: Option<String>,
    /// Hash of the data.
    pub world: Option<String>,
    /// Seeds of each variant: 1 to this.
    pub seeds: Option<u64>,
    /// Clips of train, validate and test.
    pub clips: Option<[usize; 3]>,
    pub baselines: Baselines,
    /// The pretrained models that the variants start from.
    pub models: Vec<ModelSummary>,
    /// Every variant, in the study's order.
    pub variants: Vec<VariantSummary>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Published>,
}

/// Scores on the test split without a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Baselines {
    /// The training caption with the highest average CIDEr on the training split; empty where there is none.
    pub constant_caption: String,
    pub constant: Metrics,
    /// Chance levels of the tiny world's metrics, or accuracy of the most frequent answers.
    pub chance: Metrics,
}

/// A pretrained model before training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ModelSummary {
    pub weights_hash: String,
    pub checkpoint: String,
    pub parameters: usize,
    /// The variants that start from it.
    pub variants: Vec<String>,
    /// Scores on the test split, with the settings of the first of these variants.
    pub test: Metrics,
}

/// The runs of a variant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct VariantSummary {
    /// Its name, which is its folder's.
    pub name: String,
    pub description: String,
    /// The results of its finished runs.
    pub runs: Vec<RunResult>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
}

/// A failed run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub seed: u64,
    pub reason: String,
}

/// `result.json`: the result of a finished run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RunResult {
    /// Hash of configuration and seed.
    pub config_hash: String,
    pub seed: u64,
    pub trainable: Option<usize>,
    pub parameters: Option<usize>,
    /// The epoch that validation chose.
    pub best_epoch: usize,
    pub history: Vec<Epoch>,
    /// Scores of the chosen epoch on the test split.
    pub test: Metrics,
}

/// One evaluation and the training steps before it, as a line of `metrics.jsonl` has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Epoch {
    /// Number from 1.
    pub epoch: usize,
    /// Steps taken at its end.
    pub step: usize,
    /// Learning rate of its last step.
    pub learning_rate: f64,
    /// Mean training loss; none where it is not a number.
    pub loss: Option<f64>,
    /// Means of the other metrics of the training steps.
    pub training: Metrics,
    /// Metrics of the validation split.
    pub validation: Metrics,
    /// Whether it is the best so far.
    pub is_best: bool,
}

impl From<EpochRecord> for Epoch {
    fn from(record: EpochRecord) -> Self {
        let EpochRecord { epoch, step, learning_rate, loss, training, validation, is_best } = record;
        let loss = Some(loss).filter(|loss| loss.is_finite());
        Self { epoch, step, learning_rate, loss, training, validation, is_best }
    }
}

/// `timing.json`: duration and memory of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Timing {
    /// Mean seconds of training steps an epoch.
    pub seconds_per_epoch: Option<f64>,
    /// Seconds of the run in this session: features, training, validation and test.
    pub seconds: Option<f64>,
    /// The time of the training steps by kind of work, over all sessions.
    pub training: Option<Seconds>,
    /// Peak physical memory of the process in this session, bytes.
    pub peak_memory: Option<u64>,
    /// Memory that the program held on the accelerator at the end, bytes.
    pub device_memory: Option<u64>,
}

impl Summary {
    /// Reads the summary of a study's folder.
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(SUMMARY);
        let summary: Self = read_json(&path)?.with_context(|| {
            let folder = folder.display();
            format!("there is no summary.json in {folder}; expected the folder of an ablation, such as runs/freeze_vit")
        })?;
        check(&summary).with_context(|| format!("{} was changed; {RESTORE}", path.display()))?;
        Ok(summary)
    }
}

/// The highest plausible number of seeds.
const MAX_SEEDS: u64 = 1000;

/// Refuses a summary that this program does not write.
fn check(summary: &Summary) -> anyhow::Result<()> {
    let mut names = HashSet::new();
    ensure!(!summary.variants.is_empty(), "it has no variant");
    let seeds = summary.seeds.unwrap_or_default();
    ensure!(seeds <= MAX_SEEDS, "it says that {seeds} seeds were to be run");
    for variant in &summary.variants {
        let name = &variant.name;
        let is_folder =
            !name.is_empty() && Path::new(name).file_name().is_some_and(|file| file == name.as_str());
        ensure!(is_folder, "the variant {name:?} does not have the name of a folder");
        ensure!(names.insert(name), "the variant {name:?} is there twice");
        let mut seeds = HashSet::new();
        for run in &variant.runs {
            let (seed, best) = (run.seed, run.best_epoch);
            ensure!(
                (1..=MAX_SEEDS).contains(&seed) && seeds.insert(seed),
                "variant {name:?}: seed {seed} is there twice, or no seed"
            );
            ensure!(
                run.history.is_empty() || run.history.iter().any(|epoch| epoch.epoch == best),
                "variant {name:?}, seed {seed}: its best epoch {best} is not in its history"
            );
        }
    }
    Ok(())
}
