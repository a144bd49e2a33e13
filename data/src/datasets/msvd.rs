//! MSVD (the Microsoft Research Video Description corpus) in its two forms: `video_corpus.csv` with the
//! sentences as typed, and the sentence files (`msvd_sents_train_noval_lc_nopunc.txt` etc.) (lower case, no
//! punctuation).
//!
//! A clip has two names: `-4wsuPCjDBc_5_15` (video, start and end second; the name of its file) and `vid1`
//! (its number; the name in the sentence files and in MSVD-QA). `youtube_mapping.txt` maps them: it numbers
//! the clips in the order of their names, and the splits are ranges of numbers. The number is the id.

use super::splits::read_ids;
use super::{Annotations, ClipCollector, Split, source, split_of_file};
use crate::error::{Error, Result};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

const CORPUS: &str = "MSVD corpus";
const SENTENCES: &str = "MSVD sentences";
const MAPPING: &str = "MSVD name mapping";

/// Clips with an English sentence in the whole corpus.
const CLIPS: usize = 1970;

/// The mapping between the two names of a clip.
#[derive(Debug, Default)]
pub struct Mapping {
    number: HashMap<String, String>,
    youtube: HashMap<String, String>,
}

impl Mapping {
    /// Reads `youtube_mapping.txt`: a clip's file name and number per line.
    ///
    /// # Errors
    /// The file is missing or broken, or has a name twice.
    pub fn read(path: &Path) -> Result<Self> {
        let mut mapping = Self::default();
        for (line, text) in source::lines(path, MAPPING)? {
            let fault = |reason: String| Error::malformed(MAPPING, path, format!("line {line}"), reason);
            let words: Vec<&str> = text.split_whitespace().collect();
            let [youtube, number] = words.as_slice() else {
                return Err(fault(format!("expected a clip's name and its number, got {text:?}")));
            };
            mapping.insert(youtube, number).map_err(fault)?;
        }
        Ok(mapping)
    }

    /// Numbers the clips of the whole corpus in the order of their names, as the published mapping does.
    fn derived(names: &BTreeSet<String>) -> Self {
        let mut mapping = Self::default();
        for (index, name) in names.iter().enumerate() {
            // names are unique, so nothing is there twice
            let _ = mapping.insert(name, &format!("vid{}", index + 1));
        }
        mapping
    }

    fn insert(&mut self, youtube: &str, number: &str) -> std::result::Result<(), String> {
        let old = self.number.insert(youtube.to_owned(), number.to_owned());
        let other = self.youtube.insert(number.to_owned(), youtube.to_owned());
        match old.or(other) {
            Some(name) => Err(format!("has {youtube} or {number} twice, first as {name}")),
            None => Ok(()),
        }
    }

    /// A clip's file name by its number.
    #[must_use]
    pub fn youtube(&self, number: &str) -> Option<&str> {
        self.youtube.get(number).map(String::as_str)
    }

    /// A clip's number by its file name.
    #[must_use]
    pub fn number(&self, youtube: &str) -> Option<&str> {
        self.number.get(youtube).map(String::as_str)
    }
}

