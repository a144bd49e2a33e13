//! Differences of two programs' tensors.

use anyhow::ensure;
use burn::tensor::Tensor;
use model::device::values;
use serde::Serialize;

use super::Reference;
use crate::text::Table;

/// Largest difference of features and logits in f32, relative to the tensor's largest magnitude: sums of
/// thousands of f32 products run in another order.
pub(super) const TENSOR: f64 = 1e-4;
/// The same for the loss, a mean.
pub(super) const LOSS: f64 = 1e-5;
/// The same for gradients, which pass twice as many layers.
pub(super) const GRADIENT: f64 = 1e-3;
/// The same for features of bf16 weights against f32. Rounding adds up over the blocks of the ViT: behind
/// its 39 at full size, transformers in bf16 differs from itself in f32 by 2.5e-2
/// (docs/results/rehearsal.md).
pub(super) const FEATURES_IN_BF16: f64 = 5e-2;
/// The same for logits of bf16 weights against f32: bf16 has 8 bits of precision.
pub(super) const LOGITS_IN_BF16: f64 = 2e-2;
/// The same for int8 weights against f32: a step is 1/127 of an output's largest weight.
pub(super) const IN_INT8: f64 = 5e-2;
/// Ids are equal or not.
pub(super) const IDS: f64 = 0.0;

/// Inputs, which are not compared.
const INPUTS: [&str; 6] =
    ["pixel_values", "input_ids", "input_mask", "labels", "qformer_input_ids", "qformer_attention_mask"];

/// All tensors that were compared.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// Whether every one is within its tolerance.
    pub passed: bool,
    /// One by one.
    pub tensors: Vec<Compared>,
    /// The other tensors of the reference, and why they were not compared.
    pub not_compared: Vec<String>,
}

/// One tensor, or one set of generated sequences.
#[derive(Debug, Serialize)]
pub struct Compared {
    /// Its name in the reference.
    pub name: String,
    /// Its shape there.
    pub shape: Vec<usize>,
    /// Largest absolute difference; of sequences, the number of those that differ.
    pub absolute: f64,
    /// That over the largest magnitude in the reference; of sequences, the share of those that differ.
    pub relative: f64,
    /// Maximum of `relative`.
    pub tolerance: f64,
    /// Whether `relative` is within it.
    pub passed: bool,
}

/// Tokens in generated rows that are not compared.
pub(super) struct Sequences<'a> {
    /// May lead a row.
    pub start: Option<i64>,
    /// The first of these ends a row.
    pub ends: &'a [u32],
    /// May trail a row.
    pub padding: Option<i64>,
}

impl Sequences<'_> {
    /// The new tokens of a row, the end included.
    fn trim(&self, mut row: Vec<i64>, may_lead: bool) -> Vec<i64> {
        if may_lead && row.first().copied() == self.start && self.start.is_some() {
            row.remove(0);
        }
        if let Some(end) = row.iter().position(|&id| self.ends.iter().any(|&end| i64::from(end) == id)) {
            row.truncate(end + 1);
        }
        while row.last().copied() == self.padding && self.padding.is_some() {
            row.pop();
        }
        row
    }
}

impl Comparison {
    pub(super) fn new() -> Self {
        Self { passed: true, tensors: Vec::new(), not_compared: Vec::new() }
    }

    /// Compares a tensor, if the reference has it.
    pub(super) fn floats<const D: usize>(
        &mut self,
        name: &str,
        reference: &Reference,
        got: Tensor<D>,
        tolerance: f64,
    ) -> anyhow::Result<()> {
        let Some((expected, shape)) = reference.floats::<D>(name)? else { return Ok(()) };
        ensure!(shape == got.dims(), "{name} is {shape:?} in the reference and {:?} here", got.dims());
        let got = values(got)?;
        self.push(name, &shape, &got, &expected, tolerance);
        Ok(())
    }

    /// Compares values; a NaN on either side is an infinite difference.
    pub(super) fn push(
        &mut self,
        name: &str,
        shape: &[usize],
        got: &[f32],
        expected: &[f32],
        tolerance: f64,
    ) {
        let differences = got.iter().zip(expected).map(|(&got, &expected)| {
            let difference = f64::from((got - expected).abs());
            if difference.is_nan() { f64::INFINITY } else { difference }
        });
        let most = expected.iter().map(|value| f64::from(value.abs())).fold(0.0, f64::max);
        let absolute =
            if got.len() == expected.len() { differences.fold(0.0, f64::max) } else { f64::INFINITY };
        let relative = if absolute == 0.0 { 0.0 } else { absolute / most.max(f64::MIN_POSITIVE) };
        self.add(name, shape, absolute, relative, tolerance);
    }

