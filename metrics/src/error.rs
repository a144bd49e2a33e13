//! Everything that can be wrong with what a caller hands in. Each message says what, where, and what to do next.

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

    /// Something that cannot happen did.
    #[error("bug in the metrics crate: {what}; please report it")]
    Bug {
        /// What was found.
        what: String,
    },
}
