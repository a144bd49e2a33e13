//! What can go wrong in training.

use std::path::{Path, PathBuf};

use data::loader::LoadError;
use model::qformer::NoTextPath;

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The file system said no.
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
    /// A pattern of the freezing table names no parameter.
    #[error("the pattern \"{pattern}\" matches no parameter of the model; names start with: {starts}")]
    Pattern {
        /// The pattern as written.
        pattern: String,
        /// First parts of the model's names.
        starts: String,
    },
    /// A saved training state is of a run with other settings.
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
    /// Loss or gradient is not a number any more. The state before the step is saved.
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
    /// A run stopped, and its state could not be saved either; the state before stays.
    #[error("{error}\nand the state could not be saved: {unsaved}")]
    Unsaved {
        /// Why it stopped.
        error: Box<TrainError>,
        /// Why its state is not saved.
        unsaved: Box<TrainError>,
    },
    /// The best model would be chosen on the test split.
    #[error(
        "a run may not select its best model on the test split: that score would say nothing about new videos. \
         Validate on the validation split; `experiments evaluate --split test` scores the selected model once"
    )]
    SelectsOnTest,
    /// The validation does not give what the best evaluation is chosen by.
    #[error("cannot select by \"{by}\": the validation gives no {missing}, but {given}")]
    Selection {
        /// As configured.
        by: String,
        /// The figure that is not there.
        missing: String,
        /// The figures that are.
        given: String,
    },
    /// A batch came without anything to be learned from it.
    #[error("a batch without captions has no loss")]
    NoTargets,
    /// A batch is of another task.
    #[error("{task} cannot learn from a batch of {batch}")]
    WrongBatch {
        /// What is trained.
        task: &'static str,
        /// What the batch holds.
        batch: &'static str,
    },
    /// An example has an instruction that the model cannot read.
    #[error(transparent)]
    Instruction(#[from] NoTextPath),
    /// The device failed to give results back.
    #[error("the device failed: {0}")]
    Device(String),
    /// Data could not be had.
    #[error("{0}")]
    Data(String),
    /// Weights could not be written or read.
    #[error(transparent)]
    Checkpoint(#[from] model::checkpoint::CheckpointError),
    /// Scores could not be computed.
    #[error(transparent)]
    Metrics(#[from] metrics::Error),
    /// burn-train stopped the run.
    #[error("the dashboard stopped the run: {0}")]
    Dashboard(String),
}

impl From<data::Error> for TrainError {
    fn from(error: data::Error) -> Self {
        Self::Data(error.to_string())
    }
}

impl From<LoadError<TrainError>> for TrainError {
    fn from(error: LoadError<Self>) -> Self {
        match error {
            LoadError::Failed { at, source: Self::Data(reason) } => {
                Self::Data(format!("{reason} (batch {} of epoch {})", at.batch, at.epoch))
            }
            LoadError::Failed { source, .. } => source,
            other => Self::Data(other.to_string()),
        }
    }
}

impl TrainError {
    /// The device did not give a result back.
    pub fn device(error: impl std::fmt::Debug) -> Self {
        Self::Device(format!("{error:?}"))
    }

    /// Names the action and the path of a failed file operation.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, source, path }
    }
}
