//! A study's folder as a report reads it: what is there, what is missing, and what cannot be believed.
//!
//! Only files are read, so that a study of any version, finished or half-finished, is told as far as it goes. A file that
//! is absent is a gap, which the report names. A file that is damaged, or that disagrees with another, is an error: a
//! report never shows a number that its files do not bear out.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use metrics::files::{join, read_predictions};
use metrics::meteor::MeteorTables;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use train::Metrics;

use super::clips::{self, CLIPS, TestClip};
use super::published::Published;
use super::scores::{Measure, Scored, measures};
use crate::provenance;
use crate::run::{RESULT, TIMING};

/// `summary.json`, as much of it as a report uses.
#[derive(Debug, Clone, Deserialize)]
pub struct Summary {
    /// The study's name.
    pub ablation: String,
    /// What it asks.
    #[serde(default)]
    pub question: String,
    /// Figure or table of the paper.
    #[serde(default)]
    pub paper: String,
    /// How large.
    #[serde(default)]
    pub profile: String,
    /// The data set's name, where it is not the tiny world.
    #[serde(default)]
    pub data_set: Option<String>,
    /// The model's name.
    #[serde(default)]
    pub model: Option<String>,
    /// Hash that names the tiny world.
    #[serde(default)]
    pub world: Option<String>,
    /// Clips of train, validate and test.
    #[serde(default)]
    pub clips: Option<[usize; 3]>,
    /// Seeds that were to be run, 1 to this; the highest that was, where it is not told.
    #[serde(default)]
    pub seeds: Option<u64>,
    /// What one gets without learning.
    #[serde(default)]
    pub baselines: Baselines,
    /// Every variant, in the study's order, those without a run too.
    pub variants: Vec<VariantSummary>,
    /// The paper's numbers.
    #[serde(default)]
    pub published: Vec<Published>,
}

/// What one gets without learning.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Baselines {
    /// The best caption to give to every clip.
    pub constant_caption: Option<String>,
    /// Its figures.
    pub constant: Option<Metrics>,
    /// Figures of the pretrained model before training.
    pub pretrained: Option<Metrics>,
    /// Figures of the most frequent answer.
    pub chance: Option<Metrics>,
}

/// A variant.
#[derive(Debug, Clone, Deserialize)]
pub struct VariantSummary {
    /// Its name, which is its folder's.
    pub name: String,
    /// What it is.
    #[serde(default)]
    pub description: String,
    /// Its finished runs.
    #[serde(default)]
    pub runs: Vec<RunSummary>,
    /// Its runs that failed.
    #[serde(default)]
    pub failures: Vec<Failure>,
}

/// A run that failed.
#[derive(Debug, Clone, Deserialize)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// Why.
    pub reason: String,
}

/// A finished run's figures. The same lies in its folder as `result.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RunSummary {
    /// Hash of configuration and seed.
    #[serde(default)]
    pub config_hash: String,
    /// The seed.
    pub seed: u64,
    /// Values that training changed.
    #[serde(default)]
    pub trainable: Option<usize>,
    /// The epoch that validation chose.
    #[serde(default)]
    pub best_epoch: usize,
    /// Every epoch.
    #[serde(default)]
    pub history: Vec<Epoch>,
    /// Figures of the chosen epoch on the test split.
    pub test: Metrics,
}

/// One epoch.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Epoch {
    /// From 1.
    pub epoch: usize,
    /// Mean training loss; none where it was not a number.
    #[serde(default)]
    pub loss: Option<f64>,
    /// Figures on the validation split.
    #[serde(default)]
    pub validation: Metrics,
}

/// `timing.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Timing {
    /// Seconds of training steps an epoch.
    #[serde(default)]
    pub seconds_per_epoch: Option<f64>,
    /// Seconds of the whole run.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// Most memory of the process, bytes.
    #[serde(default)]
    pub peak_memory: Option<u64>,
    /// What the program held of the accelerator's memory at the end, bytes.
    #[serde(default)]
    pub device_memory: Option<u64>,
}

/// A study with everything its folder tells.
pub struct Study {
    /// `summary.json`.
    pub summary: Summary,
    /// The folder.
    pub folder: PathBuf,
    /// The test clips; none where `clips.json` is missing.
    pub clips: Option<Vec<TestClip>>,
    /// What was measured on them.
    pub measures: Vec<Measure>,
    /// Every variant, in the study's order.
    pub variants: Vec<Variant>,
    /// What is missing, a sentence each.
    pub gaps: Vec<String>,
}

