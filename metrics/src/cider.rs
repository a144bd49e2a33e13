//! CIDEr as coco-caption computes it and every paper reports it, which is CIDEr-D without stemming.
//!
//! A caption is a vector of tf-idf weights over its n-grams, n from 1 to 4; the score compares the vectors of
//! hypothesis and reference by a clipped cosine, lessened by a Gaussian of the difference in length.
//!
//! Kept from the reference: the term frequency is the raw count; the "length" is the number of bigrams; an n-gram
//! that no reference has keeps the full weight ln(videos); a hypothesis shorter than n words adds 0 for that n and is
//! still divided by 4; with a single video every weight is ln(1) = 0 and so is the score.
//!
//! The scale is 0 to 10; papers print it times 100 or times 10.

use rayon::prelude::*;

use crate::grams::{Grams, NumberCounts, VideoGrams};
use crate::ngram::{FastMap, Gram, MAX_N, Vocabulary, count, gram, numpy_mean, python_split};

/// The width of the Gaussian over the difference in length, in bigrams.
const SIGMA: f64 = 6.0;

/// In how many documents (videos) each n-gram occurs, counted once and read by every score afterwards.
///
/// Reading never adds to it. The cached frequencies of other projects grow with each look-up, because their
/// dictionary inserts what it is asked for.
#[derive(Debug, Clone)]
pub struct DocumentFrequencies {
    pub(crate) vocabulary: Vocabulary,
    pub(crate) numbers: FastMap<Gram, u32>,
    /// By the n-gram's number.
    pub(crate) counts: Vec<f64>,
    pub(crate) documents: f64,
}

impl DocumentFrequencies {
    /// Counts over videos: an n-gram counts once for each video any of whose tokenised references has it.
    pub fn from_references<R, S>(references_per_video: &[R]) -> Self
    where
        R: AsRef<[S]>,
        S: AsRef<str>,
    {
        Self::with_ending(references_per_video, None)
    }

    /// As [`DocumentFrequencies::from_references`], each caption followed by one more word.
    pub(crate) fn with_ending<R, S>(references_per_video: &[R], ending: Option<&str>) -> Self
    where
        R: AsRef<[S]>,
        S: AsRef<str>,
    {
        let mut frequencies = Self {
            vocabulary: Vocabulary::default(),
            numbers: FastMap::default(),
            counts: Vec::new(),
            documents: references_per_video.len() as f64,
        };
        let mut last_video: Vec<usize> = Vec::new();
        let mut words: Vec<u32> = Vec::new();
        for (video, references) in references_per_video.iter().enumerate() {
            for reference in references.as_ref() {
                words.clear();
                let ended = python_split(reference.as_ref()).chain(ending);
                words.extend(ended.map(|word| frequencies.vocabulary.intern(word)));
                for gram in (1..=MAX_N).flat_map(|n| words.windows(n)).map(gram) {
                    let number = frequencies.number(gram) as usize;
                    if number == last_video.len() {
                        last_video.push(usize::MAX);
                    }
                    if last_video[number] != video {
                        last_video[number] = video;
                        frequencies.counts[number] += 1.0;
                    }
                }
            }
        }
        frequencies
    }

    /// The number of an n-gram, a new one with a count of 0 where there is none.
    pub(crate) fn number(&mut self, gram: Gram) -> u32 {
        let next = self.counts.len() as u32;
        let number = *self.numbers.entry(gram).or_insert(next);
        if number == next {
            self.counts.push(0.0);
        }
        number
    }

    /// How many videos were counted.
    pub fn documents(&self) -> f64 {
        self.documents
    }

    /// In how many documents the n-gram occurs; 0 for one never seen.
    pub fn count(&self, words: &[&str]) -> f64 {
        let numbers: Option<Vec<u32>> = words.iter().map(|word| self.vocabulary.get(word)).collect();
        match numbers {
            Some(numbers) if (1..=MAX_N).contains(&numbers.len()) => {
                self.numbers.get(&gram(&numbers)).map_or(0.0, |&number| self.counts[number as usize])
            }
            _ => 0.0,
        }
    }

    /// What one occurrence of the n-gram weighs.
    pub(crate) fn weight(&self, gram: Gram) -> f64 {
        self.weigh(self.numbers.get(&gram).map_or(0.0, |&number| self.counts[number as usize]))
    }

