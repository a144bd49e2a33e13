//! The log-sum of a row of logits and its best tokens, without sorting the vocabulary.

/// Number of logits in a block, a multiple of [`LANES`].
const BLOCK: usize = 64;
/// Number of values computed together, so that the compiler vectorises.
const LANES: usize = 16;
/// Blocks this far below the greatest logit are left out of the sum: 50,000 such tokens are less than 5e-9 of
/// it.
const NEGLIGIBLE: f32 = -30.0;

/// Why a row of logits is unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The score of this token is not a number.
    NotANumber(usize),
    /// The score of this token is +∞.
    Infinite(usize),
    /// All tokens have the score -∞: none is possible.
    NothingPossible,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotANumber(token) => write!(formatter, "the score of token {token} is not a number"),
            Self::Infinite(token) => write!(formatter, "the score of token {token} is infinite"),
            Self::NothingPossible => formatter.write_str("no token is possible: each has the score -inf"),
        }
    }
}

/// A candidate for the next token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) token: u32,
    /// The score with all penalties.
    pub(super) score: f32,
    /// The model's log-probability, without penalties.
    pub(super) log_probability: f32,
}

impl Candidate {
    /// Higher scores first, then lower tokens.
    fn precedes(&self, other: &Self) -> bool {
        self.score > other.score || (self.score == other.score && self.token < other.token)
    }
}

/// A row of logits. Buffers are reused at every step.
#[derive(Debug, Default, Clone)]
pub(super) struct Row {
    /// Log-sum-exp of the row.
    log_sum: f64,
    /// Greatest logit of each block.
    block_max: Vec<f32>,
}

impl Row {
    /// Reads a row.
    pub(super) fn read(&mut self, logits: &[f32]) -> Result<(), Fault> {
        self.block_max.clear();
        let mut all_numbers = true;
        for block in logits.chunks(BLOCK) {
            let (max, numbers) = block_max(block);
            all_numbers &= numbers;
            self.block_max.push(max);
        }
        let max = self.block_max.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if !all_numbers {
            return Err(Fault::NotANumber(logits.iter().position(|x| x.is_nan()).unwrap_or_default()));
        }
        if max == f32::INFINITY {
            return Err(Fault::Infinite(logits.iter().position(|&x| x == max).unwrap_or_default()));
        }
        if max == f32::NEG_INFINITY {
            return Err(Fault::NothingPossible);
        }
        let blocks = logits.chunks(BLOCK).zip(&self.block_max);
        let possible = blocks.filter(|&(_, &block_max)| block_max - max > NEGLIGIBLE);
        let sum: f64 = possible.map(|(block, _)| f64::from(exp_sum(block, max))).sum();
        self.log_sum = f64::from(max) + sum.ln();
        Ok(())
    }

    /// Log-probability of a token with this logit; rounded once.
    pub(super) fn log_probability(&self, logit: f32) -> f32 {
        (f64::from(logit) - self.log_sum) as f32
    }

    /// The best `count` possible tokens of the row, sorted; of equal ones the lowest first. `changed` holds
    /// the tokens whose scores differ from their log-probabilities. The row is restored afterwards.
    pub(super) fn best(
        &self,
        logits: &mut [f32],
        changed: &[Candidate],
        count: usize,
        best: &mut Vec<Candidate>,
    ) {
        best.clear();
        let kept: Vec<f32> = changed
            .iter()
            .map(|candidate| std::mem::replace(&mut logits[candidate.token as usize], f32::NEG_INFINITY))
            .collect();
        self.scan(logits, count, best);
        for (candidate, logit) in changed.iter().zip(kept) {
            logits[candidate.token as usize] = logit;
        }
        for candidate in best.iter_mut() {
            candidate.log_probability = self.log_probability(candidate.score);
            candidate.score = candidate.log_probability;
        }
        for candidate in changed.iter().filter(|candidate| candidate.score > f32::NEG_INFINITY) {
            let place = best.partition_point(|other| !candidate.precedes(other));
            if place < count {
                best.truncate(count - 1);
                best.insert(place, *candidate);
            }
        }
    }

    /// The greatest `count` logits, sorted. Most blocks have none and cost one comparison.
    fn scan(&self, logits: &[f32], count: usize, best: &mut Vec<Candidate>) {
        let mut least = f32::NEG_INFINITY;
        for (index, (block, &block_max)) in logits.chunks(BLOCK).zip(&self.block_max).enumerate() {
            if block_max <= least {
                continue;
            }
            for (offset, &logit) in block.iter().enumerate() {
                if logit > least {
                    let token = (index * BLOCK + offset) as u32;
                    let place = best.partition_point(|other| other.score >= logit);
                    best.truncate(count.saturating_sub(1));
                    best.insert(place, Candidate { token, score: logit, log_probability: 0.0 });
                    if best.len() == count {
                        least = best[count - 1].score;
                    }
                }
            }
        }
    }
}

/// The greatest value of a block, and whether all are numbers.
fn block_max(block: &[f32]) -> (f32, bool) {
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut not_numbers = [0u32; LANES];
    let (groups, rest) = block.as_chunks::<LANES>();
    for values in groups {
        for lane in 0..LANES {
            max[lane] = if values[lane] > max[lane] { values[lane] } else { max[lane] };
            not_numbers[lane] |= u32::from(values[lane].is_nan());
        }
    }
    for (lane, &value) in rest.iter().enumerate() {
        max[lane] = max[lane].max(value);
        not_numbers[lane] |= u32::from(value.is_nan());
    }
    (max.into_iter().fold(f32::NEG_INFINITY, f32::max), not_numbers == [0; LANES])
}

