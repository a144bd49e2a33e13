//! Reading and checking a study's folder.
//!
//! Only files are read, so that a study of any version is reported, finished or not. An absent file is a gap,
//! which the report lists. A file that is damaged or contradicts another is an error: a report shows no
//! number that its files do not support.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use metrics::files::{join, read_predictions};
use metrics::meteor::MeteorTables;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::scores::{Measure, Scored, measures};
use crate::records::{
    CLIPS, CONFIG, PROVENANCE, RESTORE, RESULT, RunResult, Summary, TEST_PREDICTIONS, TIMING, TestClip,
    Timing, VariantSummary, clips, read_epochs, read_json, read_toml, run_folder,
};
use crate::runtime::Caches;
use crate::text::distinct;
use crate::text::metrics::{ACCURACY, BLEU_4, CIDER, METEOR, ROUGE_L};

/// A study as its folder has it.
pub(crate) struct Study {
    /// `summary.json`.
    pub summary: Summary,
    pub folder: PathBuf,
    /// The test clips; none where `clips.json` is missing.
    pub clips: Option<Vec<TestClip>>,
    /// The metrics that are computed on them.
    pub measures: Vec<Measure>,
    /// Every variant, in the study's order.
    pub variants: Vec<Variant>,
    /// A sentence for each gap.
    pub gaps: Vec<String>,
}

/// A variant and its runs.
pub(crate) struct Variant {
    pub name: String,
    pub description: String,
    /// The run of each seed, from seed 1.
    pub runs: Vec<RunState>,
}

/// How far a run is.
pub(crate) enum RunState {
    NotRun,
    /// It started and has no result yet.
    NotFinished {
        epochs: usize,
    },
    Failed(String),
    Finished(Box<Run>),
}

/// A finished run as its folder has it.
pub(crate) struct Run {
    pub result: RunResult,
    pub timing: Option<Timing>,
    /// Program, machine and inputs.
    pub provenance: Option<Map<String, Value>>,
    pub config: Option<toml::Table>,
    /// Its test captions, scored.
    pub scored: Option<Scored>,
}

impl Variant {
    /// Its finished runs, by seed.
    pub(crate) fn finished(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter_map(|cell| match cell {
            RunState::Finished(run) => Some(&**run),
            _ => None,
        })
    }

    /// The text in place of a number where it has no finished run.
    pub(crate) fn absence(&self) -> String {
        let state = self.runs.iter().find(|cell| !matches!(cell, RunState::NotRun | RunState::Finished(_)));
        state.map_or_else(|| NOT_RUN.to_owned(), RunState::state)
    }
}

impl RunState {
    /// The state in words.
    pub(crate) fn state(&self) -> String {
        match self {
            Self::NotRun => NOT_RUN.to_owned(),
            Self::NotFinished { epochs } => format!("not finished ({epochs} epochs)"),
            // the reason, which may be long, is among the gaps
            Self::Failed(_) => "failed".to_owned(),
            Self::Finished(_) => "finished".to_owned(),
        }
    }

    /// Its captions with their scores.
    pub(crate) fn captions(&self) -> Result<&Scored, String> {
        match self {
            Self::Finished(run) => run.scored.as_ref().ok_or_else(|| "captions are missing".to_owned()),
            _ => Err(self.state()),
        }
    }
}

/// The text in place of a number where nothing ran.
pub(crate) const NOT_RUN: &str = "not run";

impl Study {
    /// Reads a folder.
    pub(crate) fn read(folder: &Path, caches: &Caches) -> anyhow::Result<Self> {
        let summary = Summary::read(folder)?;
        let mut gaps = Vec::new();
        let clips = clips::read(folder)?;
        if clips.is_none() {
            gaps.push(format!(
                "{CLIPS} is missing: clips, captions and differences between variants are left out. `experiments ablation \
                 {} --resume` saves it.",
                summary.ablation
            ));
        }
        let tables = caches.meteor_tables(None).map_err(|error| match error {
            // without the folders that were searched, so that the report is the same everywhere
            metrics::Error::NoMeteorTables { .. } => {
                "its tables are not installed. `scripts/meteor-data.sh` downloads them".to_owned()
            }
            error => error.to_string(),
        });
        gaps.extend(tables.as_ref().err().map(|reason| format!("METEOR is not computed: {reason}.")));
        let tables = tables.ok();
        let measures = clips.as_ref().map_or_else(Vec::new, |clips| measures(clips, tables.is_some()));
        let highest = summary.variants.iter().flat_map(|variant| &variant.runs).map(|run| run.seed).max();
        let seeds = summary.seeds.unwrap_or(1).max(highest.unwrap_or(1));
        let measured = Measured { clips: clips.as_deref(), measures: &measures, tables: tables.as_ref() };
        let mut variants = Vec::new();
        for variant in &summary.variants {
            let run = |seed: u64| {
                let place = run_folder(folder, &variant.name, seed);
                match variant.runs.iter().find(|run| run.seed == seed) {
                    Some(run) => {
                        Ok(RunState::Finished(Box::new(Run::read(run, &place, &measured, &mut gaps)?)))
                    }
                    None => unfinished(variant, seed, &place),
                }
            };
            let runs = (1..=seeds).map(run).collect::<anyhow::Result<Vec<_>>>()?;
            for (seed, run) in (1..=seeds).zip(&runs) {
                if let RunState::Failed(reason) = run {
                    gaps.push(format!("{} seed {seed} failed: {reason}", variant.name));
                }
            }
            let (name, description) = (variant.name.clone(), variant.description.clone());
            variants.push(Variant { name, description, runs });
        }
        Ok(Self { summary, folder: folder.to_owned(), clips, measures, variants, gaps })
    }

