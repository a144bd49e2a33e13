//! Dense layers whose frozen weight stays in one or two bytes a value, and is widened to f32 in parts.
//!
//! Many rows at once read a weight many times: it is widened as a whole, and only for the product. A few rows
//! (generation) read it once: each core widens some outputs at a time into its cache, so that the memory is
//! read once, in one or two bytes a value.

use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{DType, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use super::int8::Int8Weight;
use super::linear::PARTS;
use super::matrix::{FEW_ROWS, Matrix, Output, multiply, multiply_here, transpose_into};
use super::vectors::{add_to_columns, rows_at_a_time, sum_of_rows, vectorised};
use super::{HostTensor, Input, Operation, apply};
use crate::profile::{Kind, span};

/// Outputs that a core widens at a time.
const OUTPUTS: usize = 64;

/// A frozen weight in bf16, f16 or int8.
#[derive(Debug, Clone)]
pub(crate) enum NarrowWeight {
    /// bf16 or f16: `[out, in]`.
    Half(FlexTensor),
    /// int8, with a scale for each output.
    Int8(Int8Weight),
}

impl NarrowWeight {
    /// Of a weight `[out, in]` in host memory that has no gradient and whose type has two bytes.
    pub(crate) fn half(weight: Tensor<2>) -> Option<Self> {
        let is_half = matches!(weight.dtype(), DType::BF16 | DType::F16);
        if !is_half || !super::is_on_host(&weight) || weight.is_tracked() {
            return None;
        }
        let values = if weight.device().is_autodiff() {
            weight.try_into_primitive::<Autodiff<Flex>>().ok()?.into_primitive()
        } else {
            weight.try_into_primitive::<Flex>().ok()?
        };
        Some(Self::Half(values.to_contiguous()))
    }

    /// Outputs and inputs.
    fn dims(&self) -> [usize; 2] {
        match self {
            Self::Half(values) => values.layout().shape().dims(),
            Self::Int8(weight) => weight.dims(),
        }
    }

    /// Widens the weights of some outputs.
    fn widen(&self, outputs: std::ops::Range<usize>, wide: &mut [f32]) {
        match self {
            Self::Half(values) => {
                let [_, d_input] = self.dims();
                widen_halves(values, outputs.start * d_input..outputs.end * d_input, wide);
            }
            Self::Int8(weight) => weight.widen(outputs, wide),
        }
    }

    /// All values in f32.
    fn widened(&self) -> Vec<f32> {
        let [out, d_input] = self.dims();
        let mut wide = vec![0.0f32; out * d_input];
        let outputs = rows_at_a_time(d_input);
        span(Kind::Bias, 0, || {
            wide.par_chunks_mut((outputs * d_input).max(1)).enumerate().for_each(|(index, wide)| {
                let start = index * outputs;
                self.widen(start..(start + outputs).min(out), wide);
            });
        });
        wide
    }
}

fn widen_halves(values: &FlexTensor, place: std::ops::Range<usize>, wide: &mut [f32]) {
    match (values.as_slice::<bf16>(), values.as_slice::<f16>()) {
        (Some(values), _) => vectorised(
            #[inline(always)]
            || {
                for (wide, value) in wide.iter_mut().zip(&values[place.clone()]) {
                    *wide = f32::from_bits(u32::from(value.to_bits()) << 16);
                }
            },
        ),
        (None, Some(values)) => {
            wide.iter_mut().zip(&values[place]).for_each(|(wide, value)| *wide = value.to_f32());
        }
        (None, None) => unreachable!("a half weight is bf16 or f16"),
    }
}

/// Weight and bias `[out]`, in f32, of a layer.
pub(crate) type NarrowPart = (NarrowWeight, Option<Tensor<1>>);

/// The input, then the bias of each layer.
const INPUTS: usize = 1 + PARTS;

/// Layers of one input, side by side in one output, in f32.
///
/// # Shapes
/// - x: `[rows, in]`, in f32
/// - output: `[rows, Σ out]`, in f32
pub(crate) fn linear_narrow(x: Tensor<2>, parts: Vec<NarrowPart>) -> Tensor<2> {
    let mut inputs: [Input; INPUTS] = std::array::from_fn(|_| Input::absent());
    inputs[0] = Input::new(x);
    let mut weights = Vec::new();
    for (part, (weight, bias)) in parts.into_iter().enumerate() {
        weights.push(weight);
        inputs[1 + part] = Input::optional(bias);
    }
    apply(inputs, |[x, biases @ ..]| {
        let [rows, d_input] = x.dims();
        let width: usize = weights.iter().map(|weight| weight.dims()[0]).sum();
        let mut output = vec![0.0f32; rows * width];
        let x = Matrix::new(x.values(), [rows, d_input]);
        let mut start = 0;
        for (weight, bias) in weights.iter().zip(&biases) {
            let [out, _] = weight.dims();
            weight.multiply(x, &mut output[start..], width);
            add_to_columns(&mut output, width, start, bias.values());
            start += out;
        }
        (HostTensor::new(output, [rows, width]), Narrow { weights })
    })
}

impl NarrowWeight {
    /// `x Wᵀ`, in rows `width` values apart.
    fn multiply(&self, x: Matrix<'_>, output: &mut [f32], width: usize) {
        let ([out, d_input], rows) = (self.dims(), x.rows);
        if rows > FEW_ROWS {
            let wide = self.widened();
            multiply(x, Matrix::new(&wide, [out, d_input]).t(), 1.0, Output::new(output, width));
            return;
        }
        let mut transposed = vec![0.0f32; out * rows];
        transposed.par_chunks_mut((OUTPUTS * rows).max(1)).enumerate().for_each(|(index, output)| {
            let outputs = output.len() / rows;
            let mut wide = vec![0.0f32; outputs * d_input];
            self.widen(index * OUTPUTS..index * OUTPUTS + outputs, &mut wide);
            multiply_here(Matrix::new(&wide, [outputs, d_input]), x.t(), 1.0, Output::new(output, rows));
        });
        transpose_into(&transposed, rows, output, width);
    }
}

#[derive(Debug, Clone)]
struct Narrow {
    weights: Vec<NarrowWeight>,
}

impl Operation<INPUTS> for Narrow {
    const KIND: Kind = Kind::Bias;

    fn backward(self, gradient: HostTensor, is_needed: [bool; INPUTS]) -> [Option<HostTensor>; INPUTS] {
        let [rows, width] = gradient.dims();
        let d_input = self.weights.first().map_or(0, |weight| weight.dims()[1]);
        let mut gradients: [Option<HostTensor>; INPUTS] = std::array::from_fn(|_| None);
        let mut of_x = vec![0.0f32; if is_needed[0] { rows * d_input } else { 0 }];
        let mut start = 0;
        for (part, weight) in self.weights.iter().enumerate() {
            let [out, _] = weight.dims();
            let place = start..start + out;
            if is_needed[0] {
                let of_output = Matrix::columns(gradient.values(), rows, width, place.clone());
                let (wide, adds) = (weight.widened(), part > 0);
                let output = Output { values: &mut of_x, row_stride: d_input, adds };
                multiply(of_output, Matrix::new(&wide, [out, d_input]), 1.0, output);
            }
            if is_needed[1 + part] {
                let of_bias = sum_of_rows(gradient.values(), width, place);
                gradients[1 + part] = Some(HostTensor::new(of_bias, [out]));
            }
            start += out;
        }
        gradients[0] = is_needed[0].then(|| HostTensor::new(of_x, [rows, d_input]));
        gradients
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, FloatDType, TensorData};

    use super::super::tests::{Case, agrees_with_burn};
    use super::*;

    /// A narrow weight `[131, 10]`, and its values in f32, which are exact.
    fn weights(device: &Device) -> Vec<(NarrowWeight, Tensor<2>)> {
        let drawn = Tensor::<2>::random([131, 10], Distribution::Normal(0.0, 1.0), device);
        let half = |dtype: FloatDType| {
            let weight = drawn.clone().cast(dtype);
            (NarrowWeight::half(weight.clone()).unwrap(), weight.cast(FloatDType::F32))
        };
        let values: Vec<f32> = drawn.to_data().try_to_vec().unwrap();
        let int8 = Int8Weight::quantise(&values, [131, 10]).unwrap();
        let wide = Tensor::from_data(TensorData::new(int8.widened(), [131, 10]), device);
        vec![half(FloatDType::BF16), half(FloatDType::F16), (NarrowWeight::Int8(int8), wide)]
    }

    /// Sums differ by rounding only.
    #[test]
    fn a_narrow_weight_gives_what_it_gives_in_four_bytes() {
        let device = Device::flex();
        device.seed(9);
        for rows in [1, 7, 64, 65] {
            for (weight, wide) in weights(&device) {
                let case = Case { shapes: [vec![rows, 10], vec![131]], tolerance: 1e-5 };
                agrees_with_burn(
                    &case,
                    |[x, bias]| {
                        linear_narrow(
                            x.clone().reshape([rows, 10]),
                            vec![(weight.clone(), Some(bias.clone())), (weight.clone(), None)],
                        )
                    },
                    |[x, bias]| {
                        let product = x.clone().reshape([rows, 10]).matmul(wide.clone().transpose());
                        Tensor::cat(vec![product.clone() + bias.clone().unsqueeze(), product], 1)
                    },
                );
            }
        }
    }

    #[test]
    fn a_weight_in_f32_or_with_a_gradient_is_none() {
        let weight = Tensor::<2>::ones([2, 2], &Device::flex());
        assert!(NarrowWeight::half(weight.clone()).is_none());
        assert!(NarrowWeight::half(weight.cast(FloatDType::BF16).autodiff().require_grad()).is_none());
    }
}
