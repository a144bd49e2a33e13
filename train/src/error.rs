//! Errors of this crate.

use std::path::{Path, PathBuf};

use data::loader::{LoadError, Position};
use model::InputError;
use model::device::DeviceError;

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The file system refused an operation.
    #[error("cannot {action}: {source}: {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
        /// Where.
        path: PathBuf,
    },
    /// A saved training state cannot be used.
    #[error(
        "cannot resume from a saved state: {reason}: {path}\nremove that folder to go back to the one before it"
    )]
    State {
        /// What is wrong with it.
        reason: String,
        /// Where.
        path: PathBuf,
    },
    /// A pattern of the freezing table matches no parameter.
    #[error("the pattern \"{pattern}\" matches no parameter of the model; names start with: {starts}")]
    Pattern {
        /// The pattern as written.
        pattern: String,
        /// First parts of the model's names.
        starts: String,
    },
    /// A saved training state has other settings.
    #[error(
        "the saved state is of a run with other settings:\n{}\nrun with those settings, or without --resume: {path}",
        differences.join("\n")
    )]
    OtherSettings {
        /// One line a setting: its key, what it was and what it is.
        differences: Vec<String>,
        /// Where.
        path: PathBuf,
    },
    /// Loss or gradient is not finite. The state before the step is saved.
    #[error(
        "the loss became {loss} and the gradient's norm {norm} at step {step} ({}); the last finite ones: {}. The state \
         before it is saved. Lower the learning rate (now {learning_rate:e}) or the clipping norm, and look at these \
         examples",
        examples.join(", "),
        last.map_or_else(|| "none, it is the first step".to_owned(), |(loss, norm)| format!("{loss} and {norm}"))
    )]
    NotFinite {
        /// Step that failed, from 1.
        step: usize,
        /// What the loss became.
        loss: f64,
        /// What the gradient's joint norm became.
        norm: f64,
        /// Loss and norm of the step before it.
        last: Option<(f64, f64)>,
        /// Learning rate of the step.
        learning_rate: f64,
        /// Names of the batch's examples.
        examples: Vec<String>,
    },
    /// A run failed, and its state could not be saved; the state before stays.
    #[error("{error}\nand the state could not be saved: {unsaved}")]
    Unsaved {
        /// Why it failed.
        error: Box<TrainError>,
        /// Why its state is not saved.
        unsaved: Box<TrainError>,
    },
    /// Another process failed; all stop.
    #[error("process {rank} failed: {message}")]
    Peer {
        /// Its number.
        rank: usize,
        /// Its error.
        message: String,
    },
    /// The processes cannot talk to each other.
    #[error("a process is gone, or cannot be reached: {0}")]
    Process(String),
    /// The processes do not do the same.
    #[error("{what} differs among the processes: {first} in process 0, {other} in process {rank}")]
    Differs {
        /// What they were asked for.
        what: &'static str,
        /// Process 0's.
        first: String,
        /// The first process with another.
        rank: usize,
        /// What it has.
        other: String,
    },
    /// The best model would be chosen on the test split.
    #[error(
        "a run may not select its best model on the test split: that score would say nothing about new videos. \
         Validate on the validation split; `experiments evaluate --split test` scores the selected model once"
    )]
    SelectsOnTest,
    /// The evaluation lacks the metric that selects the best model.
    #[error("cannot select by \"{by}\": the validation gives no {missing}, but {given}")]
    Selection {
        /// As configured.
        by: String,
        /// The metric that is missing.
        missing: String,
        /// The metrics that the evaluation has.
        given: String,
    },
    /// A batch without targets.
    #[error("a batch without captions has no loss")]
    NoTargets,
    /// A batch of another task.
    #[error("{task} cannot learn from a batch of {batch}")]
    WrongBatch {
        /// The task.
        task: &'static str,
        /// Content of the batch.
        batch: &'static str,
    },
    /// An input that the model cannot read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The device failed to return results.
    #[error("the device failed: {0}")]
    Device(String),
    /// Examples do not fit each other or the task.
    #[error("{0}")]
    Data(String),
    /// A clip, an image or a text cannot be read.
    #[error(transparent)]
    Source(#[from] data::Error),
    /// A batch cannot be loaded.
    #[error("{source} (batch {} of epoch {})", at.batch, at.epoch)]
    Batch {
        /// Which batch.
        at: Position,
        /// Why.
        source: Box<TrainError>,
    },
    /// A loader's thread failed.
    #[error(transparent)]
    Loader(Box<LoadError<TrainError>>),
    /// Captions cannot be generated.
    #[error(transparent)]
    Captioner(#[from] captioner::CaptionerError),
    /// Captions cannot be generated in self-critical training.
    #[error(transparent)]
    Generation(#[from] model::blip2::CaptionError),
    /// Weights cannot be saved or loaded.
    #[error(transparent)]
    Checkpoint(#[from] model::checkpoint::CheckpointError),
    /// Metrics cannot be computed.
    #[error(transparent)]
    Metrics(#[from] metrics::Error),
    /// burn-train stopped the run.
    #[error("the dashboard stopped the run: {0}")]
    Dashboard(String),
}

impl From<LoadError<Self>> for TrainError {
    fn from(error: LoadError<Self>) -> Self {
        match error {
            LoadError::Failed { at, source: source @ (Self::Data(_) | Self::Source(_)) } => {
                Self::Batch { at, source: Box::new(source) }
            }
            LoadError::Failed { source, .. } => source,
            other => Self::Loader(Box::new(other)),
        }
    }
}

impl From<DeviceError> for TrainError {
    fn from(error: DeviceError) -> Self {
        Self::Device(error.to_string())
    }
}

impl TrainError {
    /// The device failed to return a result.
    pub fn device(error: impl std::fmt::Debug) -> Self {
        DeviceError::new(error).into()
    }

    /// Names the action and the path of a failed file operation.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, source, path }
    }
}