    /// The names of all metrics that finished runs have or that are computed here, those of the paper first.
    pub(crate) fn metrics(&self) -> Vec<String> {
        let mut names: Vec<String> = [CIDER, BLEU_4, METEOR, ROUGE_L, ACCURACY].map(str::to_owned).to_vec();
        let runs = || self.variants.iter().flat_map(Variant::finished);
        names.extend(runs().flat_map(|run| run.result.test.iter()).map(|(name, _)| name.to_owned()));
        let mut names = distinct(names);
        let is_measured = |name: &String| self.measures.iter().any(|measure| measure.name() == name);
        names.retain(|name| is_measured(name) || runs().any(|run| self.test(run, name).is_some()));
        names
    }

    /// A run's metric on the test split, from its result or computed from its captions.
    pub(crate) fn test(&self, run: &Run, name: &str) -> Option<f64> {
        let computed = || {
            let at = self.measures.iter().position(|measure| measure.name() == name)?;
            Some(run.scored.as_ref()?.metrics[at]).filter(|value| value.is_finite())
        };
        run.result.test.get(name).or_else(computed)
    }

    /// The metric of validation and comparison: CIDEr, where it was computed.
    pub(crate) fn headline(&self) -> Option<String> {
        self.metrics().into_iter().next()
    }
}

fn unfinished(variant: &VariantSummary, seed: u64, place: &Path) -> anyhow::Result<RunState> {
    if let Some(failure) = variant.failures.iter().find(|failure| failure.seed == seed) {
        return Ok(RunState::Failed(failure.reason.clone()));
    }
    match read_epochs(place)?.len() {
        0 => Ok(RunState::NotRun),
        epochs => Ok(RunState::NotFinished { epochs }),
    }
}

/// The clips and the metrics by which predictions are scored.
struct Measured<'a> {
    clips: Option<&'a [TestClip]>,
    measures: &'a [Measure],
    tables: Option<&'a MeteorTables>,
}

impl Run {
    fn read(
        result: &RunResult,
        place: &Path,
        measured: &Measured<'_>,
        gaps: &mut Vec<String>,
    ) -> anyhow::Result<Self> {
        let saved = read_json::<RunResult>(&place.join(RESULT))?;
        ensure!(
            saved.as_ref().is_none_or(|saved| saved == result),
            "{} and summary.json have different metrics; remove summary.json's copy by running the ablation with \
             --resume, or restore the file",
            place.join(RESULT).display()
        );
        let timing: Option<Timing> = read_json(&place.join(TIMING))?;
        let provenance: Option<Map<String, Value>> = read_json(&place.join(PROVENANCE))?;
        let config: Option<toml::Table> = read_toml(&place.join(CONFIG))?;
        let predictions = place.join(TEST_PREDICTIONS);
        let scored = match measured.clips.filter(|_| predictions.is_file()) {
            Some(clips) => Some(scored(&predictions, result, clips, measured)?),
            None => None,
        };
        let files = [
            (RESULT, saved.is_some()),
            (TIMING, timing.is_some()),
            (PROVENANCE, provenance.is_some()),
            (CONFIG, config.is_some()),
            (TEST_PREDICTIONS, scored.is_some() || measured.clips.is_none()),
        ];
        let missing: Vec<&str> = files.iter().filter(|(_, exists)| !exists).map(|(name, _)| *name).collect();
        if !missing.is_empty() {
            gaps.push(format!("{} lacks {}.", short(place), missing.join(", ")));
        }
        Ok(Self { result: result.clone(), timing, provenance, config, scored })
    }
}

/// `VARIANT/seed-N`.
fn short(place: &Path) -> String {
    let parts: Vec<_> = place.iter().map(|part| part.to_string_lossy()).collect();
    parts[parts.len().saturating_sub(2)..].join("/")
}

/// Scores the predictions of a run again; the metrics must be those of its result.
fn scored(
    path: &Path,
    result: &RunResult,
    clips: &[TestClip],
    measured: &Measured<'_>,
) -> anyhow::Result<Scored> {
    let Measured { measures, tables, .. } = *measured;
    let asks = clips.iter().any(|clip| clip.question.is_some());
    let predictions = if asks { answers(path)? } else { read_predictions(path)? };
    let references = clips.iter().map(|clip| (clip.id.clone(), clip.references.clone())).collect();
    let joined = join(predictions, references, false)
        .with_context(|| format!("{} does not fit {CLIPS}; {RESTORE}", path.display()))?;
    let captions = joined.corpus.videos().iter().map(|video| video.hypothesis.clone()).collect();
    let scored = Scored::new(captions, clips, measures, tables)
        .with_context(|| format!("cannot score {}", path.display()))?;
    for (measure, &ours) in measures.iter().zip(&scored.metrics) {
        let Some(saved) = result.test.get(measure.name()) else { continue };
        // a share of nothing is saved as 0
        let ours = if ours.is_nan() { 0.0 } else { ours };
        ensure!(
            (saved - ours).abs() <= 1e-9,
            "the captions in {} have {} {ours:.6}, the run's result says {saved:.6}: the file, {CLIPS} or the result was \
             changed, or made by a version that scores otherwise; {RESTORE}",
            path.display(),
            measure.name()
        );
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
    let absent = || format!("there is no {}; {RESTORE}", path.display());
    let answers: Vec<Answer> = read_json(path)?.with_context(absent)?;
    let id = |value: Value| match value {
        Value::String(id) => id,
        other => other.to_string(),
    };
    Ok(answers.into_iter().map(|given| (id(given.question_id), given.answer)).collect())
}
