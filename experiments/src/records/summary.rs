//! `summary.json`, `result.json` and `timing.json`.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use train::Metrics;
use train::checkpoint::{EpochRecord, Seconds};

use super::{PARTS, RESTORE, SUMMARY, read_json};
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
        Self::find(folder)?.with_context(|| {
            let folder = folder.display();
            format!("there is no summary.json in {folder}; expected the folder of an ablation, such as runs/freeze_vit")
        })
    }

    /// The summary of a study's folder, if it has one: `summary.json` and those of jobs that ran parts of the
    /// study, merged.
    pub(crate) fn find(folder: &Path) -> anyhow::Result<Option<Self>> {
        let mut paths = vec![folder.join(SUMMARY)];
        if let Ok(parts) = std::fs::read_dir(folder.join(PARTS)) {
            let parts = parts.map(|entry| entry.map(|entry| entry.path()));
            let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
            parts.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
            parts.sort();
            paths.extend(parts);
        }
        let mut merged: Option<Self> = None;
        for path in paths {
            let Some(summary) = read_json::<Self>(&path)? else { continue };
            check(&summary).with_context(|| format!("{} was changed; {RESTORE}", path.display()))?;
            match &mut merged {
                None => merged = Some(summary),
                Some(merged) => merged.add(summary).with_context(|| path.display().to_string())?,
            }
        }
        Ok(merged)
    }

    /// Adds what another job found out about the same study.
    fn add(&mut self, part: Self) -> anyhow::Result<()> {
        for (what, own, other) in [
            ("study", Some(&self.ablation), Some(&part.ablation)),
            ("profile", Some(&self.profile), Some(&part.profile)),
            ("data", self.world.as_ref(), part.world.as_ref()),
        ] {
            let [own, other] = [own, other].map(|value| value.map_or("none", String::as_str));
            ensure!(
                own == other,
                "it is of another {what} than the rest of the folder: {other}, not {own}; move it away"
            );
        }
        self.seeds = self.seeds.max(part.seeds);
        for model in part.models {
            match self.models.iter_mut().find(|known| known.weights_hash == model.weights_hash) {
                None => self.models.push(model),
                Some(known) => {
                    let new = model.variants.into_iter().filter(|name| !known.variants.contains(name));
                    known.variants.extend(new.collect::<Vec<_>>());
                }
            }
        }
        for variant in part.variants {
            match self.variants.iter_mut().find(|known| known.name == variant.name) {
                None => self.variants.push(variant),
                Some(known) => known.add(variant),
            }
        }
        Ok(())
    }
}

impl VariantSummary {
    fn add(&mut self, part: Self) {
        let is_new = |run: &RunResult| self.runs.iter().all(|known| known.seed != run.seed);
        let runs: Vec<RunResult> = part.runs.into_iter().filter(is_new).collect();
        self.runs.extend(runs);
        self.runs.sort_by_key(|run| run.seed);
        self.failures.extend(part.failures);
        self.failures.sort_by_key(|failure| failure.seed);
        self.failures.dedup_by_key(|failure| failure.seed);
        self.failures.retain(|failure| self.runs.iter().all(|run| run.seed != failure.seed));
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

#[cfg(test)]
mod tests {
    use super::*;
    use train::files;

    fn run(seed: u64) -> RunResult {
        RunResult { seed, config_hash: format!("c{seed}"), ..RunResult::default() }
    }

    /// What a job writes that has run `seed` of `variant`.
    fn part(variant: &str, seed: u64) -> Summary {
        let of = |name: &str| VariantSummary {
            name: name.to_owned(),
            runs: if name == variant { vec![run(seed)] } else { Vec::new() },
            ..VariantSummary::default()
        };
        let model = ModelSummary {
            weights_hash: "w".to_owned(),
            checkpoint: "c".to_owned(),
            parameters: 1,
            variants: vec![variant.to_owned()],
            test: Metrics::default(),
        };
        Summary {
            ablation: "study".to_owned(),
            profile: "tiny".to_owned(),
            world: Some("data".to_owned()),
            seeds: Some(seed),
            variants: ["one", "two"].map(of).to_vec(),
            models: vec![model],
            ..Summary::default()
        }
    }

    fn write(folder: &Path, name: &str, summary: &Summary) {
        std::fs::create_dir_all(folder.join(PARTS)).unwrap();
        files::replace_json(&folder.join(PARTS).join(name), summary).unwrap();
    }

    #[test]
    fn the_parts_of_a_study_are_merged_in_whatever_order_they_end() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Summary::find(folder.path()).unwrap(), None);
        write(folder.path(), "b.json", &part("one", 2));
        write(folder.path(), "a.json", &part("two", 1));
        let mut failed = part("one", 1);
        failed.variants[0].runs.clear();
        failed.variants[0].failures = [1, 2].map(|seed| Failure { seed, reason: "no".to_owned() }).to_vec();
        write(folder.path(), "c.json", &failed);
        std::fs::write(folder.path().join(PARTS).join("notes.txt"), "not a part").unwrap();
        let merged = Summary::read(folder.path()).unwrap();
        let seeds = |variant: usize| merged.variants[variant].runs.iter().map(|run| run.seed);
        assert_eq!(seeds(0).collect::<Vec<_>>(), [2]);
        assert_eq!(seeds(1).collect::<Vec<_>>(), [1]);
        let failures: Vec<u64> = merged.variants[0].failures.iter().map(|failure| failure.seed).collect();
        assert_eq!(failures, [1], "seed 2 was run by another job");
        assert_eq!((merged.seeds, merged.variants.len(), merged.models.len()), (Some(2), 2, 1));
        assert_eq!(merged.models[0].variants, ["two", "one"]);
        files::replace_json(&folder.path().join(SUMMARY), &part("two", 3)).unwrap();
        let merged = Summary::read(folder.path()).unwrap();
        assert_eq!(merged.variants[1].runs.iter().map(|run| run.seed).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn a_part_of_another_study_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a.json", &part("one", 1));
        write(folder.path(), "b.json", &Summary { profile: "paper".to_owned(), ..part("two", 1) });
        let error = format!("{:#}", Summary::read(folder.path()).unwrap_err());
        assert!(error.contains("b.json") && error.contains("profile") && error.contains("paper"), "{error}");
        write(folder.path(), "b.json", &Summary { world: None, ..part("two", 1) });
        let error = format!("{:#}", Summary::read(folder.path()).unwrap_err());
        assert!(error.contains("another data") && error.contains("none, not data"), "{error}");
    }
}
