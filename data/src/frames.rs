//! The decoded frames of a data set, in memory or in shards that are mapped into memory.

use crate::cache::{Contents, FRAMES_VERSION, Item, Shards};
use crate::datasets::Clip;
use crate::datasets::pairs::PairSet;
use crate::digest::sha256_of_files;
use crate::error::{Error, Result};
use crate::progress::{Counter, OnProgress};
use crate::random::RandomStream;
use crate::video::{self, FrameRequest, Frames, Resizing};
use crate::views::ViewRequest;
use rayon::prelude::*;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The chosen frames of every clip, some views of every clip, or every image, decoded and resized once.
///
/// A folder that is given to its functions holds a cache: shards that are named by the request and by the
/// content of the files. Data sets, splits and requests can share a folder.
pub struct FrameStore {
    ids: Vec<String>,
    frames: usize,
    size: usize,
    pixels: Pixels,
}

enum Pixels {
    Memory(Vec<u8>),
    Disk(Shards),
}

impl std::fmt::Debug for FrameStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FrameStore [{}, {}, {}, {}, 3]", self.ids.len(), self.frames, self.size, self.size)
    }
}

/// What [`prepare`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Clips that were decoded.
    pub decoded: usize,
    /// Clips whose frames were in the folder before.
    pub kept: usize,
    /// Bytes of all frames.
    pub bytes: u64,
}

/// Decodes the chosen frames of every clip into shards in `folder`, on all cores, with at most one clip per
/// core in memory. Shards that an interrupted run completed are kept.
///
/// # Errors
/// The first clip that cannot be decoded; a request without a size; a folder that cannot be written.
pub fn prepare(
    clips: &[&Clip],
    request: &FrameRequest,
    folder: &Path,
    on_progress: OnProgress<'_>,
) -> Result<Prepared> {
    let source = Source::of_clips(clips, request)?;
    let kept = source.shards(folder, on_progress)?.kept;
    let bytes = (source.item_bytes() * clips.len()) as u64;
    Ok(Prepared { decoded: clips.len() - kept, kept, bytes })
}

impl FrameStore {
    /// Loads the chosen frames of clips into memory; caches them in `folder`, if there is one.
    ///
    /// # Errors
    /// As [`prepare`].
    pub fn of_clips(
        clips: &[&Clip],
        request: &FrameRequest,
        folder: Option<&Path>,
        on_progress: OnProgress<'_>,
    ) -> Result<Self> {
        Source::of_clips(clips, request)?.in_memory(folder, on_progress)
    }

    /// Maps the chosen frames of clips from `folder`; decodes missing ones first, like [`prepare`].
    ///
    /// # Errors
    /// As [`prepare`].
    pub fn on_disk(
        clips: &[&Clip],
        request: &FrameRequest,
        folder: &Path,
        on_progress: OnProgress<'_>,
    ) -> Result<Self> {
        let source = Source::of_clips(clips, request)?;
        let shards = source.shards(folder, on_progress)?;
        Ok(source.store(Pixels::Disk(shards)))
    }

    /// Draws `views` views of every clip, and keeps them in memory; caches them in `folder`, if there is one.
    /// View `v` of clip `c` is item `c views + v`.
    ///
    /// # Errors
    /// As [`prepare`]; an invalid augmentation.
    pub fn of_views(
        clips: &[&Clip],
        request: &ViewRequest,
        views: usize,
        folder: Option<&Path>,
        on_progress: OnProgress<'_>,
    ) -> Result<Self> {
        Source::of_views(clips, request, views)?.in_memory(folder, on_progress)
    }

    /// Maps `views` views of every clip from `folder`; draws missing ones first.
    ///
    /// # Errors
    /// As [`Self::of_views`].
    pub fn views_on_disk(
        clips: &[&Clip],
        request: &ViewRequest,
        views: usize,
        folder: &Path,
        on_progress: OnProgress<'_>,
    ) -> Result<Self> {
        let source = Source::of_views(clips, request, views)?;
        let shards = source.shards(folder, on_progress)?;
        Ok(source.store(Pixels::Disk(shards)))
    }

    /// Loads every image of a set of pairs into memory, as a clip of one frame; caches them in `folder`, if
    /// there is one.
    ///
    /// # Errors
    /// The first image that cannot be decoded; a size of 0; a folder that cannot be written.
    pub fn of_pairs(
        pairs: &PairSet,
        size: u32,
        resizing: Resizing,
        folder: Option<&Path>,
        on_progress: OnProgress<'_>,
    ) -> Result<Self> {
        let source = Source {
            stage: "decoding images",
            ids: pairs.pairs.iter().map(|pair| pair.id.clone()).collect(),
            // An image is a clip of one frame; its sampling rule has no effect.
            request: Request::Same(FrameRequest { resizing, ..FrameRequest::uniform(1, size) }),
            size: size as usize,
            digests: Box::new(|cache| pairs.digests(cache)),
            decode: Box::new(move |index| {
                let pair = &pairs.pairs[index];
                let image = image::load_from_memory(&pairs.image_bytes(pair)?)
                    .map_err(|error| Error::video(&pairs.location(pair), error.to_string()))?
                    .into_rgb8();
                let (width, height) = (image.width() as usize, image.height() as usize);
                let frame = Frames { count: 1, height, width, data: image.into_raw() };
                Ok(video::resize(&frame, size, resizing)?.data)
            }),
        };
        source.in_memory(folder, on_progress)
    }

