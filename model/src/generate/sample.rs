//! Draws from the distribution of the next token, filtered as Hugging Face's warpers do, on a generator of our own.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::config::Sample;
use super::scores::exp;

/// Tokens that are ordered first when looking for the likeliest that reach `top_p`.
const FEW: usize = 64;

/// The random numbers of one sequence: the same whatever the other sequences of the batch are.
#[derive(Debug, Clone)]
pub(super) struct RandomStream(ChaCha8Rng);

impl RandomStream {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Fixture {
        filters: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        v: u32,
        seed: u32,
        scale: f32,
        end_bias: f32,
        prompts: Vec<Vec<u32>>,
        config: crate::generate::GenerateConfig,
        tokens: Vec<Vec<u32>>,
        probabilities: Vec<Vec<f64>>,
    }

    fn mix(x: u32) -> u32 {
        let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
        x ^ (x >> 16)
    }

    /// The first logits of the script's model of kind "random".
    fn logits(case: &Case, number: u32, history: &[u32]) -> Vec<f32> {
        let back = |n: usize| history.len().checked_sub(n).map_or(0, |place| history[place]);
        let key = mix(mix(mix(case.seed.wrapping_add(number)).wrapping_add(back(1))).wrapping_add(back(2)));
        let key = mix(key);
        let logit = |token: u32| {
            let cell = mix(key.wrapping_add(token.wrapping_mul(0x9e37_79b9)));
            let logit = ((cell >> 8) as f32 / 16_777_216.0 - 0.5) * case.scale;
            if case.config.end_tokens.contains(&token) { logit + case.end_bias } else { logit }
        };
        (0..case.v).map(logit).collect()
    }

    #[test]
    fn the_filtered_distributions_are_those_of_transformers() {
        // made by scripts/reference/generation.py; probabilities are compared to 1e-5, as the fixture has six digits
        let fixture: Fixture =
            serde_json::from_str(include_str!("../../tests/fixtures/generation.json")).unwrap();
        let mut filtered = 0;
        for (index, case) in fixture.filters.iter().enumerate() {
            let crate::generate::Search::Sample(sample) = case.config.search else { panic!("not sampled") };
            for (number, history) in (0..).zip(&case.prompts) {
                let mut distribution = Distribution::default();
                assert!(distribution.filter(&logits(case, number, history), &sample));
                let (tokens, ours): (Vec<u32>, Vec<f64>) = distribution.probabilities().into_iter().unzip();
                assert_eq!(tokens, case.tokens[number as usize], "case {index}, {sample:?}");
                for (ours, theirs) in ours.iter().zip(&case.probabilities[number as usize]) {
                    assert!((ours - theirs).abs() < 1e-5, "case {index}: {ours} {theirs}");
                }
                filtered += usize::from(tokens.len() < case.v as usize);
            }
        }
        assert!(filtered > 50, "{filtered}");
    }

    #[test]
    fn top_p_of_a_large_even_vocabulary_keeps_the_lowest_tokens() {
        let mut distribution = Distribution::default();
        for (top_p, count) in [(0.001, 11), (0.25, 2560), (0.5, 5120), (1.0, 10_240)] {
            // one more than 10.24 is needed to reach a thousandth
            let sample = Sample { top_p, ..Sample::default() };
            assert!(distribution.filter(&vec![-3.0; 10_240], &sample));
            let kept: Vec<u32> = distribution.tokens.iter().map(|token| token.0).collect();
            assert_eq!(kept, (0..count).collect::<Vec<u32>>());
        }
    }

    #[test]
    fn top_k_keeps_all_that_equal_the_last() {
        let mut distribution = Distribution::default();
        let sample = Sample { top_k: 2, ..Sample::default() };
        assert!(distribution.filter(&[1.0, 3.0, 1.0, 0.0, f32::NEG_INFINITY], &sample));
        assert_eq!(distribution.tokens.iter().map(|token| token.0).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn impossible_tokens_have_no_weight_and_a_row_of_them_is_refused() {
        let mut distribution = Distribution::default();
        assert!(distribution.filter(&[f32::NEG_INFINITY, -900.0, 0.0], &Sample::default()));
        assert_eq!(distribution.tokens.iter().map(|token| token.0).collect::<Vec<_>>(), [1, 2]);
        assert!(!distribution.filter(&[f32::NEG_INFINITY; 3], &Sample::default()));
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let mut distribution = Distribution::default();
        let scores: Vec<f32> = [0.5f32, 0.25, 0.125, 0.125].iter().map(|p| p.ln()).collect();
        assert!(distribution.filter(&scores, &Sample::default()));
        let mut counts = [0u32; 4];
        for number in 0..20_000 {
            counts[RandomStream::new(7, 3, number).token(&distribution) as usize] += 1;
        }
        for (count, p) in counts.into_iter().zip([0.5, 0.25, 0.125, 0.125]) {
            let deviation = (f64::from(count) - 20_000.0 * p) / (20_000.0 * p * (1.0 - p)).sqrt();
            assert!(deviation.abs() < 4.0, "{count} of 20000 at {p}");
        }
    }

    #[test]
    fn streams_differ_by_each_of_their_three_names_and_repeat() {
        let numbers = |seed, stream, number| {
            let mut random = RandomStream::new(seed, stream, number);
            [random.unit(), random.unit()]
        };
        let first = numbers(1, 2, 3);
        assert_eq!(first, numbers(1, 2, 3));
        for other in [numbers(2, 2, 3), numbers(1, 3, 3), numbers(1, 2, 4), numbers(2, 1, 3)] {
            assert_ne!(first, other);
        }
    }
}
