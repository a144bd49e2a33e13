//! The clips of a run: the tiny world's, made on demand, or those of a data set on disk.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, ensure};
use data::datasets::splits::Splits;
use data::datasets::{Clip, DataSet, DatasetPaths, Split, VideoSet, open};
use data::tiny_world::World;
use serde::{Deserialize, Serialize};
use train::TrainError;

use crate::answering::{self, AnswerScorer};
use crate::config::{FrameConfig, RunConfig};
use crate::examples::Videos;
use crate::frames::FrameSource;
use crate::judge::CaptionScorer;
use crate::world::{self, Shown};

/// File of the clips that training leaves out, beside the clips; `data check` writes it.
pub const SKIP_LIST: &str = "skip.json";

/// A data set on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetConfig {
    /// Which one it is.
    pub name: DataSet,
    /// Folder of its videos, and of its annotation files unless `annotations` names them.
    pub directory: PathBuf,
    /// The annotation file, or the folder of annotation files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<PathBuf>,
    /// Whether the annotations' split is taken as it is, whatever the official one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_split: bool,
    /// The list of clips to leave out; `skip.json` in the directory where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_list: Option<PathBuf>,
}

impl DatasetConfig {
    /// Where the data set lies.
    pub fn place(&self) -> DatasetPaths {
        let beside = self.directory.join(SKIP_LIST);
        DatasetPaths {
            dataset: self.name,
            annotations: self.annotations.clone().unwrap_or_else(|| self.directory.clone()),
            videos: self.directory.clone(),
            splits: Splits { own: self.own_split || self.name == DataSet::Own, ..Splits::default() },
            skip: self.skip_list.clone().or_else(|| beside.is_file().then_some(beside)),
        }
    }
}

/// Clips with the frames that a configuration asks for; a split's are decoded when they are first asked for.
pub struct Clips {
    world: Option<World>,
    set: VideoSet,
    hash: String,
    request: FrameConfig,
    size: usize,
    cache: PathBuf,
    frames: [OnceLock<Arc<FrameSource>>; 3],
}

impl Clips {
    /// Opens or makes the clips, whose frames have the model's size and are kept in `cache`.
    ///
    /// # Errors
    /// When files cannot be written or read.
    pub fn load(config: &RunConfig, size: usize, cache: &Path) -> anyhow::Result<Self> {
        let (world, set, hash) = match &config.dataset {
            Some(dataset) => {
                let set = open(&dataset.place())?;
                for split in Split::ALL {
                    eprintln!("{:<9} {}", split.name(), set.usage(split));
                }
                let hash = set.content_hash(&cache.join("frames"))?;
                (None, set, hash)
            }
            None => {
                let world = world::make(&config.world, cache)?;
                let set = if config.answering.is_some() { world.questions()? } else { world.videos()? };
                let hash = world.hash().to_owned();
                (Some(world), set, hash)
            }
        };
        let request = config.frames.clone();
        Ok(Self { world, set, hash, request, size, cache: cache.to_owned(), frames: Default::default() })
    }

    /// The data set's name.
    pub fn name(&self) -> &str {
        &self.set.name
    }

    /// Names what there is to be seen and said.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The tiny world, where the clips are its.
    pub fn world(&self) -> Option<&World> {
        self.world.as_ref()
    }

    /// The clips of a split, in the frames' order.
    pub fn clips(&self, split: Split) -> Vec<&Clip> {
        self.set.split(split)
    }

    /// The frames of a split.
    ///
    /// # Errors
    /// When the split is empty, or a clip cannot be decoded.
    pub fn frames(&self, split: Split) -> anyhow::Result<&Arc<FrameSource>> {
        let [train, validate, test] = &self.frames;
        let place = match split {
            Split::Train => train,
            Split::Validate => validate,
            Split::Test => test,
        };
        if let Some(frames) = place.get() {
            return Ok(frames);
        }
        let clips = self.clips(split);
        ensure!(!clips.is_empty(), "{} has no clips in its split {split}", self.set.name);
        let (shown, trains) = (Shown::default(), split == Split::Train);
        let show = |progress| shown.update(progress);
        let frames = FrameSource::open(&clips, &self.request, self.size, trains, &self.cache, &show)
            .with_context(|| format!("cannot read the {split} clips of {}", self.set.name))?;
        shown.finish();
        Ok(place.get_or_init(|| Arc::new(frames)))
    }

    /// What is seen of a split's clips.
    ///
    /// # Errors
    /// As [`frames`](Self::frames).
    pub fn videos(&self, split: Split) -> anyhow::Result<Videos> {
        Ok(Videos::new(self.frames(split)?.clone(), self.request.preprocess(self.size)))
    }

    /// Scores answers to the questions about a split.
    ///
    /// # Errors
    /// When a question is not one of the tiny world, where the clips are its.
    pub fn answer_scorer(&self, split: Split) -> Result<AnswerScorer, TrainError> {
        answering::judge(self.world.as_ref(), &self.clips(split))
    }

    /// Scores captions of a split.
    ///
    /// # Errors
    /// When METEOR's tables are there and damaged.
    pub fn judge(&self, split: Split) -> Result<CaptionScorer, metrics::Error> {
        CaptionScorer::new(self.world.as_ref(), &self.clips(split), split == Split::Test)
    }
}
