//! METEOR 1.5 (`-l en -norm`), equal to the jar in `pycocoevalcap==1.2`.
//!
//! Hypothesis and reference are normalised, their words are matched by form, stem, synonym and paraphrase,
//! the matches are aligned in few chunks, and the score is computed from precision, recall and fragmentation.
//! Papers report the corpus score, from counts summed over the videos' best references; it is not the mean of
//! the videos' scores.

mod align;
mod lexicon;
mod normalize;
mod paraphrase;
mod score;
mod sentences;
mod tables;

use rayon::prelude::*;

use align::{Candidates, Match};
use lexicon::{Lexicon, intersect};
use paraphrase::{Phrase, Places};
use sentences::{Captions, Sentence, Sentences};

pub use score::MeteorStatistics;
pub use tables::{MeteorTables, WHEEL, WHEEL_SHA256};
#[cfg(any(test, fuzzing))]
pub(crate) use tables::{pack_tables, write_damaged};

use crate::corpus::Video;

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
    let sentences = Sentences::new(&Lexicon::new(tables), videos);
    let statistics: Vec<MeteorStatistics> = sentences
        .videos
        .par_iter()
        // each task caches words, so tasks must not be too small
        .with_min_len(64)
        .map_init(|| Matcher::new(&sentences), |matcher, video| matcher.best(video))
        .collect();
    let mut sum = MeteorStatistics::default();
    for video in &statistics {
        sum += video;
    }
    MeteorScores { corpus: sum.score(), videos: statistics }
}

/// Matches a hypothesis with its references.
struct Matcher<'a> {
    sentences: &'a Sentences,
    candidates: Candidates,
    hypothesis_phrases: Places,
    reference_phrases: Places,
    /// For each word of the corpus, its index in `matches` and the video it is valid for.
    remembered: Vec<(u32, u32)>,
    video: u32,
    /// For each word of this video's references and each module except paraphrases, the matching words of the
    /// hypothesis.
    matches: Vec<[Vec<u32>; PARAPHRASE]>,
    used: usize,
}

impl<'a> Matcher<'a> {
    fn new(sentences: &'a Sentences) -> Self {
        Self {
            sentences,
            candidates: Candidates::default(),
            hypothesis_phrases: Places::default(),
            reference_phrases: Places::default(),
            remembered: vec![(0, 0); sentences.words.len()],
            video: 0,
            matches: Vec::new(),
            used: 0,
        }
    }

    /// The counts against the reference with the highest score, the first of equal ones.
    fn best(&mut self, video: &Captions) -> MeteorStatistics {
        self.video += 1;
        self.used = 0;
        self.hypothesis_phrases.set(&video.hypothesis.phrases);
        let mut best: Option<(f64, MeteorStatistics)> = None;
        for reference in &video.references {
            let statistics = self.compare(&video.hypothesis, reference);
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

        let is_function = |word: u32| self.sentences.words[word as usize].is_function;
        let function_words = |words: &[u32]| words.iter().filter(|&&word| is_function(word)).count() as u64;
        let mut statistics = MeteorStatistics {
            lengths: [hypothesis.words.len() as u64, reference.words.len() as u64],
            function_words: [function_words(&hypothesis.words), function_words(&reference.words)],
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
                statistics.function_matches[found.module][side] += function;
                statistics.content_matches[found.module][side] += words.len() as u64 - function;
            }
        }
        statistics
    }

    /// Finds all matches of each module in the reference's order, which decides ties in the search.
    fn find_candidates(&mut self, hypothesis: &Sentence, reference: &Sentence) {
        self.candidates.reset(hypothesis.words.len(), reference.words.len());
        let hash = |word: &u32| self.sentences.words[*word as usize].hash;
        let are_equal = hypothesis.words.iter().map(hash).eq(reference.words.iter().map(hash));
        let places: Vec<usize> =
            reference.words.iter().map(|&word| self.matches_of(word, &hypothesis.words)).collect();
        for module in if are_equal { EXACT..STEM } else { EXACT..PARAPHRASE } {
            for (reference_start, &place) in places.iter().enumerate() {
                for &hypothesis_start in &self.matches[place][module] {
                    self.candidates.push(Match {
                        module,
                        reference_start,
                        reference_length: 1,
                        hypothesis_start: hypothesis_start as usize,
                        hypothesis_length: 1,
                    });
                }
            }
        }
        if are_equal {
            return;
        }
        self.reference_phrases.set(&reference.phrases);
        let candidates = &mut self.candidates;
        let mut push = |theirs: &Phrase, ours: &Phrase| {
            candidates.push(Match {
                module: PARAPHRASE,
                reference_start: theirs.start as usize,
                reference_length: theirs.length as usize,
                hypothesis_start: ours.start as usize,
                hypothesis_length: ours.length as usize,
            });
        };
        for theirs in &reference.phrases {
            for &paraphrase in self.sentences.of_references.of(theirs.number) {
                self.hypothesis_phrases.of(paraphrase).for_each(|ours| push(theirs, ours));
            }
        }
        // also in the other direction; a symmetric entry of the table gives its match twice
        for ours in &hypothesis.phrases {
            for &paraphrase in self.sentences.of_hypotheses.of(ours.number) {
                self.reference_phrases.of(paraphrase).for_each(|theirs| push(theirs, ours));
            }
        }
    }

    /// The index in `matches` of the words of this video's hypothesis that a word matches.
    fn matches_of(&mut self, word: u32, hypothesis: &[u32]) -> usize {
        let (video, place) = self.remembered[word as usize];
        if video == self.video {
            return place as usize;
        }
        let place = self.used;
        self.used += 1;
        self.remembered[word as usize] = (self.video, place as u32);
        if place == self.matches.len() {
            self.matches.push(Default::default());
        }
        let matches = &mut self.matches[place];
        matches.iter_mut().for_each(Vec::clear);
        let theirs = &self.sentences.words[word as usize];
        for (start, &ours) in (0..).zip(hypothesis) {
            let ours = &self.sentences.words[ours as usize];
            if ours.hash == theirs.hash {
                matches[EXACT].push(start);
                continue;
            }
            if ours.stem_hash == theirs.stem_hash {
                matches[STEM].push(start);
            }
            if intersect(&ours.synsets, &theirs.synsets) {
                matches[SYNONYM].push(start);
            }
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_captions_are_matched_by_form_only() {
        let Ok(tables) =
            MeteorTables::find(&[concat!(env!("CARGO_MANIFEST_DIR"), "/../cache/meteor").into()])
        else {
            eprintln!("skipped: no METEOR tables");
            return;
        };
        let count = |hypothesis: &str, reference: &str| {
            let video =
                Video { id: "v".into(), hypothesis: hypothesis.into(), references: vec![reference.into()] };
            let sentences = Sentences::new(&Lexicon::new(&tables), &[video]);
            let mut matcher = Matcher { video: 1, ..Matcher::new(&sentences) };
            let captions = &sentences.videos[0];
            matcher.find_candidates(&captions.hypothesis, &captions.references[0]);
            matcher.candidates.count()
        };
        assert_eq!(count("big large", "big large"), 2);
        assert!(count("big large", "big large dogs") > 4, "by synonym and paraphrase, too");
    }
}
