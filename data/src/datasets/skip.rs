//! The clips that are left out, each with the reason: what a check writes and training reads, so that both leave out
//! the same ones.

use super::{Annotated, Split};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const FORMAT: &str = "skip list";

/// Why a clip is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum Reason {
    /// There is no file for it.
    Missing,
    /// Its file cannot be decoded.
    Undecodable {
        /// The file.
        path: PathBuf,
        /// The file's length when it was tried: another one is another file.
        bytes: u64,
        /// What the decoder said.
        error: String,
    },
}

/// A clip that is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The clip's name in its data set.
    pub id: String,
    /// Its split.
    pub split: Split,
    /// Why it is left out.
    #[serde(flatten)]
    pub reason: Reason,
}

/// Every clip of a data set that is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkipList {
    /// The data set's name.
    pub dataset: String,
    /// The clips, in the annotations' order.
    pub clips: Vec<Skipped>,
}

impl SkipList {
    /// Reads a list that [`Self::write`] wrote.
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

    /// Writes the list, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::malformed(FORMAT, path, "the list", error.to_string()))?;
        crate::store::write_whole(path, &text)
    }

    /// The clips of this list by their ids.
    #[must_use]
    pub fn by_id(&self) -> HashMap<&str, &Skipped> {
        self.clips.iter().map(|skipped| (skipped.id.as_str(), skipped)).collect()
    }
}

impl Skipped {
    /// Whether the clip's file is still as it was when the list was made.
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

    /// A clip without a file.
    #[must_use]
    pub fn missing(clip: &Annotated) -> Self {
        Self { id: clip.id.clone(), split: clip.split, reason: Reason::Missing }
    }
}
