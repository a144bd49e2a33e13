//! The best constant caption: the sentence with the highest CIDEr if it is the caption of every video.
//!
//! A captioner that scores lower has learned nothing about the videos. Every reference is a candidate.

use std::collections::{BTreeMap, HashSet};

use rayon::prelude::*;

use crate::cider::{CiderScorer, PreparedReferences, nearness, norm};
use crate::frequencies::DocumentFrequencies;
use crate::ngram::{self, FastMap, Gram, MAX_N, numpy_mean, python_split};

/// Estimates differ from the exact score by less than this, from the order of summation.
const SUMMATION_SLACK: f64 = 1e-9;

/// The tokenised reference with the highest mean CIDEr over all videos, and that mean (0 to 10). The result
/// is exact; of equal captions the first is taken. `None` if there is no reference.
///
/// The similarity to a reference depends only on the common n-grams, their counts and the two lengths. So the
/// references are summed once by (n-gram, count, length), and each candidate is compared with those sums. The
/// candidates within rounding of the best are then scored exactly.
pub fn best_constant_caption<R, S>(references_per_video: &[R]) -> Option<(String, f64)>
where
    R: AsRef<[S]> + Sync,
    S: AsRef<str> + Sync,
{
    let frequencies = DocumentFrequencies::from_references(references_per_video);
    let mut seen = HashSet::new();
    let candidates: Vec<&str> = references_per_video
        .iter()
        .flat_map(|references| references.as_ref())
        .map(AsRef::as_ref)
        .filter(|caption| seen.insert(*caption))
        .collect();

    let sums = sum_references(&frequencies, references_per_video);
    let estimates: Vec<f64> =
        candidates.par_iter().map(|caption| average(&sums, &frequencies, caption)).collect();
    let highest = estimates.iter().copied().fold(f64::NEG_INFINITY, f64::max);

    let scorer = CiderScorer::new(frequencies);
    let prepared: Vec<PreparedReferences> =
        references_per_video.par_iter().map(|references| scorer.prepare(references.as_ref())).collect();
    let mut best: Option<(&str, f64)> = None;
    for (caption, estimate) in candidates.iter().zip(&estimates) {
        if *estimate < highest - SUMMATION_SLACK {
            continue;
        }
        let scores: Vec<f64> =
            prepared.par_iter().map(|references| scorer.score(caption, references)).collect();
        let mean = numpy_mean(&scores);
        if best.is_none_or(|(_, score)| mean > score) {
            best = Some((caption, mean));
        }
    }
    best.map(|(caption, score)| (caption.to_owned(), score))
}

/// Contributions of the references, summed by n-gram, count and length. For each n-gram: count in the
/// reference, bigrams of the reference, sum of share over norm.
type ReferenceSums = FastMap<Gram, Vec<(f64, f64, f64)>>;

fn sum_references<R, S>(frequencies: &DocumentFrequencies, references_per_video: &[R]) -> ReferenceSums
where
    R: AsRef<[S]>,
    S: AsRef<str>,
{
    let mut sums: FastMap<Gram, BTreeMap<(u32, usize), f64>> = FastMap::default();
    for references in references_per_video {
        let references = references.as_ref();
        let share = 1.0 / references.len() as f64;
        for reference in references {
            let (counts, bigrams) = count(frequencies, reference.as_ref());
            for grams in &counts {
                let norm = norm_of(frequencies, grams);
                for &(gram, count) in grams.iter().filter(|_| norm != 0.0) {
                    *sums.entry(gram).or_default().entry((count, bigrams)).or_insert(0.0) += share / norm;
                }
            }
        }
    }
    sums.into_iter()
        .map(|(gram, sums)| {
            let list = sums.into_iter();
            let list = list.map(|((count, bigrams), sum)| (f64::from(count), bigrams as f64, sum));
            (gram, list.collect())
        })
        .collect()
}

/// Mean CIDEr of the caption over all videos, up to the rounding of another order of summation.
fn average(sums: &ReferenceSums, frequencies: &DocumentFrequencies, caption: &str) -> f64 {
    let (counts, bigrams) = count(frequencies, caption);
    let mut total = 0.0;
    for grams in &counts {
        let norm = norm_of(frequencies, grams);
        for &(gram, count) in grams.iter().filter(|_| norm != 0.0) {
            let weight = frequencies.weight(gram);
            for &(their_count, their_bigrams, sum) in sums.get(&gram).into_iter().flatten() {
                let product = f64::from(count).min(their_count) * their_count * weight * weight / norm;
                total += product * sum * nearness(bigrams as f64 - their_bigrams);
            }
        }
    }
    total / MAX_N as f64 / frequencies.documents * 10.0
}

fn count(frequencies: &DocumentFrequencies, caption: &str) -> ([Vec<(Gram, u32)>; MAX_N], usize) {
    // every candidate is a reference, so the frequencies have every word
    let words: Vec<u32> = python_split(caption).filter_map(|word| frequencies.vocabulary.get(word)).collect();
    (std::array::from_fn(|n| ngram::count(&words, n + 1)), words.len().saturating_sub(1))
}

fn norm_of(frequencies: &DocumentFrequencies, grams: &[(Gram, u32)]) -> f64 {
    norm(grams.iter().map(|&(gram, count)| f64::from(count) * frequencies.weight(gram)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_trying_every_caption() {
        // Sentences from a small grammar, so that many are alike and some are equal.
        let mut state = 7_u32;
        let mut pick = |words: &[&'static str]| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            words[(state >> 16) as usize % words.len()]
        };
        let references: Vec<Vec<String>> = (0..30)
            .map(|_| {
                (0..6)
                    .map(|_| {
                        let who = pick(&["a man", "a woman", "the the man", "two dogs"]);
                        let what = pick(&["is playing", "runs", "is playing playing", "sings a song"]);
                        let place = pick(&["", " in the park", " on a stage", " with a ball"]);
                        format!("{who} {what}{place}")
                    })
                    .collect()
            })
            .collect();

        let scorer = CiderScorer::new(DocumentFrequencies::from_references(&references));
        let prepared: Vec<_> = references.iter().map(|captions| scorer.prepare(captions)).collect();
        let mut best = (String::new(), f64::NEG_INFINITY);
        for caption in references.iter().flatten() {
            let scores: Vec<f64> = prepared.iter().map(|video| scorer.score(caption, video)).collect();
            if numpy_mean(&scores) > best.1 {
                best = (caption.clone(), numpy_mean(&scores));
            }
        }
        assert_eq!(best_constant_caption(&references), Some(best));
    }

    #[test]
    fn nothing_to_choose_from_is_none() {
        assert_eq!(best_constant_caption::<Vec<String>, String>(&[]), None);
    }
}
