//! Saved training states: everything that a run needs to resume bit for bit.
//!
//! A state is a folder `step-N`: trained parameters and the optimizer's moments as Burn records (only those
//! store the parameter ids that the moments belong to), the rest as JSON. It is written under a temporary
//! name, synced and renamed, and renamed again before it is removed, so that a folder named `step-N` is
//! always complete. The weights of the best evaluation are stored in `best-N`, N its step, in the same way;
//! the previous best is removed after a state that refers to the new one is saved.

use std::fs::File;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::store::ModuleRecord;
use burn::tensor::Bytes;
use data::files;
use data::loader::Saved;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::TrainError;
use crate::metrics::Metrics;
use crate::optimizer::ParameterGroups;

const TRAINED: &str = "trained.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
const STATE: &str = "state.json";
const STEP: &str = "step-";
const BEST: &str = "best-";
/// Prefix of folders that are being written or removed.
const UNFINISHED: &str = ".unfinished-";

/// Progress of a run, without weights and moments.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct State {
    /// Steps taken.
    pub step: usize,
    /// The next batch.
    pub position: Saved,
    /// Sums of the metrics of the interval's steps.
    pub sums: Metrics,
    /// Steps taken in the interval.
    pub steps: usize,
    /// Loss and gradient norm of the last step.
    pub last: Option<(f64, f64)>,
    /// All evaluations; they decide selection and early stopping.
    pub history: Vec<EpochRecord>,
    /// Duration of the steps, over all sessions.
    pub seconds: Seconds,
    /// Everything that decides the run's result; a state with other settings is rejected.
    pub settings: Value,
}

/// Duration of the steps of a run, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Seconds {
    /// All of it, from the request for a batch to the dashboard's update.
    pub steps: f64,
    /// Forward and backward passes.
    pub passes: f64,
    /// Sums of gradients and metrics over several processes, and waiting for the slowest of them.
    #[serde(default)]
    pub exchange: f64,
    /// Clipping and the optimizer's update.
    pub update: f64,
    /// Waiting for batches.
    pub data: f64,
}

/// An evaluation and the steps since the one before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Number of the evaluation, from 1; the epoch, if there is one evaluation per epoch.
    pub epoch: usize,
    /// Steps taken so far.
    pub step: usize,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Mean training loss since the evaluation before it.
    pub loss: f64,
    /// Means of the other metrics of the training steps.
    #[serde(default)]
    pub training: Metrics,
    /// Metrics of the validation split; empty without one.
    pub validation: Metrics,
    /// Whether it is the best so far.
    pub is_best: bool,
}

/// Saves a state; `directory/step-N` appears complete or not at all. The newest `keep` states stay.
///
/// # Errors
/// When the directory cannot be written to; what was there before is then untouched.
pub fn save<M: Module + Clone>(
    directory: &Path,
    keep: usize,
    state: &State,
    model: &M,
    groups: &ParameterGroups,
    optimizer: &ModuleOptimizer,
) -> Result<(), TrainError> {
    let path = directory.join(format!("{STEP}{}", state.step));
    create_whole(&path, |folder| {
        save_trained(folder, model, groups)?;
        optimizer.save(folder.join(OPTIMIZER)).map_err(|error| save_error(&error, &path))?;
        Ok(files::replace_json(&folder.join(STATE), state)?)
    })?;
    for (_, old) in list(directory, STEP)?.into_iter().rev().skip(keep.max(1)) {
        remove_whole(&old)?;
    }
    Ok(())
}

/// Saves the weights of the best evaluation, made at a step.
///
/// # Errors
/// When the directory cannot be written to; what was there before is then untouched.
pub fn save_best<M: Module + Clone>(
    directory: &Path,
    step: usize,
    model: &M,
    groups: &ParameterGroups,
) -> Result<(), TrainError> {
    create_whole(&directory.join(format!("{BEST}{step}")), |folder| save_trained(folder, model, groups))
}

/// Removes the weights of all evaluations except the best; call it after a state that refers to the best is
/// saved.
///
/// # Errors
/// When the directory cannot be read or written to.
pub fn keep_best(directory: &Path, step: usize) -> Result<(), TrainError> {
    for (_, path) in list(directory, BEST)?.into_iter().filter(|(other, _)| *other != step) {
        remove_whole(&path)?;
    }
    Ok(())
}

