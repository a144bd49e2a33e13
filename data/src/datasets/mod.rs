//! Which clips and captions there are: published data sets in their own formats, a user's own, and one that we make
//! ourselves.
//!
//! Annotations and videos come from different places, and videos go missing. So [`Annotations`] say what a data set
//! publishes, [`open`] finds a file for every clip, and whatever is left out is counted in [`VideoSet::skipped`].

pub mod files;
pub mod images;
pub mod msrvtt;
pub mod msvd;
mod open;
pub mod own;
pub mod pairs;
pub mod questions;
pub mod skip;
pub mod source;
pub mod splits;
pub mod synthetic;
#[cfg(test)]
mod testing;
pub mod vatex;

pub use open::{DataSet, Place, annotations, open};

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use skip::Skipped;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

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

    /// The split that one word names, as the published data sets spell them.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Self::Train),
            "validate" | "val" | "validation" | "valid" | "dev" => Some(Self::Validate),
            "test" | "testing" => Some(Self::Test),
            _ => None,
        }
    }

    /// The split that a file's name tells, as `vatex_validation_v1.0.json` does; `None` where it names none or several.
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

/// `trainImages` is two words, as Flickr8k writes it.
fn camel_words(word: &str) -> Vec<&str> {
    let ends = word.char_indices().skip(1).filter(|(_, c)| c.is_ascii_uppercase()).map(|(at, _)| at);
    let mut words = Vec::new();
    let mut start = 0;
    if word.chars().any(|c| c.is_ascii_lowercase()) {
        for end in ends {
            words.push(&word[start..end]);
            start = end;
        }
    }
    words.push(&word[start..]);
    words
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A question about a clip, with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its name in the data set; question files number their questions.
    pub id: String,
    /// The question, as published.
    pub text: String,
    /// The answer that counts as right.
    pub answer: String,
}

/// A video or image file and what people said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clip {
    /// The clip's name in its data set.
    pub id: String,
    /// Its file.
    pub path: PathBuf,
    /// Its captions, as published; none in a data set of questions.
    pub captions: Vec<String>,
    /// Its questions, as published; none in a data set of captions.
    pub questions: Vec<Question>,
    /// What it is used for.
    pub split: Split,
}

/// A clip as the annotations have it, whether or not there is a file for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotated {
    /// The clip's name in its data set.
    pub id: String,
    /// Other names under which its file is published.
    pub names: Vec<String>,
    /// Its captions, as published.
    pub captions: Vec<String>,
    /// Its questions, as published.
    pub questions: Vec<Question>,
    /// What it is used for.
    pub split: Split,
}

/// What a data set's annotations say, before any file is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotations {
    /// The data set's name.
    pub name: String,
    /// The file, or the folder of files, that was read.
    pub source: PathBuf,
    /// Every annotated clip, in the annotations' order.
    pub clips: Vec<Annotated>,
}

impl Annotations {
    /// Number of captions in all.
    #[must_use]
    pub fn captions(&self) -> usize {
        self.clips.iter().map(|clip| clip.captions.len()).sum()
    }

    /// The clips of one split, in order.
    pub fn split(&self, split: Split) -> impl Iterator<Item = &Annotated> {
        self.clips.iter().filter(move |clip| clip.split == split)
    }
}

/// A data set of clips with their files, in the annotations' order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoSet {
    /// The data set's name.
    pub name: String,
    /// Every clip of every split.
    pub clips: Vec<Clip>,
    /// The annotated clips that are left out, each with the reason.
    pub skipped: Vec<Skipped>,
}

impl VideoSet {
    /// The clips of one split, in order.
    #[must_use]
    pub fn split(&self, split: Split) -> Vec<&Clip> {
        self.clips.iter().filter(|clip| clip.split == split).collect()
    }

    /// How many clips of a split there are, and how many there would be with every file in order.
    #[must_use]
    pub fn account(&self, split: Split) -> Account {
        let used = self.clips.iter().filter(|clip| clip.split == split).count();
        let skipped = self.skipped.iter().filter(|skipped| skipped.split == split).count();
        Account { used, annotated: used + skipped }
    }
}

/// How much of a split is used; shown as "6,304 of 6,513 clips".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Clips that are used.
    pub used: usize,
    /// Clips that the annotations have.
    pub annotated: usize,
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} clips", thousands(self.used), thousands(self.annotated))
    }
}

/// A number as people write it: 6,513.
#[must_use]
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Clips gathered from records that come in any order, kept in the order in which they were first seen.
struct Gathered {
    what: &'static str,
    source: PathBuf,
    clips: Vec<Annotated>,
    places: HashMap<String, usize>,
}

impl Gathered {
    fn new(what: &'static str, source: &Path) -> Self {
        Self { what, source: source.to_path_buf(), clips: Vec::new(), places: HashMap::new() }
    }

    /// The clip of an id, made where it is new.
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

    /// A clip that may be there only once.
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
        Ok(Annotations { name: name.to_owned(), source: self.source, clips: self.clips })
    }
}

/// A number or a text, as ids are written in one file or another.
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

    /// `7` and `"7"` as `video7`; a text that is no number stays as it is.
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

/// The error for a file whose split nobody told.
fn no_split(what: &'static str, path: &Path) -> Error {
    Error::malformed(
        what,
        path,
        "file name",
        "expected the word train, val or test in it, found none or several; rename the file",
    )
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
    fn accounts_read_as_people_write_them() {
        assert_eq!(Account { used: 6304, annotated: 6513 }.to_string(), "6,304 of 6,513 clips");
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
