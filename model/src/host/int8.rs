//! Weights in one byte a value: integers from -127 to 127, and a scale for each output.

use std::ops::Range;
use std::sync::Arc;

use super::vectors::vectorised;

/// The largest integer. -128 is left out, so that a weight and its negative have the same magnitude.
const LARGEST: f32 = 127.0;

/// A frozen weight of a dense layer, quantised symmetrically by output ("per channel").
#[derive(Debug, Clone)]
pub(crate) struct Int8Weight {
    /// `[out, in]`
    codes: Arc<[i8]>,
    /// Of each output, the value of the integer 1.
    scales: Arc<[f32]>,
}

impl Int8Weight {
    /// The nearest integers to `values`, row-major `[out, in]`. None where a value is not finite, which an
    /// integer would hide.
    pub(crate) fn quantise(values: &[f32], [out, d_input]: [usize; 2]) -> Option<Self> {
        debug_assert_eq!(values.len(), out * d_input, "values of a weight");
        if !values.iter().all(|value| value.is_finite()) {
            return None;
        }
        let mut codes = Vec::with_capacity(values.len());
        let mut scales = Vec::with_capacity(out);
        for output in values.chunks(d_input.max(1)) {
            let largest = output.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            let scale = largest / LARGEST;
            // a scale that rounds to 0 holds zeros
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            let code = |value: &f32| (value * inverse).round().clamp(-LARGEST, LARGEST) as i8;
            codes.extend(output.iter().map(code));
            scales.push(scale);
        }
        Some(Self { codes: codes.into(), scales: scales.into() })
    }

    /// Outputs and inputs.
    pub(crate) fn dims(&self) -> [usize; 2] {
        let out = self.scales.len();
        [out, self.codes.len() / out.max(1)]
    }

    /// The values of some outputs, in f32.
    pub(super) fn widen(&self, outputs: Range<usize>, wide: &mut [f32]) {
        let [_, d_input] = self.dims();
        let codes = &self.codes[outputs.start * d_input..outputs.end * d_input];
        let scales = &self.scales[outputs];
        vectorised(
            #[inline(always)]
            || {
                let rows = wide.chunks_exact_mut(d_input).zip(codes.chunks_exact(d_input)).zip(scales);
                for ((wide, codes), scale) in rows {
                    for (wide, code) in wide.iter_mut().zip(codes) {
                        *wide = f32::from(*code) * scale;
                    }
                }
            },
        );
    }

    /// All values, in f32.
    pub(crate) fn widened(&self) -> Vec<f32> {
        let mut wide = vec![0.0; self.codes.len()];
        self.widen(0..self.scales.len(), &mut wide);
        wide
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_off_by_at_most_half_a_step_of_its_output_and_the_largest_is_exact() {
        let values: Vec<f32> =
            (0..5 * 301).map(|at| (at as f32 * 0.37).sin() * (1 + at / 301) as f32).collect();
        let weight = Int8Weight::quantise(&values, [5, 301]).unwrap();
        assert_eq!(weight.dims(), [5, 301]);
        let wide = weight.widened();
        for (wide, values) in wide.chunks(301).zip(values.chunks(301)) {
            let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            for (wide, value) in wide.iter().zip(values) {
                assert!((wide - value).abs() <= largest / 127.0 * 0.5001, "{wide} {value}");
                assert!(value.abs() < largest || (wide - value).abs() < 1e-6 * largest, "{wide} {value}");
            }
        }
        let mut part = vec![0.0; 2 * 301];
        weight.widen(3..5, &mut part);
        assert_eq!(part, wide[3 * 301..]);
    }

    #[test]
    fn zeros_and_tiny_values_become_zeros_and_other_than_numbers_none() {
        let quantise = |values: [f32; 4]| Int8Weight::quantise(&values, [2, 2]);
        assert_eq!(quantise([0.0, 0.0, 1.0, -1.0]).unwrap().widened(), [0.0, 0.0, 1.0, -1.0]);
        assert_eq!(quantise([1e-45, -1e-45, 0.5, 0.0]).unwrap().widened()[..2], [0.0, 0.0]);
        assert!(quantise([f32::NAN, 0.0, 0.0, 0.0]).is_none());
        assert!(quantise([f32::INFINITY, 0.0, 0.0, 0.0]).is_none());
    }
}