/// Reads the English rows of the corpus: CSV with columns `VideoID`, `Start`, `End`, `Language` and
/// `Description`. A clip's split follows from its number; files with a part of the corpus are read too.
///
/// # Errors
/// A file that is missing or breaks the format; a clip that is not in the mapping; no mapping, unless the
/// files contain the whole corpus, whose numbers follow from its names.
pub fn read_corpus(paths: &[&Path], mapping: Option<&Path>) -> Result<Annotations> {
    let mut sentences: Vec<(String, String)> = Vec::new();
    for path in paths {
        let table = source::table(path, CORPUS)?;
        let name = [table.column(&["VideoID"])?, table.column(&["Start"])?, table.column(&["End"])?];
        let (language, description) = (table.column(&["Language"])?, table.column(&["Description"])?);
        for row in table.rows() {
            // Other languages have other encodings.
            if !row.bytes(language).eq_ignore_ascii_case(b"English") {
                continue;
            }
            let [video, start, end] = name.map(|column| row.text(column));
            let text = row.text(description)?.trim();
            if text.is_empty() {
                continue; // empty rows are not among the 80,827 published English sentences
            }
            sentences.push((format!("{}_{}_{}", video?, start?, end?), text.to_owned()));
        }
    }
    let source = paths.first().copied().unwrap_or(Path::new(""));
    let names: BTreeSet<String> = sentences.iter().map(|(name, _)| name.clone()).collect();
    let mapping = match mapping {
        Some(path) => Mapping::read(path)?,
        None if names.len() == CLIPS => Mapping::derived(&names),
        None => {
            let reason = format!(
                "has {} clips, and only the whole corpus of {CLIPS} can be split without youtube_mapping.txt; \
                 put that file beside it",
                names.len()
            );
            return Err(Error::malformed(CORPUS, source, "the whole file", reason));
        }
    };
    let mut gathered = ClipCollector::new(CORPUS, source);
    for (name, text) in sentences {
        let Some(number) = mapping.number(&name) else {
            let reason = "is not in the name mapping";
            return Err(Error::malformed(CORPUS, source, format!("clip {name}"), reason));
        };
        let clip = gathered.clip(number, split_of(number, source)?)?;
        if clip.names.is_empty() {
            clip.names.push(name);
        }
        clip.captions.push(text);
    }
    // The corpus has no order; the numbers of the mapping give one.
    gathered.clips.sort_by_key(|clip| number_of(&clip.id));
    gathered.finish("msvd")
}

/// Reads the sentence files, one per split: a clip's number, a tab and a sentence per line.
///
/// # Errors
/// A file that is missing or breaks the format, or whose name contains no split.
pub fn read_sentences(paths: &[&Path], mapping: Option<&Path>) -> Result<Annotations> {
    let mapping = mapping.map(Mapping::read).transpose()?.unwrap_or_default();
    ClipCollector::read_files(SENTENCES, "msvd", paths, |clips, path| {
        let split = split_of_file(SENTENCES, path)?;
        for (line, text) in source::lines(path, SENTENCES)? {
            let Some((id, caption)) = text.split_once('\t') else {
                let reason = format!("expected a clip's number, a tab and a sentence, got {text:?}");
                return Err(Error::malformed(SENTENCES, path, format!("line {line}"), reason));
            };
            let clip = clips.clip(id.trim(), split)?;
            if clip.names.is_empty() {
                clip.names.extend(mapping.youtube(id.trim()).map(str::to_owned));
            }
            clip.captions.push(caption.trim().to_owned());
        }
        Ok(())
    })
}

/// Checks published lists of file names (`train_list.txt` etc.) against the annotations.
///
/// # Errors
/// A list that is missing or contains a clip of another split.
pub fn check_lists(annotations: &Annotations, lists: &[&Path]) -> Result<()> {
    let splits: HashMap<&str, Split> = annotations
        .clips
        .iter()
        .flat_map(|clip| clip.names.iter().map(|name| (name.as_str(), clip.split)))
        .collect();
    for path in lists {
        let split = split_of_file("MSVD list", path)?;
        for name in read_ids(path)? {
            if let Some(other) = splits.get(name.as_str()).filter(|other| **other != split) {
                let reason = format!("is in split {other} of {}", annotations.source.display());
                return Err(Error::malformed("MSVD list", path, format!("clip {name}"), reason));
            }
        }
    }
    Ok(())
}

fn number_of(id: &str) -> Option<usize> {
    id.strip_prefix("vid")?.parse().ok()
}

