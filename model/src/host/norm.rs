//! Layer norm and RMS norm over the last axis.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::vectors::{add, rows_at_a_time, sum, total, vectorised};
use super::{HostTensor, Input, Operation, apply};
use crate::profile::Kind;

/// `(x - mean) / sqrt(var + ε) · weight + bias` over the last axis.
///
/// # Shapes
/// - x and output: `[..., d]`
/// - weight and bias: `[d]`
pub(crate) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    norm([Input::new(x), Input::new(weight), Input::new(bias)], epsilon, true)
}

/// `x / sqrt(mean(x²) + ε) · weight` over the last axis.
///
/// # Shapes
/// - x and output: `[..., d]`
/// - weight: `[d]`
pub(crate) fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, epsilon: f64) -> Tensor<D> {
    norm([Input::new(x), Input::new(weight), Input::absent()], epsilon, false)
}

fn norm<const D: usize>(inputs: [Input; 3], epsilon: f64, is_centred: bool) -> Tensor<D> {
    apply(inputs, |[x, weight, bias]| {
        let kept = x.clone();
        let (output, scales) = forward(x, weight.values(), bias.values(), epsilon as f32, is_centred);
        (output, Norm { x: kept, weight, scales, is_centred })
    })
}

/// Mean (0 for RMS norm) and `1 / sqrt(var + ε)` of a row.
type Scale = (f32, f32);

fn forward(
    x: HostTensor,
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
    is_centred: bool,
) -> (HostTensor, Vec<Scale>) {
    let d = weight.len().max(1);
    let mut scales = vec![(0.0, 0.0); x.values().len() / d];
    let rows = rows_at_a_time(d);
    let output = x.modified(|values| {
        values.par_chunks_mut(rows * d).zip(scales.par_chunks_mut(rows)).for_each(|(rows, scales)| {
            vectorised(
                #[inline(always)]
                || {
                    for (row, scale) in rows.chunks_exact_mut(d).zip(&mut *scales) {
                        *scale = scale_of(row, epsilon, is_centred);
                        let (mean, factor) = *scale;
                        if is_centred {
                            for i in 0..d {
                                row[i] = (row[i] - mean) * factor * weight[i] + bias[i];
                            }
                        } else {
                            for i in 0..d {
                                row[i] = row[i] * factor * weight[i];
                            }
                        }
                    }
                },
            );
        });
    });
    (output, scales)
}

#[inline(always)]
fn scale_of(row: &[f32], epsilon: f32, is_centred: bool) -> Scale {
    let (d, count) = (row.len(), row.len() as f32);
    let mean = if is_centred { sum(d, |i| row[i]) / count } else { 0.0 };
    let variance = sum(d, |i| (row[i] - mean) * (row[i] - mean)) / count;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

#[derive(Debug, Clone)]
struct Norm {
    x: HostTensor,
    weight: HostTensor,
    scales: Vec<Scale>,
    is_centred: bool,
}

impl Operation<3> for Norm {
    const KIND: Kind = Kind::Norm;

    /// With `x̂` the normalised row and `g` the gradient times the weight: the row's gradient is
    /// `(g - mean(g) - x̂ · mean(g · x̂)) / sqrt(var + ε)`, without `mean(g)` for RMS norm.
    fn backward(self, gradient: HostTensor, is_needed: [bool; 3]) -> [Option<HostTensor>; 3] {
        let (x, weight) = (self.x.values(), self.weight.values());
        let d = weight.len().max(1);
        let count = d as f32;
        let rows = rows_at_a_time(d);
        let is_centred = self.is_centred;
        let has_weights = is_needed[1] || is_needed[2];
        let mut sums: Vec<[Vec<f32>; 2]> = Vec::new();
        let of_x = gradient.modified(|gradient| {
            let chunks = gradient.par_chunks_mut(rows * d).zip(x.par_chunks(rows * d));
            let chunks = chunks.zip(self.scales.par_chunks(rows)).map(|((gradient, x), scales)| {
                let mut sums =
                    if has_weights { [vec![0.0f32; d], vec![0.0f32; d]] } else { Default::default() };
                let mut normal = vec![0.0f32; d];
                let [of_weight, of_bias] = &mut sums;
                vectorised(
                    #[inline(always)]
                    || {
                        let pairs = gradient.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(scales);
                        for ((gradient, x), &(mean, factor)) in pairs {
                            for i in 0..d {
                                normal[i] = (x[i] - mean) * factor;
                            }
                            if has_weights {
                                for i in 0..d {
                                    of_weight[i] += gradient[i] * normal[i];
                                }
                                add(of_bias, gradient);
                            }
                            for i in 0..d {
                                gradient[i] *= weight[i];
                            }
                            let mean = if is_centred { sum(d, |i| gradient[i]) / count } else { 0.0 };
                            let along = sum(d, |i| gradient[i] * normal[i]) / count;
                            for i in 0..d {
                                gradient[i] = (gradient[i] - mean - normal[i] * along) * factor;
                            }
                        }
                    },
                );
                sums
            });
            sums = chunks.collect();
        });
        let (of_weight, of_bias): (Vec<_>, Vec<_>) =
            sums.into_iter().map(|[weight, bias]| (weight, bias)).unzip();
        [
            is_needed[0].then_some(of_x),
            is_needed[1].then(|| HostTensor::new(total(&of_weight, d), [d])),
            is_needed[2].then(|| HostTensor::new(total(&of_bias, d), [d])),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Case, agrees_with_burn};
    use super::*;

    #[test]
    fn layer_norm_has_the_values_and_gradients_of_burns() {
        for (rows, d) in [(1, 1), (3, 7), (700, 33)] {
            let case = Case { shapes: [vec![rows, d], vec![d], vec![d]], tolerance: 2e-5 };
            agrees_with_burn(
                &case,
                |[x, weight, bias]| {
                    layer_norm(x.clone().reshape([rows, d]), weight.clone(), bias.clone(), 1e-3)
                },
                |[x, weight, bias]| {
                    let (x, bias) = (x.clone().reshape([rows, d]), Some(bias.clone()));
                    burn::tensor::module::layer_norm(x, weight.clone(), bias, 1e-3)
                },
            );
        }
    }

    #[test]
    fn rms_norm_has_the_values_and_gradients_of_its_definition() {
        for (rows, d) in [(1, 1), (3, 7), (700, 33)] {
            let case = Case { shapes: [vec![rows, d], vec![d]], tolerance: 2e-5 };
            agrees_with_burn(
                &case,
                |[x, weight]| rms_norm(x.clone().reshape([rows, d]), weight.clone(), 1e-3),
                |[x, weight]| {
                    let x = x.clone().reshape([rows, d]);
                    let scale = x.clone().square().mean_dim(1).add_scalar(1e-3).sqrt().recip();
                    x * scale * weight.clone().unsqueeze()
                },
            );
        }
    }
}