impl Summary {
    /// Reads a study's `summary.json`.
    ///
    /// # Errors
    /// When the folder has none, or it is damaged or says what no program of ours writes.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("summary.json");
        let Some(summary) = read_json_if_there::<Self>(&path)? else {
            bail!(
                "there is no summary.json in {}; expected the folder of an ablation, such as runs/freeze_vit",
                folder.display()
            );
        };
        check(&summary).with_context(|| format!("{} was changed; {AGAIN}", path.display()))?;
        Ok(summary)
    }
}

/// A variant with its row of the grid.
pub struct Variant {
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// A cell a seed, from seed 1.
    pub cells: Vec<Cell>,
}

/// One place in the grid.
pub enum Cell {
    /// Nothing ran.
    NotRun,
    /// It began and has no result yet.
    NotFinished {
        /// Epochs that ended.
        epochs: usize,
    },
    /// It ended badly.
    Failed(String),
    /// It has a result.
    Finished(Box<Run>),
}

/// A finished run with what lies in its folder.
pub struct Run {
    /// Its figures.
    pub summary: RunSummary,
    /// How long it took.
    pub timing: Option<Timing>,
    /// Where its numbers come from.
    pub provenance: Option<Map<String, Value>>,
    /// Its resolved configuration.
    pub config: Option<toml::Table>,
    /// Its test captions, scored.
    pub scored: Option<Scored>,
}

impl Variant {
    /// Its finished runs, by seed.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.cells.iter().filter_map(|cell| match cell {
            Cell::Finished(run) => Some(&**run),
            _ => None,
        })
    }

    /// What to say where it has no finished run.
    pub fn absence(&self) -> String {
        let told = self.cells.iter().find(|cell| !matches!(cell, Cell::NotRun | Cell::Finished(_)));
        told.map_or_else(|| NOT_RUN.to_owned(), Cell::state)
    }
}

impl Cell {
    /// How far it came.
    pub fn state(&self) -> String {
        match self {
            Self::NotRun => NOT_RUN.to_owned(),
            Self::NotFinished { epochs } => format!("not finished ({epochs} epochs)"),
            // the reason, which may be long, is among the gaps
            Self::Failed(_) => "failed".to_owned(),
            Self::Finished(_) => "finished".to_owned(),
        }
    }

    /// Its captions with their scores, or why there are none.
    ///
    /// # Errors
    /// With what to say in their place.
    pub fn captions(&self) -> Result<&Scored, String> {
        match self {
            Self::Finished(run) => run.scored.as_ref().ok_or_else(|| "captions are missing".to_owned()),
            _ => Err(self.state()),
        }
    }
}

/// What stands in a cell without a run.
pub const NOT_RUN: &str = "not run";

const AGAIN: &str = "restore it, or move the folder away and run the ablation anew";