    /// Compares generated rows without start, padding and tokens after an end.
    pub(super) fn sequences(
        &mut self,
        name: &str,
        sequences: &Sequences<'_>,
        got: Vec<Vec<i64>>,
        expected: Vec<Vec<i64>>,
        tolerance: f64,
    ) {
        let rows = expected.len();
        let shape = [rows, expected.iter().map(Vec::len).max().unwrap_or(0)];
        let differs = |(got, expected)| sequences.trim(got, false) != sequences.trim(expected, true);
        let differing = match got.len() == rows {
            true => got.into_iter().zip(expected).map(differs).filter(|&differs| differs).count(),
            false => rows.max(1),
        };
        self.add(name, &shape, differing as f64, differing as f64 / rows.max(1) as f64, tolerance);
    }

    /// Records every tensor of the reference that was not compared.
    pub(super) fn note_the_rest(&mut self, reference: &Reference) {
        for name in reference.tensors.keys() {
            let is_known = INPUTS.contains(&name.as_str())
                || self.tensors.iter().any(|compared| &compared.name == name)
                || self.not_compared.iter().any(|note| note.starts_with(&format!("{name}: ")));
            if !is_known {
                self.not_compared.push(format!("{name}: no counterpart here"));
            }
        }
    }

    fn add(&mut self, name: &str, shape: &[usize], absolute: f64, relative: f64, tolerance: f64) {
        let passed = relative <= tolerance;
        self.passed &= passed;
        let shape = shape.to_vec();
        self.tensors.push(Compared { name: name.to_owned(), shape, absolute, relative, tolerance, passed });
    }

    /// A table with a verdict.
    pub fn to_text(&self) -> String {
        let mut table = Table::new(["tensor", "shape", "absolute", "relative", "tolerance", ""]);
        for compared in &self.tensors {
            table.push(vec![
                compared.name.clone(),
                format!("{:?}", compared.shape),
                format!("{:.2e}", compared.absolute),
                format!("{:.2e}", compared.relative),
                format!("{:.0e}", compared.tolerance),
                if compared.passed { "ok" } else { "FAILED" }.to_owned(),
            ]);
        }
        let failed = self.tensors.iter().filter(|compared| !compared.passed).count();
        let verdict = match failed {
            0 => format!("all {} within tolerance", self.tensors.len()),
            _ => format!("{failed} of {} over tolerance", self.tensors.len()),
        };
        let notes: String = self.not_compared.iter().map(|note| format!("not compared: {note}\n")).collect();
        format!("{}\n\n{notes}{verdict}", table.to_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_over_tolerance_or_no_number_fails_the_whole() {
        let mut comparison = Comparison::new();
        comparison.push("close", &[2], &[1.0, 2.0], &[1.0, 2.0001], 1e-4);
        assert!(comparison.passed);
        for (got, expected) in
            [(vec![1.0, 2.1], vec![1.0, 2.0]), (vec![f32::NAN], vec![1.0]), (vec![], vec![1.0])]
        {
            let mut comparison = Comparison::new();
            comparison.push("far", &[2], &got, &expected, 1e-4);
            assert!(!comparison.passed, "{got:?}");
        }
    }

    #[test]
    fn sequences_are_compared_without_start_padding_and_what_follows_an_end() {
        let sequences = Sequences { start: Some(0), ends: &[1, 9], padding: Some(0) };
        let equal = |got: &[i64], expected: &[i64]| {
            let mut comparison = Comparison::new();
            comparison.sequences("ids", &sequences, vec![got.to_vec()], vec![expected.to_vec()], 0.0);
            comparison.passed
        };
        assert!(equal(&[5, 6, 1], &[0, 5, 6, 1, 0, 0]));
        assert!(equal(&[5, 6, 9], &[5, 6, 9, 9, 9]));
        assert!(equal(&[5, 6, 7], &[0, 5, 6, 7]));
        assert!(!equal(&[5, 6], &[0, 5, 6, 1]));
        assert!(!equal(&[5, 6, 1], &[5, 7, 1]));
    }
}