fn save_trained<M: Module + Clone>(
    folder: &Path,
    model: &M,
    groups: &ParameterGroups,
) -> Result<(), TrainError> {
    let trained = model.clone().into_record_group(groups.trained());
    trained.save(folder.join(TRAINED)).map_err(|error| save_error(&error, folder))
}

fn save_error(error: &dyn std::fmt::Debug, path: &Path) -> TrainError {
    let source = std::io::Error::other(format!("{error:?}"));
    TrainError::Io { action: "save a state", source, path: path.to_owned() }
}

/// Creates a folder that appears complete or not at all.
fn create_whole(path: &Path, write: impl FnOnce(&Path) -> Result<(), TrainError>) -> Result<(), TrainError> {
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
        remove_whole(path)?;
    }
    std::fs::rename(temporary.path(), path).map_err(io("save a state"))?;
    let _moved = temporary.keep();
    sync(directory).map_err(io("save a state"))
}

/// Syncs the entries of a folder; only Unix supports and needs that.
fn sync(directory: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

/// Removes a folder, which is renamed first: an incomplete folder must not have a state's name.
fn remove_whole(path: &Path) -> Result<(), TrainError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let io = || TrainError::io("remove an old state", path);
    let aside = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(directory).map_err(io())?;
    std::fs::rename(path, aside.path().join("old")).map_err(io())?;
    aside.close().map_err(io())
}

/// Removes incomplete folders of a killed run.
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
/// When the folder cannot be read, or the state is damaged or has other settings.
pub fn newest(directory: &Path, settings: &Value) -> Result<Option<(PathBuf, State)>, TrainError> {
    let Some((_, path)) = list(directory, STEP)?.pop() else { return Ok(None) };
    let text =
        std::fs::read_to_string(path.join(STATE)).map_err(TrainError::io("read a saved state", &path))?;
    let damaged = |reason: String| TrainError::State { reason, path: path.clone() };
    let state: State = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    // both sides are compared after a JSON round trip, which has fewer kinds of numbers
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

/// Restores weights and moments.
///
/// # Errors
/// When a record is damaged or does not fit the model.
pub fn restore<M: Module>(
    path: &Path,
    model: M,
    optimizer: impl FnOnce(&M) -> ModuleOptimizer,
) -> Result<(M, ModuleOptimizer), TrainError> {
    let model = restore_trained(path, model)?;
    let moments = read(&path.join(OPTIMIZER))?;
    let optimizer = optimizer(&model).from_bytes(moments).map_err(|error| damaged(&error, path))?;
    Ok((model, optimizer))
}

/// Restores the weights of the best evaluation, made at a step.
///
/// # Errors
/// When there are none, or the record is damaged or does not fit the model.
pub fn restore_best<M: Module>(directory: &Path, step: usize, model: M) -> Result<M, TrainError> {
    restore_trained(&directory.join(format!("{BEST}{step}")), model)
}

/// The whole of a file. Burn would read each tensor when it is first used, by the file's name: the first
/// process may have replaced the file by then.
fn read(path: &Path) -> Result<Bytes, TrainError> {
    std::fs::read(path).map(Bytes::from_bytes_vec).map_err(TrainError::io("read a saved state", path))
}

fn restore_trained<M: Module>(path: &Path, model: M) -> Result<M, TrainError> {
    let record =
        ModuleRecord::from_bytes(read(&path.join(TRAINED))?).map_err(|error| damaged(&error, path))?;
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
    fn other_settings_are_listed_key_by_key() {
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
    fn a_folder_that_cannot_be_completed_does_not_appear_and_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("step-3");
        let write = |text: &'static str| {
            move |folder: &Path| Ok(files::replace(&folder.join("weights"), text.as_bytes())?)
        };
        create_whole(&path, write("first")).unwrap();
        let failing = |inside: &Path| {
            files::replace(&inside.join("weights"), b"second")?;
            Err(TrainError::Data("the disk is full".to_owned()))
        };
        assert!(create_whole(&path, failing).is_err());
        assert_eq!(std::fs::read_to_string(path.join("weights")).unwrap(), "first");
        create_whole(&path, write("third")).unwrap();
        assert_eq!(std::fs::read_to_string(path.join("weights")).unwrap(), "third");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing unfinished is left");
    }

    #[test]
    fn folders_of_a_killed_run_are_no_states_and_are_removed() {
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
