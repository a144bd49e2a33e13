//! METEOR 1.5 (`-l en -norm`), equal to the jar in `pycocoevalcap==1.2`.
//!
//! Hypothesis and reference are normalised once more, their words are matched by form, stem, synonym and paraphrase, the
//! matches are aligned in few chunks, and precision, recall and fragmentation make the score. What papers report is the
//! corpus score, from counts summed over the videos' best references; it is not the mean of the videos' scores.

mod align;
mod lexicon;
mod normalize;
mod paraphrase;
mod score;
mod tables;

use rayon::prelude::*;

use align::{Candidates, Match};
use lexicon::{Lexicon, Word, intersect};
use paraphrase::Phrases;

pub use score::MeteorStatistics;
pub use tables::{MeteorTables, WHEEL, WHEEL_SHA256};

use crate::corpus::Video;
use crate::ngram::FastMap;

/// Exact, stem, synonym, paraphrase.
const MODULES: usize = 4;
const EXACT: usize = 0;
const STEM: usize = 1;
const SYNONYM: usize = 2;
const PARAPHRASE: usize = 3;

/// METEOR of a corpus.
#[derive(Debug, Clone, PartialEq)]
pub struct MeteorScores {
    /// The score from the summed counts, 0 to 1.
    pub corpus: f64,
    /// Each video's counts against its best reference.
    pub videos: Vec<MeteorStatistics>,
}

/// Scores tokenised videos. The result is the same, bit for bit, with any number of threads.
pub fn meteor(tables: &MeteorTables, videos: &[Video]) -> MeteorScores {
    let lexicon = Lexicon::new(tables);
    let statistics: Vec<MeteorStatistics> = videos
        .par_iter()
        // Each piece of work has a memory of its own for words, so the pieces are not too small.
        .with_min_len(100)
        .map_init(
            || Matcher::new(&lexicon),
            |matcher, video| matcher.best(&video.hypothesis, &video.references),
        )
        .collect();
    let mut sum = MeteorStatistics::default();
    for video in &statistics {
        sum += video;
    }
    MeteorScores { corpus: sum.score(), videos: statistics }
}

/// Matches captions, remembering the words it met.
struct Matcher<'a> {
    lexicon: &'a Lexicon<'a>,
    numbers: FastMap<String, usize>,
    words: Vec<Word>,
    candidates: Candidates,
}

/// A normalised caption.
struct Sentence {
    /// Places in the matcher's list of words.
    words: Vec<usize>,
    phrases: Phrases,
}

impl<'a> Matcher<'a> {
    fn new(lexicon: &'a Lexicon<'a>) -> Self {
        Self { lexicon, numbers: FastMap::default(), words: Vec::new(), candidates: Candidates::default() }
    }

    fn sentence(&mut self, text: &str) -> Sentence {
        // The reference's wire protocol cuts what Java calls white space off both ends.
        let text = text.trim_matches(|c: char| c <= ' ');
        let words: Vec<usize> = normalize::normalize(text, &self.lexicon.prefixes)
            .into_iter()
            .map(|word| {
                if let Some(&number) = self.numbers.get(&word) {
                    return number;
                }
                let number = self.words.len();
                self.words.push(self.lexicon.word(&word));
                self.numbers.insert(word, number);
                number
            })
            .collect();
        let numbers: Vec<Option<u16>> = words.iter().map(|&word| self.words[word].number).collect();
        Sentence { words, phrases: Phrases::of(self.lexicon.tables, &numbers) }
    }

    /// The counts against the reference with the highest score, the first of equal ones.
    fn best(&mut self, hypothesis: &str, references: &[String]) -> MeteorStatistics {
        // The wrapper takes the protocol's separator out of the hypothesis only; in a reference it makes two references.
        let hypothesis = self.sentence(&hypothesis.replace("|||", "").replace("  ", " "));
        let mut best: Option<(f64, MeteorStatistics)> = None;
        for reference in references.iter().flat_map(|reference| reference.split("|||")) {
            let reference = self.sentence(reference);
            let statistics = self.compare(&hypothesis, &reference);
            let score = statistics.score();
            if best.is_none_or(|(highest, _)| score > highest) {
                best = Some((score, statistics));
            }
        }
        best.map(|(_, statistics)| statistics).unwrap_or_default()
    }

