//! Data sets: published ones in their own formats, and a user's own clips.
//!
//! Annotations and videos have different sources, and videos are often missing. [`Annotations`] hold what a
//! data set publishes, [`open`] finds the file of every clip, and [`VideoSet::skipped`] lists the clips
//! without one.

pub mod decodable;
pub mod files;
pub mod images;
pub mod msrvtt;
pub mod msvd;
mod open;
pub mod own;
pub mod pairs;
pub mod questions;
mod repeated;
mod shard_members;
pub mod shards;
pub mod skip;
pub mod source;
pub mod splits;
#[cfg(test)]
mod testing;
pub mod vatex;

pub use open::{DataSet, DatasetPaths, annotations, open};

use crate::digest;
use crate::error::{Error, Result};
use crate::format::thousands;
use decodable::Undecodable;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use skip::{Reason, Skipped};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The use of a clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Training.
    Train,
    /// Selection of checkpoints.
    Validate,
    /// Reported scores.
    Test,
}

impl Split {
    /// Every split.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validate, Self::Test];

    /// The split's name in MSR-VTT's annotations and in Recap.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validate => "validate",
            Self::Test => "test",
        }
    }

    /// The split with this name, in any spelling of the published data sets.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Self::Train),
            "validate" | "val" | "validation" | "valid" | "dev" => Some(Self::Validate),
            "test" | "testing" => Some(Self::Test),
            _ => None,
        }
    }

    /// The split in a file's name, such as `vatex_validation_v1.0.json`; `None` without exactly one.
    #[must_use]
    pub fn of_file(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let mut splits = name
            .split(|c: char| !c.is_ascii_alphabetic())
            .flat_map(camel_words)
            .filter_map(Self::named)
            .collect::<Vec<_>>();
        splits.dedup();
        match splits.as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }
}

/// Splits a camel-case word, such as Flickr8k's `trainImages`.
fn camel_words(word: &str) -> Vec<&str> {
    if !word.chars().any(|c| c.is_ascii_lowercase()) {
        return vec![word];
    }
    let starts = word.char_indices().skip(1).filter(|(_, c)| c.is_ascii_uppercase()).map(|(at, _)| at);
    let places: Vec<usize> = std::iter::once(0).chain(starts).chain([word.len()]).collect();
    places.windows(2).map(|place| &word[place[0]..place[1]]).collect()
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A question about a clip, with its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Question {
    /// Its id in the data set.
    pub id: String,
    /// The question, as published.
    pub text: String,
    /// The right answer.
    pub answer: String,
}

/// A video or image file with its captions or questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clip {
    /// The clip's id in its data set.
    pub id: String,
    /// Its file.
    pub path: PathBuf,
    /// Its captions, as published; none in a data set of questions.
    pub captions: Vec<String>,
    /// Its questions, as published; none in a data set of captions.
    pub questions: Vec<Question>,
    /// Its split.
    pub split: Split,
}

/// A clip of the annotations, with or without a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotated {
    /// The clip's id in its data set.
    pub id: String,
    /// Other names of its file.
    pub names: Vec<String>,
    /// Its captions, as published.
    pub captions: Vec<String>,
    /// Its questions, as published.
    pub questions: Vec<Question>,
    /// Its split.
    pub split: Split,
}

/// The annotations of a data set, without video files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotations {
    /// The data set's name.
    pub name: String,
    /// The file or folder that was read.
    pub source: PathBuf,
    /// Every annotated clip, in the annotations' order.
    pub clips: Vec<Annotated>,
    /// What was read and is not used, a sentence each, for the user.
    pub notes: Vec<String>,
}

impl Annotations {
    /// The clips of one split, in order.
    pub fn split(&self, split: Split) -> impl Iterator<Item = &Annotated> {
        self.clips.iter().filter(move |clip| clip.split == split)
    }
}

/// A data set whose clips have files, in the annotations' order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoSet {
    /// The data set's name.
    pub name: String,
    /// The clips of all splits.
    pub clips: Vec<Clip>,
    /// The annotated clips that are skipped, with the reason.
    pub skipped: Vec<Skipped>,
    /// As [`Annotations::notes`].
    pub notes: Vec<String>,
}

