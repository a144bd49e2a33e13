//! Saved training states: everything that a run needs to go on as if it had never stopped.
//!
//! A state is a folder `step-N` with what is trained and the optimiser's moments as Burn records (they alone keep the
//! ids that the moments hang on) and the rest as JSON. It is written under a temporary name, synced and renamed, and
//! renamed again before it is removed: a folder under a state's own name is whole at every moment. The weights of the
//! best evaluation lie beside the states in `best-N`, N its step, written in the same way; the best before it stays
//! until a state knows the new one.

use std::fs::File;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::store::ModuleRecord;
use data::loader::Saved;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dashboard::Metrics;
use crate::optimizer::Groups;
use crate::{TrainError, files};

const TRAINED: &str = "trained.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
const STATE: &str = "state.json";
const STEP: &str = "step-";
const BEST: &str = "best-";
/// What is being written, or being removed.
const UNFINISHED: &str = ".unfinished-";

/// Where a run stands, weights and moments aside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps taken.
    pub step: usize,
    /// The next batch.
    pub position: Saved,
    /// Sums of the round's figures, each step counting once.
    pub sums: Metrics,
    /// Steps of the round.
    pub steps: usize,
    /// Loss and norm of the gradients in the last step.
    pub last: Option<(f64, f64)>,
    /// What every evaluation gave; the best one so far decides about selection and early stopping.
    pub history: Vec<EpochRecord>,
    /// How long steps took, over all sessions.
    pub seconds: Seconds,
    /// Everything that decides what the run computes; another run's state is refused.
    pub settings: Value,
}

/// How long the steps of a run took.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Seconds {
    /// All of them, from asking for a batch to telling the dashboard.
    pub steps: f64,
    /// Forward and backward passes.
    pub passes: f64,
    /// The optimiser's update and the clipping before it.
    pub update: f64,
    /// Waiting for batches.
    pub data: f64,
}

impl State {
    /// A run that has not begun.
    pub fn new(position: Saved, settings: Value) -> Self {
        Self {
            step: 0,
            position,
            sums: Metrics::default(),
            steps: 0,
            last: None,
            history: Vec::new(),
            seconds: Seconds::default(),
            settings,
        }
    }
}

/// One evaluation, and the steps before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Which evaluation it is, from 1; an epoch's number where there is one evaluation an epoch.
    pub epoch: usize,
    /// Steps taken at its end.
    pub step: usize,
    /// Learning rate of its last step.
    pub learning_rate: f64,
    /// Mean training loss since the evaluation before it.
    pub loss: f64,
    /// Means of the other figures of the training steps.
    #[serde(default)]
    pub training: Metrics,
    /// Scores on the validation split; empty where none was given.
    pub validation: Metrics,
    /// Whether it is the best so far.
    pub is_best: bool,
}

/// Writes a state; `directory/step-N` appears whole or not at all. Of older states `keep - 1` stay.
///
/// # Errors
/// When the directory cannot be written to; what was there before is then untouched.
pub fn save<M: Module + Clone>(
    directory: &Path,
    keep: usize,
    state: &State,
    model: &M,
    groups: &Groups,
    optimizer: &ModuleOptimizer,
) -> Result<(), TrainError> {
    let path = directory.join(format!("{STEP}{}", state.step));
    appear(&path, |folder| {
        save_trained(folder, model, groups)?;
        optimizer.save(folder.join(OPTIMIZER)).map_err(|error| refused(&error, &path))?;
        files::replace_json(&folder.join(STATE), state)
    })?;
    for (_, old) in list(directory, STEP)?.into_iter().rev().skip(keep.max(1)) {
        disappear(&old)?;
    }
    Ok(())
}

/// Writes the weights of the best evaluation, which was made at a step.
///
/// # Errors
/// When the directory cannot be written to; what was there before is then untouched.
pub fn save_best<M: Module + Clone>(
    directory: &Path,
    step: usize,
    model: &M,
    groups: &Groups,
) -> Result<(), TrainError> {
    appear(&directory.join(format!("{BEST}{step}")), |folder| save_trained(folder, model, groups))
}

