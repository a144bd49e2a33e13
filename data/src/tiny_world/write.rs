//! Makes a world on disk: clips, annotations, questions, image-text pairs and scenes. The directory has a
//! temporary name until it is complete.

use super::config::WorldConfig;
use super::draw::Combinations;
use super::grammar::{clip_captions, image_caption};
use super::questions::{Asker, QuestionKind};
use super::render;
use super::scene::{Picture, Scene};
use super::world::{ANNOTATIONS, ClipTruth, PAIRS, PictureTruth, TRUTH, Truth, VIDEOS, World, question_file};
use crate::datasets::Split;
use crate::error::{Error, Result};
use crate::files;
use crate::progress::{Counter, OnProgress};
use crate::random::RandomStream;
use crate::video::encode;
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use rayon::prelude::*;
use serde_json::json;
use std::collections::HashSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

/// Pairs in a shard; one thread makes a shard at a time.
const SHARD: usize = 2000;
/// High enough to preserve the pixel noise.
const JPEG_QUALITY: u8 = 92;

impl World {
    /// Opens the world of this configuration in a cache directory; makes it first if it does not exist yet.
    ///
    /// # Errors
    /// As [`World::open`] and [`synthesize`].
    pub fn open_or_make(config: &WorldConfig, cache: &Path, on_progress: OnProgress<'_>) -> Result<Self> {
        let directory = cache.join(format!("world-{}", config.hash()));
        if directory.join(TRUTH).is_file() {
            return Self::open(&directory);
        }
        synthesize(config, &directory, on_progress)
    }
}

/// Makes a world in `directory`, which must be new or empty. It appears when the world is complete.
///
/// # Errors
/// An invalid configuration; a directory that holds files or cannot be written; a missing GStreamer plug-in.
pub fn synthesize(config: &WorldConfig, directory: &Path, on_progress: OnProgress<'_>) -> Result<World> {
    config.validate()?;
    if directory.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        let got = format!("{}, which holds files", directory.display());
        return Err(Error::setting("output directory", "new or empty; remove it or choose another", got));
    }
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(Error::io("make the directory", parent))?;
    let unfinished = files::temporary_directory(parent, ".unfinished-world-")?;

    let clips = draw_clips(config)?;
    write_clips(config, &clips, &unfinished.path().join(VIDEOS), on_progress)?;
    write_annotations(config, &clips, &unfinished.path().join(ANNOTATIONS))?;
    let questions = write_questions(config, &clips, unfinished.path())?;
    let pairs = unfinished.path().join(PAIRS);
    std::fs::create_dir(&pairs).map_err(Error::io("make the directory", &pairs))?;
    write_pairs(config, Split::Train, &pairs, on_progress)?;
    write_pairs(config, Split::Validate, &pairs, on_progress)?;
    let held_out = (0..config.pairs.validate)
        .map(|index| PictureTruth {
            id: pair_id(Split::Validate, index),
            picture: pair_picture(config, Split::Validate, index).1,
        })
        .collect();
    let truth =
        Truth { hash: config.hash(), config: config.clone(), clips, held_out_pairs: held_out, questions };
    write_json(&unfinished.path().join(TRUTH), &truth)?;

    if directory.exists() {
        // fails where another process has made the world since: then the renaming below fails too
        let _ = std::fs::remove_dir(directory);
    }
    let unfinished = unfinished.keep();
    if let Err(error) = std::fs::rename(&unfinished, directory) {
        // Another process may have made the same world in the meantime; that one is equal.
        std::fs::remove_dir_all(&unfinished).map_err(Error::io("remove the directory", &unfinished))?;
        return World::open(directory)
            .map_err(|_| Error::io("rename the finished world to", directory)(error));
    }
    World::open(directory)
}

/// The clips of every split. Held-out clips are drawn again until they differ from all others.
fn draw_clips(config: &WorldConfig) -> Result<Vec<ClipTruth>> {
    let mut clips: Vec<ClipTruth> = Vec::new();
    let mut seen = HashSet::new();
    let counts = [config.clips.train, config.clips.validate, config.clips.test];
    for (split, count) in Split::ALL.into_iter().zip(counts) {
        for index in 0..count {
            let mut random = RandomStream::new(config.seed, &format!("world: {split} clip"), index as u64);
            let combinations = match split {
                Split::Train => Combinations::Trained,
                _ if index % 2 == 1 => Combinations::HeldOutColours,
                _ => Combinations::TrainedColours,
            };
            let draw = |random: &mut RandomStream| {
                Scene::draw(random, &config.scenes, combinations, (config.shortest, config.longest))
            };
            let scene = (0..1000)
                .map(|_| draw(&mut random))
                .find(|scene| split == Split::Train || !seen.contains(&scene.key()))
                .ok_or_else(|| {
                    let got = format!("{count} {split} clips beside {} others", clips.len());
                    Error::setting("clips", "few enough for each held-out clip to be new", got)
                })?;
            seen.insert(scene.key());
            clips.push(ClipTruth { id: format!("video{}", clips.len()), split, scene });
        }
    }
    Ok(clips)
}

