//! The list of skipped clips with reasons, which a check writes and training reads.

use super::Split;
use crate::error::{Error, Result};
use crate::files;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const FORMAT: &str = "skip list";

/// Why a clip is skipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum Reason {
    /// It has no file.
    Missing,
    /// Its file cannot be decoded.
    Undecodable {
        /// The file.
        path: PathBuf,
        /// The file's length when it was checked; another length means another file.
        bytes: u64,
        /// The decoder's error.
        error: String,
    },
}

/// A skipped clip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The clip's id in its data set.
    pub id: String,
    /// Its split.
    pub split: Split,
    /// Why it is skipped.
    #[serde(flatten)]
    pub reason: Reason,
}

/// The skipped clips of a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkipList {
    /// The data set's name.
    pub dataset: String,
    /// The clips, in the annotations' order.
    pub clips: Vec<Skipped>,
}

impl SkipList {
    /// Reads a list that [`Self::save`] wrote.
    ///
    /// # Errors
    /// The file is missing or is no such list.
    pub fn read(path: &Path) -> Result<Self> {
        if !path.is_file() {
            return Err(Error::NotFound {
                what: "skip list",
                path: path.to_path_buf(),
                next: "`experiments data check DIR` writes one".into(),
            });
        }
        super::source::json(path, FORMAT)
    }

    /// Writes the list.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        files::replace_json(path, self)
    }
}

impl Skipped {
    /// Checks that the clip's file is the same as when the list was made; the error is what changed.
    pub(crate) fn still_holds(&self, file: Option<&Path>) -> std::result::Result<(), String> {
        match (&self.reason, file) {
            (Reason::Missing, None) => Ok(()),
            (Reason::Missing, Some(path)) => {
                Err(format!("{} was missing and is there now: {}", self.id, path.display()))
            }
            (Reason::Undecodable { .. }, None) => {
                Err(format!("{} could not be decoded and is missing now", self.id))
            }
            (Reason::Undecodable { bytes, .. }, Some(path)) => match std::fs::metadata(path) {
                Ok(file) if file.len() == *bytes => Ok(()),
                Ok(file) => Err(format!("{} had {bytes} bytes and has {} now", self.id, file.len())),
                Err(error) => Err(format!("{}: {error}", path.display())),
            },
        }
    }
}
