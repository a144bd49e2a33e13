//! Dense layers of one input, side by side in one output: `[x W₁ᵀ + b₁, x W₂ᵀ + b₂, ...]`.
//!
//! Query, key and value are one output, so that neither they nor their gradients are copied, and the gradient
//! of `x` is one sum of products.

use burn::tensor::Tensor;

use super::matrix::{FEW_ROWS, Matrix, Output, multiply, transpose_into};
use super::vectors::{add_to_columns, sum_of_rows};
use super::{HostTensor, Input, Operation, apply};
use crate::profile::Kind;

/// The most layers of one input.
pub(crate) const PARTS: usize = 3;

/// The input, then weight and bias of each layer.
const INPUTS: usize = 1 + 2 * PARTS;

/// Weight `[out, in]` and bias `[out]` of a layer.
pub(crate) type Part = (Tensor<2>, Option<Tensor<1>>);

/// Applies up to [`PARTS`] layers to `x`.
///
/// # Shapes
/// - x: `[rows, in]`
/// - output: `[rows, Σ out]`
pub(crate) fn linear<const M: usize>(x: Tensor<2>, parts: [Part; M]) -> Tensor<2> {
    const { assert!(0 < M && M <= PARTS) };
    let mut inputs: [Input; INPUTS] = std::array::from_fn(|_| Input::absent());
    inputs[0] = Input::new(x);
    for (part, (weight, bias)) in parts.into_iter().enumerate() {
        inputs[1 + 2 * part] = Input::new(weight);
        inputs[2 + 2 * part] = Input::optional(bias);
    }
    apply(inputs, |[x, inputs @ ..]| {
        let weights: Vec<HostTensor> = inputs.iter().step_by(2).take(M).cloned().collect();
        let biases: Vec<&[f32]> = inputs[1..].iter().step_by(2).take(M).map(HostTensor::values).collect();
        let output = forward(&x, &weights, &biases);
        (output, Linear { x, weights })
    })
}

/// `residual + x Wᵀ + b`.
///
/// # Shapes
/// - x: `[rows, in]`
/// - residual and output: `[rows, out]`
pub(crate) fn linear_onto(residual: Tensor<2>, x: Tensor<2>, (weight, bias): Part) -> Tensor<2> {
    let inputs = [Input::new(residual), Input::new(x), Input::new(weight), Input::optional(bias)];
    apply(inputs, |[residual, x, weight, bias]| {
        let ([rows, d_input], out) = (x.dims(), d_output(&weight));
        let (columns, bias) = (Matrix::new(x.values(), [rows, d_input]), bias.values());
        let output = residual.modified(|output| {
            add_to_columns(output, out, 0, bias);
            multiply(
                columns,
                Matrix::new(weight.values(), [out, d_input]).t(),
                1.0,
                Output::add(output, out),
            );
        });
        (output, Onto(Linear { x, weights: vec![weight] }))
    })
}

/// The gradient of the residual is that of the output.
#[derive(Debug, Clone)]
struct Onto(Linear);

impl Operation<4> for Onto {
    const KIND: Kind = Kind::Bias;

    fn backward(
        self,
        gradient: HostTensor,
        [residual, x, weight, bias]: [bool; 4],
    ) -> [Option<HostTensor>; 4] {
        let is_needed = [x, weight, bias, false, false, false, false];
        let [x, weight, bias, ..] = self.0.backward(gradient.clone(), is_needed);
        [residual.then_some(gradient), x, weight, bias]
    }
}

fn forward(x: &HostTensor, weights: &[HostTensor], biases: &[&[f32]]) -> HostTensor {
    let [rows, d_input] = x.dims();
    let width: usize = weights.iter().map(d_output).sum();
    let mut output = vec![0.0f32; rows * width];
    let x = Matrix::new(x.values(), [rows, d_input]);
    let mut start = 0;
    for (weight, bias) in weights.iter().zip(biases) {
        let out = d_output(weight);
        let weight = Matrix::new(weight.values(), [out, d_input]);
        if rows <= FEW_ROWS {
            let mut transposed = vec![0.0f32; out * rows];
            multiply(weight, x.t(), 1.0, Output::new(&mut transposed, rows));
            transpose_into(&transposed, rows, &mut output[start..], width);
            add_to_columns(&mut output, width, start, bias);
        } else {
            let output = &mut output[start..];
            if bias.is_empty() {
                multiply(x, weight.t(), 1.0, Output::new(output, width));
            } else {
                for output in output.chunks_mut(width) {
                    output[..out].copy_from_slice(bias);
                }
                multiply(x, weight.t(), 1.0, Output::add(output, width));
            }
        }
        start += out;
    }
    HostTensor::new(output, [rows, width])
}

