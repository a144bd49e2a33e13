//! A tiny world on disk, opened as a data set with known scenes.

use super::config::WorldConfig;
use super::questions::QuestionKind;
use super::scene::{Picture, Scene};
use crate::datasets::pairs::{self, PairSet};
use crate::datasets::{Split, VideoSet, files, msrvtt, questions, source};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

pub(super) const TRUTH: &str = "world.json";
pub(super) const ANNOTATIONS: &str = "videodatainfo.json";
pub(super) const VIDEOS: &str = "videos";
pub(super) const PAIRS: &str = "pairs";

/// The file of a split's questions, named as in MSRVTT-QA.
pub(super) fn question_file(split: Split) -> &'static str {
    match split {
        Split::Train => "train_qa.json",
        Split::Validate => "val_qa.json",
        Split::Test => "test_qa.json",
    }
}

/// The scene of a clip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClipTruth {
    /// The clip's id in the annotations.
    pub id: String,
    /// Its split.
    pub split: Split,
    /// Its content.
    pub scene: Scene,
}

/// The content of a held-out image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PictureTruth {
    /// The pair's id.
    pub id: String,
    /// Its content.
    pub picture: Picture,
}

/// The content of `world.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Truth {
    pub(super) hash: String,
    pub(super) config: WorldConfig,
    pub(super) clips: Vec<ClipTruth>,
    pub(super) held_out_pairs: Vec<PictureTruth>,
    /// The kinds of the questions, indexed by question id. Older worlds have none; their hash is refused.
    #[serde(default)]
    pub(super) questions: Vec<QuestionKind>,
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
    /// The directory has no `world.json`, or the file is broken or of another version of the generator.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join(TRUTH);
        let bytes = std::fs::read(&path).map_err(Error::open(
            "read the world",
            &path,
            "tiny world (no world.json)",
            "make one with `experiments data synthesize`",
        ))?;
        let truth: Truth = source::parse(&bytes, &path, "tiny world")?;
        let expected = truth.config.hash();
        if truth.hash != expected {
            let reason = format!(
                "made by another version: this version gives {expected} for its configuration, not {}; make it again",
                truth.hash
            );
            return Err(Error::malformed("tiny world", &path, "hash", reason));
        }
        Ok(Self { directory: directory.to_path_buf(), truth })
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &WorldConfig {
        &self.truth.config
    }

    /// The configuration's hash, see [`WorldConfig::hash`].
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.truth.hash
    }

    /// The clips with their captions, read from annotations in MSR-VTT's format.
    ///
    /// # Errors
    /// As [`msrvtt::load`].
    pub fn videos(&self) -> Result<VideoSet> {
        let set = msrvtt::load(&self.directory.join(ANNOTATIONS), &self.directory.join(VIDEOS))?;
        Ok(VideoSet { name: "tiny".into(), ..set })
    }

    /// The clips with their questions, read from files in MSRVTT-QA's format.
    ///
    /// # Errors
    /// As [`questions::read_msrvtt`]; [`Error::MissingClips`] with every clip that has no file.
    pub fn questions(&self) -> Result<VideoSet> {
        let paths = Split::ALL.map(|split| self.directory.join(question_file(split)));
        let annotations = questions::read_msrvtt(&paths.each_ref().map(PathBuf::as_path))?;
        let set = files::locate_all(annotations, &self.directory.join(VIDEOS))?;
        Ok(VideoSet { name: "tiny-qa".into(), ..set })
    }

    /// The kind of a question of [`Self::questions`], by its id.
    #[must_use]
    pub fn question_kind(&self, id: &str) -> Option<QuestionKind> {
        self.truth.questions.get(id.parse::<usize>().ok()?).copied()
    }

    /// The image-text pairs of `Train`, or the held-out ones of `Validate`.
    ///
    /// # Errors
    /// As [`pairs::load`]; `Test` has no pairs.
    pub fn pairs(&self, split: Split) -> Result<PairSet> {
        pairs::load(&pairs::shards(&self.directory.join(PAIRS), split.name())?)
    }

    /// The scenes of a split's clips, in the annotations' order.
    pub fn truths(&self, split: Split) -> impl Iterator<Item = &ClipTruth> {
        self.truth.clips.iter().filter(move |truth| truth.split == split)
    }

    /// The scene of a clip.
    #[must_use]
    pub fn truth(&self, id: &str) -> Option<&ClipTruth> {
        self.truth.clips.iter().find(|truth| truth.id == id)
    }

    /// The content of the held-out images, in the order of `pairs(Split::Validate)`.
    #[must_use]
    pub fn held_out_pictures(&self) -> &[PictureTruth] {
        &self.truth.held_out_pairs
    }
}
