//! The tiny world: short clips of one or two simple objects, made here, whose truth is known to the last detail. A model
//! small enough for a laptop can learn to describe it, and one can tell whether it sees or only sounds right.
//!
//! In the order of making: [`config`] says what and how much, [`scene`] draws contents, `render` paints frames,
//! `words` and `grammar` make captions, `questions` asks, `write` puts files on disk, and [`reading`] reads captions
//! back.

pub mod config;
mod grammar;
mod questions;
pub mod reading;
mod render;
pub mod scene;
mod words;
mod write;

pub use config::WorldConfig;
pub use grammar::{text_corpus, vocabulary};
pub use questions::{Exercise, QuestionKind, question_corpus};
pub use reading::{ChanceLevels, Judgement, Reading, chance_levels, judge, judge_picture, read};
pub use write::synthesize;

use super::pairs::{self, PairSet};
use super::{Split, VideoSet, files, msrvtt};
use crate::error::{Error, Result};
use crate::progress::OnProgress;
use scene::{Picture, Scene};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const TRUTH: &str = "world.json";
const ANNOTATIONS: &str = "videodatainfo.json";
const VIDEOS: &str = "videos";
const PAIRS: &str = "pairs";

/// The file of a split's questions, called as MSRVTT-QA calls it.
fn question_file(split: Split) -> &'static str {
    match split {
        Split::Train => "train_qa.json",
        Split::Validate => "val_qa.json",
        Split::Test => "test_qa.json",
    }
}

/// A clip's content, by the clip's id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClipTruth {
    /// The clip's name in the annotations.
    pub id: String,
    /// What it is used for.
    pub split: Split,
    /// What it shows.
    pub scene: Scene,
}

/// A held-out image's content, by the pair's id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PictureTruth {
    /// The pair's name.
    pub id: String,
    /// What it shows.
    pub picture: Picture,
}

/// What `world.json` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Truth {
    hash: String,
    config: WorldConfig,
    clips: Vec<ClipTruth>,
    held_out_pairs: Vec<PictureTruth>,
    /// The kinds of the questions, which are numbered in this order. Older generators asked none; their worlds are to be
    /// refused for their hash.
    #[serde(default)]
    questions: Vec<QuestionKind>,
}

/// A world on disk.
#[derive(Clone, Debug)]
pub struct World {
    directory: PathBuf,
    truth: Truth,
}

impl World {
    /// Opens a world.
    ///
    /// # Errors
    /// There is none, or its `world.json` is broken or of another generator.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join(TRUTH);
        let bytes = std::fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound {
                what: "tiny world (no world.json)",
                path: directory.to_path_buf(),
                next: "make one with `experiments data synthesize`".into(),
            },
            _ => Error::io("read the world", &path)(error),
        })?;
        let truth: Truth = serde_json::from_slice(&bytes).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            Error::malformed("tiny world", &path, place, error.to_string())
        })?;
        let expected = truth.config.hash();
        if truth.hash != expected {
            let reason = format!(
                "made by another version: this one would make {expected} of its configuration, not {}; make it anew",
                truth.hash
            );
            return Err(Error::malformed("tiny world", &path, "hash", reason));
        }
        Ok(Self { directory: directory.to_path_buf(), truth })
    }

    /// Opens the world of this configuration in a cache directory, and makes it first where it is not there yet.
    ///
    /// # Errors
    /// As [`Self::open`] and [`synthesize`].
    pub fn open_or_make(config: &WorldConfig, cache: &Path, on_progress: OnProgress<'_>) -> Result<Self> {
        let directory = cache.join(format!("world-{}", config.hash()));
        if directory.join(TRUTH).is_file() {
            return Self::open(&directory);
        }
        synthesize(config, &directory, on_progress)
    }

    /// Where it lies.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What it was made from.
    #[must_use]
    pub fn config(&self) -> &WorldConfig {
        &self.truth.config
    }

    /// The configuration's hash, which names the world's content.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.truth.hash
    }

    /// The clips, read from its MSR-VTT annotations like any other data set's.
    ///
    /// # Errors
    /// As [`msrvtt::load`].
    pub fn videos(&self) -> Result<VideoSet> {
        let set = msrvtt::load(&self.directory.join(ANNOTATIONS), &self.directory.join(VIDEOS))?;
        Ok(VideoSet { name: "tiny".into(), ..set })
    }

    /// The clips with their questions, read from its files like any other data set's.
    ///
    /// # Errors
    /// As [`super::questions::read_msrvtt`]; [`Error::MissingClips`] listing every clip without a file.
    pub fn questions(&self) -> Result<VideoSet> {
        let paths = Split::ALL.map(|split| self.directory.join(question_file(split)));
        let annotations = super::questions::read_msrvtt(&paths.each_ref().map(PathBuf::as_path))?;
        let set = files::locate_all(annotations, &self.directory.join(VIDEOS))?;
        Ok(VideoSet { name: "tiny-qa".into(), ..set })
    }

    /// What a question of [`Self::questions`] is about, by its id.
    #[must_use]
    pub fn question_kind(&self, id: &str) -> Option<QuestionKind> {
        self.truth.questions.get(id.parse::<usize>().ok()?).copied()
    }

    /// The image-text pairs of `Train`, or the held-out ones of `Validate`.
    ///
    /// # Errors
    /// As [`pairs::load`]; there are no pairs of `Test`.
    pub fn pairs(&self, split: Split) -> Result<PairSet> {
        pairs::load(&pairs::shards(&self.directory.join(PAIRS), split.name())?)
    }

    /// What the clips of a split show, in the annotations' order.
    pub fn truths(&self, split: Split) -> impl Iterator<Item = &ClipTruth> {
        self.truth.clips.iter().filter(move |truth| truth.split == split)
    }

    /// What one clip shows.
    #[must_use]
    pub fn truth(&self, id: &str) -> Option<&ClipTruth> {
        self.truth.clips.iter().find(|truth| truth.id == id)
    }

    /// What the held-out images show, in the order of `pairs(Split::Validate)`.
    #[must_use]
    pub fn held_out_pictures(&self) -> &[PictureTruth] {
        &self.truth.held_out_pairs
    }
}
