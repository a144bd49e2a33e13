//! Errors of reading checkpoint files.

use std::path::PathBuf;

/// Why a checkpoint file, or one of its tensors, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file system reported an error.
    #[error("cannot {action}: {source}: {path}")]
    Io {
        /// The failed action.
        action: &'static str,
        /// The cause.
        source: std::io::Error,
        /// The file or directory.
        path: PathBuf,
    },
    /// The file violates its format.
    #[error("not a readable {format} file (truncated or damaged?): {reason}: {path}")]
    Damaged {
        /// The format.
        format: &'static str,
        /// The cause.
        reason: String,
        /// The file or directory.
        path: PathBuf,
    },
    /// The file or directory has no readable tensors.
    #[error("{reason}: {path}")]
    Unsupported {
        /// What was found, what was expected, and what to do.
        reason: String,
        /// The file or directory.
        path: PathBuf,
    },
    /// A pickle has a call in place of a tensor.
    #[error("{place} is made by calling `{callable}`, which is never executed; {advice}: {path}")]
    Call {
        /// The value in place of which the call stands.
        place: String,
        /// The Python callable, by its full name.
        callable: String,
        /// What to do.
        advice: &'static str,
        /// The file or directory.
        path: PathBuf,
    },
    /// A shard of an index is absent.
    #[error("shard {shard} is named by the index but absent; download it beside {index}")]
    ShardAbsent {
        /// The shard's file name.
        shard: String,
        /// The index.
        index: PathBuf,
    },
    /// A tensor is absent from the shard that the index names.
    #[error("tensor {tensor} is absent from {shard}, where {index} places it")]
    NotInShard {
        /// The tensor.
        tensor: String,
        /// The shard's file name.
        shard: String,
        /// The index.
        index: PathBuf,
    },
    /// One tensor cannot be read.
    #[error("tensor {name}: {reason}: {path}")]
    Tensor {
        /// The tensor, as the file names it.
        name: String,
        /// The cause.
        reason: String,
        /// The file or directory.
        path: PathBuf,
    },
}
