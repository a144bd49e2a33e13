//! The clips of a run: the tiny world's, made on demand, or those of a data set on disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use data::datasets::splits::Splits;
use data::datasets::synthetic::World;
use data::datasets::{Clip, DataSet, Place, Split, VideoSet, open};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::{RunConfig, hex};
use crate::examples::Videos;
use crate::frames::FrameSource;
use crate::judge::CaptionJudge;
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
    pub fn place(&self) -> Place {
        let beside = self.directory.join(SKIP_LIST);
        Place {
            dataset: self.name,
            annotations: self.annotations.clone().unwrap_or_else(|| self.directory.clone()),
            videos: self.directory.clone(),
            splits: Splits { own: self.own_split || self.name == DataSet::Own, ..Splits::default() },
            skip: self.skip_list.clone().or_else(|| beside.is_file().then_some(beside)),
        }
    }
}

/// Clips with the frames that a configuration asks for.
pub struct Clips {
    world: Option<World>,
    set: VideoSet,
    hash: String,
    frames: [Arc<FrameSource>; 3],
}

impl Clips {
    /// Opens or makes the clips, and decodes the chosen frames at the model's size, or finds them in `cache`.
    ///
    /// # Errors
    /// When files cannot be written or read, or a clip cannot be decoded.
    pub fn load(config: &RunConfig, size: usize, cache: &Path) -> anyhow::Result<Self> {
        let (world, set, hash) = match &config.dataset {
            Some(dataset) => {
                let set = open(&dataset.place())?;
                for split in Split::ALL {
                    eprintln!("{:<9} {}", split.name(), set.account(split));
                }
                let hash = hash_of(&set);
                (None, set, hash)
            }
            None => {
                let world = world::make(&config.world, cache)?;
                let (set, hash) = (world.videos()?, world.hash().to_owned());
                (Some(world), set, hash)
            }
        };
        let shown = Shown::default();
        let decode = |split: Split| {
            let clips = set.split(split);
            ensure!(!clips.is_empty(), "{} has no clips in its split {split}", set.name);
            let trains = split == Split::Train;
            FrameSource::open(&clips, &config.frames, size, trains, cache, &|progress| shown.update(progress))
                .with_context(|| format!("cannot read the {split} clips of {}", set.name))
                .map(Arc::new)
        };
        let frames = [decode(Split::Train)?, decode(Split::Validate)?, decode(Split::Test)?];
        shown.finish();
        Ok(Self { world, set, hash, frames })
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
    pub fn frames(&self, split: Split) -> &Arc<FrameSource> {
        let [train, validate, test] = &self.frames;
        match split {
            Split::Train => train,
            Split::Validate => validate,
            Split::Test => test,
        }
    }

    /// What is seen of a split's clips.
    pub fn videos(&self, split: Split, config: &RunConfig, size: usize) -> Videos {
        Videos::new(self.frames(split).clone(), config.frames.preprocess(size))
    }

    /// Scores captions of a split.
    ///
    /// # Errors
    /// When METEOR's tables are there and damaged.
    pub fn judge(&self, split: Split) -> Result<CaptionJudge, metrics::Error> {
        CaptionJudge::new(self.world.as_ref(), &self.clips(split), split == Split::Test)
    }
}

/// Names a data set: its clips, their captions and the length of their files.
fn hash_of(set: &VideoSet) -> String {
    let mut hash = Sha256::new();
    for clip in &set.clips {
        let bytes = std::fs::metadata(&clip.path).map_or(0, |file| file.len());
        hash.update(format!("{} {} {bytes}\n{}\n", clip.id, clip.split, clip.captions.join("\n")));
    }
    hex(&hash.finalize())
}
