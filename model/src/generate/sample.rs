//! Draws from the distribution of the next token, filtered as Hugging Face's warpers do, on a generator of our own.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::config::Sample;
use super::scores::exp;

/// Tokens that are ordered first when looking for the likeliest that reach `top_p`.
const FEW: usize = 64;

/// The random numbers of one sequence: the same whatever the other sequences of the batch are.
#[derive(Debug, Clone)]
pub(super) struct Draws(ChaCha8Rng);

impl Draws {
    /// The stream of the prompt's `number`th sample.
    pub(super) fn new(seed: u64, stream: u64, number: u64) -> Self {
        let mut key = [0; 32];
        for (bytes, value) in key.chunks_exact_mut(8).zip([seed, stream, number]) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Evenly from 0 up to but not including 1.
    fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Draws one of the tokens by weight.
    pub(super) fn token(&mut self, distribution: &Distribution) -> u32 {
        let mut left = self.unit() * distribution.total;
        for &(token, weight) in &distribution.tokens {
            left -= f64::from(weight);
            if left < 0.0 {
                return token;
            }
        }
        // rounding may leave a little of the sum after the last
        distribution.tokens.last().map_or(0, |&(token, _)| token)
    }
}

/// Tokens that may be drawn.
#[derive(Debug, Clone, Default)]
pub(super) struct Distribution {
    /// Tokens in order, and their weights, all above 0.
    tokens: Vec<(u32, f32)>,
    /// Sum of the weights.
    total: f64,
    buffer: Vec<f32>,
}

impl Distribution {
    /// Filters a row of scores, none of which is NaN or +∞. False where no token is possible.
    pub(super) fn filter(&mut self, scores: &[f32], sample: &Sample) -> bool {
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        self.tokens.clear();
        self.total = 0.0;
        if max == f32::NEG_INFINITY {
            return false;
        }
        let least = self.least_of_top_k(scores, sample.top_k);
        let temperature = sample.temperature as f32;
        let kept = (0..).zip(scores).filter(|&(_, &score)| score >= least);
        let weighted = kept.map(|(token, &score)| (token, exp((score - max) / temperature), score));
        // exp stops short of 0, but what is impossible must have no weight at all
        let possible = weighted.filter(|&(_, _, score)| score > f32::NEG_INFINITY);
        self.tokens.extend(possible.map(|(token, weight, _)| (token, weight)));
        if sample.top_p < 1.0 {
            self.keep_top_p(sample.top_p);
        }
        self.total = self.tokens.iter().map(|&(_, weight)| f64::from(weight)).sum();
        true
    }

    /// The score of the `k`th likeliest token: what equals it is kept too.
    fn least_of_top_k(&mut self, scores: &[f32], k: usize) -> f32 {
        if k == 0 || k >= scores.len() {
            return f32::NEG_INFINITY;
        }
        self.buffer.clear();
        self.buffer.extend_from_slice(scores);
        *self.buffer.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
    }

    /// Keeps the likeliest tokens until their probabilities reach `top_p`, of equal ones the lower tokens.
    fn keep_top_p(&mut self, top_p: f64) {
        let by_weight = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        let wanted = top_p * self.tokens.iter().map(|&(_, weight)| f64::from(weight)).sum::<f64>();
        let mut ordered = 0;
        let mut reached = 0.0;
        let mut kept = 0;
        while reached < wanted && kept < self.tokens.len() {
            if kept == ordered {
                // order the next few tokens, eight times as many at each go: nobody sorts the whole vocabulary
                let rest = &mut self.tokens[ordered..];
                let few = (ordered * 7).max(FEW).min(rest.len());
                if few < rest.len() {
                    rest.select_nth_unstable_by(few - 1, by_weight);
                }
                rest[..few].sort_unstable_by(by_weight);
                ordered += few;
            }
            reached += f64::from(self.tokens[kept].1);
            kept += 1;
        }
        self.tokens.truncate(kept.max(1));
        self.tokens.sort_unstable_by_key(|&(token, _)| token);
    }

    /// Tokens in order with their probabilities.
    #[cfg(test)]
    pub(super) fn probabilities(&self) -> Vec<(u32, f64)> {
        self.tokens.iter().map(|&(token, weight)| (token, f64::from(weight) / self.total)).collect()
    }
}