    fn compare(&mut self, hypothesis: &Sentence, reference: &Sentence) -> MeteorStatistics {
        self.find_candidates(hypothesis, reference);
        let (matches, chunks) = self.candidates.align();

        let function_words =
            |words: &[usize]| words.iter().filter(|&&word| self.words[word].is_function).count();
        let mut statistics = MeteorStatistics {
            lengths: [hypothesis.words.len() as u64, reference.words.len() as u64],
            function_words: [
                function_words(&hypothesis.words) as u64,
                function_words(&reference.words) as u64,
            ],
            chunks,
            ..MeteorStatistics::default()
        };
        for found in &matches {
            let Match { hypothesis_start, hypothesis_length, reference_start, reference_length, .. } = *found;
            let sides = [
                &hypothesis.words[hypothesis_start..hypothesis_start + hypothesis_length],
                &reference.words[reference_start..reference_start + reference_length],
            ];
            for (side, words) in sides.into_iter().enumerate() {
                let function = function_words(words);
                statistics.matches[side] += words.len() as u64;
                statistics.function_matches[found.module][side] += function as u64;
                statistics.content_matches[found.module][side] += (words.len() - function) as u64;
            }
        }
        statistics
    }

    /// All matches of each module in the reference's order, which settles ties in the search.
    fn find_candidates(&mut self, hypothesis: &Sentence, reference: &Sentence) {
        let word = |number: &usize| &self.words[*number];
        self.candidates.reset(hypothesis.words.len(), reference.words.len());
        let hashes =
            |sentence: &Sentence| sentence.words.iter().map(|number| word(number).hash).collect::<Vec<_>>();
        let (hypothesis_hashes, reference_hashes) = (hashes(hypothesis), hashes(reference));
        let modules = if hypothesis_hashes == reference_hashes { EXACT..STEM } else { EXACT..PARAPHRASE };
        for module in modules {
            for (reference_start, theirs) in reference.words.iter().enumerate() {
                let theirs = word(theirs);
                for (hypothesis_start, ours) in hypothesis.words.iter().enumerate() {
                    let ours = word(ours);
                    let equal = ours.hash == theirs.hash;
                    let matches = match module {
                        EXACT => equal,
                        STEM => !equal && ours.stem_hash == theirs.stem_hash,
                        _ => !equal && intersect(&ours.synsets, &theirs.synsets),
                    };
                    if matches {
                        self.candidates.push(Match {
                            module,
                            reference_start,
                            reference_length: 1,
                            hypothesis_start,
                            hypothesis_length: 1,
                        });
                    }
                }
            }
        }
        if hypothesis_hashes != reference_hashes {
            let tables = self.lexicon.tables;
            let candidates = &mut self.candidates;
            reference.phrases.paraphrased_in(tables, &hypothesis.phrases, |theirs, ours| {
                candidates.push(Match {
                    module: PARAPHRASE,
                    reference_start: theirs.start,
                    reference_length: theirs.length,
                    hypothesis_start: ours.start,
                    hypothesis_length: ours.length,
                });
            });
            // The other way round, too; a symmetric entry of the table gives its match twice.
            hypothesis.phrases.paraphrased_in(tables, &reference.phrases, |ours, theirs| {
                candidates.push(Match {
                    module: PARAPHRASE,
                    reference_start: theirs.start,
                    reference_length: theirs.length,
                    hypothesis_start: ours.start,
                    hypothesis_length: ours.length,
                });
            });
        }
        const { assert!(SYNONYM + 1 == PARAPHRASE) };
    }
}
