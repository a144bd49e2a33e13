//! METEOR's statistics and score.

use std::ops::AddAssign;

use super::MODULES;

const ALPHA: f64 = 0.85;
const BETA: f64 = 0.20;
const GAMMA: f64 = 0.60;
const DELTA: f64 = 0.75;

/// Weights of the modules in the score: exact, stem, synonym, paraphrase. The aligner uses other weights.
const WEIGHTS: [f64; MODULES] = [1.0, 0.6, 0.8, 0.6];

/// The 23 counts METEOR prints for a pair of captions. Those of a corpus are sums over its videos.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MeteorStatistics {
    /// Words of the hypothesis and of the reference.
    pub lengths: [u64; 2],
    /// Function words among them.
    pub function_words: [u64; 2],
    /// Matched content words of hypothesis and reference, by module: exact, stem, synonym, paraphrase.
    pub content_matches: [[u64; 2]; MODULES],
    /// Matched function words, likewise.
    pub function_matches: [[u64; 2]; MODULES],
    /// Runs of matches that are in the same order on both sides.
    pub chunks: u64,
    /// Matched words of hypothesis and reference.
    pub matches: [u64; 2],
}

impl MeteorStatistics {
    /// The counts in the order METEOR prints them.
    pub fn to_array(&self) -> [u64; 23] {
        let mut array = [0; 23];
        array[0..2].copy_from_slice(&self.lengths);
        array[2..4].copy_from_slice(&self.function_words);
        for module in 0..MODULES {
            array[4 + 4 * module..6 + 4 * module].copy_from_slice(&self.content_matches[module]);
            array[6 + 4 * module..8 + 4 * module].copy_from_slice(&self.function_matches[module]);
        }
        array[20] = self.chunks;
        array[21..23].copy_from_slice(&self.matches);
        array
    }

    /// Whether every word of both captions is matched in one run.
    fn is_complete(&self) -> bool {
        self.matches == self.lengths && self.chunks == 1
    }

    /// METEOR, 0 to 1.
    pub fn score(&self) -> f64 {
        let [precision, recall] = [0, 1].map(|side| self.weighted_matches(side) / self.weighted_length(side));
        let mean = 1.0 / ((1.0 - ALPHA) / precision + ALPHA / recall);
        let fragmentation = if self.is_complete() {
            0.0
        } else {
            self.chunks as f64 / ((self.matches[0] + self.matches[1]) as f64 / 2.0)
        };
        let score = mean * (1.0 - GAMMA * fragmentation.powf(BETA));
        // without matches it is 0/0
        if score.is_nan() { 0.0 } else { score.max(0.0) }
    }

    fn weighted_matches(&self, side: usize) -> f64 {
        let mut sum = 0.0;
        for module in 0..MODULES {
            sum += self.content_matches[module][side] as f64 * WEIGHTS[module] * DELTA;
        }
        for module in 0..MODULES {
            sum += self.function_matches[module][side] as f64 * WEIGHTS[module] * (1.0 - DELTA);
        }
        sum
    }

    fn weighted_length(&self, side: usize) -> f64 {
        let function = self.function_words[side] as f64;
        DELTA * (self.lengths[side] as f64 - function) + (1.0 - DELTA) * function
    }
}

/// Adds a video to the corpus. One that is matched completely in a single run adds no chunk.
impl AddAssign<&MeteorStatistics> for MeteorStatistics {
    fn add_assign(&mut self, video: &MeteorStatistics) {
        for side in 0..2 {
            self.lengths[side] += video.lengths[side];
            self.function_words[side] += video.function_words[side];
            self.matches[side] += video.matches[side];
            for module in 0..MODULES {
                self.content_matches[module][side] += video.content_matches[module][side];
                self.function_matches[module][side] += video.function_matches[module][side];
            }
        }
        if !video.is_complete() {
            self.chunks += video.chunks;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(words: u64) -> MeteorStatistics {
        let mut statistics = MeteorStatistics {
            lengths: [words; 2],
            chunks: 1,
            matches: [words; 2],
            ..MeteorStatistics::default()
        };
        statistics.content_matches[0] = [words; 2];
        statistics
    }

    #[test]
    fn a_complete_match_scores_one_and_adds_no_chunk() {
        assert_eq!(complete(5).score(), 1.0);
        let mut corpus = complete(5);
        corpus.chunks = 0;
        corpus += &complete(3);
        assert_eq!(corpus.chunks, 0);
        assert_eq!(corpus.matches, [8, 8]);
    }

    #[test]
    fn nothing_matched_scores_zero() {
        assert_eq!(MeteorStatistics::default().score(), 0.0);
        let unmatched = MeteorStatistics { lengths: [3, 4], ..MeteorStatistics::default() };
        assert_eq!(unmatched.score(), 0.0);
    }
}
