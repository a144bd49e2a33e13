//! The captions of a corpus as METEOR's words and phrases.
//!
//! Each word is looked up once for the corpus, and only the relevant part of the paraphrase table is kept.

use rayon::prelude::*;

use super::lexicon::{Lexicon, Word};
use super::normalize::{Prefixes, normalize};
use super::paraphrase::{Paraphrases, Phrase, PhraseFinder, PhraseSet};
use crate::corpus::Video;
use crate::ngram::Vocabulary;

/// Minimum number of videos of a task, as each task has its own cache of words and phrases.
const SMALLEST_PIECE: usize = 32;

/// A normalised caption.
#[derive(Debug, Default)]
pub(super) struct Sentence {
    /// Indices in the corpus's list of words.
    pub(super) words: Vec<u32>,
    pub(super) phrases: Vec<Phrase>,
}

/// One video's captions.
pub(super) struct Captions {
    pub(super) hypothesis: Sentence,
    pub(super) references: Vec<Sentence>,
}

impl Captions {
    fn all(&mut self) -> impl Iterator<Item = &mut Sentence> {
        std::iter::once(&mut self.hypothesis).chain(&mut self.references)
    }
}

/// A corpus, ready to be matched.
pub(super) struct Sentences {
    pub(super) videos: Vec<Captions>,
    pub(super) words: Vec<Word>,
    /// Of the references' phrases, those of their paraphrases that a hypothesis has.
    pub(super) of_references: Paraphrases,
    /// The same in the other direction.
    pub(super) of_hypotheses: Paraphrases,
}

impl Sentences {
    pub(super) fn new(lexicon: &Lexicon<'_>, videos: &[Video]) -> Self {
        let piece = videos.len().div_ceil(4 * rayon::current_num_threads()).max(SMALLEST_PIECE);
        let mut pieces: Vec<(Vec<Captions>, Vocabulary)> = videos
            .par_chunks(piece)
            .map(|videos| {
                let mut reader = Reader { prefixes: &lexicon.prefixes, vocabulary: Vocabulary::default() };
                let captions = videos.iter().map(|video| reader.captions(video)).collect();
                (captions, reader.vocabulary)
            })
            .collect();

        let mut all = Vocabulary::default();
        let renumbered: Vec<Vec<u32>> = pieces
            .iter()
            .map(|(_, piece)| piece.words().into_iter().map(|word| all.intern(word)).collect())
            .collect();
        let words: Vec<Word> = all.words().par_iter().map(|word| lexicon.word(word)).collect();

        pieces.par_iter_mut().zip(&renumbered).for_each(|((captions, _), renumbered)| {
            let mut finder = PhraseFinder::new(lexicon.tables);
            let mut in_table = Vec::new();
            let mut found = Vec::new();
            for sentence in captions.iter_mut().flat_map(Captions::all) {
                for word in &mut sentence.words {
                    *word = renumbered[*word as usize];
                }
                in_table.clear();
                in_table.extend(sentence.words.iter().map(|&word| words[word as usize].number));
                found.clear();
                finder.find(&in_table, &mut found);
                sentence.phrases = found.as_slice().into();
            }
        });
        let videos: Vec<Captions> = pieces.into_iter().flat_map(|(captions, _)| captions).collect();

        let mut hypotheses = PhraseSet::new(lexicon.tables);
        let mut references = PhraseSet::new(lexicon.tables);
        for video in &videos {
            video.hypothesis.phrases.iter().for_each(|phrase| hypotheses.insert(phrase.number));
            for reference in &video.references {
                reference.phrases.iter().for_each(|phrase| references.insert(phrase.number));
            }
        }
        Self {
            videos,
            words,
            of_references: Paraphrases::new(lexicon.tables, &references, &hypotheses),
            of_hypotheses: Paraphrases::new(lexicon.tables, &hypotheses, &references),
        }
    }
}

/// Reads captions into numbered words.
struct Reader<'a> {
    prefixes: &'a Prefixes,
    vocabulary: Vocabulary,
}

impl Reader<'_> {
    fn captions(&mut self, video: &Video) -> Captions {
        Captions {
            // the wrapper removes the protocol's separator from the hypothesis only; a reference is split at
            // it
            hypothesis: self.sentence(&video.hypothesis.replace("|||", "").replace("  ", " ")),
            references: video
                .references
                .iter()
                .flat_map(|reference| reference.split("|||"))
                .map(|reference| self.sentence(reference))
                .collect(),
        }
    }

    fn sentence(&mut self, text: &str) -> Sentence {
        // most captions are plain words, which the normaliser does not change
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b' ';
        let words = if text.bytes().all(is_plain) {
            text.split(' ').filter(|word| !word.is_empty()).map(|word| self.vocabulary.intern(word)).collect()
        } else {
            // the reference's protocol trims Java's white space
            let text = text.trim_matches(|c: char| c <= ' ');
            normalize(text, self.prefixes).iter().map(|word| self.vocabulary.intern(word)).collect()
        };
        Sentence { words, phrases: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meteor::normalize::read_prefixes;

    #[test]
    fn plain_captions_are_read_as_the_normaliser_reads_them() {
        let prefixes = read_prefixes("v\n");
        for text in ["a man", " a  man 10 1st ", "", "v 5 x"] {
            let mut reader = Reader { prefixes: &prefixes, vocabulary: Vocabulary::default() };
            let ours: Vec<u32> = reader.sentence(text).words;
            let words = reader.vocabulary.words();
            let ours: Vec<&str> = ours.iter().map(|&word| words[word as usize]).collect();
            assert_eq!(ours, normalize(text.trim(), &prefixes), "{text:?}");
        }
    }
}