impl VideoSet {
    /// The clips of one split, in order.
    #[must_use]
    pub fn split(&self, split: Split) -> Vec<&Clip> {
        self.clips.iter().filter(|clip| clip.split == split).collect()
    }

    /// How many clips of a split are used.
    #[must_use]
    pub fn usage(&self, split: Split) -> SplitUsage {
        let used = self.clips.iter().filter(|clip| clip.split == split).count();
        let skipped = self.skipped.iter().filter(|skipped| skipped.split == split).count();
        SplitUsage { used, annotated: used + skipped }
    }

    /// Moves clips that cannot be decoded to the skipped ones.
    pub fn leave_out(&mut self, undecodable: Vec<Undecodable>) {
        for Undecodable { id, path, error } in undecodable {
            let Some(at) = self.clips.iter().position(|clip| clip.id == id && clip.path == path) else {
                continue;
            };
            let clip = self.clips.remove(at);
            let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
            let reason = Reason::Undecodable { path, bytes, error: error.to_string() };
            self.skipped.push(Skipped { id, split: clip.split, reason });
        }
    }

    /// A digest of the data set, 16 hexadecimal digits: the ids, splits, captions and questions of all clips,
    /// and the content of their files. The files' paths do not matter.
    ///
    /// Digests of files are cached in `cache`, see [`digest::sha256_of_files`].
    ///
    /// # Errors
    /// A file that cannot be read; a cache that cannot be written.
    pub fn content_hash(&self, cache: &Path) -> Result<String> {
        let paths: Vec<&Path> = self.clips.iter().map(|clip| clip.path.as_path()).collect();
        let files = digest::sha256_of_files(&paths, cache)?;
        let mut hash = Sha256::new();
        for (Clip { id, captions, questions, split, path }, file) in self.clips.iter().zip(files) {
            let text = serde_json::to_vec(&(id, split, captions, questions, file));
            hash.update(
                text.map_err(std::io::Error::from).map_err(Error::io("hash the annotations of", path))?,
            );
        }
        Ok(digest::hex(&hash.finalize()[..8]))
    }
}

/// How many clips of a split are used; displayed as "6,304 of 6,513 clips".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitUsage {
    /// Used clips.
    pub used: usize,
    /// Annotated clips.
    pub annotated: usize,
}

impl std::fmt::Display for SplitUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} clips", thousands(self.used), thousands(self.annotated))
    }
}

/// Collects clips from records in any order; clips stay in the order of their first record.
struct ClipCollector {
    what: &'static str,
    source: PathBuf,
    clips: Vec<Annotated>,
    places: HashMap<String, usize>,
}

impl ClipCollector {
    fn new(what: &'static str, source: &Path) -> Self {
        Self { what, source: source.to_path_buf(), clips: Vec::new(), places: HashMap::new() }
    }

    /// Reads one file after the other; errors name the current file.
    fn read_files(
        what: &'static str,
        name: &str,
        paths: &[&Path],
        mut read: impl FnMut(&mut Self, &Path) -> Result<()>,
    ) -> Result<Annotations> {
        let mut clips = Self::new(what, Path::new(""));
        for path in paths {
            clips.source = path.to_path_buf();
            read(&mut clips, path)?;
        }
        clips.finish(name)
    }

    /// The clip with an id; added if it is new.
    fn clip(&mut self, id: &str, split: Split) -> Result<&mut Annotated> {
        let place = match self.places.get(id) {
            Some(place) => *place,
            None => {
                let place = self.clips.len();
                self.places.insert(id.to_owned(), place);
                self.clips.push(Annotated {
                    id: id.to_owned(),
                    names: Vec::new(),
                    captions: Vec::new(),
                    questions: Vec::new(),
                    split,
                });
                place
            }
        };
        let clip = &mut self.clips[place];
        if clip.split == split {
            return Ok(clip);
        }
        let reason = format!("is in split {} and in split {split}", clip.split);
        Err(Error::malformed(self.what, &self.source, format!("clip {id}"), reason))
    }

    /// Adds a clip that must be new.
    fn new_clip(&mut self, id: &str, split: Split) -> Result<&mut Annotated> {
        if self.places.contains_key(id) {
            return Err(Error::malformed(self.what, &self.source, format!("clip {id}"), "is listed twice"));
        }
        self.clip(id, split)
    }

