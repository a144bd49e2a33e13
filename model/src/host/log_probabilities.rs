//! Log-probabilities of chosen classes, and their gradient, without a second copy of the logits.

use burn::tensor::{Int, Tensor};
use rayon::prelude::*;

use super::vectors::{RowScale, exp, max, rows_at_a_time, sum, vectorised};
use super::{HostTensor, Input, Operation, apply};
use crate::profile::Kind;

/// `(1 - smoothing) · log p(id) + smoothing · mean(log p)` of each row.
///
/// # Shapes
/// - logits: `[n, v]`
/// - ids: `[n]`
/// - output: `[n]`
pub(crate) fn log_probabilities(logits: Tensor<2>, ids: Tensor<1, Int>, smoothing: f64) -> Tensor<1> {
    let ids: Vec<usize> = ids.into_data().iter::<i64>().map(|id| id as usize).collect();
    let smoothing = smoothing as f32;
    apply([Input::new(logits)], |[logits]| {
        let [n, v] = logits.dims();
        let mut output = vec![0.0f32; n];
        let mut scales = vec![RowScale::default(); n];
        let rows = rows_at_a_time(v);
        let chunks = logits.values().par_chunks(rows * v.max(1)).zip(ids.par_chunks(rows));
        let chunks = chunks.zip(output.par_chunks_mut(rows).zip(scales.par_chunks_mut(rows)));
        chunks.for_each(|((logits, ids), (output, scales))| {
            vectorised(
                #[inline(always)]
                || {
                    let pairs = logits.chunks_exact(v.max(1)).zip(ids).zip(&mut *output).zip(&mut *scales);
                    for (((logits, &id), output), scale) in pairs {
                        let maximum = max(logits);
                        let total = sum(v, |i| exp(logits[i] - maximum));
                        *scale = RowScale { maximum, share: 1.0 / total };
                        let logarithm = maximum + total.ln();
                        *output = logits[id] - logarithm;
                        if smoothing > 0.0 {
                            let mean = sum(v, |i| logits[i] - logarithm) / v as f32;
                            *output = *output * (1.0 - smoothing) + mean * smoothing;
                        }
                    }
                },
            );
        });
        (HostTensor::new(output, [n]), LogProbabilities { logits, ids, scales, smoothing })
    })
}

#[derive(Debug, Clone)]
struct LogProbabilities {
    /// `[n, v]`
    logits: HostTensor,
    ids: Vec<usize>,
    scales: Vec<RowScale>,
    smoothing: f32,
}

impl Operation<1> for LogProbabilities {
    const KIND: Kind = Kind::Loss;

    /// `(1 - smoothing) · one-hot + smoothing / v - p`, times the gradient of the row.
    fn backward(self, gradient: HostTensor, _: [bool; 1]) -> [Option<HostTensor>; 1] {
        let Self { logits, ids, scales, smoothing } = self;
        let [_, v] = logits.dims();
        let uniform = smoothing / v as f32;
        let rows = rows_at_a_time(v);
        let of_logits = logits.modified(|logits| {
            let chunks = logits.par_chunks_mut(rows * v.max(1)).zip(ids.par_chunks(rows));
            let chunks = chunks.zip(scales.par_chunks(rows).zip(gradient.values().par_chunks(rows)));
            chunks.for_each(|((logits, ids), (scales, gradients))| {
                vectorised(
                    #[inline(always)]
                    || {
                        let pairs = logits.chunks_exact_mut(v.max(1)).zip(ids).zip(scales).zip(gradients);
                        for (((logits, &id), &RowScale { maximum, share }), &gradient) in pairs {
                            for logit in logits.iter_mut() {
                                *logit = (uniform - exp(*logit - maximum) * share) * gradient;
                            }
                            logits[id] += (1.0 - smoothing) * gradient;
                        }
                    },
                );
            });
        });
        [Some(of_logits)]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::activation::log_softmax;

    use super::super::tests::{Case, agrees_with_burn};
    use super::*;

    #[test]
    fn values_and_gradients_are_those_of_burns_log_softmax() {
        for (n, v) in [(1, 1), (3, 17), (40, 1_003)] {
            for smoothing in [0.0, 0.1] {
                let ids: Vec<i32> = (0..n).map(|row| (row * 7 % v) as i32).collect();
                let ids = || Tensor::<1, Int>::from_ints(ids.as_slice(), &burn::tensor::Device::flex());
                agrees_with_burn(
                    &Case { shapes: [vec![n, v]], tolerance: 1e-5 },
                    |[x]| log_probabilities(x.clone().reshape([n, v]), ids(), smoothing),
                    |[x]| {
                        let all = log_softmax(x.clone().reshape([n, v]), 1);
                        let chosen = all.clone().gather(1, ids().reshape([n, 1]));
                        let output: Tensor<2> = chosen * (1.0 - smoothing) + all.mean_dim(1) * smoothing;
                        output.reshape([n])
                    },
                );
            }
        }
    }
}