    fn weigh(&self, count: f64) -> f64 {
        self.documents.ln() - count.max(1.0).ln()
    }
}

/// The weighted n-grams of a hypothesis.
#[derive(Debug, Clone)]
struct Vector {
    /// By length, in the order of first appearance: the number and the weight.
    weights: [Vec<(u32, f64)>; MAX_N],
    norms: [f64; MAX_N],
    bigrams: f64,
}

/// The n-grams of a reference; what they weigh, the scorer knows.
#[derive(Debug, Clone)]
struct Reference {
    /// Each n-gram's number and count: those of length 1 sorted by number, then those of length 2, and so on.
    counts: Vec<(u32, u32)>,
    /// Behind the last of each length.
    ends: [u32; MAX_N],
    norms: [f64; MAX_N],
    bigrams: f64,
}

impl Reference {
    fn counts(&self, n: usize) -> &[(u32, u32)] {
        let start = n.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.counts[start as usize..self.ends[n] as usize]
    }
}

/// The references of one video, weighted once so that many hypotheses can be scored against them.
#[derive(Debug, Clone)]
pub struct PreparedReferences {
    /// Words and n-grams the frequencies don't know, numbered after those they know.
    strange_words: Vocabulary,
    strange_grams: FastMap<Gram, u32>,
    references: Vec<Reference>,
}

/// The number of an n-gram that no reference has.
const NOWHERE: u32 = u32::MAX;

/// Scores captions with given document frequencies.
#[derive(Debug, Clone)]
pub struct CiderScorer {
    frequencies: DocumentFrequencies,
    /// What one occurrence of each n-gram weighs, by its number.
    weights: Vec<f64>,
    /// What an n-gram weighs that the frequencies don't know.
    full_weight: f64,
}

impl CiderScorer {
    /// A scorer that weighs n-grams by these frequencies.
    pub fn new(frequencies: DocumentFrequencies) -> Self {
        let weights = frequencies.counts.iter().map(|&count| frequencies.weigh(count)).collect();
        Self { full_weight: frequencies.weigh(0.0), weights, frequencies }
    }

    /// The frequencies it weighs by.
    pub fn frequencies(&self) -> &DocumentFrequencies {
        &self.frequencies
    }

    fn weight(&self, number: u32) -> f64 {
        self.weights.get(number as usize).copied().unwrap_or(self.full_weight)
    }

    /// Weighs the tokenised references of one video.
    pub fn prepare<S: AsRef<str>>(&self, references: &[S]) -> PreparedReferences {
        self.prepare_with_ending(references, None)
    }

    /// As [`CiderScorer::prepare`], each reference followed by one more word.
    pub(crate) fn prepare_with_ending<S: AsRef<str>>(
        &self,
        references: &[S],
        ending: Option<&str>,
    ) -> PreparedReferences {
        let mut prepared = PreparedReferences {
            strange_words: Vocabulary::default(),
            strange_grams: FastMap::default(),
            references: Vec::with_capacity(references.len()),
        };
        let mut words: Vec<u32> = Vec::new();
        for reference in references {
            let known = &self.frequencies.vocabulary;
            words.clear();
            words.extend(python_split(reference.as_ref()).chain(ending).map(|word| {
                known.get(word).unwrap_or_else(|| known.len() + prepared.strange_words.intern(word))
            }));
            let reference = self.reference(&words, &mut prepared.strange_grams);
            prepared.references.push(reference);
        }
        prepared
    }

    fn reference(&self, words: &[u32], strange_grams: &mut FastMap<Gram, u32>) -> Reference {
        let mut counts = Vec::with_capacity(MAX_N * words.len());
        let mut ends = [0; MAX_N];
        let norms = std::array::from_fn(|n| {
            let start = counts.len();
            counts.extend(count(words, n + 1).into_iter().map(|(gram, count)| {
                let number = self.frequencies.numbers.get(&gram).copied().unwrap_or_else(|| {
                    let next = (self.weights.len() + strange_grams.len()) as u32;
                    *strange_grams.entry(gram).or_insert(next)
                });
                (number, count)
            }));
            let own: &mut [(u32, u32)] = &mut counts[start..];
            let norm = norm(own.iter().map(|&(number, count)| f64::from(count) * self.weight(number)));
            own.sort_unstable();
            ends[n] = counts.len() as u32;
            norm
        });
        counts.shrink_to_fit();
        Reference { counts, ends, norms, bigrams: words.len().saturating_sub(1) as f64 }
    }