/// Sum of `exp(x - max)` over a block of numbers none above `max`.
fn exp_sum(block: &[f32], max: f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (groups, rest) = block.as_chunks::<LANES>();
    for values in groups {
        for lane in 0..LANES {
            sums[lane] += exp(values[lane] - max);
        }
    }
    for (sum, &value) in sums.iter_mut().zip(rest) {
        *sum += exp(value - max);
    }
    sums.into_iter().sum()
}

/// `eˣ` for x ≤ 0 as `2ⁿ·eʳ`, `n` the integer nearest to `x/ln 2`; relative error below 2e-7. `ln 2` is
/// subtracted in two parts, so that the error does not grow with `|x|` as that of the faster `exp` of the
/// layers; x is clamped at -87.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // adding 1.5·2²³ rounds to an integer and stores it in the lowest bits
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = if x > -87.0 { x } else { -87.0 };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let series = (((1.0 / 5040.0 * r + 1.0 / 720.0) * r + 1.0 / 120.0) * r + 1.0 / 24.0) * r + 1.0 / 6.0;
    let power = ((series * r + 0.5) * r + 1.0) * r + 1.0;
    power * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random, from -1 to 1.
    fn noise(seed: u32, count: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn read(logits: &[f32]) -> Row {
        let mut row = Row::default();
        row.read(logits).unwrap();
        row
    }

    #[test]
    fn exp_is_right_to_nearly_seven_digits() {
        for i in 0..870_000 {
            let x = i as f32 * -1e-4;
            let expected = f64::from(x).exp();
            let relative = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(relative < 2e-7, "{x}: {relative:e}");
        }
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
    }

    #[test]
    fn log_probabilities_are_the_f64_truth_rounded_once() {
        for (seed, scale) in [(1, 0.0), (2, 0.1), (3, 1.0), (4, 5.0), (5, 12.0), (6, 50.0)] {
            for size in [1, 15, 63, 64, 65, 1000, 32_128, 50_272] {
                let logits: Vec<f32> = noise(seed, size).iter().map(|x| x * scale).collect();
                let row = read(&logits);
                let truth = logits.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
                assert!((row.log_sum - truth).abs() < 1.5e-7, "{scale} {size}: {} {truth}", row.log_sum);
                let rounded = f64::from(row.log_probability(logits[0]));
                let expected = f64::from(logits[0]) - truth;
                assert!((rounded - expected).abs() < 1.5e-7 + expected.abs() * 6e-8);
            }
        }
    }

    #[test]
    fn the_best_are_those_a_sort_puts_first() {
        for size in [1usize, 2, 63, 64, 65, 129, 1000] {
            for count in [1usize, 2, 7, 70] {
                for levels in [3.0, 1e6] {
                    // few levels make many equal scores
                    let raw = noise(size as u32 + count as u32, size);
                    let mut logits: Vec<f32> = raw.iter().map(|x| (x * levels).round() / levels).collect();
                    logits[size / 2] = f32::NEG_INFINITY;
                    if size == 1 {
                        logits[0] = 0.0;
                    }
                    let before = logits.clone();
                    let row = read(&logits);
                    let mut expected: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
                    expected.retain(|x| x.1 > f32::NEG_INFINITY);
                    expected.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap());
                    expected.truncate(count);
                    let mut best = Vec::new();
                    row.best(&mut logits, &[], count, &mut best);
                    let tokens: Vec<u32> = best.iter().map(|candidate| candidate.token).collect();
                    assert_eq!(tokens, expected.iter().map(|x| x.0).collect::<Vec<_>>());
                    assert_eq!(logits, before);
                }
            }
        }
    }

    #[test]
    fn changed_tokens_take_their_new_place_or_none() {
        let mut logits = vec![1.0, 5.0, 3.0, 4.0, 2.0];
        let row = read(&logits);
        let changed = [
            Candidate { token: 1, score: f32::NEG_INFINITY, log_probability: -0.4 },
            Candidate { token: 4, score: -0.1, log_probability: -3.0 },
            Candidate { token: 3, score: row.log_probability(3.0), log_probability: -1.0 },
        ];
        let mut best = Vec::new();
        row.best(&mut logits, &changed, 3, &mut best);
        assert_eq!(best.iter().map(|candidate| candidate.token).collect::<Vec<_>>(), [4, 2, 3]);
        assert_eq!(best[0].log_probability, -3.0);
        assert_eq!(logits, [1.0, 5.0, 3.0, 4.0, 2.0]);
    }

    #[test]
    fn rows_without_meaning_are_faults() {
        let mut row = Row::default();
        for size in [1, 17, 64, 100] {
            let mut logits = vec![f32::NEG_INFINITY; size];
            assert_eq!(row.read(&logits), Err(Fault::NothingPossible));
            logits[size - 1] = f32::INFINITY;
            assert_eq!(row.read(&logits), Err(Fault::Infinite(size - 1)));
            logits[size / 2] = f32::NAN;
            assert_eq!(row.read(&logits), Err(Fault::NotANumber(size / 2)));
        }
    }
}
