//! Which phrases of a caption the paraphrase table knows, and which of them another caption paraphrases.

use super::tables::MeteorTables;
use crate::ngram::FastMap;

/// Where a phrase of the table stands in a caption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) start: usize,
    pub(super) length: usize,
}

/// The phrases of a caption.
#[derive(Debug, Default)]
pub(super) struct Phrases {
    /// By start, then by length.
    in_order: Vec<(u32, Place)>,
    /// The places of each phrase, first ones first.
    by_phrase: FastMap<u32, Vec<Place>>,
    /// One bit for each phrase, by its lowest bits: most look-ups end here.
    filter: Vec<u64>,
}

const FILTER_BITS: u32 = 12;

impl Phrases {
    /// Finds the phrases among the caption's words, given by their numbers in the table.
    pub(super) fn of(tables: &MeteorTables, words: &[Option<u16>]) -> Self {
        let mut phrases = Self { filter: vec![0; 1 << (FILTER_BITS - 6)], ..Self::default() };
        for start in 0..words.len() {
            tables.phrases_at(&words[start..], |length, phrase| {
                let place = Place { start, length };
                phrases.in_order.push((phrase, place));
                phrases.by_phrase.entry(phrase).or_default().push(place);
                let bit = phrase & ((1 << FILTER_BITS) - 1);
                phrases.filter[(bit >> 6) as usize] |= 1 << (bit & 63);
            });
        }
        phrases
    }

    fn places(&self, phrase: u32) -> &[Place] {
        let bit = phrase & ((1 << FILTER_BITS) - 1);
        if self.filter[(bit >> 6) as usize] >> (bit & 63) & 1 == 0 {
            return &[];
        }
        self.by_phrase.get(&phrase).map_or(&[], Vec::as_slice)
    }

    /// Calls `found` for each phrase of this caption with each place where the other one has a paraphrase of it: in the order of
    /// this caption, shorter phrases first, paraphrases in the order of the table.
    pub(super) fn paraphrased_in(
        &self,
        tables: &MeteorTables,
        other: &Phrases,
        mut found: impl FnMut(Place, Place),
    ) {
        for &(phrase, ours) in &self.in_order {
            for paraphrase in tables.paraphrases(phrase) {
                for &theirs in other.places(paraphrase) {
                    found(ours, theirs);
                }
            }
        }
    }
}
