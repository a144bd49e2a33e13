//! BLEU-1 to BLEU-4 with coco-caption's smoothing and its "closest" reference length.
//!
//! Kept from the reference: `tiny` and `small` are added to every ratio, so a perfect corpus gives
//! 0.9999999996 and an empty hypothesis exactly 0; of two equally close reference lengths the shorter is
//! taken. Papers report the corpus value, from summed counts. The value of a single video is smoothed to
//! about 1e-12 if a precision is 0; the mean of these values is not BLEU.

use rayon::prelude::*;

use crate::grams::{Grams, NumberCounts, VideoGrams};
use crate::ngram::MAX_N;

const SMALL: f64 = 1e-9;
const TINY: f64 = 1e-15;

/// The counts of BLEU. Those of a corpus are sums over its videos.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BleuStatistics {
    /// Words of the hypothesis.
    pub hypothesis_length: u64,
    /// Words of the reference whose length is closest.
    pub reference_length: u64,
    /// n-grams in the hypothesis, for n from 1 to 4.
    pub guessed: [u64; MAX_N],
    /// n-grams of the hypothesis that a reference has, clipped at the maximum count in a reference.
    pub correct: [u64; MAX_N],
}

impl BleuStatistics {
    /// Counts one tokenised hypothesis against its tokenised references.
    pub fn of<S: AsRef<str>>(hypothesis: &str, references: &[S]) -> Self {
        Self::of_videos(&Grams::new(&[hypothesis], &[references])).pop().unwrap_or_default()
    }

    /// Counts every video of a corpus.
    pub(crate) fn of_videos(grams: &Grams) -> Vec<Self> {
        let start = || (NumberCounts::default(), Vec::new(), Vec::new());
        grams
            .videos()
            .map_init(start, |(counts, met, allowed), video| Self::of_video(video, counts, met, allowed))
            .collect()
    }

    fn of_video(
        video: VideoGrams<'_>,
        counts: &mut NumberCounts,
        met: &mut Vec<u32>,
        allowed: &mut Vec<u32>,
    ) -> Self {
        let length = video.hypothesis(0).len();
        let closest = video.references(0).map(|words| (words.len().abs_diff(length), words.len())).min();
        let mut statistics = Self {
            hypothesis_length: length as u64,
            reference_length: closest.map_or(0, |(_, length)| length as u64),
            ..Self::default()
        };
        for n in 0..MAX_N {
            counts.set_to_find(video.hypothesis(n));
            allowed.clear();
            allowed.resize(counts.in_order.len(), 0);
            for reference in video.references(n) {
                met.clear();
                met.resize(allowed.len(), 0);
                for place in reference.iter().filter_map(|&number| counts.place(number)) {
                    met[place] += 1;
                }
                for (allowed, &met) in allowed.iter_mut().zip(&*met) {
                    *allowed = met.max(*allowed);
                }
            }
            statistics.guessed[n] = video.hypothesis(n).len() as u64;
            let clipped = counts.in_order.iter().zip(&*allowed).map(|(&(_, count), &max)| count.min(max));
            statistics.correct[n] = clipped.map(u64::from).sum();
        }
        statistics
    }

    /// Adds another video's counts.
    pub fn add(&mut self, other: &Self) {
        self.hypothesis_length += other.hypothesis_length;
        self.reference_length += other.reference_length;
        for n in 0..MAX_N {
            self.guessed[n] += other.guessed[n];
            self.correct[n] += other.correct[n];
        }
    }

    /// BLEU-1 to BLEU-4, each 0 to 1.
    pub fn scores(&self) -> [f64; MAX_N] {
        let mut product = 1.0;
        let mut scores = [0.0; MAX_N];
        for (n, score) in scores.iter_mut().enumerate() {
            product *= (self.correct[n] as f64 + TINY) / (self.guessed[n] as f64 + SMALL);
            *score = f64::powf(product, 1.0 / (n + 1) as f64);
        }
        let ratio = (self.hypothesis_length as f64 + TINY) / (self.reference_length as f64 + SMALL);
        if ratio < 1.0 {
            let brevity = (1.0 - 1.0 / ratio).exp();
            scores = scores.map(|score| score * brevity);
        }
        scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closest_length_tie_takes_the_shorter() {
        // Lengths 2 and 6 are equally far from 4.
        let statistics = BleuStatistics::of("a b c d", &["a b c d e f", "a b"]);
        assert_eq!(statistics.reference_length, 2);
    }

    #[test]
    fn counts_are_clipped_at_the_maximum_of_the_references() {
        let statistics = BleuStatistics::of("the the the", &["the cat the", "the"]);
        assert_eq!(statistics.correct, [2, 0, 0, 0]);
        assert_eq!(statistics.guessed, [3, 2, 1, 0]);
    }

    #[test]
    fn the_public_fake_captions_demo() {
        // Counts and scores published with coco-caption's demo of fake captions: .579 .404 .279 .191.
        let statistics = BleuStatistics {
            hypothesis_length: 9893,
            reference_length: 9855,
            guessed: [9893, 8893, 7893, 6893],
            correct: [5732, 2510, 1043, 423],
        };
        let rounded = statistics.scores().map(|score| (score * 1000.0).round() / 1000.0);
        assert_eq!(rounded, [0.579, 0.404, 0.279, 0.191]);
    }

    #[test]
    fn an_empty_hypothesis_is_exactly_zero() {
        assert_eq!(BleuStatistics::of("", &["a b"]).scores(), [0.0; 4]);
    }
}