fn split_of(id: &str, source: &Path) -> Result<Split> {
    match number_of(id) {
        Some(1..=1200) => Ok(Split::Train),
        Some(1201..=1300) => Ok(Split::Validate),
        Some(1301..=1970) => Ok(Split::Test),
        _ => {
            let reason = format!("expected a number from vid1 to vid{CLIPS}");
            Err(Error::malformed(CORPUS, source, format!("clip {id}"), reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::testing::file;
    use proptest::prelude::*;

    const HEADER: &str = "VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description\n";

    #[test]
    fn the_corpus_gives_english_sentences_by_number() {
        let folder = tempfile::tempdir().unwrap();
        let mut text = HEADER.as_bytes().to_vec();
        text.extend(b"b,5,9,1,clean,3,English,\"A man, running.\"\na,0,3,1,unverified,3,English,A dog.\n");
        text.extend(b"a,0,3,1,clean,3,German,Ein H\xfcnd.\nb,5,9,1,clean,3,English,A man.\n");
        let corpus = file(&folder, "video_corpus.csv", &text);
        let mapping = file(&folder, "m.txt", b"a_0_3 vid1200\nb_5_9 vid1201\n");
        let set = read_corpus(&[&corpus], Some(&mapping)).unwrap();
        assert_eq!(set.clips.len(), 2);
        assert_eq!((set.clips[0].id.as_str(), set.clips[0].split), ("vid1200", Split::Train));
        assert_eq!(set.clips[0].captions, ["A dog."]);
        assert_eq!((set.clips[1].names[0].as_str(), set.clips[1].split), ("b_5_9", Split::Validate));
        assert_eq!(set.clips[1].captions, ["A man, running.", "A man."]);
        let lists = file(&folder, "train_list.txt", b"b_5_9\n");
        assert!(
            check_lists(&set, &[&lists]).unwrap_err().to_string().contains("b_5_9: is in split validate")
        );
    }

    #[test]
    fn a_part_of_the_corpus_needs_the_mapping() {
        let folder = tempfile::tempdir().unwrap();
        let corpus = file(&folder, "a.csv", format!("{HEADER}a,0,3,1,clean,3,English,A dog.\n").as_bytes());
        assert!(read_corpus(&[&corpus], None).unwrap_err().to_string().contains("youtube_mapping.txt"));
        let other = file(&folder, "m.txt", b"b_5_9 vid1201\n");
        assert!(read_corpus(&[&corpus], Some(&other)).unwrap_err().to_string().contains("a_0_3"));
        let twice = file(&folder, "t.txt", b"b_5_9 vid1\nb_5_9 vid2\n");
        assert!(Mapping::read(&twice).unwrap_err().to_string().contains("line 2"));
    }

    #[test]
    fn the_whole_corpus_numbers_itself() {
        let folder = tempfile::tempdir().unwrap();
        let mut text = HEADER.to_owned();
        for clip in (0..CLIPS).rev() {
            text += &format!("v{clip:04},0,1,1,clean,3,English,A dog.\n");
        }
        let set = read_corpus(&[&file(&folder, "video_corpus.csv", text.as_bytes())], None).unwrap();
        assert_eq!((set.clips[0].id.as_str(), set.clips[0].names[0].as_str()), ("vid1", "v0000_0_1"));
        assert_eq!(set.split(Split::Validate).count(), 100);
    }

    #[test]
    fn errors_of_sentence_files_name_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let train = file(&folder, "sents_train_lc_nopunc.txt", b"vid1\ta dog\nvid1\ta cat\nvid2\ta fish\n");
        let set = read_sentences(&[&train], None).unwrap();
        assert_eq!(set.clips[0].captions, ["a dog", "a cat"]);
        let test = file(&folder, "sents_test.txt", b"vid1\ta dog\n");
        let message = read_sentences(&[&train, &test], None).unwrap_err().to_string();
        assert!(message.contains("is in split train and in split test"), "{message}");
        let broken = file(&folder, "train.txt", b"vid1\ta\nvid1 a dog\n");
        assert!(read_sentences(&[&broken], None).unwrap_err().to_string().contains("line 2"));
        let nameless = file(&folder, "sents.txt", b"vid1\ta\n");
        assert!(read_sentences(&[&nameless], None).unwrap_err().to_string().contains("train, val or test"));
    }

    proptest! {
        #[test]
        fn any_rows_are_read_without_a_panic(rows in prop::collection::vec("[ -~\t\n\"é]{0,30}", 0..8)) {
            let folder = tempfile::tempdir().unwrap();
            let text = rows.join(",");
            let path = file(&folder, "train.csv", format!("{HEADER}{text}").as_bytes());
            let _ = read_corpus(&[&path], None);
            let _ = read_sentences(&[&path], Some(&path));
        }
    }
}
