//! Loops over values on the widest instructions of the machine, which neither fuse nor reorder: every machine
//! computes the same bits.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Values that are added side by side. A sum has this order on every machine, whatever its vectors' length.
const LANES: usize = 16;

/// Values that a thread takes at a time; smaller tensors stay on the calling thread.
pub(crate) const CHUNK: usize = 16 * 1024;

/// Rows of `width` values that a thread takes at a time.
pub(crate) fn rows_at_a_time(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}

/// Runs a loop with the widest instructions of this machine. What it calls must be `#[inline(always)]`.
///
/// (`pulp` takes a closure by `FnOnce`. The compiler then calls a closure that borrows through an adapter,
/// which has no wide instructions.)
#[inline(always)]
pub(crate) fn vectorised<R>(work: impl FnMut() -> R) -> R {
    struct Loop<F>(F);

    impl<R, F: FnMut() -> R> WithSimd for Loop<F> {
        type Output = R;

        #[inline(always)]
        fn with_simd<S: Simd>(mut self, _: S) -> R {
            (self.0)()
        }
    }

    pulp::Arch::new().dispatch(Loop(work))
}

/// The sum of `f` over positions `0..length`.
#[inline(always)]
pub(crate) fn sum(length: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = length / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for lane in 0..LANES {
            lanes[lane] += f(start + lane);
        }
    }
    for (lane, index) in (whole..length).enumerate() {
        lanes[lane] += f(index);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The largest value; -∞ of none.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], chunk[lane]);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |most, &value| larger(most, value))
}

/// Adds `term` to `total`.
#[inline(always)]
pub(crate) fn add(total: &mut [f32], term: &[f32]) {
    for (total, term) in total.iter_mut().zip(term) {
        *total += term;
    }
}

/// Adds `term` to the columns from `start` on of every row, on all cores. An empty `term` is no term.
pub(crate) fn add_to_columns(values: &mut [f32], width: usize, start: usize, term: &[f32]) {
    if term.is_empty() {
        return;
    }
    values.par_chunks_mut(rows_at_a_time(width) * width).for_each(|rows| {
        for row in rows.chunks_exact_mut(width) {
            add(&mut row[start..start + term.len()], term);
        }
    });
}

/// The sum of all rows of a matrix, of these columns.
pub(crate) fn sum_of_rows(values: &[f32], width: usize, place: Range<usize>) -> Vec<f32> {
    let sums = values.par_chunks(rows_at_a_time(width) * width.max(1)).map(|rows| {
        let mut sum = vec![0.0f32; place.len()];
        vectorised(
            #[inline(always)]
            || {
                for row in rows.chunks_exact(width.max(1)) {
                    add(&mut sum, &row[place.clone()]);
                }
            },
        );
        sum
    });
    total(&sums.collect::<Vec<_>>(), place.len())
}

/// The sum of vectors, in their order.
pub(crate) fn total(vectors: &[Vec<f32>], length: usize) -> Vec<f32> {
    let mut total = vec![0.0f32; length];
    vectors.iter().for_each(|vector| add(&mut total, vector));
    total
}

/// A rational minimax approximation of the error function on [-4, 4] (as in Eigen; absolute error below
/// 1.3e-6), which the compiler vectorises. It uses `a * b + c` because `mul_add` is a library call where the
/// target has no fused instruction.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let s = x * x;
    let numerator = (((((-2.726_142_3e-10 * s + 2.770_681_4e-8) * s - 2.101_024e-6) * s - 5.692_506_4e-5)
        * s
        - 7.349_906_3e-4)
        * s
        - 2.954_6e-3)
        * s
        - 1.609_603_3e-2;
    let denominator =
        (((-1.456_607_2e-5 * s - 2.133_740_6e-4) * s - 1.682_827e-3) * s - 7.373_329e-3) * s - 1.426_473_9e-2;
    x * numerator / denominator
}

/// `eˣ` as `2ⁿ·2ᶠ`, `n` the integer nearest to `x/ln 2`: a polynomial for `2ᶠ` (relative error below 2e-7)
/// and `n` in the exponent's bits. The standard library's `exp` is a call for each value, which prevents
/// vectorisation. The search over logits has another one, more exact far below 0.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // adding 1.5·2²³ rounds to an integer and stores it in the lowest bits
    const ROUND: f32 = 12_582_912.0;
    let t = x.clamp(-87.0, 88.0) * std::f32::consts::LOG2_E;
    let shifted = t + ROUND;
    let f = t - (shifted - ROUND);
    let power =
        ((((1.535_336e-4 * f + 1.339_887e-3) * f + 9.618_437e-3) * f + 5.550_332_4e-2) * f + 0.240_226_5) * f;
    let power = (power + std::f32::consts::LN_2) * f + 1.0;
    power * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// Maximum of a row and the reciprocal of `Σ exp(score - maximum)`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RowScale {
    pub maximum: f32,
    pub share: f32,
}

/// Replaces scores by their softmax.
#[inline(always)]
pub(crate) fn softmax_in_place(scores: &mut [f32]) -> RowScale {
    let maximum = max(scores);
    for score in scores.iter_mut() {
        *score = exp(*score - maximum);
    }
    let share = 1.0 / sum(scores.len(), |index| scores[index]);
    for score in scores.iter_mut() {
        *score *= share;
    }
    RowScale { maximum, share }
}

/// Replaces scores by their softmax, whose scale is known, with the bits of [`softmax_in_place`].
#[inline(always)]
pub(crate) fn softmax_again(scores: &mut [f32], RowScale { maximum, share }: RowScale) {
    for score in scores {
        *score = exp(*score - maximum) * share;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_to_seven_digits_over_its_whole_range() {
        for i in -8_700..=8_800 {
            let x = i as f32 * 0.01;
            let expected = f64::from(x).exp();
            let relative = (f64::from(exp(x)) - expected).abs() / expected;
            // the argument's own rounding in x / ln 2 grows with |x|
            assert!(relative < 2e-7 + 1.2e-7 * f64::from(x.abs()), "{x}: {relative:e}");
        }
    }

    #[test]
    fn sums_and_maxima_of_every_length_count_each_value_once() {
        for length in 0..70 {
            let values: Vec<f32> = (0..length).map(|i| ((i * 37) % 71) as f32).collect();
            assert_eq!(sum(length, |i| values[i]), values.iter().sum::<f32>());
            assert_eq!(max(&values), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }

    #[test]
    fn a_softmax_that_is_computed_again_has_the_same_bits() {
        let scores: Vec<f32> = (0..37).map(|i| (i as f32 * 0.7).sin() * 9.0).collect();
        let (mut first, mut again) = (scores.clone(), scores);
        let scale = softmax_in_place(&mut first);
        softmax_again(&mut again, scale);
        assert_eq!(first, again);
        assert!((first.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}
