//! METEOR's tables, read from the wheel of pycocoevalcap and kept in a compact file that is mapped into
//! memory.
//!
//! The tables have licences of other authors and are not part of this project. They are read from the wheel
//! of `pycocoevalcap==1.2` on PyPI (a zip; the METEOR jar in it is a zip too), checked by sha256, and saved
//! once as one file of about 50 MB: unpacking 272 MB of text takes seconds, and the reference's Java takes a
//! gigabyte of memory for it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use memmap2::Mmap;
use sha2::{Digest, Sha256};

use crate::Error;

/// The wheel's name, as pip saves it.
pub const WHEEL: &str = "pycocoevalcap-1.2-py3-none-any.whl";

/// The wheel's sha256.
pub const WHEEL_SHA256: &str = "083ed7910f1aec000b0a237ef6665f74edf19954204d0b1cbdb8399ed132228d";

/// The compact file's name.
const COMPACT: &str = "meteor-1.5-en.tables";

/// Changes with the layout of the compact file.
const MAGIC: &[u8; 8] = b"METEOR03";

const PARAPHRASES: &str = "pycocoevalcap/meteor/data/paraphrase-en.gz";
const JAR: &str = "pycocoevalcap/meteor/meteor-1.5.jar";

/// The parts of the compact file, in their order.
#[derive(Clone, Copy)]
pub(super) enum Part {
    /// Words of the paraphrase table, sorted and concatenated; the start of each.
    WordText,
    WordStarts,
    /// Phrases as word numbers (u16), sorted; the start of each; the first phrase of each first word.
    PhraseWords,
    PhraseStarts,
    PhrasesByWord,
    /// The start of each phrase's list; the lists of paraphrases, in the order of the table.
    ListStarts,
    Lists,
    /// WordNet's lemmas, sorted; the start of each; the start of its synsets; the synsets.
    LemmaText,
    LemmaStarts,
    SynsetStarts,
    Synsets,
    /// Small files, unchanged.
    Exceptions,
    FunctionWords,
    Prefixes,
}

const PARTS: usize = Part::Prefixes as usize + 1;
const HEADER: usize = MAGIC.len() + 64 + PARTS * 16;

/// The tables, mapped into memory. Cheap to open, shared between threads.
#[derive(Debug)]
pub struct MeteorTables {
    map: Mmap,
    parts: [Range<usize>; PARTS],
}

impl MeteorTables {
    /// Opens the tables in the first of these directories that has them. Where a directory has only the
    /// wheel, the compact file is built first, in some seconds.
    ///
    /// # Errors
    /// [`Error::NoMeteorTables`] if none has them, [`Error::WrongWheel`] for another wheel, [`Error::Io`] and
    /// [`Error::BadTables`] for unreadable and damaged files.
    pub fn find(directories: &[PathBuf]) -> Result<Self, Error> {
        for directory in directories {
            let (compact, wheel) = (directory.join(COMPACT), directory.join(WHEEL));
            if let Some(tables) = Self::map(&compact)? {
                return Ok(tables);
            }
            if !wheel.is_file() {
                continue;
            }
            // One thread of a process builds the file, the others find it.
            static BUILDING: Mutex<()> = Mutex::new(());
            let _guard = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
            if Self::map(&compact)?.is_none() {
                build(&wheel, &compact)?;
            }
            let what = "it was just written and cannot be read".to_owned();
            return Self::map(&compact)?.ok_or(Error::BadTables { path: compact, what });
        }
        Err(Error::NoMeteorTables { directories: directories.to_vec() })
    }