/// Removes the weights of every other evaluation than the best, which a saved state knows by now.
///
/// # Errors
/// When the directory cannot be read or written to.
pub fn keep_best(directory: &Path, step: usize) -> Result<(), TrainError> {
    for (_, path) in list(directory, BEST)?.into_iter().filter(|(other, _)| *other != step) {
        disappear(&path)?;
    }
    Ok(())
}

fn save_trained<M: Module + Clone>(folder: &Path, model: &M, groups: &Groups) -> Result<(), TrainError> {
    let trained = model.clone().into_record_group(groups.trained());
    trained.save(folder.join(TRAINED)).map_err(|error| refused(&error, folder))
}

fn refused(error: &dyn std::fmt::Debug, path: &Path) -> TrainError {
    let source = std::io::Error::other(format!("{error:?}"));
    TrainError::Io { action: "save a state", source, path: path.to_owned() }
}

/// Lets a folder appear under its name with all of its files, or not at all.
fn appear(path: &Path, write: impl FnOnce(&Path) -> Result<(), TrainError>) -> Result<(), TrainError> {
    let io = |action| TrainError::io(action, path);
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(io("create the folder for saved states"))?;
    let temporary =
        tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(directory).map_err(io("save a state"))?;
    write(temporary.path())?;
    for entry in std::fs::read_dir(temporary.path()).map_err(io("save a state"))? {
        let file = File::open(entry.map_err(io("save a state"))?.path()).map_err(io("save a state"))?;
        file.sync_all().map_err(io("save a state"))?;
    }
    if path.exists() {
        disappear(path)?;
    }
    std::fs::rename(temporary.path(), path).map_err(io("save a state"))?;
    let _moved = temporary.keep();
    sync(directory).map_err(io("save a state"))
}

/// Makes the entries of a folder last; only Unix can, and needs it.
fn sync(directory: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

/// Removes a folder, which loses its name first: half a folder must not pass for a state.
fn disappear(path: &Path) -> Result<(), TrainError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let io = || TrainError::io("remove an old state", path);
    let aside = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(directory).map_err(io())?;
    std::fs::rename(path, aside.path().join("old")).map_err(io())?;
    aside.close().map_err(io())
}

/// Removes what a killed run left half written or half removed.
///
/// # Errors
/// When the folder cannot be read or written to.
pub fn clean(directory: &Path) -> Result<(), TrainError> {
    for path in entries(directory)? {
        if name(&path).starts_with(UNFINISHED) {
            std::fs::remove_dir_all(&path).map_err(TrainError::io("remove an unfinished state", &path))?;
        }
    }
    Ok(())
}

/// The newest state of a run, if it has any.
///
/// # Errors
/// When the folder cannot be read, or the state is damaged or of a run with other settings.
pub fn newest(directory: &Path, settings: &Value) -> Result<Option<(PathBuf, State)>, TrainError> {
    let Some((_, path)) = list(directory, STEP)?.pop() else { return Ok(None) };
    let text =
        std::fs::read_to_string(path.join(STATE)).map_err(TrainError::io("read a saved state", &path))?;
    let damaged = |reason: String| TrainError::State { reason, path: path.clone() };
    let state: State = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    // what was written and read again is compared with what was: JSON has fewer kinds of numbers
    let settings = serde_json::from_str(&settings.to_string()).map_err(|error| damaged(error.to_string()))?;
    let mut differences = Vec::new();
    compare("", &state.settings, &settings, &mut differences);
    if differences.is_empty() {
        return Ok(Some((path, state)));
    }
    Err(TrainError::OtherSettings { differences, path })
}

/// Lists the keys whose values differ.
fn compare(key: &str, was: &Value, is: &Value, differences: &mut Vec<String>) {
    let shown = |value: &Value| if value.is_null() { "not set".to_owned() } else { value.to_string() };
    match (was, is) {
        (Value::Object(was_map), Value::Object(is_map)) => {
            let keys: std::collections::BTreeSet<&String> = was_map.keys().chain(is_map.keys()).collect();
            for inner in keys {
                let name = if key.is_empty() { inner.clone() } else { format!("{key}.{inner}") };
                compare(&name, &was[inner.as_str()], &is[inner.as_str()], differences);
            }
        }
        _ if was == is => {}
        _ => differences.push(format!("  {key} was {}, now {}", shown(was), shown(is))),
    }
}