impl Study {
    /// Reads a folder.
    ///
    /// # Errors
    /// When it is no study's folder, or when a file in it is damaged or disagrees with another.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let summary = Summary::read(folder)?;
        let mut gaps = Vec::new();
        let clips = clips::read(folder)?;
        if clips.is_none() {
            gaps.push(format!(
                "{CLIPS} is missing: clips, captions and differences between variants are left out. `experiments ablation \
                 {} --resume` writes it.",
                summary.ablation
            ));
        }
        let tables = match MeteorTables::find(&crate::judge::meteor_directories()) {
            Ok(tables) => Some(tables),
            Err(error) => {
                gaps.push(format!("METEOR is not computed: {error}."));
                None
            }
        };
        let measures = clips.as_ref().map_or_else(Vec::new, |clips| measures(clips, tables.is_some()));
        let highest = summary.variants.iter().flat_map(|variant| &variant.runs).map(|run| run.seed).max();
        let seeds = summary.seeds.unwrap_or(1).max(highest.unwrap_or(1));
        let mut variants = Vec::new();
        for variant in &summary.variants {
            let cell = |seed: u64| {
                let place = folder.join(&variant.name).join(format!("seed-{seed}"));
                match variant.runs.iter().find(|run| run.seed == seed) {
                    Some(run) => Ok(Cell::Finished(Box::new(Run {
                        summary: run.clone(),
                        ..Run::read(run, &place, clips.as_deref(), &measures, tables.as_ref(), &mut gaps)?
                    }))),
                    None => unfinished(variant, seed, &place),
                }
            };
            let cells = (1..=seeds).map(cell).collect::<anyhow::Result<Vec<_>>>()?;
            for (seed, cell) in (1..=seeds).zip(&cells) {
                if let Cell::Failed(reason) = cell {
                    gaps.push(format!("{} seed {seed} failed: {reason}", variant.name));
                }
            }
            variants.push(Variant {
                name: variant.name.clone(),
                description: variant.description.clone(),
                cells,
            });
        }
        Ok(Self { summary, folder: folder.to_owned(), clips, measures, variants, gaps })
    }

    /// The names of all figures that finished runs have or that are measured here, the paper's first.
    pub fn figures(&self) -> Vec<String> {
        let mut names: Vec<String> =
            ["CIDEr", "BLEU-4", "METEOR", "ROUGE-L", "accuracy"].map(str::to_owned).to_vec();
        let runs = || self.variants.iter().flat_map(Variant::runs);
        for (name, _) in runs().flat_map(|run| run.summary.test.iter()) {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        let is_measured = |name: &String| self.measures.iter().any(|measure| measure.name() == name);
        names.retain(|name| is_measured(name) || runs().any(|run| self.test(run, name).is_some()));
        names
    }

    /// A run's figure on the test split: the one it was given, or computed from its captions.
    pub fn test(&self, run: &Run, name: &str) -> Option<f64> {
        let computed = || {
            let at = self.measures.iter().position(|measure| measure.name() == name)?;
            Some(run.scored.as_ref()?.figures[at]).filter(|figure| figure.is_finite())
        };
        run.summary.test.get(name).or_else(computed)
    }

    /// The figure that validation and comparison are told by: CIDEr, where it was measured.
    pub fn headline(&self) -> Option<String> {
        self.figures().into_iter().next()
    }
}

/// More seeds than anyone runs.
const MOST_SEEDS: u64 = 1000;

/// Refuses what no program of ours writes.
fn check(summary: &Summary) -> anyhow::Result<()> {
    let mut names = HashSet::new();
    if summary.variants.is_empty() {
        bail!("it has no variant");
    }
    if summary.seeds.is_some_and(|seeds| seeds > MOST_SEEDS) {
        bail!("it says that {} seeds were to be run", summary.seeds.unwrap_or_default());
    }
    for variant in &summary.variants {
        let name = &variant.name;
        let is_a_folder =
            !name.is_empty() && Path::new(name).file_name().is_some_and(|file| file == name.as_str());
        if !is_a_folder {
            bail!("the variant {name:?} does not have the name of a folder");
        }
        if !names.insert(name) {
            bail!("the variant {name:?} is there twice");
        }
        let mut seeds = HashSet::new();
        for run in &variant.runs {
            if !(1..=MOST_SEEDS).contains(&run.seed) || !seeds.insert(run.seed) {
                bail!("variant {name:?}: seed {} is there twice, or no seed", run.seed);
            }
            let has_best = run.history.iter().any(|epoch| epoch.epoch == run.best_epoch);
            if !run.history.is_empty() && !has_best {
                bail!(
                    "variant {name:?}, seed {}: its best epoch {} is not in its history",
                    run.seed,
                    run.best_epoch
                );
            }
        }
    }
    Ok(())
}

fn unfinished(variant: &VariantSummary, seed: u64, place: &Path) -> anyhow::Result<Cell> {
    if let Some(failure) = variant.failures.iter().find(|failure| failure.seed == seed) {
        return Ok(Cell::Failed(failure.reason.clone()));
    }
    let path = place.join("metrics.jsonl");
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            Ok(Cell::NotFinished { epochs: text.lines().filter(|line| !line.trim().is_empty()).count() })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Cell::NotRun),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

