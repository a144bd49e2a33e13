//! Running a recorded run again, and what differs then.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use captioner::weights_hash;
use serde_json::Value;

use super::run::Run;
use super::with_checkpoint;
use crate::config::{RunConfig, find_checkpoint, image_size, merge_sets};
use crate::records::{CONFIG, PROVENANCE, Provenance, RESULT, RunResult, read_json};
use crate::runtime::Session;
use crate::tasks::{self, Clips};
use data::datasets::Split;

/// A run on disk.
pub(crate) struct Recorded {
    /// Its folder.
    pub directory: PathBuf,
    /// Name of its variant.
    pub variant: String,
    /// Its configuration.
    pub config: RunConfig,
    /// Program, machine and inputs.
    pub provenance: Provenance,
    /// Its result.
    pub result: RunResult,
}

impl Recorded {
    /// Reads the folder of a finished run.
    pub(crate) fn read(directory: &Path) -> anyhow::Result<Self> {
        let shown = directory.display();
        let what = || {
            format!(
                "{shown} is not the folder of a finished run, such as runs/freeze_vit/qformer_only/seed-1"
            )
        };
        let provenance = read_json(&directory.join(PROVENANCE))?.with_context(what)?;
        let result = read_json(&directory.join(RESULT))?.with_context(what)?;
        let path = directory.join(CONFIG);
        let text = std::fs::read_to_string(&path).with_context(what)?;
        let config = merge_sets(&text, &[], &path.display().to_string())?;
        let above = std::path::absolute(directory)?;
        let variant = above.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        let variant = variant.unwrap_or("run").to_owned();
        Ok(Self { directory: directory.to_owned(), variant, config, provenance, result })
    }

    /// The inputs that differ from those that were recorded, a sentence each.
    fn changed_inputs(&self, now: &Provenance) -> Vec<String> {
        let was = &self.provenance;
        let mut changed = Vec::new();
        let mut compare = |what: &str, was: Option<&str>, now: Option<&str>| {
            if was != now {
                let [was, now] = [was, now].map(|hash| hash.unwrap_or("not recorded"));
                changed.push(format!("{what}: hash {now} here, {was} recorded"));
            }
        };
        compare("settings", Some(&was.config_hash), Some(&now.config_hash));
        compare("data", Some(&was.data_hash), Some(&now.data_hash));
        compare("weights of the checkpoint", was.weights_hash.as_deref(), now.weights_hash.as_deref());
        changed
    }

    /// Runs it again in another folder, where an interrupted repetition continues; none where it was
    /// interrupted. Inputs that differ are an error, unless `anyway`.
    pub(crate) fn repeat(
        &self,
        out: &Path,
        anyway: bool,
        session: &Session,
    ) -> anyhow::Result<Option<(RunResult, Provenance)>> {
        let Some(config) = &with_checkpoint(&self.config, session)? else { return Ok(None) };
        let (task, size) = (tasks::of(config), image_size(config)?);
        let clips = Clips::open(config, &*task, size, &session.caches, None)?;
        ensure!(!clips.split(Split::Test).is_empty(), "the data set has no test clips");
        let seed = self.provenance.seed;
        let run = Run::new(&self.variant, config, seed, out.to_owned());
        let weights_hash = weights_hash(&find_checkpoint(&config.checkpoint)?)?;
        let now = run.provenance(session, &clips, weights_hash)?;
        let changed = self.changed_inputs(&now);
        ensure!(
            changed.is_empty() || anyway,
            "the inputs are not those of {}:\n{}\n--anyway runs it with what is here",
            self.directory.display(),
            changed.join("\n")
        );
        changed.iter().for_each(|line| eprintln!("differs: {line}"));
        let result = match run.finished()? {
            Some(finished) => Some(finished),
            None => run.run(session, &clips, &now, None)?,
        };
        Ok(result.map(|result| (result, now)))
    }

    /// Every metric and caption that differs from those of a repetition in `out`, a line each.
    pub(crate) fn differences(&self, result: &RunResult, out: &Path) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        let value = |result: &RunResult| {
            serde_json::to_value(RunResult { config_hash: String::new(), ..result.clone() })
        };
        compare("", &value(&self.result)?, &value(result)?, &mut lines);
        for name in prediction_files(&self.directory)? {
            let [was, now] =
                [&self.directory, out].map(|folder| captions(&folder.join("predictions").join(&name)));
            let (was, now) = (was?.unwrap_or_default(), now?.unwrap_or_default());
            for (id, caption) in &was {
                match now.get(id) {
                    Some(other) if other == caption => {}
                    Some(other) => lines.push(format!("{name}, {id}: {caption} -> {other}")),
                    None => lines.push(format!("{name}, {id}: {caption} -> absent")),
                }
            }
            lines.extend(
                now.keys().filter(|id| !was.contains_key(*id)).map(|id| format!("{name}, {id}: new")),
            );
        }
        Ok(lines)
    }
}

/// Lists the values that differ, with their paths.
fn compare(path: &str, was: &Value, now: &Value, lines: &mut Vec<String>) {
    let inner = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (was, now) {
        (Value::Object(was), Value::Object(now)) => {
            let added = now.keys().filter(|key| !was.contains_key(*key));
            for key in was.keys().chain(added) {
                let [was, now] = [was, now].map(|object| object.get(key).unwrap_or(&Value::Null));
                compare(&inner(key), was, now, lines);
            }
        }
        (Value::Array(was), Value::Array(now)) if was.len() == now.len() => {
            for (index, (was, now)) in was.iter().zip(now).enumerate() {
                compare(&inner(&(index + 1).to_string()), was, now, lines);
            }
        }
        (was, now) if was != now => lines.push(format!("{path}: {was} -> {now}")),
        _ => {}
    }
}

/// Names of the files of predictions of a run, sorted.
fn prediction_files(run: &Path) -> anyhow::Result<Vec<String>> {
    let folder = run.join("predictions");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        names.extend(entry?.file_name().to_str().filter(|name| name.ends_with(".json")).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// The captions or answers of a file of predictions by the id of their clip or question; none where there is
/// no file.
fn captions(path: &Path) -> anyhow::Result<Option<BTreeMap<String, String>>> {
    let rows: Option<Vec<Value>> = read_json(path)?;
    let of = |row: &Value| {
        let id = row.get("image_id").or_else(|| row.get("question_id"));
        let text = row.get("caption").or_else(|| row.get("answer"));
        (id.unwrap_or(row).to_string(), text.unwrap_or(row).to_string())
    };
    Ok(rows.map(|rows| rows.iter().map(of).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_value_that_differs_is_listed_with_its_path() {
        let mut lines = Vec::new();
        let was = json!({"test": {"CIDEr": 0.5, "BLEU-4": 0.25}, "history": [{"loss": 1.0}, {"loss": 2.0}]});
        compare("", &was, &was, &mut lines);
        assert!(lines.is_empty());
        let now = json!({"test": {"CIDEr": 0.75, "new": 1.0}, "history": [{"loss": 1.0}, {"loss": 2.5}]});
        compare("", &was, &now, &mut lines);
        let expected = [
            "test.CIDEr: 0.5 -> 0.75",
            "test.BLEU-4: 0.25 -> null",
            "test.new: null -> 1.0",
            "history.2.loss: 2.0 -> 2.5",
        ];
        lines.sort();
        let mut expected = expected.map(str::to_owned).to_vec();
        expected.sort();
        assert_eq!(lines, expected);
    }
}