    /// Maps the compact file; `None` when it is missing or made from another wheel or by another version of
    /// this code.
    fn map(path: &Path) -> Result<Option<Self>, Error> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(path, error)),
        };
        // SAFETY: the file is written under another name, renamed when complete and never changed afterwards.
        // If it is truncated while it is mapped, a signal ends the process; no other memory is read.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(|error| Error::io(path, error))?;
        if map.get(..MAGIC.len()) != Some(MAGIC)
            || map.get(MAGIC.len()..MAGIC.len() + 64) != Some(WHEEL_SHA256.as_bytes())
        {
            return Ok(None);
        }
        let bad = || Error::BadTables { path: path.to_owned(), what: "it is cut short".to_owned() };
        let mut parts = std::array::from_fn(|_| 0..0);
        for (place, part) in parts.iter_mut().enumerate() {
            let entry = MAGIC.len() + 64 + place * 16;
            let bounds = map.get(entry..entry + 16).ok_or_else(bad)?;
            let (bounds, _) = bounds.as_chunks::<8>();
            let [start, end] = [0, 1].map(|at| usize::try_from(u64::from_le_bytes(bounds[at])));
            *part = start.map_err(|_| bad())?..end.map_err(|_| bad())?;
            map.get(part.clone()).ok_or_else(bad)?;
        }
        Ok(Some(Self { map, parts }))
    }

    fn bytes(&self, part: Part) -> &[u8] {
        &self.map[self.parts[part as usize].clone()]
    }

    /// One of the small files.
    pub(super) fn text(&self, part: Part) -> &str {
        std::str::from_utf8(self.bytes(part)).unwrap_or_default()
    }

    /// An entry of a table of u32; the last one if the file is damaged.
    fn number(&self, part: Part, place: usize) -> u32 {
        let bytes = self.bytes(part);
        let (entries, _) = bytes.as_chunks::<4>();
        entries.get(place).or(entries.last()).map_or(0, |entry| u32::from_le_bytes(*entry))
    }

    fn count(&self, part: Part) -> usize {
        self.bytes(part).len() / 4
    }

    fn range(&self, starts: Part, place: usize) -> Range<usize> {
        let start = self.number(starts, place) as usize;
        start..(self.number(starts, place + 1) as usize).max(start)
    }

    fn find_text(&self, text: Part, starts: Part, wanted: &str) -> Option<usize> {
        let bytes = self.bytes(text);
        let at = |place| bytes.get(self.range(starts, place)).unwrap_or_default();
        let count = self.count(starts).saturating_sub(1);
        let place = partition(0..count, |place| at(place) < wanted.as_bytes());
        (place < count && at(place) == wanted.as_bytes()).then_some(place)
    }

    /// The number of a word of the paraphrase table.
    pub(super) fn word(&self, word: &str) -> Option<u16> {
        self.find_text(Part::WordText, Part::WordStarts, word).and_then(|place| u16::try_from(place).ok())
    }

    /// The number of phrases.
    pub(super) fn phrase_count(&self) -> usize {
        self.count(Part::PhraseStarts).saturating_sub(1)
    }

    /// The phrases that begin with a word: the first, and one past the last.
    pub(super) fn phrases_of(&self, first: u16) -> (u32, u32) {
        let range = self.range(Part::PhrasesByWord, usize::from(first));
        (range.start as u32, range.end as u32)
    }

    /// Of phrases with the same first `depth` words, those whose next word is `word`.
    pub(super) fn phrases_followed_by(&self, phrases: (u32, u32), depth: usize, word: u16) -> (u32, u32) {
        let phrases = phrases.0 as usize..phrases.1 as usize;
        let start = partition(phrases.clone(), |phrase| self.phrase_word(phrase, depth) < Some(word));
        let end = partition(start..phrases.end, |phrase| self.phrase_word(phrase, depth) == Some(word));
        (start as u32, end as u32)
    }

    /// The number of words of a phrase.
    pub(super) fn phrase_length(&self, phrase: u32) -> usize {
        self.range(Part::PhraseStarts, phrase as usize).len()
    }

    /// A word of a phrase; `None`, which sorts first, after its end.
    fn phrase_word(&self, phrase: usize, depth: usize) -> Option<u16> {
        let range = self.range(Part::PhraseStarts, phrase);
        let place = range.start + depth;
        if place >= range.end {
            return None;
        }
        let bytes = self.bytes(Part::PhraseWords).get(2 * place..2 * place + 2)?;
        Some(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    /// The paraphrases of a phrase, in the order of the table, repeated where the table repeats them.
    pub(super) fn paraphrases(&self, phrase: u32) -> impl Iterator<Item = u32> {
        let range = self.range(Part::ListStarts, phrase as usize);
        let bytes = self.bytes(Part::Lists).get(4 * range.start..4 * range.end).unwrap_or_default();
        bytes.as_chunks::<4>().0.iter().map(|entry| u32::from_le_bytes(*entry))
    }

    /// The synsets of a WordNet lemma, unsorted; `None` if it is no lemma.
    pub(super) fn synsets(&self, lemma: &str) -> Option<Vec<u32>> {
        let place = self.find_text(Part::LemmaText, Part::LemmaStarts, lemma)?;
        let mut entries = self.range(Part::SynsetStarts, place);
        entries.end = entries.end.min(self.count(Part::Synsets)); // a damaged file may claim billions
        Some(entries.map(|entry| self.number(Part::Synsets, entry)).collect())
    }
}

/// The first index in the range for which the test is false; it must be true before and false after.
fn partition(range: Range<usize>, test: impl Fn(usize) -> bool) -> usize {
    let Range { mut start, mut end } = range;
    while start < end {
        let middle = start + (end - start) / 2;
        if test(middle) {
            start = middle + 1;
        } else {
            end = middle;
        }
    }
    start
}

/// Builds the compact file from the wheel.
fn build(wheel: &Path, compact: &Path) -> Result<(), Error> {
    check_wheel(wheel)?;
    let bad = |what: String| Error::BadTables { path: wheel.to_owned(), what };
    let file = File::open(wheel).map_err(|error| Error::io(wheel, error))?;
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(|error| bad(error.to_string()))?;
    let mut jar = Vec::new();
    archive
        .by_name(JAR)
        .map_err(|error| bad(format!("{JAR}: {error}")))?
        .read_to_end(&mut jar)
        .map_err(|error| Error::io(wheel, error))?;
    let mut jar =
        zip::ZipArchive::new(std::io::Cursor::new(jar)).map_err(|error| bad(format!("{JAR}: {error}")))?;
    let mut small = |name: &str| {
        let mut text = String::new();
        let mut entry = jar.by_name(name).map_err(|error| bad(format!("{JAR}: {name}: {error}")))?;
        entry.read_to_string(&mut text).map_err(|error| bad(format!("{JAR}: {name}: {error}")))?;
        Ok(text)
    };
    let synsets = small("synonym/english.synsets")?;
    let exceptions = small("synonym/english.exceptions")?;
    let function_words = small("function/english.words")?;
    let prefixes = small("nonbreaking/english.prefixes")?;

    let paraphrases = archive.by_name(PARAPHRASES).map_err(|error| bad(format!("{PARAPHRASES}: {error}")))?;
    let lines =
        BufReader::with_capacity(1 << 20, flate2::read::MultiGzDecoder::new(BufReader::new(paraphrases)));
    let mut parts = paraphrase_parts(lines).map_err(bad)?;
    parts.extend(synset_parts(&synsets).map_err(bad)?);
    parts.extend([exceptions, function_words, prefixes].map(String::into_bytes));
    save(&parts, compact).map_err(|error| Error::io(compact, error))
}

/// Writes the compact file.
fn save(parts: &[Vec<u8>], compact: &Path) -> std::io::Result<()> {
    // Another process may do the same: each writes its own file, the last rename wins, both are complete.
    let draft = compact.with_extension(format!("draft-{}", std::process::id()));
    let mut file = std::io::BufWriter::new(File::create(&draft)?);
    file.write_all(MAGIC)?;
    file.write_all(WHEEL_SHA256.as_bytes())?;
    let mut start = HEADER as u64;
    for part in parts {
        let end = start + part.len() as u64;
        file.write_all(&start.to_le_bytes())?;
        file.write_all(&end.to_le_bytes())?;
        start = end;
    }
    for part in parts {
        file.write_all(part)?;
    }
    file.into_inner()?.sync_all()?;
    std::fs::rename(&draft, compact)
}

/// Writes a compact file of small tables, given in the order and form of METEOR's own files: paraphrases,
/// synsets, irregular words, function words, prefixes.
#[cfg(any(test, fuzzing))]
pub(crate) fn pack_tables(tables: [&str; 5], folder: &Path) -> Result<(), String> {
    let [paraphrases, synsets, small @ ..] = tables;
    let mut parts = paraphrase_parts(paraphrases.as_bytes())?;
    parts.extend(synset_parts(synsets)?);
    parts.extend(small.map(|text| text.as_bytes().to_vec()));
    save(&parts, &folder.join(COMPACT)).map_err(|error| error.to_string())
}

/// Writes a compact file of this version with any content.
#[cfg(any(test, fuzzing))]
pub(crate) fn write_damaged(content: &[u8], folder: &Path) -> std::io::Result<()> {
    std::fs::write(folder.join(COMPACT), [MAGIC, WHEEL_SHA256.as_bytes(), content].concat())
}

fn check_wheel(wheel: &Path) -> Result<(), Error> {
    let mut file = File::open(wheel).map_err(|error| Error::io(wheel, error))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(|error| Error::io(wheel, error))? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    let got: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if got == WHEEL_SHA256 { Ok(()) } else { Err(Error::WrongWheel { path: wheel.to_owned(), got }) }
}

/// The table has three lines an entry: a probability, a phrase, a paraphrase.
fn paraphrase_parts(lines: impl BufRead) -> Result<Vec<Vec<u8>>, String> {
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let mut pairs: Vec<(u32, u32)> = Vec::new();
    let mut phrase = None;
    for (place, line) in lines.lines().enumerate() {
        let line = line.map_err(|error| format!("{PARAPHRASES}: line {}: {error}", place + 1))?;
        if place % 3 == 0 {
            continue;
        }
        let next = u32::try_from(numbers.len()).map_err(|error| error.to_string())?;
        let number = *numbers.entry(line).or_insert(next);
        match (place % 3, phrase) {
            (1, _) => phrase = Some(number),
            (_, Some(phrase)) => pairs.push((phrase, number)),
            _ => {}
        }
    }

    let mut words: Vec<&str> = numbers.keys().flat_map(|phrase| phrase.split_whitespace()).collect();
    words.sort_unstable();
    words.dedup();
    let word_numbers: HashMap<&str, u16> = words.iter().copied().zip(0..=u16::MAX).collect();
    if words.len() != word_numbers.len() {
        return Err(format!("{PARAPHRASES}: {} words, expected at most 65,536", words.len()));
    }
    let mut phrases: Vec<(Vec<u16>, u32)> = numbers
        .iter()
        .map(|(phrase, &number)| {
            (phrase.split_whitespace().filter_map(|word| word_numbers.get(word).copied()).collect(), number)
        })
        .collect();
    phrases.sort_unstable();
    let mut place_of = vec![0_u32; phrases.len()];
    for ((_, number), place) in phrases.iter().zip(0..) {
        place_of[*number as usize] = place;
    }

    let mut phrases_by_word = vec![0_u32; words.len() + 1];
    for (words, _) in &phrases {
        if let Some(&first) = words.first() {
            phrases_by_word[usize::from(first) + 1] += 1;
        }
    }
    let empty = phrases.iter().take_while(|(words, _)| words.is_empty()).count() as u32;
    phrases_by_word[0] = empty;
    accumulate(&mut phrases_by_word);

    let mut list_starts = vec![0_u32; phrases.len() + 1];
    for &(phrase, _) in &pairs {
        list_starts[place_of[phrase as usize] as usize + 1] += 1;
    }
    accumulate(&mut list_starts);
    let mut ends = list_starts.clone();
    let mut lists = vec![0_u32; pairs.len()];
    for &(phrase, paraphrase) in &pairs {
        let end = &mut ends[place_of[phrase as usize] as usize];
        lists[*end as usize] = place_of[paraphrase as usize];
        *end += 1;
    }

    let (word_text, word_starts) = concatenate(words.iter().map(|word| word.as_bytes()));
    let phrase_bytes: Vec<Vec<u8>> =
        phrases.iter().map(|(words, _)| words.iter().flat_map(|word| word.to_le_bytes()).collect()).collect();
    let (phrase_words, phrase_starts) = concatenate(phrase_bytes.iter().map(Vec::as_slice));
    let phrase_starts: Vec<u32> = phrase_starts.into_iter().map(|start| start / 2).collect();
    Ok(vec![
        word_text,
        bytes(&word_starts),
        phrase_words,
        bytes(&phrase_starts),
        bytes(&phrases_by_word),
        bytes(&list_starts),
        bytes(&lists),
    ])
}

/// WordNet's synsets have two lines an entry: a lemma, and the numbers of its synsets. A later entry replaces
/// an earlier.
fn synset_parts(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut lemmas: std::collections::BTreeMap<&str, Vec<u32>> = std::collections::BTreeMap::new();
    let mut lines = text.lines();
    while let (Some(lemma), Some(numbers)) = (lines.next(), lines.next()) {
        let numbers: Result<Vec<u32>, _> = numbers.split_whitespace().map(str::parse).collect();
        lemmas.insert(lemma.trim(), numbers.map_err(|error| format!("synsets of {lemma:?}: {error}"))?);
    }
    let (lemma_text, lemma_starts) = concatenate(lemmas.keys().map(|lemma| lemma.as_bytes()));
    let mut synset_starts = vec![0_u32];
    synset_starts.extend(lemmas.values().map(|synsets| synsets.len() as u32));
    accumulate(&mut synset_starts);
    let synsets: Vec<u32> = lemmas.into_values().flatten().collect();
    Ok(vec![lemma_text, bytes(&lemma_starts), bytes(&synset_starts), bytes(&synsets)])
}

fn accumulate(counts: &mut [u32]) {
    let mut sum = 0;
    for count in counts {
        sum += *count;
        *count = sum;
    }
}

fn concatenate<'a>(items: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Vec<u32>) {
    let mut all = Vec::new();
    let mut starts = vec![0];
    for item in items {
        all.extend_from_slice(item);
        starts.push(all.len() as u32);
    }
    (all, starts)
}

fn bytes(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directory_that_was_searched_is_in_the_error() {
        let (first, second) = (PathBuf::from("absent/one"), PathBuf::from("absent/two"));
        let message = MeteorTables::find(&[first, second]).unwrap_err().to_string();
        for word in ["absent/one", "absent/two", WHEEL, "make meteor-data"] {
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn the_first_directory_that_has_a_file_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(WHEEL), "another wheel").unwrap();
        let directories = [PathBuf::from("absent"), directory.path().to_owned()];
        let error = MeteorTables::find(&directories).unwrap_err();
        assert!(
            matches!(&error, Error::WrongWheel { path, .. } if path.starts_with(directory.path())),
            "{error}"
        );
    }
}