impl Run {
    fn read(
        summary: &RunSummary,
        place: &Path,
        clips: Option<&[TestClip]>,
        measures: &[Measure],
        tables: Option<&MeteorTables>,
        gaps: &mut Vec<String>,
    ) -> anyhow::Result<Self> {
        let mut missing = Vec::new();
        match read_json_if_there::<RunSummary>(&place.join(RESULT))? {
            Some(result) if result != *summary => bail!(
                "{} and summary.json have different figures; remove summary.json's copy by running the ablation with \
                 --resume, or restore the file",
                place.join(RESULT).display()
            ),
            Some(_) => {}
            None => missing.push(RESULT),
        }
        let mut there = |name: &'static str, is_there: bool| {
            if !is_there {
                missing.push(name);
            }
        };
        let timing = read_json_if_there(&place.join(TIMING))?;
        there(TIMING, timing.is_some());
        let provenance = read_json_if_there(&place.join(provenance::FILE))?;
        there(provenance::FILE, provenance.is_some());
        let config = read_toml_if_there(&place.join("config.toml"))?;
        there("config.toml", config.is_some());
        let predictions = place.join(PREDICTIONS);
        let scored = match clips {
            Some(clips) if predictions.is_file() => {
                Some(scored(&predictions, summary, clips, measures, tables)?)
            }
            _ => None,
        };
        there(PREDICTIONS, scored.is_some() || clips.is_none());
        if !missing.is_empty() {
            gaps.push(format!("{} lacks {}.", short(place), missing.join(", ")));
        }
        Ok(Self { summary: summary.clone(), timing, provenance, config, scored })
    }
}

const PREDICTIONS: &str = "predictions/test.json";

/// `VARIANT/seed-N`.
fn short(place: &Path) -> String {
    let parts: Vec<_> = place.iter().map(|part| part.to_string_lossy()).collect();
    parts[parts.len().saturating_sub(2)..].join("/")
}

/// Captions scored again; their figures must be those that the run was given.
fn scored(
    path: &Path,
    summary: &RunSummary,
    clips: &[TestClip],
    measures: &[Measure],
    tables: Option<&MeteorTables>,
) -> anyhow::Result<Scored> {
    let asks = clips.iter().any(|clip| clip.question.is_some());
    let predictions = if asks { answers(path)? } else { read_predictions(path)? };
    let references = clips.iter().map(|clip| (clip.id.clone(), clip.references.clone())).collect();
    let joined = join(predictions, references, false)
        .with_context(|| format!("{} does not fit {CLIPS}; {AGAIN}", path.display()))?;
    let captions = joined.corpus.videos().iter().map(|video| video.hypothesis.clone()).collect();
    let scored = Scored::new(captions, clips, measures, tables)
        .with_context(|| format!("cannot score {}", path.display()))?;
    for (measure, &ours) in measures.iter().zip(&scored.figures) {
        let Some(told) = summary.test.get(measure.name()) else { continue };
        // a share of nothing is told as 0
        let ours = if ours.is_nan() { 0.0 } else { ours };
        if (told - ours).abs() > 1e-9 {
            bail!(
                "the captions in {} have {} {ours:.6}, the run's result says {told:.6}: the file, {CLIPS} or the result was \
                 changed, or made by a version that scores otherwise; {AGAIN}",
                path.display(),
                measure.name()
            );
        }
    }
    Ok(scored)
}

/// Answers in the form of the VQA challenge, one a question.
fn answers(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    #[derive(Deserialize)]
    struct Answer {
        question_id: Value,
        answer: String,
    }
    let Some(answers) = read_json_if_there::<Vec<Answer>>(path)? else {
        bail!("there is no {}; {AGAIN}", path.display());
    };
    let id = |value: Value| match value {
        Value::String(id) => id,
        other => other.to_string(),
    };
    Ok(answers.into_iter().map(|given| (id(given.question_id), given.answer)).collect())
}

/// Reads a JSON file; none where there is none.
///
/// # Errors
/// When it cannot be read or is not what it should be.
pub(crate) fn read_json_if_there<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    let Some(text) = text_if_there(path)? else { return Ok(None) };
    let value =
        serde_json::from_str(&text).with_context(|| format!("damaged: {}; {AGAIN}", path.display()))?;
    Ok(Some(value))
}

fn read_toml_if_there(path: &Path) -> anyhow::Result<Option<toml::Table>> {
    let Some(text) = text_if_there(path)? else { return Ok(None) };
    let value = toml::from_str(&text).with_context(|| format!("damaged: {}; {AGAIN}", path.display()))?;
    Ok(Some(value))
}

/// A file's text; none where there is none.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn text_if_there(path: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