fn write_clips(
    config: &WorldConfig,
    clips: &[ClipTruth],
    directory: &Path,
    on_progress: OnProgress<'_>,
) -> Result<()> {
    std::fs::create_dir(directory).map_err(Error::io("make the directory", directory))?;
    let counter = Counter::new("rendering clips", clips.len(), on_progress);
    clips.par_iter().enumerate().try_for_each(|(index, clip)| {
        let mut random = RandomStream::new(config.seed, "world: pixel noise of clip", index as u64);
        let frames = render::clip(&clip.scene, config.size, config.noise, &mut random);
        let path = directory.join(format!("{}.webm", clip.id));
        encode::write(&path, (config.size, config.size), config.fps, &frames, encode::WEBM_VP8)?;
        counter.add(1);
        Ok(())
    })
}

fn write_annotations(config: &WorldConfig, clips: &[ClipTruth], path: &Path) -> Result<()> {
    let mut videos = Vec::with_capacity(clips.len());
    let mut sentences = Vec::with_capacity(clips.len() * config.captions);
    for (index, clip) in clips.iter().enumerate() {
        let mut random = RandomStream::new(config.seed, "world: captions of clip", index as u64);
        videos.push(json!({
            "category": 0,
            "url": "",
            "video_id": clip.id,
            "start time": 0.0,
            "end time": clip.scene.frames as f64 / f64::from(config.fps),
            "split": clip.split.name(),
            "id": index,
        }));
        for caption in clip_captions(&clip.scene, &config.clip_captions, config.captions, &mut random)? {
            sentences.push(json!({"caption": caption, "video_id": clip.id, "sen_id": sentences.len()}));
        }
    }
    let info = json!({"description": "Recap's tiny world", "version": config.hash()});
    write_json(path, &json!({"info": info, "videos": videos, "sentences": sentences}))
}

/// Writes one file of questions per split, in MSRVTT-QA's format; returns the kinds of all questions.
fn write_questions(config: &WorldConfig, clips: &[ClipTruth], directory: &Path) -> Result<Vec<QuestionKind>> {
    let mut kinds = Vec::new();
    for split in Split::ALL {
        let mut asker = Asker::default();
        let mut records = Vec::new();
        for (index, clip) in clips.iter().enumerate().filter(|(_, clip)| clip.split == split) {
            let mut random = RandomStream::new(config.seed, "world: questions of clip", index as u64);
            for asked in asker.ask(&clip.scene, config.questions, &mut random) {
                records.push(json!({
                    "answer": asked.answer,
                    "category_id": 0,
                    "id": kinds.len(),
                    "question": asked.text,
                    "video_id": index,
                }));
                kinds.push(asked.kind);
            }
        }
        write_json(&directory.join(question_file(split)), &records)?;
    }
    Ok(kinds)
}

fn write_pairs(
    config: &WorldConfig,
    split: Split,
    directory: &Path,
    on_progress: OnProgress<'_>,
) -> Result<()> {
    let (stage, count) = match split {
        Split::Train => ("drawing image-text pairs", config.pairs.train),
        _ => ("drawing held-out pairs", config.pairs.validate),
    };
    let counter = Counter::new(stage, count, on_progress);
    (0..count.div_ceil(SHARD)).into_par_iter().try_for_each(|shard| {
        let path = directory.join(format!("{}-{shard:05}.tar", split.name()));
        let file = File::create_new(&path).map_err(Error::io("write the shard", &path))?;
        let mut archive = tar::Builder::new(BufWriter::new(file));
        let indices = shard * SHARD..((shard + 1) * SHARD).min(count);
        for index in indices.clone() {
            let (mut random, picture) = pair_picture(config, split, index);
            let caption = image_caption(&picture, &config.image_captions, &mut random);
            let jpeg =
                jpeg(&render::picture(&picture, config.size, config.noise, &mut random), config.size, &path)?;
            let id = pair_id(split, index);
            for (name, data) in
                [(format!("{id}.jpg"), jpeg.as_slice()), (format!("{id}.txt"), caption.as_bytes())]
            {
                append(&mut archive, &name, data).map_err(Error::io("write the shard", &path))?;
            }
        }
        archive.finish().map_err(Error::io("write the shard", &path))?;
        counter.add(indices.len());
        Ok(())
    })
}

fn pair_id(split: Split, index: usize) -> String {
    format!("{}-{index:06}", split.name())
}

/// The content of a pair's image, and its random stream. Two thirds of the held-out images have one object.
fn pair_picture(config: &WorldConfig, split: Split, index: usize) -> (RandomStream, Picture) {
    let mut random = RandomStream::new(config.seed, &format!("world: {split} pair"), index as u64);
    let objects = (split != Split::Train).then_some(if index % 3 < 2 { 1 } else { 2 });
    let picture = Picture::draw(&mut random, &config.scenes, Combinations::Any, objects);
    (random, picture)
}

fn jpeg(pixels: &[u8], size: u32, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
        .write_image(pixels, size, size, ExtendedColorType::Rgb8)
        .map_err(|error| Error::Encode { path: path.to_path_buf(), reason: error.to_string() })?;
    Ok(bytes)
}

/// Adds a file without owner and date, so that a shard's bytes depend on its content only.
fn append(archive: &mut tar::Builder<BufWriter<File>>, name: &str, data: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, data)
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let file = File::create_new(path).map_err(Error::io("write", path))?;
    let mut file = BufWriter::new(file);
    serde_json::to_writer(&mut file, value)
        .map_err(std::io::Error::from)
        .and_then(|()| std::io::Write::flush(&mut file))
        .map_err(Error::io("write", path))
}
