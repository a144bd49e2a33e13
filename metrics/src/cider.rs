//! CIDEr as in coco-caption and in papers, which is CIDEr-D without stemming.
//!
//! A caption is a vector of tf-idf weights of its n-grams, n from 1 to 4. The score is a clipped cosine of
//! the vectors of hypothesis and reference, times a Gaussian of the difference in length.
//!
//! Kept from the reference: the term frequency is the raw count; the "length" is the number of bigrams; an
//! n-gram that no reference has keeps the full weight ln(videos); a hypothesis shorter than n words adds 0
//! for that n and is still divided by 4; with a single video every weight is ln(1) = 0 and so is the score.
//!
//! The scale is 0 to 10; papers multiply it by 100 or by 10.

use rayon::prelude::*;

use crate::frequencies::{DocumentFrequencies, idf};
use crate::grams::{Grams, NumberCounts, VideoGrams};
use crate::ngram::{FastMap, Gram, MAX_N, Vocabulary, count, numpy_mean, python_split};

/// The width of the Gaussian over the difference in length, in bigrams.
const SIGMA: f64 = 6.0;

/// The n-grams of a reference; the scorer has their weights.
#[derive(Debug, Clone)]
struct Reference {
    /// Each n-gram's number and count: those of length 1 sorted by number, then those of length 2, and so on.
    counts: Vec<(u32, u32)>,
    /// The index after the last of each length.
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

/// The references of one video, prepared once to score many hypotheses against them.
#[derive(Debug, Clone)]
pub struct PreparedReferences {
    /// Words and n-grams that the frequencies lack, numbered after those they have.
    unknown_words: Vocabulary,
    unknown_grams: FastMap<Gram, u32>,
    references: Vec<Reference>,
}

/// The number of an n-gram that neither the frequencies nor the references have.
const ABSENT: u32 = u32::MAX;

/// Scores captions with given document frequencies.
#[derive(Debug, Clone)]
pub struct CiderScorer {
    frequencies: DocumentFrequencies,
    /// The weight of one occurrence of each n-gram, by its number.
    weights: Vec<f64>,
    /// The weight of an n-gram that the frequencies lack.
    full_weight: f64,
}

impl CiderScorer {
    /// A scorer with these frequencies.
    pub fn new(frequencies: DocumentFrequencies) -> Self {
        let weigh = |count| idf(frequencies.documents, count);
        let weights = frequencies.counts.iter().map(|&count| weigh(count)).collect();
        Self { full_weight: weigh(0.0), weights, frequencies }
    }

    fn weight(&self, number: u32) -> f64 {
        self.weights.get(number as usize).copied().unwrap_or(self.full_weight)
    }

    /// Prepares the tokenised references of one video.
    pub fn prepare<S: AsRef<str>>(&self, references: &[S]) -> PreparedReferences {
        let mut prepared = PreparedReferences {
            unknown_words: Vocabulary::default(),
            unknown_grams: FastMap::default(),
            references: Vec::with_capacity(references.len()),
        };
        let mut words: Vec<u32> = Vec::new();
        for reference in references {
            let DocumentFrequencies { vocabulary: known, ending, .. } = &self.frequencies;
            words.clear();
            words.extend(python_split(reference.as_ref()).chain(*ending).map(|word| {
                known.get(word).unwrap_or_else(|| known.len() + prepared.unknown_words.intern(word))
            }));
            let reference = self.reference(&words, &mut prepared.unknown_grams);
            prepared.references.push(reference);
        }
        prepared
    }