/// Brings weights and moments back.
///
/// # Errors
/// When a record is damaged or does not fit the model.
pub fn restore<M: Module>(
    path: &Path,
    model: M,
    optimizer: impl FnOnce(&M) -> ModuleOptimizer,
) -> Result<(M, ModuleOptimizer), TrainError> {
    let model = restore_trained(path, model)?;
    let optimizer = optimizer(&model).load(path.join(OPTIMIZER)).map_err(|error| damaged(&error, path))?;
    Ok((model, optimizer))
}

/// Brings the weights of the best evaluation back, which was made at a step.
///
/// # Errors
/// When there are none, or the record is damaged or does not fit the model.
pub fn restore_best<M: Module>(directory: &Path, step: usize, model: M) -> Result<M, TrainError> {
    restore_trained(&directory.join(format!("{BEST}{step}")), model)
}

fn restore_trained<M: Module>(path: &Path, model: M) -> Result<M, TrainError> {
    let record = ModuleRecord::load(path.join(TRAINED)).map_err(|error| damaged(&error, path))?;
    model.try_load_record(record.allow_partial(true)).map_err(|error| damaged(&error, path))
}

fn damaged(error: &dyn std::fmt::Debug, path: &Path) -> TrainError {
    TrainError::State { reason: format!("{error:?}"), path: path.to_owned() }
}

/// Folders named by a step, the earliest first.
fn list(directory: &Path, prefix: &str) -> Result<Vec<(usize, PathBuf)>, TrainError> {
    let state = |path: PathBuf| Some((name(&path).strip_prefix(prefix)?.parse().ok()?, path));
    let mut states: Vec<(usize, PathBuf)> = entries(directory)?.into_iter().filter_map(state).collect();
    states.sort();
    Ok(states)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let io = || TrainError::io("read the folder of saved states", directory);
    match std::fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(io())?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(io()(error)),
    }
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn other_settings_are_told_key_by_key() {
        let (was, is) = (
            json!({"train": {"epochs": 3, "rate": 0.1}, "seed": 1, "old": true}),
            json!({"train": {"epochs": 4, "rate": 0.1}, "seed": 1, "new": "x"}),
        );
        let mut differences = Vec::new();
        compare("", &was, &is, &mut differences);
        assert_eq!(
            differences,
            ["  new was not set, now \"x\"", "  old was true, now not set", "  train.epochs was 3, now 4"]
        );
    }

    #[test]
    fn a_folder_that_could_not_be_written_whole_does_not_appear_and_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("step-3");
        let write = |text: &'static str| {
            move |folder: &Path| files::replace(&folder.join("weights"), text.as_bytes())
        };
        appear(&path, write("first")).unwrap();
        let failing = |inside: &Path| {
            files::replace(&inside.join("weights"), b"second")?;
            Err(TrainError::Data("the disk is full".to_owned()))
        };
        assert!(appear(&path, failing).is_err());
        assert_eq!(std::fs::read_to_string(path.join("weights")).unwrap(), "first");
        appear(&path, write("third")).unwrap();
        assert_eq!(std::fs::read_to_string(path.join("weights")).unwrap(), "third");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing unfinished is left");
    }

    #[test]
    fn what_a_killed_run_left_is_no_state_and_is_cleaned_away() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(format!("{UNFINISHED}abc"))).unwrap();
        std::fs::create_dir(folder.path().join("step-10")).unwrap();
        std::fs::create_dir(folder.path().join("step-9")).unwrap();
        std::fs::create_dir(folder.path().join("step-nine")).unwrap();
        let steps =
            |folder: &Path| list(folder, STEP).unwrap().into_iter().map(|(step, _)| step).collect::<Vec<_>>();
        assert_eq!(steps(folder.path()), [9, 10]);
        clean(folder.path()).unwrap();
        assert_eq!(entries(folder.path()).unwrap().len(), 3);
        assert_eq!(list(&folder.path().join("nothing"), STEP).unwrap(), []);
    }
}
