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
use crate::ngram::{Counts, FastMap, FastSet, Gram, MAX_N, Vocabulary, numpy_mean, python_split};

/// The width of the Gaussian over the difference in length, in bigrams.
const SIGMA: f64 = 6.0;

/// In how many documents (videos) each n-gram occurs, counted once and read by every score afterwards.
///
/// Reading never adds to it. The cached frequencies of other projects grow with each look-up, because their
/// dictionary inserts what it is asked for.
#[derive(Debug, Clone)]
pub struct DocumentFrequencies {
    pub(crate) vocabulary: Vocabulary,
    pub(crate) counts: FastMap<Gram, f64>,
    pub(crate) documents: f64,
}

impl DocumentFrequencies {
    /// Counts over videos: an n-gram counts once for each video any of whose tokenised references has it.
    pub fn from_references<R, S>(references_per_video: &[R]) -> Self
    where
        R: AsRef<[S]>,
        S: AsRef<str>,
    {
        let mut vocabulary = Vocabulary::default();
        let mut counts: FastMap<Gram, f64> = FastMap::default();
        let mut seen: FastSet<Gram> = FastSet::default();
        for references in references_per_video {
            seen.clear();
            for reference in references.as_ref() {
                let words: Vec<u32> =
                    python_split(reference.as_ref()).map(|word| vocabulary.intern(word)).collect();
                seen.extend(Counts::of(&words).all().map(|(gram, _)| gram));
            }
            for &gram in &seen {
                *counts.entry(gram).or_insert(0.0) += 1.0;
            }
        }
        Self { vocabulary, counts, documents: references_per_video.len() as f64 }
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
                self.counts.get(&crate::ngram::gram(&numbers)).copied().unwrap_or(0.0)
            }
            _ => 0.0,
        }
    }

    /// What one occurrence of the n-gram weighs.
    pub(crate) fn weight(&self, gram: Gram) -> f64 {
        self.documents.ln() - self.counts.get(&gram).copied().unwrap_or(0.0).max(1.0).ln()
    }

    fn vector(&self, words: &[u32]) -> Vector {
        let counts = Counts::of(words);
        let weights: [Vec<(Gram, f64)>; MAX_N] = counts.by_length.map(|grams| {
            grams.into_iter().map(|(gram, n)| (gram, f64::from(n) * self.weight(gram))).collect()
        });
        let norms = std::array::from_fn(|n| norm(weights[n].iter().map(|&(_, weight)| weight)));
        Vector { weights, norms, bigrams: words.len().saturating_sub(1) as f64 }
    }
}

/// The weighted n-grams of one caption.
#[derive(Debug, Clone)]
pub(crate) struct Vector {
    pub(crate) weights: [Vec<(Gram, f64)>; MAX_N],
    pub(crate) norms: [f64; MAX_N],
    pub(crate) bigrams: f64,
}

/// The references of one video, weighted once so that many hypotheses can be scored against them.
#[derive(Debug, Clone)]
pub struct PreparedReferences {
    /// Words the frequencies don't know, numbered after those they know.
    strangers: Vocabulary,
    /// Each reference's weights, sorted by n-gram.
    vectors: Vec<Vector>,
}

/// Scores captions with given document frequencies.
#[derive(Debug, Clone)]
pub struct CiderScorer {
    frequencies: DocumentFrequencies,
}

impl CiderScorer {
    /// A scorer that weighs n-grams by these frequencies.
    pub fn new(frequencies: DocumentFrequencies) -> Self {
        Self { frequencies }
    }

    /// The frequencies it weighs by.
    pub fn frequencies(&self) -> &DocumentFrequencies {
        &self.frequencies
    }

    /// Weighs the tokenised references of one video.
    pub fn prepare<S: AsRef<str>>(&self, references: &[S]) -> PreparedReferences {
        let known = &self.frequencies.vocabulary;
        let mut strangers = Vocabulary::default();
        let vectors = references
            .iter()
            .map(|reference| {
                let words: Vec<u32> = python_split(reference.as_ref())
                    .map(|word| known.get(word).unwrap_or_else(|| known.len() + strangers.intern(word)))
                    .collect();
                let mut vector = self.frequencies.vector(&words);
                for weights in &mut vector.weights {
                    weights.sort_unstable_by_key(|&(gram, _)| gram);
                }
                vector
            })
            .collect();
        PreparedReferences { strangers, vectors }
    }

    /// CIDEr of one tokenised hypothesis, 0 to 10. Without references it is 0.
    pub fn score(&self, hypothesis: &str, references: &PreparedReferences) -> f64 {
        let known = &self.frequencies.vocabulary;
        let mut unheard = Vocabulary::default();
        let words: Vec<u32> = python_split(hypothesis)
            .map(|word| {
                known.get(word).unwrap_or_else(|| match references.strangers.get(word) {
                    Some(number) => known.len() + number,
                    None => known.len() + references.strangers.len() + unheard.intern(word),
                })
            })
            .collect();
        score_vector(&self.frequencies.vector(&words), &references.vectors)
    }
}

/// The mean over n of the summed similarities, times 10 over the number of references.
fn score_vector(hypothesis: &Vector, references: &[Vector]) -> f64 {
    if references.is_empty() {
        return 0.0;
    }
    let mut sums = [0.0; MAX_N];
    for reference in references {
        for (sum, similarity) in sums.iter_mut().zip(similarity(hypothesis, reference)) {
            *sum += similarity;
        }
    }
    numpy_mean(&sums) / references.len() as f64 * 10.0
}

/// For each n: the clipped product of the weights over both norms, times the Gaussian of the lengths.
fn similarity(hypothesis: &Vector, reference: &Vector) -> [f64; MAX_N] {
    let nearness = nearness(hypothesis.bigrams - reference.bigrams);
    std::array::from_fn(|n| {
        let theirs = &reference.weights[n];
        let mut product = 0.0;
        for &(gram, weight) in &hypothesis.weights[n] {
            if let Ok(place) = theirs.binary_search_by_key(&gram, |&(other, _)| other) {
                // Clipping at the reference's weight takes the gain out of repeating a good n-gram.
                product += weight.min(theirs[place].1) * theirs[place].1;
            }
        }
        if hypothesis.norms[n] != 0.0 && reference.norms[n] != 0.0 {
            product /= hypothesis.norms[n] * reference.norms[n];
        }
        product * nearness
    })
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
    let scores: Vec<f64> = grams
        .videos()
        .map_init(Scratch::default, |scratch, video| scratch.score(video, &weights))
        .collect();
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
