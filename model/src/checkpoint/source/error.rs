//! What can be wrong with a checkpoint's files.

use std::path::PathBuf;

/// Why a checkpoint's file, or one tensor of it, could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
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
    /// The file breaks its own format.
    #[error("not a readable {format} file (truncated or damaged?): {reason}: {path}")]
    Damaged {
        /// The format that the file claims to be of.
        format: &'static str,
        /// What the reader stumbled over.
        reason: String,
        /// Where.
        path: PathBuf,
    },
    /// The file, or the directory, is sound but holds nothing that can be read as tensors.
    #[error("{reason}: {path}")]
    Unsupported {
        /// What was found, what was expected, and what to do.
        reason: String,
        /// Where.
        path: PathBuf,
    },
    /// A pickle asks for a call where a tensor is expected, or for a call that no checkpoint needs.
    #[error("{place} is made by calling `{callable}`, which is never executed; {advice}: {path}")]
    Call {
        /// The value that the call would make.
        place: String,
        /// The Python callable, by its full name.
        callable: String,
        /// What to do.
        advice: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// An index names a shard that is not there.
    #[error("shard {shard} is named by the index but absent; download it beside {index}")]
    ShardAbsent {
        /// The shard's file name.
        shard: String,
        /// The index.
        index: PathBuf,
    },
    /// An index places a tensor in a shard that lacks it.
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
        /// What is wrong with it.
        reason: String,
        /// Where.
        path: PathBuf,
    },
}
