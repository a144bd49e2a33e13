//! What can go wrong between a file and a batch. Each message says what, where, what was expected, what was found,
//! and what to do next; the path comes last.

use crate::datasets::thousands;
use std::path::{Path, PathBuf};

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure while reading, decoding, making or caching data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory that should be there is not.
    #[error("no {what} there; {next}: {}", path.display())]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What to do about it.
        next: String,
    },

    /// The operating system refused a read or write.
    #[error("could not {doing}: {source}: {}", path.display())]
    Io {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// A file is there but does not hold what its format promises.
    #[error("{what}, {place}: {reason}: {}", path.display())]
    Malformed {
        /// The kind of file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Line, key or entry inside it.
        place: String,
        /// Expected against found.
        reason: String,
    },

    /// A video that cannot be decoded.
    #[error("cannot decode video: {reason}; {next}: {}", path.display())]
    Video {
        /// The video.
        path: PathBuf,
        /// GStreamer's reason, or ours.
        reason: String,
        /// What to do about it.
        next: String,
    },

    /// A video whose header promises more bytes than the file has.
    #[error(
        "the file is cut short: its header says {declared} bytes, it has {length}; \
         fetch it again or leave the clip out: {}", path.display()
    )]
    Truncated {
        /// The video.
        path: PathBuf,
        /// Bytes by the header.
        declared: u64,
        /// Bytes there are.
        length: u64,
    },

    /// GStreamer lacks a plug-in.
    #[error("GStreamer lacks a plug-in for {needed}; install {package}{}", for_file(path))]
    MissingPlugin {
        /// What the plug-in would have handled.
        needed: String,
        /// The package that has it.
        package: String,
        /// The file that asked for it, if one did.
        path: Option<PathBuf>,
    },

    /// Decoding made no progress for too long and was given up.
    #[error(
        "decoding stood still for {seconds} s after {frames} frames and was given up; \
         the file is probably damaged, fetch it again or leave the clip out: {}", path.display()
    )]
    Stalled {
        /// The video.
        path: PathBuf,
        /// Frames that came before the standstill.
        frames: usize,
        /// The limit that was reached.
        seconds: u64,
    },

    /// Annotations name clips whose files are absent.
    #[error(
        "{} of {total} annotated clips have no video file (looked for {pattern}), first: {}; \
         put the files there or take the clips out of {}: {}",
        ids.len(), first_of(ids), annotations.display(), videos.display()
    )]
    MissingClips {
        /// The annotation file.
        annotations: PathBuf,
        /// The directory searched.
        videos: PathBuf,
        /// The file names that would have been accepted.
        pattern: String,
        /// The clips without a file.
        ids: Vec<String>,
        /// Annotated clips in all.
        total: usize,
    },

    /// A setting outside what is possible.
    #[error("{key} must be {expected}, got {got}")]
    Setting {
        /// The setting's name.
        key: &'static str,
        /// The values allowed.
        expected: String,
        /// The value given.
        got: String,
    },

    /// Making videos failed in GStreamer.
    #[error("cannot write video: {reason}: {}", path.display())]
    Encode {
        /// The video being written.
        path: PathBuf,
        /// GStreamer's reason.
        reason: String,
    },

    /// A tokenizer could not be read, made or applied.
    #[error("tokenizer: {reason}{}", for_file(path))]
    Tokenizer {
        /// The tokenizer's file, if it has one.
        path: Option<PathBuf>,
        /// The reason.
        reason: String,
    },

    /// A split of a published data set is not the published one.
    #[error(
        "{dataset}'s split {split} has {} {what}, got {}{difference}; give the official files, or say that the splits \
         are your own: {}", thousands(*expected), thousands(*got), path.display()
    )]
    SplitMismatch {
        /// The data set.
        dataset: &'static str,
        /// The split.
        split: &'static str,
        /// What is counted: clips, images or questions.
        what: &'static str,
        /// How many were published.
        expected: usize,
        /// How many there are.
        got: usize,
        /// Which are missing and which are too many, where their names are known.
        difference: String,
        /// The annotations.
        path: PathBuf,
    },

    /// A list of clips to leave out that no longer fits the files.
    #[error(
        "the skip list no longer fits the files: {}; make a new one with `experiments data check`: {}",
        first_of(reasons), path.display()
    )]
    StaleSkipList {
        /// What changed, a clip each.
        reasons: Vec<String>,
        /// The list.
        path: PathBuf,
    },
}

impl Error {
    /// Wraps an input/output error with what was being done and where.
    pub fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { doing, path, source }
    }

    /// A file that breaks its format, at a place, for a reason.
    pub fn malformed(
        what: &'static str,
        path: &Path,
        place: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self::Malformed { what, path: path.to_path_buf(), place: place.into(), reason: reason.into() }
    }

    /// A video that cannot be decoded for a reason that only another file mends.
    pub fn video(path: &Path, reason: impl Into<String>) -> Self {
        Self::Video {
            path: path.to_path_buf(),
            reason: reason.into(),
            next: "fetch the file again or leave the clip out".into(),
        }
    }
}

fn for_file(path: &Option<PathBuf>) -> String {
    path.as_ref().map_or_else(String::new, |path| format!(": {}", path.display()))
}

fn first_of(ids: &[String]) -> String {
    let shown: Vec<&str> = ids.iter().take(5).map(String::as_str).collect();
    let more = if ids.len() > shown.len() { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
