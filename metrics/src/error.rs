//! Everything that can be wrong with what a caller hands in. Each message says what, where, and what to do next.

use std::path::{Path, PathBuf};

/// An input the metrics refuse. No input reaches a panic.
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
        /// The id met for the second time.
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

    /// The reward was to take document frequencies from the training split, of which there is nothing.
    #[error(
        "the reward needs the references of the training split for its document frequencies and got none"
    )]
    NoTrainingReferences,

    /// METEOR needs tables that are not part of this project.
    #[error(
        "no METEOR tables in {}: expected {} there; `make meteor-data` fetches it (or, where pip works: pip download \
         pycocoevalcap==1.2 --no-deps -d {})",
        directory.display(), crate::meteor::WHEEL, directory.display()
    )]
    NoMeteorTables {
        /// Where they were looked for.
        directory: PathBuf,
    },

    /// The wheel with METEOR's tables is not the one every published score was made with.
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

    /// METEOR's tables can't be read.
    #[error("{}: {what}; delete it and run `make meteor-data`", path.display())]
    BadTables {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },

    /// A file is not what it should be.
    #[error("{}: {place}: expected {expected}, got {got}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where in it.
        place: String,
        /// What should be there.
        expected: String,
        /// What is there.
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

    /// Predictions and references are not about the same videos.
    #[error(
        "predictions and references are about different videos: {common} in common; without prediction {without_prediction}; \
         without references {without_references}; pass --partial to score those in common"
    )]
    IdsDiffer {
        /// How many, and which.
        without_prediction: String,
        /// How many, and which.
        without_references: String,
        /// How many ids both have.
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

    /// The file system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },

    /// Something that cannot happen did.
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