    /// CIDEr of one tokenised hypothesis, 0 to 10. Without references it is 0.
    pub fn score(&self, hypothesis: &str, references: &PreparedReferences) -> f64 {
        self.score_with_ending(hypothesis, None, references)
    }

    /// As [`CiderScorer::score`], the hypothesis followed by one more word.
    pub(crate) fn score_with_ending(
        &self,
        hypothesis: &str,
        ending: Option<&str>,
        prepared: &PreparedReferences,
    ) -> f64 {
        let known = &self.frequencies.vocabulary;
        let mut unheard = Vocabulary::default();
        let words: Vec<u32> = python_split(hypothesis)
            .chain(ending)
            .map(|word| {
                known.get(word).unwrap_or_else(|| match prepared.strange_words.get(word) {
                    Some(number) => known.len() + number,
                    None => known.len() + prepared.strange_words.len() + unheard.intern(word),
                })
            })
            .collect();
        let weights: [Vec<(u32, f64)>; MAX_N] = std::array::from_fn(|n| {
            let grams = count(&words, n + 1).into_iter().map(|(gram, count)| {
                let number =
                    self.frequencies.numbers.get(&gram).or_else(|| prepared.strange_grams.get(&gram));
                let number = number.copied().unwrap_or(NOWHERE);
                (number, f64::from(count) * self.weight(number))
            });
            grams.collect()
        });
        let norms = std::array::from_fn(|n| norm(weights[n].iter().map(|&(_, weight)| weight)));
        let hypothesis = Vector { weights, norms, bigrams: words.len().saturating_sub(1) as f64 };
        self.score_vector(&hypothesis, &prepared.references)
    }

    /// The mean over n of the summed similarities, times 10 over the number of references.
    fn score_vector(&self, hypothesis: &Vector, references: &[Reference]) -> f64 {
        if references.is_empty() {
            return 0.0;
        }
        let mut sums = [0.0; MAX_N];
        for reference in references {
            for (sum, similarity) in sums.iter_mut().zip(self.similarity(hypothesis, reference)) {
                *sum += similarity;
            }
        }
        numpy_mean(&sums) / references.len() as f64 * 10.0
    }

    /// For each n: the clipped product of the weights over both norms, times the Gaussian of the lengths.
    fn similarity(&self, hypothesis: &Vector, reference: &Reference) -> [f64; MAX_N] {
        let nearness = nearness(hypothesis.bigrams - reference.bigrams);
        std::array::from_fn(|n| {
            let theirs = reference.counts(n);
            let mut product = 0.0;
            for &(number, weight) in &hypothesis.weights[n] {
                if let Ok(place) = theirs.binary_search_by_key(&number, |&(other, _)| other) {
                    let their_weight = f64::from(theirs[place].1) * self.weight(number);
                    // Clipping at the reference's weight takes the gain out of repeating a good n-gram.
                    product += weight.min(their_weight) * their_weight;
                }
            }
            if hypothesis.norms[n] != 0.0 && reference.norms[n] != 0.0 {
                product /= hypothesis.norms[n] * reference.norms[n];
            }
            product * nearness
        })
    }
}

/// CIDEr of every video and the corpus value, their mean. Frequencies come from the references given.
///
/// The captions must be tokenised. The result is the same, bit for bit, with any number of threads.
pub fn corpus_cider<R, S, H>(hypotheses: &[H], references_per_video: &[R]) -> (f64, Vec<f64>)
where
    R: AsRef<[S]> + Sync,
    S: AsRef<str> + Sync,
    H: AsRef<str> + Sync,
{
    cider_of_grams(&Grams::new(hypotheses, references_per_video))
}

/// As [`corpus_cider`], with the n-grams numbered and counted already.
pub(crate) fn cider_of_grams(grams: &Grams) -> (f64, Vec<f64>) {
    let weights = grams.weights();
    let scores: Vec<f64> =
        grams.videos().map_init(Scratch::default, |scratch, video| scratch.score(video, &weights)).collect();
    (numpy_mean(&scores), scores)
}

/// Room for one video's counts.
#[derive(Default)]
struct Scratch {
    hypothesis: NumberCounts,
    reference: NumberCounts,
    /// The weight of each n-gram of the hypothesis in the reference at hand.
    theirs: Vec<f64>,
    /// The Gaussian of the difference in length to each reference.
    nearness: Vec<f64>,
}

