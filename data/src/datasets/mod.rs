//! Which clips and captions there are: published data sets in their own formats, and one that we make ourselves.

pub mod msrvtt;
pub mod pairs;
pub mod synthetic;

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a clip is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Learning.
    Train,
    /// Choosing among checkpoints.
    Validate,
    /// The reported score.
    Test,
}

impl Split {
    /// Every split.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validate, Self::Test];

    /// The split's name in MSR-VTT's annotations and in ours.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validate => "validate",
            Self::Test => "test",
        }
    }
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A video file and what people said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clip {
    /// The clip's name in its data set.
    pub id: String,
    /// Its file.
    pub path: PathBuf,
    /// Its captions, as published.
    pub captions: Vec<String>,
    /// What it is used for.
    pub split: Split,
}

/// A data set of clips, in the annotations' order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoSet {
    /// The data set's name.
    pub name: String,
    /// Every clip of every split.
    pub clips: Vec<Clip>,
}

impl VideoSet {
    /// The clips of one split, in order.
    #[must_use]
    pub fn split(&self, split: Split) -> Vec<&Clip> {
        self.clips.iter().filter(|clip| clip.split == split).collect()
    }
}
