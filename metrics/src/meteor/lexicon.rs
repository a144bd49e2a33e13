//! METEOR's data of a word: its hash, its stem, its synsets, whether it is a function word.

use std::collections::{HashMap, HashSet};

use rust_stemmers::{Algorithm, Stemmer};

use super::normalize::{Prefixes, read_prefixes};
use super::tables::{MeteorTables, Part};

/// The properties of a word that the modules compare.
#[derive(Debug, Clone)]
pub(super) struct Word {
    /// Java's hash of the word. Words are compared by it, collisions included.
    pub(super) hash: i32,
    /// Java's hash of its stem.
    pub(super) stem_hash: i32,
    /// Its synsets, sorted.
    pub(super) synsets: Vec<u32>,
    pub(super) is_function: bool,
    /// Its number in the paraphrase table.
    pub(super) number: Option<u16>,
}

/// WordNet's suffixes with what replaces them, tried in this order on the whole word: nouns, verbs,
/// adjectives.
#[rustfmt::skip]
const SUFFIXES: [(&str, &str); 20] = [
    ("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
    ("men", "man"), ("ies", "y"), ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"),
    ("ed", ""), ("ing", "e"), ("ing", ""), ("er", ""), ("est", ""), ("er", "e"), ("est", "e"),
];

/// Looks words up in the tables.
pub(super) struct Lexicon<'a> {
    pub(super) tables: &'a MeteorTables,
    pub(super) prefixes: Prefixes,
    function_words: HashSet<&'a str>,
    /// The base forms of irregular words.
    exceptions: HashMap<&'a str, Vec<&'a str>>,
}

impl<'a> Lexicon<'a> {
    pub(super) fn new(tables: &'a MeteorTables) -> Self {
        let mut exceptions: HashMap<&str, Vec<&str>> = HashMap::new();
        let mut lines = tables.text(Part::Exceptions).lines();
        while let (Some(base), Some(forms)) = (lines.next(), lines.next()) {
            for form in forms.split_whitespace() {
                exceptions.entry(form).or_default().push(base.trim());
            }
        }
        Self {
            tables,
            prefixes: read_prefixes(tables.text(Part::Prefixes)),
            function_words: tables
                .text(Part::FunctionWords)
                .lines()
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .collect(),
            exceptions,
        }
    }

    /// Everything about a word.
    pub(super) fn word(&self, word: &str) -> Word {
        Word {
            hash: java_hash(word),
            stem_hash: java_hash(&Stemmer::create(Algorithm::English).stem(word)),
            synsets: self.synsets(word),
            is_function: self.function_words.contains(word),
            number: self.tables.word(word),
        }
    }

    fn synsets(&self, word: &str) -> Vec<u32> {
        let mut synsets = self.tables.synsets(word).unwrap_or_default();
        match self.exceptions.get(word) {
            Some(bases) => {
                for base in bases {
                    synsets.extend(self.tables.synsets(base).unwrap_or_default());
                }
            }
            None => synsets.extend(self.tables.synsets(&self.base_form(word)).unwrap_or_default()),
        }
        synsets.sort_unstable();
        synsets.dedup();
        synsets
    }

    /// WordNet's morphology: the first suffix whose replacement gives a lemma. A word in "-ful" is tried
    /// whole, and "ful" is appended to the result.
    fn base_form(&self, word: &str) -> String {
        if word.ends_with("ss") || word.encode_utf16().count() <= 2 {
            return word.to_owned();
        }
        for (suffix, replacement) in SUFFIXES {
            if let Some(stem) = word.strip_suffix(suffix) {
                let base = format!("{stem}{replacement}");
                if self.tables.synsets(&base).is_some() {
                    return if word.ends_with("ful") { base + "ful" } else { base };
                }
            }
        }
        String::new()
    }
}

/// Java's `String.hashCode`, over UTF-16.
fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0, |hash: i32, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// Whether two sorted lists share an entry.
pub(super) fn intersect(left: &[u32], right: &[u32]) -> bool {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        match a.cmp(b) {
            std::cmp::Ordering::Equal => return true,
            std::cmp::Ordering::Less => left.next(),
            std::cmp::Ordering::Greater => right.next(),
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_javas() {
        // From jshell: "guitar".hashCode() and "naïve".hashCode().
        assert_eq!(java_hash("Aa"), java_hash("BB"));
        assert_eq!(java_hash("hello"), 99_162_322);
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
    }

    #[test]
    fn stems_are_those_of_the_old_snowball() {
        // Snowball 3 stems each of these otherwise; METEOR's jar agrees with the old rules.
        let stemmer = Stemmer::create(Algorithm::English);
        for (word, stem) in
            [("added", "ad"), ("pasted", "past"), ("organic", "organ"), ("universal", "univers")]
        {
            assert_eq!(stemmer.stem(word), stem, "{word}");
        }
    }

    #[test]
    fn sorted_lists_intersect() {
        assert!(intersect(&[1, 4, 9], &[2, 9]));
        assert!(!intersect(&[1, 4, 9], &[2, 8, 10]));
        assert!(!intersect(&[], &[1]));
    }

    #[test]
    fn words_in_ss_and_short_ones_have_no_base_form() {
        let Ok(tables) =
            MeteorTables::find(&[concat!(env!("CARGO_MANIFEST_DIR"), "/../cache/meteor").into()])
        else {
            eprintln!("skipped: no METEOR tables");
            return;
        };
        let lexicon = Lexicon::new(&tables);
        // "bos", "pas" and "a" are lemmas
        for (word, base) in [("boss", "bos"), ("pass", "pas"), ("as", "a")] {
            assert!(tables.synsets(base).is_some(), "{base}");
            let mut own = tables.synsets(word).unwrap_or_default();
            own.sort_unstable();
            own.dedup();
            assert_eq!(lexicon.synsets(word), own, "{word}");
        }
    }
}