impl Scratch {
    /// What [`CiderScorer::score`] gives, from numbers instead of words: the same operations in the same order.
    fn score(&mut self, video: VideoGrams<'_>, weights: &[Vec<f64>; MAX_N]) -> f64 {
        let bigrams = video.hypothesis(1).len() as f64;
        self.nearness.clear();
        self.nearness.extend(video.references(1).map(|theirs| nearness(bigrams - theirs.len() as f64)));
        if self.nearness.is_empty() {
            return 0.0;
        }
        let sums: [f64; MAX_N] = std::array::from_fn(|n| {
            let weigh = |&(number, count): &(u32, u32)| f64::from(count) * weights[n][number as usize];
            self.hypothesis.set_to_find(video.hypothesis(n));
            let norm = norm(self.hypothesis.in_order.iter().map(weigh));
            let mut sum = 0.0;
            for (reference, nearness) in video.references(n).zip(&self.nearness) {
                self.reference.set(reference);
                self.theirs.clear();
                self.theirs.resize(self.hypothesis.in_order.len(), 0.0);
                for entry in &self.reference.in_order {
                    if let Some(place) = self.hypothesis.place(entry.0) {
                        self.theirs[place] = weigh(entry);
                    }
                }
                let their_norm = self::norm(self.reference.in_order.iter().map(weigh));
                let mut product = 0.0;
                for (ours, &theirs) in self.hypothesis.in_order.iter().map(weigh).zip(&self.theirs) {
                    product += ours.min(theirs) * theirs;
                }
                if norm != 0.0 && their_norm != 0.0 {
                    product /= norm * their_norm;
                }
                sum += product * nearness;
            }
            sum
        });
        numpy_mean(&sums) / self.nearness.len() as f64 * 10.0
    }
}

/// The length of a vector of weights.
fn norm(weights: impl Iterator<Item = f64>) -> f64 {
    weights.fold(0.0, |sum, weight| sum + weight * weight).sqrt()
}

/// The Gaussian of a difference in length.
fn nearness(delta: f64) -> f64 {
    // The reference raises e to a power instead of calling exp; the two may differ in the last digit.
    std::f64::consts::E.powf(-(delta * delta) / (2.0 * SIGMA * SIGMA))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references() -> Vec<Vec<String>> {
        [&["a man plays a guitar", "a man is playing"][..], &["a dog runs in the park"], &["two cats sleep"]]
            .iter()
            .map(|captions| captions.iter().map(ToString::to_string).collect())
            .collect()
    }

    #[test]
    fn a_hypothesis_equal_to_its_only_reference_scores_ten() {
        let (_, scores) = corpus_cider(&["a cow", "a dog runs in the park", "no"], &references());
        assert!((scores[1] - 10.0).abs() < 1e-12, "{scores:?}");
        assert_eq!(scores[2], 0.0);
    }

    #[test]
    fn one_video_scores_zero_by_construction() {
        let (corpus, _) = corpus_cider(&["a dog"], &[vec!["a dog".to_string()]]);
        assert_eq!(corpus, 0.0);
    }

    #[test]
    fn an_ngram_counts_once_for_a_video() {
        let frequencies = DocumentFrequencies::from_references(&references());
        assert_eq!(frequencies.count(&["a"]), 2.0);
        assert_eq!(frequencies.count(&["a", "man"]), 1.0);
        assert_eq!(frequencies.count(&["a", "cow"]), 0.0);
        assert_eq!(frequencies.count(&["cow"]), 0.0);
    }

    #[test]
    fn repeating_an_ngram_gains_nothing_by_itself() {
        let scorer = CiderScorer::new(DocumentFrequencies::from_references(&references()));
        let prepared = scorer.prepare(&["two cats sleep"]);
        assert!(scorer.score("cats cats cats", &prepared) < scorer.score("two cats sleep", &prepared));
    }

    #[test]
    fn words_outside_the_frequencies_match_themselves_only() {
        let scorer = CiderScorer::new(DocumentFrequencies::from_references(&references()));
        let prepared = scorer.prepare(&["the zebra zigzags on home"]);
        let same = scorer.score("the zebra zigzags on home", &prepared);
        assert!((same - 10.0).abs() < 1e-12);
        assert_eq!(scorer.score("quagga quietly", &prepared), 0.0);
    }
}
