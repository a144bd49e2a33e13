//! What can go wrong in training.

use std::path::{Path, PathBuf};

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
    /// Loss or gradient is not a number any more.
    #[error(
        "the loss became {loss} at step {step} (examples {items:?}); the last finite loss was {last}. \
         Lower the learning rate (now {learning_rate:e}) or the clipping norm"
    )]
    NotFinite {
        /// Step that failed, from 1.
        step: usize,
        /// What the loss became.
        loss: f64,
        /// The last finite loss.
        last: f64,
        /// Learning rate of the step.
        learning_rate: f64,
        /// Indices of the batch's examples.
        items: Vec<usize>,
    },
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

impl TrainError {
    /// Names the action and the path of a failed file operation.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, source, path }
    }
}
