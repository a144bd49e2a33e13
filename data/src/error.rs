//! The crate's errors. A message says what failed, where, what was expected and found, and what to do next.

use crate::encoding::readable;
use crate::format::{listed, thousands};
use std::any::Any;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure while reading, decoding, making or caching data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory does not exist.
    #[error("no {what} there; {next}: {}", path.display())]
    NotFound {
        /// The kind of file.
        what: &'static str,
        /// Where it was expected.
        path: PathBuf,
        /// What to do about it.
        next: String,
    },

    /// The operating system refused a read or write.
    #[error("could not {doing}: {source}: {}", path.display())]
    Io {
        /// The operation, as an infinitive.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// A file breaks its format.
    #[error("{what}, {place}: {reason}: {}", path.display())]
    Malformed {
        /// The kind of file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Line, key or entry inside it.
        place: String,
        /// What was expected and found.
        reason: String,
    },

    /// A video cannot be decoded.
    #[error("cannot decode video: {reason}; {next}: {}", path.display())]
    Video {
        /// The video.
        path: PathBuf,
        /// GStreamer's reason, or that of our checks.
        reason: String,
        /// What to do about it.
        next: String,
    },

    /// A video's header declares more bytes than the file has.
    #[error(
        "the file is cut short: its header says {declared} bytes, it has {length}; \
         fetch it again or leave the clip out: {}", path.display()
    )]
    Truncated {
        /// The video.
        path: PathBuf,
        /// Bytes that the header declares.
        declared: u64,
        /// Bytes of the file.
        length: u64,
    },

    /// GStreamer lacks a plug-in.
    #[error("GStreamer lacks a plug-in for {needed}; install {package}{}", for_file(path))]
    MissingPlugin {
        /// The element or format that needs the plug-in.
        needed: String,
        /// The package that contains it.
        package: String,
        /// The file that needs it, if there is one.
        path: Option<PathBuf>,
    },

    /// Decoding made no progress for too long and was stopped.
    #[error(
        "decoding made no progress for {seconds} s after {frames} frames and was stopped; \
         the file is probably damaged, fetch it again or leave the clip out: {}", path.display()
    )]
    Stalled {
        /// The video.
        path: PathBuf,
        /// Frames that were decoded before.
        frames: usize,
        /// The time limit.
        seconds: u64,
    },

    /// Annotations name clips that have no file.
    #[error(
        "{} of {total} annotated clips have no video file (looked for {pattern}), first: {}; \
         put the files there or take the clips out of {}: {}",
        ids.len(), listed(ids, 5), annotations.display(), videos.display()
    )]
    MissingClips {
        /// The annotation file.
        annotations: PathBuf,
        /// The directory searched.
        videos: PathBuf,
        /// The accepted file names.
        pattern: Box<str>,
        /// Ids of the clips without a file.
        ids: Vec<String>,
        /// Number of annotated clips.
        total: usize,
    },

    /// A value is out of range.
    #[error("{key} must be {expected}, got {got}")]
    Setting {
        /// The setting's name.
        key: Cow<'static, str>,
        /// The allowed values.
        expected: String,
        /// The given value.
        got: String,
    },

    /// GStreamer cannot encode a video.
    #[error("cannot write video: {reason}: {}", path.display())]
    Encode {
        /// The video.
        path: PathBuf,
        /// GStreamer's reason.
        reason: String,
    },

    /// A tokenizer cannot be read, made or applied.
    #[error("tokenizer: {reason}{}", for_file(path))]
    Tokenizer {
        /// The tokenizer's file, if it has one.
        path: Option<PathBuf>,
        /// The reason.
        reason: String,
    },

    /// A split differs from the published one.
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
        /// Number in the published split.
        expected: usize,
        /// Number in the given split.
        got: usize,
        /// Which are missing and which are too many, where the published ids are known.
        difference: Box<str>,
        /// The annotations.
        path: PathBuf,
    },

    /// A skip list does not match the files any more.
    #[error(
        "the skip list no longer fits the files: {}; make a new one with `experiments data check`: {}",
        listed(reasons, 5), path.display()
    )]
    StaleSkipList {
        /// What changed, one entry per clip.
        reasons: Vec<String>,
        /// The list.
        path: PathBuf,
    },
}

impl Error {
    /// Adds operation and file to an input/output error.
    pub fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { doing, path, source }
    }

    /// Adds operation and file to an input/output error; a missing file is an [`Error::NotFound`].
    pub(crate) fn open(
        doing: &'static str,
        path: &Path,
        what: &'static str,
        next: impl Into<String>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let (path, next) = (path.to_path_buf(), next.into());
        move |source| match source.kind() {
            std::io::ErrorKind::NotFound => Self::NotFound { what, path, next },
            _ => Self::Io { doing, path, source },
        }
    }

    /// An [`Error::Setting`].
    #[allow(clippy::needless_pass_by_value, reason = "callers pass numbers and literals")]
    pub(crate) fn setting(
        key: impl Into<Cow<'static, str>>,
        expected: impl Into<String>,
        got: impl ToString,
    ) -> Self {
        Self::Setting { key: key.into(), expected: expected.into(), got: got.to_string() }
    }

    /// An [`Error::Malformed`]. What it quotes of a file may be binary: it is made readable.
    pub fn malformed(
        what: &'static str,
        path: &Path,
        place: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        let (place, reason) = (readable(&place.into()), readable(&reason.into()));
        Self::Malformed { what, path: path.to_path_buf(), place, reason }
    }

    /// An [`Error::Video`] that only another file can fix.
    pub fn video(path: &Path, reason: impl Into<String>) -> Self {
        Self::Video {
            path: path.to_path_buf(),
            reason: reason.into(),
            next: "fetch the file again or leave the clip out".into(),
        }
    }
}

/// The message of a caught panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message").to_owned()
}

fn for_file(path: &Option<PathBuf>) -> String {
    path.as_ref().map_or_else(String::new, |path| format!(": {}", path.display()))
}