    fn finish(self, name: &str) -> Result<Annotations> {
        if self.clips.is_empty() {
            return Err(Error::malformed(self.what, &self.source, "the whole file", "has no clip"));
        }
        Ok(Annotations { name: name.to_owned(), source: self.source, clips: self.clips, notes: Vec::new() })
    }
}

/// An id: a number in some files, a text in others.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Id {
    Number(u64),
    Text(String),
}

impl Id {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }

    /// `7` and `"7"` become `video7`; a text that is no number is unchanged.
    fn prefixed(&self, prefix: &str) -> String {
        let text = self.text();
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { format!("{prefix}{text}") } else { text }
    }
}

/// One text or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Many(Vec<String>),
}

impl From<Texts> for Vec<String> {
    fn from(texts: Texts) -> Self {
        match texts {
            Texts::One(text) => vec![text],
            Texts::Many(texts) => texts,
        }
    }
}

/// The split in a file's name, which is an error without one.
fn split_of_file(what: &'static str, path: &Path) -> Result<Split> {
    let reason = "expected the word train, val or test in it, found none or several; rename the file";
    Split::of_file(path).ok_or_else(|| Error::malformed(what, path, "file name", reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_name_tells_its_split() {
        let of = |name: &str| Split::of_file(Path::new(name));
        assert_eq!(of("in/test/vatex_training_v1.0.json"), Some(Split::Train));
        assert_eq!(of("vatex_public_test_english_v1.1.json"), Some(Split::Test));
        assert_eq!(of("msvd_sents_train_noval_lc_nopunc.txt.gz"), Some(Split::Train));
        assert_eq!(of("Flickr_8k.devImages.txt"), Some(Split::Validate));
        assert_eq!(of("Flickr_8k.trainImages.txt"), Some(Split::Train));
        assert_eq!(of("val_qa.json.gz"), Some(Split::Validate));
        assert_eq!(of("MSRVTT_train.9k.csv"), Some(Split::Train));
        assert_eq!(of("train_val_videodatainfo.json"), None);
        assert_eq!(of("captions.json"), None);
        assert_eq!(of("latest.json"), None);
    }

    #[test]
    fn usage_is_displayed_with_separators() {
        assert_eq!(SplitUsage { used: 6304, annotated: 6513 }.to_string(), "6,304 of 6,513 clips");
    }

    fn set(folder: &Path, caption: &str, content: &[u8]) -> VideoSet {
        let path = folder.join(format!("{caption}.mp4"));
        std::fs::write(&path, content).unwrap();
        let captions = vec![caption.to_owned()];
        let clip = Clip { id: "a".into(), path, captions, questions: Vec::new(), split: Split::Train };
        VideoSet { name: "own".into(), clips: vec![clip], skipped: Vec::new(), notes: Vec::new() }
    }

    #[test]
    fn content_hashes_follow_annotations_and_the_content_of_files() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let hash = |set: &VideoSet| set.content_hash(&cache).unwrap();
        let base = hash(&set(folder.path(), "one", b"frames"));
        assert_eq!(base.len(), 16);
        assert_eq!(hash(&set(folder.path(), "one", b"frames")), base);
        assert_ne!(hash(&set(folder.path(), "one", b"Frames")), base, "same length, other content");
        assert_ne!(hash(&set(folder.path(), "two", b"frames")), base, "other caption");
        let mut other = set(folder.path(), "one", b"frames");
        other.clips[0].split = Split::Test;
        assert_ne!(hash(&other), base);
        let question = |text: &str| Question { id: "1".into(), text: text.into(), answer: "x".into() };
        other.clips[0].split = Split::Train;
        other.clips[0].questions = vec![question("who?")];
        assert_ne!(hash(&other), base);
        other.clips[0].questions.clear();
        assert_eq!(hash(&other), base);
        std::fs::remove_file(&other.clips[0].path).unwrap();
        let message = other.content_hash(&cache).unwrap_err().to_string();
        assert!(message.contains("one.mp4"), "{message}");
        std::fs::create_dir(&other.clips[0].path).unwrap();
        assert!(other.content_hash(&cache).is_err(), "a folder cannot be read");
    }
}
