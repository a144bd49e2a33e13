//! Saved training states: everything that a run needs to go on as if it had never stopped.
//!
//! A state is a folder `step-N` with what is trained and the optimiser's moments as Burn records (they alone keep the
//! ids that the moments hang on) and the rest as JSON. It is written under a temporary name, synced and renamed; a
//! state that lies there under its own name is whole.

use std::fs::File;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::store::ModuleRecord;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::captioner::Captioner;
use crate::dashboard::Figures;
use crate::files;
use crate::optimizer::Groups;

const TRAINED: &str = "trained.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
const STATE: &str = "state.json";

/// States kept; older ones are removed.
const KEPT: usize = 2;

/// Where a run stands, weights and moments aside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps taken.
    pub step: usize,
    /// The current epoch, from 1.
    pub epoch: usize,
    /// Batches of the epoch that were used.
    pub batch: usize,
    /// Sum over the epoch's examples of their batch's loss.
    pub loss_sum: f64,
    /// Examples of the epoch that were used.
    pub examples: usize,
    /// The last finite loss.
    pub last_loss: f64,
    /// What every finished epoch gave.
    pub history: Vec<EpochRecord>,
    /// Seconds spent in training steps, over all sessions.
    pub seconds: f64,
    /// Hash of everything that decides what the run computes; another run's state is refused.
    pub fingerprint: String,
}

impl State {
    /// A run that has not begun.
    pub fn new(fingerprint: &str) -> Self {
        Self {
            step: 0,
            epoch: 1,
            batch: 0,
            loss_sum: 0.0,
            examples: 0,
            last_loss: f64::NAN,
            history: Vec::new(),
            seconds: 0.0,
            fingerprint: fingerprint.to_owned(),
        }
    }
}

/// One finished epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: usize,
    /// Steps taken at its end.
    pub step: usize,
    /// Learning rate of its last step.
    pub learning_rate: f64,
    /// Mean training loss.
    pub loss: f64,
    /// Scores on the validation split; empty where none was given.
    pub validation: Figures,
    /// Whether it is the best so far.
    pub is_best: bool,
}

/// Writes a state; `directory/step-N` appears whole or not at all. Older states but one are removed.
///
/// # Errors
/// When the directory cannot be written to; what was there before is then untouched.
pub fn save(
    directory: &Path,
    state: &State,
    captioner: &Captioner,
    groups: &Groups,
    optimizer: &ModuleOptimizer,
) -> Result<(), TrainError> {
    let path = directory.join(format!("step-{}", state.step));
    let io = |action| TrainError::io(action, &path);
    std::fs::create_dir_all(directory).map_err(io("create the folder for saved states"))?;
    let temporary =
        tempfile::Builder::new().prefix(".step-").tempdir_in(directory).map_err(io("save a state"))?;
    let record = |error: &dyn std::fmt::Debug| TrainError::Io {
        action: "save a state",
        source: std::io::Error::other(format!("{error:?}")),
        path: path.clone(),
    };
    let trained = captioner.clone().into_record_group(groups.trained());
    trained.save(temporary.path().join(TRAINED)).map_err(|error| record(&error))?;
    optimizer.save(temporary.path().join(OPTIMIZER)).map_err(|error| record(&error))?;
    files::replace_json(&temporary.path().join(STATE), state)?;
    for name in [TRAINED, OPTIMIZER] {
        let file = File::open(temporary.path().join(name)).map_err(io("save a state"))?;
        file.sync_all().map_err(io("save a state"))?;
    }
    if path.exists() {
        std::fs::remove_dir_all(&path).map_err(io("replace a saved state"))?;
    }
    std::fs::rename(temporary.keep(), &path).map_err(io("save a state"))?;
    for (_, old) in list(directory)?.into_iter().rev().skip(KEPT) {
        std::fs::remove_dir_all(&old).map_err(TrainError::io("remove an old state", &old))?;
    }
    Ok(())
}

/// The newest state of a run, if it has any.
///
/// # Errors
/// When the folder cannot be read, or the state is of another configuration.
pub fn newest(directory: &Path, fingerprint: &str) -> Result<Option<(PathBuf, State)>, TrainError> {
    let Some((_, path)) = list(directory)?.pop() else { return Ok(None) };
    let text =
        std::fs::read_to_string(path.join(STATE)).map_err(TrainError::io("read a saved state", &path))?;
    let damaged = |reason: String| TrainError::State { reason, path: path.clone() };
    let state: State = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    if state.fingerprint != fingerprint {
        return Err(damaged("it belongs to a run with other settings".to_owned()));
    }
    Ok(Some((path, state)))
}

/// Brings weights and moments back.
///
/// # Errors
/// When a record is damaged or does not fit the model.
pub fn restore(
    path: &Path,
    captioner: Captioner,
    optimizer: impl FnOnce(&Captioner) -> ModuleOptimizer,
) -> Result<(Captioner, ModuleOptimizer), TrainError> {
    let damaged = |error: &dyn std::fmt::Debug| TrainError::State {
        reason: format!("{error:?}"),
        path: path.to_owned(),
    };
    let record = ModuleRecord::load(path.join(TRAINED)).map_err(|error| damaged(&error))?;
    let captioner = captioner.try_load_record(record.allow_partial(true)).map_err(|error| damaged(&error))?;
    let optimizer = optimizer(&captioner).load(path.join(OPTIMIZER)).map_err(|error| damaged(&error))?;
    Ok((captioner, optimizer))
}

/// Saved states, oldest first.
fn list(directory: &Path) -> Result<Vec<(usize, PathBuf)>, TrainError> {
    let mut states = Vec::new();
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(states),
        Err(error) => return Err(TrainError::io("read the folder of saved states", directory)(error)),
    };
    for entry in entries {
        let path = entry.map_err(TrainError::io("read the folder of saved states", directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(step) = name.strip_prefix("step-").and_then(|step| step.parse().ok()) {
            states.push((step, path));
        }
    }
    states.sort();
    Ok(states)
}
