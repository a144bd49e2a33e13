//! METEOR's tables: found in the wheel, kept in a compact file that is mapped into memory.
//!
//! The tables are other people's work under their own licences and are never part of this project. They are read out of the
//! wheel of `pycocoevalcap==1.2` as PyPI serves it (a zip; the METEOR jar in it is a zip too), checked by sha256, and written
//! once as one file of about 50 MB, because unpacking 272 MB of text takes seconds and the reference's Java takes a gigabyte
//! of memory for it.

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

/// Changes whenever the compact file's layout does.
const MAGIC: &[u8; 8] = b"METEOR03";

const PARAPHRASES: &str = "pycocoevalcap/meteor/data/paraphrase-en.gz";
const JAR: &str = "pycocoevalcap/meteor/meteor-1.5.jar";

/// The parts of the compact file, in their order.
#[derive(Clone, Copy)]
enum Part {
    /// Words of the paraphrase table, sorted, one after the other; and where each begins.
    WordText,
    WordStarts,
    /// Phrases as word numbers (u16), sorted; where each begins; and the first phrase of each first word.
    PhraseWords,
    PhraseStarts,
    PhrasesByWord,
    /// The paraphrases of each phrase in the order of the table; and where each phrase's list begins.
    ListStarts,
    Lists,
    /// WordNet's lemmas, sorted; where each begins; its synsets; and where its synsets begin.
    LemmaText,
    LemmaStarts,
    SynsetStarts,
    Synsets,
    /// Small files, as they are.
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
    /// Opens the tables in a directory. Where only the wheel is there, the compact file is made first (some seconds).
    ///
    /// # Errors
    /// [`Error::NoMeteorTables`] when neither is there, [`Error::WrongWheel`] when the wheel is not the one expected,
    /// [`Error::Io`] and [`Error::BadTables`] for what the file system and the files themselves may bring.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let compact = directory.join(COMPACT);
        if let Some(tables) = Self::map(&compact)? {
            return Ok(tables);
        }
        let wheel = directory.join(WHEEL);
        if !wheel.is_file() {
            return Err(Error::NoMeteorTables { directory: directory.to_owned() });
        }
        // One thread of a process makes the file, the others find it made.
        static BUILDING: Mutex<()> = Mutex::new(());
        let _guard = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tables) = Self::map(&compact)? {
            return Ok(tables);
        }
        build(&wheel, &compact)?;
        Self::map(&compact)?.ok_or_else(|| Error::BadTables {
            path: compact,
            what: "it was just written and does not read back".to_owned(),
        })
    }

    /// Where the tables are kept unless said otherwise: `$RECAP_METEOR`, or `cache/meteor` in the working directory or the
    /// nearest directory above it that has one.
    pub fn default_directory() -> PathBuf {
        if let Some(directory) = std::env::var_os("RECAP_METEOR") {
            return PathBuf::from(directory);
        }
        let below = Path::new("cache").join("meteor");
        let here = std::env::current_dir().unwrap_or_default();
        let found = here.ancestors().map(|directory| directory.join(&below)).find(|path| path.is_dir());
        found.unwrap_or(below)
    }

    /// Maps the compact file; `None` when it is missing or made from another wheel or by another version of this code.
    fn map(path: &Path) -> Result<Option<Self>, Error> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(path, error)),
        };
        // SAFETY: the file is written under another name, renamed when complete and never changed afterwards. Should somebody
        // cut it short while it is mapped, the process would be stopped by a signal, not read what isn't there.
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
            let number = |bytes: &[u8]| {
                bytes.iter().rev().fold(0_u64, |number, &byte| (number << 8) | u64::from(byte))
            };
            let start = usize::try_from(number(&bounds[..8])).map_err(|_| bad())?;
            let end = usize::try_from(number(&bounds[8..])).map_err(|_| bad())?;
            if start > end || end > map.len() {
                return Err(bad());
            }
            *part = start..end;
        }
        Ok(Some(Self { map, parts }))
    }

    fn bytes(&self, part: Part) -> &[u8] {
        &self.map[self.parts[part as usize].clone()]
    }

    fn text(&self, part: Part) -> &str {
        std::str::from_utf8(self.bytes(part)).unwrap_or_default()
    }

    /// An entry of a table of u32; the last one there is, when the file is damaged.
    fn number(&self, part: Part, place: usize) -> u32 {
        let bytes = self.bytes(part);
        let entry =
            bytes.get(4 * place..4 * place + 4).or_else(|| bytes.last_chunk::<4>().map(|chunk| &chunk[..]));
        entry.and_then(|entry| entry.try_into().ok()).map_or(0, u32::from_le_bytes)
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

    /// How many phrases the table has.
    pub(super) fn phrase_count(&self) -> usize {
        self.count(Part::PhraseStarts).saturating_sub(1)
    }

    /// The phrases that begin with a word: first and behind the last.
    pub(super) fn phrases_of(&self, first: u16) -> (u32, u32) {
        let range = self.range(Part::PhrasesByWord, usize::from(first));
        (range.start as u32, range.end as u32)
    }

    /// Of phrases that have the first `depth` words in common those that go on with `word`.
    pub(super) fn phrases_followed_by(&self, phrases: (u32, u32), depth: usize, word: u16) -> (u32, u32) {
        let phrases = phrases.0 as usize..phrases.1 as usize;
        let start = partition(phrases.clone(), |phrase| self.phrase_word(phrase, depth) < Some(word));
        let end = partition(start..phrases.end, |phrase| self.phrase_word(phrase, depth) == Some(word));
        (start as u32, end as u32)
    }

    /// How many words a phrase has.
    pub(super) fn phrase_length(&self, phrase: u32) -> usize {
        self.range(Part::PhraseStarts, phrase as usize).len()
    }

    /// A word of a phrase; `None`, which sorts first, behind its end.
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
        bytes.chunks_exact(4).map(|entry| u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]))
    }

    /// The synsets of a WordNet lemma, in no order; `None` when it is no lemma.
    pub(super) fn synsets(&self, lemma: &str) -> Option<Vec<u32>> {
        let place = self.find_text(Part::LemmaText, Part::LemmaStarts, lemma)?;
        Some(self.range(Part::SynsetStarts, place).map(|entry| self.number(Part::Synsets, entry)).collect())
    }

    pub(super) fn exceptions(&self) -> &str {
        self.text(Part::Exceptions)
    }

    pub(super) fn function_words(&self) -> &str {
        self.text(Part::FunctionWords)
    }

    pub(super) fn prefixes(&self) -> &str {
        self.text(Part::Prefixes)
    }
}