    /// The frames of a clip, a view or an image, by its position in [`Self::ids`].
    ///
    /// # Shapes
    /// returns `[f, size, size, 3]`; empty where there is no such clip
    #[must_use]
    pub fn clip(&self, index: usize) -> &[u8] {
        let bytes = self.frames * self.size * self.size * 3;
        match &self.pixels {
            Pixels::Memory(pixels) => pixels.get(index * bytes..(index + 1) * bytes).unwrap_or_default(),
            Pixels::Disk(shards) => shards.item(index),
        }
    }

    /// The ids of the clips, views or images, in the order of [`Self::clip`].
    #[must_use]
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Side of a frame in pixels.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }
}

/// The digest of each item's content; digests of files are cached in the folder.
type Digests<'a> = Box<dyn Fn(&Path) -> Result<Vec<String>> + Sync + 'a>;

/// Which frames of an item are stored. Its JSON form is part of a shard's name.
#[derive(Serialize)]
#[serde(untagged)]
enum Request {
    /// The same for every item, but for random rules, which depend on the clip's id.
    Same(FrameRequest),
    /// Drawn for each view.
    Drawn(ViewRequest),
}

/// Clips, views or images that can be decoded.
struct Source<'a> {
    stage: &'static str,
    ids: Vec<String>,
    request: Request,
    size: usize,
    digests: Digests<'a>,
    /// The frames of an item, `[f, size, size, 3]`.
    decode: Box<dyn Fn(usize) -> Result<Vec<u8>> + Sync + 'a>,
}

impl<'a> Source<'a> {
    fn of_clips(clips: &'a [&'a Clip], request: &FrameRequest) -> Result<Self> {
        let request = *request;
        request.check()?;
        let size = request.size.ok_or_else(|| Error::setting("size", "a number of pixels", "none"))?;
        Ok(Self {
            stage: "decoding clips",
            ids: clips.iter().map(|clip| clip.id.clone()).collect(),
            request: Request::Same(request),
            size: size as usize,
            digests: Box::new(|cache| {
                let paths: Vec<&PathBuf> = clips.iter().map(|clip| &clip.path).collect();
                sha256_of_files(&paths, cache)
            }),
            decode: Box::new(move |index| {
                let clip = clips[index];
                // Random sampling depends on the clip's id, not on its position in the data set.
                let seed = RandomStream::new(request.seed, &clip.id, 0).seed();
                Ok(video::decode(&clip.path, &FrameRequest { seed, ..request })?.data)
            }),
        })
    }

    fn of_views(clips: &'a [&'a Clip], request: &ViewRequest, views: usize) -> Result<Self> {
        let size = request.check()?;
        let request = request.clone();
        let drawn = request.clone();
        let view = move |clip: &&Clip| {
            let id = clip.id.clone();
            (0..views).map(move |view| format!("{id}, view {view}"))
        };
        Ok(Self {
            stage: "drawing views",
            ids: clips.iter().flat_map(view).collect(),
            request: Request::Drawn(request),
            size: size as usize,
            digests: Box::new(move |cache| {
                let paths: Vec<&PathBuf> = clips.iter().map(|clip| &clip.path).collect();
                let each = sha256_of_files(&paths, cache)?;
                Ok(each.into_iter().flat_map(|digest| std::iter::repeat_n(digest, views)).collect())
            }),
            // live views have epochs from 1, so these are no view of an epoch
            decode: Box::new(move |index| {
                Ok(drawn.draw(clips[index / views], 0, (index % views) as u64)?.data)
            }),
        })
    }

    fn frames(&self) -> usize {
        match &self.request {
            Request::Same(request) => request.frames,
            Request::Drawn(views) => views.request.frames,
        }
    }

    fn item_bytes(&self) -> usize {
        self.frames() * self.size * self.size * 3
    }

    fn shards(&self, folder: &Path, on_progress: OnProgress<'_>) -> Result<Shards> {
        let digests = (self.digests)(folder)?;
        let items = self.ids.iter().zip(digests).map(|(id, content)| Item { id: id.clone(), content });
        let settings = (FRAMES_VERSION, self.stage, &self.request);
        let contents = Contents::new("frames", self.item_bytes(), &settings, items.collect())?;
        contents.open(folder, self.stage, on_progress, |writer, range, counter| {
            range.clone().into_par_iter().try_for_each(|index| {
                writer.put(index - range.start, &(self.decode)(index)?)?;
                counter.add(1);
                Ok(())
            })
        })
    }

    fn in_memory(self, folder: Option<&Path>, on_progress: OnProgress<'_>) -> Result<FrameStore> {
        let bytes = self.item_bytes();
        let mut pixels = vec![0; self.ids.len() * bytes];
        let places = pixels.par_chunks_exact_mut(bytes.max(1)).enumerate();
        match folder {
            Some(folder) => {
                let shards = self.shards(folder, on_progress)?;
                places.for_each(|(index, place)| place.copy_from_slice(shards.item(index)));
            }
            None => {
                let counter = Counter::new(self.stage, self.ids.len(), on_progress);
                places.try_for_each(|(index, place)| {
                    place.copy_from_slice(&(self.decode)(index)?);
                    counter.add(1);
                    Ok::<(), Error>(())
                })?;
            }
        }
        Ok(self.store(Pixels::Memory(pixels)))
    }

    fn store(self, pixels: Pixels) -> FrameStore {
        FrameStore { frames: self.frames(), ids: self.ids, size: self.size, pixels }
    }
}