    fn reference(&self, words: &[u32], unknown_grams: &mut FastMap<Gram, u32>) -> Reference {
        let mut counts = Vec::with_capacity(MAX_N * words.len());
        let mut ends = [0; MAX_N];
        let norms = std::array::from_fn(|n| {
            let start = counts.len();
            counts.extend(count(words, n + 1).into_iter().map(|(gram, count)| {
                let number = self.frequencies.numbers.get(&gram).copied().unwrap_or_else(|| {
                    let next = (self.weights.len() + unknown_grams.len()) as u32;
                    *unknown_grams.entry(gram).or_insert(next)
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
    pub fn score(&self, hypothesis: &str, prepared: &PreparedReferences) -> f64 {
        let DocumentFrequencies { vocabulary: known, ending, .. } = &self.frequencies;
        let mut new = Vocabulary::default();
        let words: Vec<u32> = python_split(hypothesis)
            .chain(*ending)
            .map(|word| {
                known.get(word).unwrap_or_else(|| match prepared.unknown_words.get(word) {
                    Some(number) => known.len() + number,
                    None => known.len() + prepared.unknown_words.len() + new.intern(word),
                })
            })
            .collect();
        let bigrams = words.len().saturating_sub(1) as f64;
        let lengths: Vec<f64> =
            prepared.references.iter().map(|reference| nearness(bigrams - reference.bigrams)).collect();
        average(&lengths, |n| {
            let grams = count(&words, n + 1).into_iter().map(|(gram, count)| {
                let number =
                    self.frequencies.numbers.get(&gram).or_else(|| prepared.unknown_grams.get(&gram));
                let number = number.copied().unwrap_or(ABSENT);
                (number, f64::from(count) * self.weight(number))
            });
            let ours: Vec<(u32, f64)> = grams.collect();
            let our_norm = norm(ours.iter().map(|&(_, weight)| weight));
            let mut sum = 0.0;
            for (reference, nearness) in prepared.references.iter().zip(&lengths) {
                let theirs = reference.counts(n);
                let common = ours.iter().filter_map(|&(number, weight)| {
                    let place = theirs.binary_search_by_key(&number, |&(other, _)| other).ok()?;
                    Some((weight, f64::from(theirs[place].1) * self.weight(number)))
                });
                sum += clipped_cosine(common, our_norm, reference.norms[n]) * nearness;
            }
            sum
        })
    }
}

/// CIDEr of the corpus, which is the mean of the videos, and of every video. The result is the same, bit for
/// bit, with any number of threads.
pub(crate) fn cider_of_grams(grams: &Grams) -> (f64, Vec<f64>) {
    let weights = grams.weights();
    let scores: Vec<f64> =
        grams.videos().map_init(Scratch::default, |scratch, video| scratch.score(video, &weights)).collect();
    (numpy_mean(&scores), scores)
}

/// Buffers for one video.
#[derive(Default)]
struct Scratch {
    hypothesis: NumberCounts,
    reference: NumberCounts,
    /// The current reference's weight of each n-gram of the hypothesis.
    theirs: Vec<f64>,
    /// The Gaussian of the difference in length to each reference.
    lengths: Vec<f64>,
}

impl Scratch {
    /// [`CiderScorer::score`] on n-grams that are numbered over the corpus.
    fn score(&mut self, video: VideoGrams<'_>, weights: &[Vec<f64>; MAX_N]) -> f64 {
        let bigrams = video.hypothesis(1).len() as f64;
        let Self { hypothesis, reference, theirs, lengths } = self;
        lengths.clear();
        lengths.extend(video.references(1).map(|theirs| nearness(bigrams - theirs.len() as f64)));
        average(lengths, |n| {
            let weigh = |&(number, count): &(u32, u32)| f64::from(count) * weights[n][number as usize];
            hypothesis.set_to_find(video.hypothesis(n));
            let our_norm = norm(hypothesis.in_order.iter().map(weigh));
            let mut sum = 0.0;
            for (numbers, nearness) in video.references(n).zip(&*lengths) {
                reference.set(numbers);
                theirs.clear();
                theirs.resize(hypothesis.in_order.len(), 0.0);
                for entry in &reference.in_order {
                    if let Some(place) = hypothesis.place(entry.0) {
                        theirs[place] = weigh(entry);
                    }
                }
                let their_norm = norm(reference.in_order.iter().map(weigh));
                let pairs = hypothesis.in_order.iter().map(weigh).zip(theirs.iter().copied());
                sum += clipped_cosine(pairs, our_norm, their_norm) * nearness;
            }
            sum
        })
    }
}

/// CIDEr of a hypothesis: the mean over n of the similarities summed over the references, times 10 over their
/// number.
fn average(references: &[f64], sum: impl FnMut(usize) -> f64) -> f64 {
    if references.is_empty() {
        return 0.0;
    }
    let sums: [f64; MAX_N] = std::array::from_fn(sum);
    numpy_mean(&sums) / references.len() as f64 * 10.0
}

/// The clipped product of two vectors over their norms. `pairs` are the hypothesis's and the reference's
/// weight of each n-gram of the hypothesis; those that the reference lacks may be left out.
fn clipped_cosine(pairs: impl Iterator<Item = (f64, f64)>, our_norm: f64, their_norm: f64) -> f64 {
    // clipped at the reference's weight, so that repeating an n-gram gains nothing
    let product = pairs.fold(0.0, |sum, (ours, theirs)| sum + ours.min(theirs) * theirs);
    if our_norm != 0.0 && their_norm != 0.0 { product / (our_norm * their_norm) } else { product }
}

/// The Euclidean norm of weights.
pub(crate) fn norm(weights: impl Iterator<Item = f64>) -> f64 {
    weights.fold(0.0, |sum, weight| sum + weight * weight).sqrt()
}

/// The Gaussian of a difference in length.
pub(crate) fn nearness(delta: f64) -> f64 {
    // the reference computes a power of e, which may differ from `exp` in the last digit
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

    fn corpus_cider(hypotheses: &[&str], references: &[Vec<String>]) -> (f64, Vec<f64>) {
        cider_of_grams(&Grams::new(hypotheses, references))
    }

    #[test]
    fn scoring_adds_nothing_to_the_frequencies() {
        let scorer = CiderScorer::new(DocumentFrequencies::from_references(&references()));
        let before = scorer.frequencies.counts.len();
        scorer.score("quaggas quiver", &scorer.prepare(&["zebras zigzag"]));
        assert_eq!(scorer.frequencies.counts.len(), before);
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