/// The first place in the range for which the test is false; it must be true before and false after.
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

/// Reads the wheel and writes the compact file.
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

    // Another process may be doing the same: each writes its own file, the last rename wins, both are complete.
    let draft = compact.with_extension(format!("draft-{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(File::create(&draft)?);
        file.write_all(MAGIC)?;
        file.write_all(WHEEL_SHA256.as_bytes())?;
        let mut start = HEADER as u64;
        for part in &parts {
            let end = start + part.len() as u64;
            file.write_all(&start.to_le_bytes())?;
            file.write_all(&end.to_le_bytes())?;
            start = end;
        }
        for part in &parts {
            file.write_all(part)?;
        }
        file.into_inner()?.sync_all()?;
        std::fs::rename(&draft, compact)
    };
    write().map_err(|error| Error::io(compact, error))
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

/// The table is a list of three lines each: a probability, a phrase, a paraphrase.
fn paraphrase_parts(lines: impl BufRead) -> Result<Vec<Vec<u8>>, String> {
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let mut pairs: Vec<(u32, u32)> = Vec::new();
    let mut phrase = None;
    for (place, line) in lines.lines().enumerate() {
        let line = line.map_err(|error| format!("{PARAPHRASES}: line {}: {error}", place + 1))?;
        if place % 3 == 0 {
            continue;
        }
        let number = match numbers.get(&line) {
            Some(&number) => number,
            None => {
                let number = u32::try_from(numbers.len()).map_err(|error| error.to_string())?;
                numbers.insert(line, number);
                number
            }
        };
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

/// WordNet's synsets are two lines each: a lemma, and the numbers of its synsets. A later entry replaces an earlier.
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
