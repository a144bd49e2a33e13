//! The configuration with which a checkpoint is evaluated: the one that its run saved, changed by the command
//! line.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use captioner::SETTINGS_FILE;
use toml::{Table, Value};

use super::layers::{apply_all, merge, typed};
use super::study::find_profile;
use super::{RunConfig, flatten};

/// The tables of a profile that apply to a checkpoint of another run. Its model settings and training do not:
/// a checkpoint's own fusion and temporal embedding hold unless `--set` changes them.
const EVALUATION: [&str; 6] = ["world", "dataset", "frames", "text", "generate", "evaluate"];

/// The profile of a checkpoint without saved settings.
const DEFAULT_PROFILE: &str = "tiny";

/// The configuration of an evaluation.
#[derive(Debug)]
pub(crate) struct Evaluated {
    pub config: RunConfig,
    /// Settings that the command line changed, as `key: saved -> used`; empty for a checkpoint without saved
    /// settings.
    pub changes: Vec<String>,
}

impl Evaluated {
    /// Reads the settings that a run saved in a checkpoint (`recap.toml`) and changes them by a profile and
    /// `key=value` settings. A checkpoint without them has those of the profile.
    pub(crate) fn of(checkpoint: &Path, profile: Option<&str>, sets: &[String]) -> anyhow::Result<Self> {
        let path = checkpoint.join(SETTINGS_FILE);
        let mut place = path.display().to_string();
        let saved = path.is_file().then(|| read(&path)).transpose()?;
        let mut table = saved.clone().unwrap_or_default();
        if saved.is_none() {
            let profile = profile.unwrap_or(DEFAULT_PROFILE);
            table = find_profile(profile)?.settings;
            table.remove("model");
            place = format!("profile \"{profile}\"");
        } else if let Some(profile) = profile {
            let mut over = find_profile(profile)?.settings;
            over.retain(|key, _| EVALUATION.contains(&key));
            merge(&mut table, &over);
        }
        table.remove("pretraining");
        table.remove("recipes");
        table.insert("checkpoint".to_owned(), Value::String(checkpoint.to_string_lossy().into_owned()));
        let mut used = table.clone();
        apply_all(&mut used, sets)?;
        let changes = saved.map_or_else(Vec::new, |saved| changes(&saved, &used));
        Ok(Self { config: typed(table, sets, &place)?, changes })
    }
}

fn read(path: &Path) -> anyhow::Result<Table> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("damaged: {}", path.display()))
}

/// The values that differ, except those of the model, which are compared with the checkpoint when it is
/// opened.
fn changes(saved: &Table, used: &Table) -> Vec<String> {
    let [saved, used] = [saved, used].map(|table| flatten(table).into_iter().collect::<BTreeMap<_, _>>());
    let find = |values: &BTreeMap<String, Value>, key: &str| {
        values.get(key).map_or("not set".to_owned(), Value::to_string)
    };
    let keys: BTreeSet<&String> = saved.keys().chain(used.keys()).collect();
    let is_compared =
        |key: &str| !["checkpoint", "model.", "pretraining."].iter().any(|start| key.starts_with(start));
    keys.into_iter()
        .filter(|key| is_compared(key))
        .map(|key| (key, find(&saved, key), find(&used, key)))
        .filter(|(_, before, after)| before != after)
        .map(|(key, before, after)| format!("{key}: {before} -> {after}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Fusion;

    fn evaluated(folder: &Path, profile: Option<&str>, sets: &[&str]) -> Evaluated {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Evaluated::of(folder, profile, &sets).unwrap()
    }

    #[test]
    fn a_checkpoints_own_model_settings_hold_unless_they_are_set() {
        let folder = tempfile::tempdir().unwrap();
        for profile in [None, Some("smoke")] {
            let config = evaluated(folder.path(), profile, &[]).config;
            assert_eq!((config.model.fusion, config.model.temporal), (None, None));
            let config = evaluated(folder.path(), profile, &["model.fusion=average"]).config;
            assert_eq!(config.model.fusion, Some(Fusion::Average));
        }
    }

    #[test]
    fn saved_settings_are_used_and_every_change_of_them_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let sets = ["model.fusion=average", "frames.count=3", "answering={}"].map(str::to_owned);
        let saved = super::super::resolve_plain("smoke", &sets).unwrap();
        std::fs::write(folder.path().join(SETTINGS_FILE), saved.to_toml().unwrap()).unwrap();
        let same = evaluated(folder.path(), None, &[]);
        let checkpoint = folder.path().to_owned();
        assert_eq!(same.config, RunConfig { checkpoint, ..saved });
        assert_eq!(same.changes, Vec::<String>::new());
        let other = evaluated(folder.path(), Some("smoke"), &["generate.num_beams=3"]);
        assert_eq!((other.config.frames.count, other.config.model.fusion), (4, Some(Fusion::Average)));
        assert_eq!(other.changes, ["frames.count: 3 -> 4", "generate.num_beams: 1 -> 3"]);
    }
}
