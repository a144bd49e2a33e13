//! Phrases of a caption that are in the paraphrase table, and their paraphrases in other captions.

use rayon::prelude::*;

use super::tables::MeteorTables;
use crate::ngram::FastMap;

/// A phrase of the table at a position of a caption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Phrase {
    pub(super) number: u32,
    pub(super) start: u32,
    pub(super) length: u32,
}

/// Finds the table's phrases in captions. Look-ups are cached, as many captions begin alike.
pub(super) struct PhraseFinder<'a> {
    tables: &'a MeteorTables,
    /// The phrases that continue a beginning with a word. The key of a beginning is its length and its first
    /// phrase.
    followed_by: FastMap<u64, (u32, u32)>,
}

impl<'a> PhraseFinder<'a> {
    pub(super) fn new(tables: &'a MeteorTables) -> Self {
        Self { tables, followed_by: FastMap::default() }
    }

    /// The phrases among a caption's words, given by their numbers in the table: by start, then by length.
    pub(super) fn find(&mut self, words: &[Option<u16>], found: &mut Vec<Phrase>) {
        for start in 0..words.len() {
            let mut phrases = match words[start] {
                Some(first) => self.tables.phrases_of(first),
                None => continue,
            };
            for depth in 1..=words.len() - start {
                if phrases.0 >= phrases.1 {
                    break;
                }
                // of the phrases with this beginning, the one that ends here comes first
                if self.tables.phrase_length(phrases.0) == depth {
                    let (start, length) = (start as u32, depth as u32);
                    found.push(Phrase { number: phrases.0, start, length });
                }
                let Some(&Some(word)) = words.get(start + depth) else { break };
                let key = (u64::from(phrases.0) << 32) | ((depth as u64 & 0xffff) << 16) | u64::from(word);
                let tables = self.tables;
                phrases = *self
                    .followed_by
                    .entry(key)
                    .or_insert_with(|| tables.phrases_followed_by(phrases, depth, word));
            }
        }
    }
}

/// A set of the table's phrases.
pub(super) struct PhraseSet(Vec<u64>);

impl PhraseSet {
    pub(super) fn new(tables: &MeteorTables) -> Self {
        Self(vec![0; tables.phrase_count().div_ceil(64)])
    }

    pub(super) fn insert(&mut self, phrase: u32) {
        if let Some(word) = self.0.get_mut(phrase as usize / 64) {
            *word |= 1 << (phrase % 64);
        }
    }

    fn contains(&self, phrase: u32) -> bool {
        self.0.get(phrase as usize / 64).is_some_and(|word| word >> (phrase % 64) & 1 == 1)
    }

    fn phrases(&self) -> Vec<u32> {
        let bits = |word: u64| (0..64).filter(move |bit| word >> bit & 1 == 1);
        let words = self.0.iter().zip(0_u32..).filter(|&(&word, _)| word != 0);
        words.flat_map(|(&word, place)| bits(word).map(move |bit| place * 64 + bit)).collect()
    }
}

/// The relevant part of the table: for the phrases of one side of a corpus, the paraphrases that the other
/// side has. That is a fiftieth of the table; the lists keep their order.
pub(super) struct Paraphrases {
    ranges: FastMap<u32, (u32, u32)>,
    entries: Vec<u32>,
}

impl Paraphrases {
    /// The paraphrases of the phrases in `of` that are in `among`.
    pub(super) fn new(tables: &MeteorTables, of: &PhraseSet, among: &PhraseSet) -> Self {
        let lists: Vec<(u32, Vec<u32>)> = of
            .phrases()
            .into_par_iter()
            .map(|phrase| {
                (phrase, tables.paraphrases(phrase).filter(|&other| among.contains(other)).collect())
            })
            .filter(|(_, list): &(u32, Vec<u32>)| !list.is_empty())
            .collect();
        let mut ranges = FastMap::default();
        let mut entries = Vec::with_capacity(lists.iter().map(|(_, list)| list.len()).sum());
        for (phrase, list) in lists {
            let start = entries.len() as u32;
            entries.extend(list);
            ranges.insert(phrase, (start, entries.len() as u32));
        }
        Self { ranges, entries }
    }

    /// The paraphrases of a phrase, in the order of the table, repeated where the table repeats them.
    pub(super) fn of(&self, phrase: u32) -> &[u32] {
        match self.ranges.get(&phrase) {
            Some(&(start, end)) => &self.entries[start as usize..end as usize],
            None => &[],
        }
    }
}

const FILTER_BITS: u32 = 10;

/// The positions of phrases in one caption.
#[derive(Debug)]
pub(super) struct Places {
    /// Sorted by phrase, then by start.
    sorted: Vec<Phrase>,
    /// A bit for each phrase, by its lowest bits; it answers most look-ups.
    filter: [u64; 1 << (FILTER_BITS - 6)],
}

impl Default for Places {
    fn default() -> Self {
        Self { sorted: Vec::new(), filter: [0; 1 << (FILTER_BITS - 6)] }
    }
}

impl Places {
    /// Replaces the caption.
    pub(super) fn set(&mut self, phrases: &[Phrase]) {
        self.sorted.clear();
        self.sorted.extend_from_slice(phrases);
        self.sorted.sort_unstable_by_key(|phrase| (phrase.number, phrase.start));
        self.filter.fill(0);
        for phrase in phrases {
            let bit = phrase.number & ((1 << FILTER_BITS) - 1);
            self.filter[(bit >> 6) as usize] |= 1 << (bit & 63);
        }
    }

    /// The positions of a phrase in order.
    pub(super) fn of(&self, phrase: u32) -> impl Iterator<Item = &Phrase> {
        let bit = phrase & ((1 << FILTER_BITS) - 1);
        let is_here = self.filter[(bit >> 6) as usize] >> (bit & 63) & 1 == 1;
        let first = if is_here {
            self.sorted.partition_point(|place| place.number < phrase)
        } else {
            self.sorted.len()
        };
        self.sorted[first..].iter().take_while(move |place| place.number == phrase)
    }
}