fn d_output(weight: &HostTensor) -> usize {
    weight.dims::<2>()[0]
}

#[derive(Debug, Clone)]
struct Linear {
    /// `[rows, in]`
    x: HostTensor,
    /// `[out, in]` each
    weights: Vec<HostTensor>,
}

impl Operation<INPUTS> for Linear {
    const KIND: Kind = Kind::Bias;

    fn backward(self, gradient: HostTensor, is_needed: [bool; INPUTS]) -> [Option<HostTensor>; INPUTS] {
        let [rows, d_input] = self.x.dims();
        let [_, width] = gradient.dims();
        let mut gradients: [Option<HostTensor>; INPUTS] = std::array::from_fn(|_| None);
        let mut of_x = if is_needed[0] { vec![0.0f32; rows * d_input] } else { Vec::new() };
        let x = Matrix::new(self.x.values(), [rows, d_input]);
        let mut start = 0;
        for (part, weight) in self.weights.iter().enumerate() {
            let out = d_output(weight);
            let place = start..start + out;
            let of_output = Matrix::columns(gradient.values(), rows, width, place.clone());
            let weight = Matrix::new(weight.values(), [out, d_input]);
            if is_needed[0] {
                multiply(
                    of_output,
                    weight,
                    1.0,
                    Output { values: &mut of_x, row_stride: d_input, adds: part > 0 },
                );
            }
            if is_needed[1 + 2 * part] {
                let mut of_weight = vec![0.0f32; out * d_input];
                multiply(of_output.t(), x, 1.0, Output::new(&mut of_weight, d_input));
                gradients[1 + 2 * part] = Some(HostTensor::new(of_weight, [out, d_input]));
            }
            if is_needed[2 + 2 * part] {
                let of_bias = sum_of_rows(gradient.values(), width, place);
                gradients[2 + 2 * part] = Some(HostTensor::new(of_bias, [out]));
            }
            start += out;
        }
        gradients[0] = is_needed[0].then(|| HostTensor::new(of_x, [rows, d_input]));
        gradients
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Case, agrees_with_burn};
    use super::*;

    fn case(rows: usize) -> Case<7> {
        let [a, b, c] = [3usize, 5, 2];
        Case {
            shapes: [vec![rows, 4], vec![a, 4], vec![a], vec![b, 4], vec![c, 4], vec![c], vec![0]],
            tolerance: 1e-5,
        }
    }

    /// Sums of up to 300 products in another order.
    #[test]
    fn layers_side_by_side_equal_layers_one_by_one() {
        for rows in [1, 5, 64, 65, 300] {
            agrees_with_burn(
                &case(rows),
                |[x, wa, ba, wb, wc, bc, _]| {
                    let part = |weight: &Tensor<1>, out: usize| weight.clone().reshape([out, 4]);
                    linear(
                        x.clone().reshape([rows, 4]),
                        [
                            (part(wa, 3), Some(ba.clone())),
                            (part(wb, 5), None),
                            (part(wc, 2), Some(bc.clone())),
                        ],
                    )
                },
                |[x, wa, ba, wb, wc, bc, _]| {
                    let x = x.clone().reshape([rows, 4]);
                    let product = |weight: &Tensor<1>, out: usize| {
                        x.clone().matmul(weight.clone().reshape([out, 4]).transpose())
                    };
                    let parts = vec![
                        product(wa, 3) + ba.clone().unsqueeze(),
                        product(wb, 5),
                        product(wc, 2) + bc.clone().unsqueeze(),
                    ];
                    Tensor::cat(parts, 1)
                },
            );
        }
    }

    #[test]
    fn a_product_onto_a_residual_is_its_sum_with_the_layer() {
        for rows in [1, 5, 70] {
            let case = Case { shapes: [vec![rows, 3], vec![rows, 4], vec![3, 4], vec![3]], tolerance: 1e-5 };
            let parts = |[residual, x, weight, bias]: &[Tensor<1>; 4]| {
                let residual = residual.clone().reshape([rows, 3]);
                (residual, x.clone().reshape([rows, 4]), weight.clone().reshape([3, 4]), bias.clone())
            };
            agrees_with_burn(
                &case,
                |inputs| {
                    let (residual, x, weight, bias) = parts(inputs);
                    linear_onto(residual, x, (weight, Some(bias)))
                },
                |inputs| {
                    let (residual, x, weight, bias) = parts(inputs);
                    residual + x.matmul(weight.transpose()) + bias.unsqueeze()
                },
            );
        }
    }
}
