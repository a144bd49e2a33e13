//! The files of a study's folder: their names, and one definition of each type that is written to and read
//! from them. What a study does not know yet, or an older program did not write, is absent when it is read.

pub(crate) mod clips;
pub(crate) mod provenance;
mod summary;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::de::DeserializeOwned;

pub(crate) use clips::TestClip;
pub(crate) use provenance::Provenance;
pub(crate) use summary::{
    Baselines, Epoch, Failure, ModelSummary, RunResult, Summary, Timing, VariantSummary,
};

/// The scores of a study.
pub(crate) const SUMMARY: &str = "summary.json";
/// Folder of the summaries of jobs that run parts of a study.
pub(crate) const PARTS: &str = "parts";
/// The test clips of a study.
pub(crate) const CLIPS: &str = "clips.json";
/// The result of a run, written last.
pub(crate) const RESULT: &str = "result.json";
/// Duration and memory of a run.
pub(crate) const TIMING: &str = "timing.json";
/// The resolved configuration of a run.
pub(crate) const CONFIG: &str = "config.toml";
/// The machine, program and inputs of a run.
pub(crate) const PROVENANCE: &str = "provenance.json";
/// One line an evaluation of a run.
pub(crate) const METRICS: &str = "metrics.jsonl";
/// Predictions of the test split, as COCO or VQA results.
pub(crate) const TEST_PREDICTIONS: &str = "predictions/test.json";
/// Folder of the first stage, where self-critical training follows.
pub(crate) const CROSS_ENTROPY: &str = "cross_entropy";

/// The hint after a file that is damaged or inconsistent.
pub(crate) const RESTORE: &str = "restore it, or move the folder away and run the ablation again";

/// The folder of a run.
pub(crate) fn run_folder(study: &Path, variant: &str, seed: u64) -> PathBuf {
    study.join(variant).join(format!("seed-{seed}"))
}

/// Reads a JSON file; none where it does not exist.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    parse(path, |text| Ok(serde_json::from_str(text)?))
}

/// Reads a TOML file; none where it does not exist.
pub(crate) fn read_toml<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    parse(path, |text| Ok(toml::from_str(text)?))
}

fn parse<T>(path: &Path, read: impl Fn(&str) -> anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    let value = read_text(path)?.map(|text| read(&text)).transpose();
    value.with_context(|| format!("damaged: {}; {RESTORE}", path.display()))
}

/// Reads the epochs that a run has finished so far.
pub(crate) fn read_epochs(run: &Path) -> anyhow::Result<Vec<Epoch>> {
    let path = run.join(METRICS);
    let text = read_text(&path)?.unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim().is_empty()).map(serde_json::from_str);
    lines.collect::<Result<_, _>>().with_context(|| format!("damaged: {}", path.display()))
}

fn read_text(path: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
