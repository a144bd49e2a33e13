//! Matrix products on plain values, with any strides.

use gemm::Parallelism;

use crate::profile::{Kind, span};

/// A matrix within a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub values: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    /// Distance of neighbours in a column.
    pub row_stride: usize,
    /// Distance of neighbours in a row.
    pub column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major values without gaps.
    pub(crate) fn new(values: &'a [f32], [rows, columns]: [usize; 2]) -> Self {
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// Some columns of row-major values whose rows have `width` values.
    pub(crate) fn columns(
        values: &'a [f32],
        rows: usize,
        width: usize,
        place: std::ops::Range<usize>,
    ) -> Self {
        let values = if rows == 0 { &[] } else { &values[place.start..] };
        Self { values, rows, columns: place.len(), row_stride: width, column_stride: 1 }
    }

    /// The transposed matrix.
    pub(crate) fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    fn is_inside(&self) -> bool {
        let last = |count: usize, stride: usize| count.saturating_sub(1) * stride;
        self.rows == 0
            || self.columns == 0
            || last(self.rows, self.row_stride) + last(self.columns, self.column_stride) < self.values.len()
    }
}

/// Where a product is written: row-major, rows `row_stride` values apart.
#[derive(Debug)]
pub(crate) struct Output<'a> {
    pub values: &'a mut [f32],
    pub row_stride: usize,
    /// Whether the product is added to the values, or replaces them.
    pub adds: bool,
}

impl<'a> Output<'a> {
    /// Replaces the values.
    pub(crate) fn new(values: &'a mut [f32], row_stride: usize) -> Self {
        Self { values, row_stride, adds: false }
    }

    /// Adds to the values.
    pub(crate) fn add(values: &'a mut [f32], row_stride: usize) -> Self {
        Self { values, row_stride, adds: true }
    }
}

/// Up to this many rows `(w xᵀ)ᵀ` is faster than `x wᵀ`, for which the whole of `w` is packed at every call.
pub(crate) const FEW_ROWS: usize = 64;

/// Writes a transposed product `[out, rows]` into rows that are `width` values apart.
pub(crate) fn transpose_into(transposed: &[f32], rows: usize, output: &mut [f32], width: usize) {
    let out = transposed.len() / rows.max(1);
    for row in 0..rows {
        for (index, value) in output[row * width..][..out].iter_mut().enumerate() {
            *value = transposed[index * rows + row];
        }
    }
}

/// Multiplications from which on a product is distributed over the cores.
const PARALLEL: usize = 192 * 192 * 192;

/// `factor · left · right` on all cores. The result does not depend on their number.
pub(crate) fn multiply(left: Matrix<'_>, right: Matrix<'_>, factor: f32, output: Output<'_>) {
    let work = left.rows * left.columns * right.columns;
    let parallelism = if work < PARALLEL { Parallelism::None } else { Parallelism::Rayon(0) };
    product(left, right, factor, output, parallelism);
}

/// [`multiply`] on the calling thread.
pub(crate) fn multiply_here(left: Matrix<'_>, right: Matrix<'_>, factor: f32, output: Output<'_>) {
    product(left, right, factor, output, Parallelism::None);
}

fn product(left: Matrix<'_>, right: Matrix<'_>, factor: f32, output: Output<'_>, parallelism: Parallelism) {
    let Output { values, row_stride, adds } = output;
    let [rows, inner, columns] = [left.rows, left.columns, right.columns];
    if rows == 0 || columns == 0 {
        return;
    }
    assert_eq!(right.rows, inner, "the inner lengths of a product must agree");
    assert!(
        left.is_inside() && right.is_inside() && (rows - 1) * row_stride + columns <= values.len(),
        "a product must stay within its matrices"
    );
    // SAFETY: the assertion keeps every element that is read or written within its slice; the output is
    // borrowed mutably, so that it overlaps neither operand.
    #[allow(unsafe_code)]
    span(Kind::Product, 2 * rows * inner * columns, || unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            values.as_mut_ptr(),
            1,
            row_stride as isize,
            adds,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0,
            factor,
            false,
            false,
            false,
            parallelism,
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(length: usize, step: f32) -> Vec<f32> {
        (0..length).map(|i| (i as f32 * step).sin()).collect()
    }

    #[test]
    fn products_of_every_layout_equal_the_definition() {
        let (left, right) = (ramp(35, 0.3), ramp(42, 0.7));
        let expected = |row: usize, column: usize| -> f32 {
            (0..5).map(|inner| left[row * 5 + inner] * right[inner * 6 + column + 1]).sum()
        };
        // columns 1 to 4 of a matrix of 6 columns; into columns 2 to 5 of rows of 8 values
        let right = Matrix::columns(&right, 5, 6, 1..5);
        let transposed: Vec<f32> =
            (0..5).flat_map(|i| (0..7).map(move |row| (i, row))).map(|(i, row)| left[row * 5 + i]).collect();
        for left in [Matrix::new(&left, [7, 5]), Matrix::new(&transposed, [5, 7]).t()] {
            let mut output = vec![1.0; 7 * 8];
            multiply(left, right, 2.0, Output::new(&mut output[2..], 8));
            multiply_here(left, right, 1.0, Output::add(&mut output[2..], 8));
            for row in 0..7 {
                for column in 0..8 {
                    let found = output[row * 8 + column];
                    let is_inside = (2..6).contains(&column);
                    let expected = if is_inside { 3.0 * expected(row, column - 2) } else { 1.0 };
                    assert!((found - expected).abs() < 1e-5, "{row} {column}: {found} {expected}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "must stay within")]
    fn a_product_beyond_its_output_is_refused() {
        let values = ramp(6, 1.0);
        let mut output = vec![0.0; 3];
        let matrix = Matrix::new(&values, [2, 3]);
        multiply(matrix, matrix.t(), 1.0, Output::new(&mut output, 2));
    }
}
