//! Activations, and gated ones (`f(x) · gate`), in one pass over the values.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::vectors::{CHUNK, add, erf, exp, rows_at_a_time, total, vectorised};
use super::{HostTensor, Input, Operation, apply};
use crate::profile::Kind;

/// A function of single values with a known derivative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    /// `max(x, 0)`
    Relu,
    /// `x·Φ(x)`
    Gelu,
    /// `0.5·x·(1 + tanh(√(2/π)(x + 0.044715x³)))`
    GeluNew,
    /// `x·σ(x)`
    Silu,
}

/// `f(x + bias)`, without a bias where it is absent. A gradient keeps `x`, and not what is added.
///
/// # Shapes
/// - x and output: `[..., d]`
/// - bias: `[d]`
pub(crate) fn activate<const D: usize>(
    x: Tensor<D>,
    bias: Option<Tensor<1>>,
    function: Function,
) -> Tensor<D> {
    apply([Input::new(x), Input::optional(bias)], |[x, bias]| {
        let kept = x.clone();
        let output = map_rows(
            x,
            bias.values(),
            #[inline(always)]
            |values: &mut [f32], bias: &[f32]| {
                add_to_rows(values, bias);
                function.apply_to(values);
            },
        );
        (output, Activate { x: kept, bias, function })
    })
}

/// `f(x) · gate`.
///
/// # Shapes
/// - x, gate and output: the same
pub(crate) fn activate_gated<const D: usize>(x: Tensor<D>, gate: Tensor<D>, function: Function) -> Tensor<D> {
    apply([Input::new(x), Input::new(gate)], |[x, gate]| {
        let output = function.times(x.clone(), &gate);
        (output, Gated { x, gate, function })
    })
}

impl Function {
    // loops instead of `for_each`, whose functions are not always inlined into those with wide instructions

    #[inline(always)]
    fn apply_to(self, values: &mut [f32]) {
        match self {
            Self::Relu => {
                for x in values {
                    *x = x.max(0.0);
                }
            }
            Self::Gelu => {
                for x in values {
                    *x = gelu(*x).0;
                }
            }
            Self::GeluNew => {
                for x in values {
                    *x = gelu_new(*x).0;
                }
            }
            Self::Silu => {
                for x in values {
                    *x = silu(*x).0;
                }
            }
        }
    }

    /// Multiplies a gradient by `f'(x)`.
    #[inline(always)]
    fn apply_slope(self, gradient: &mut [f32], x: &[f32]) {
        let pairs = gradient.iter_mut().zip(x);
        match self {
            Self::Relu => {
                for (gradient, &x) in pairs {
                    *gradient = if x > 0.0 { *gradient } else { 0.0 };
                }
            }
            Self::Gelu => {
                for (gradient, &x) in pairs {
                    *gradient *= gelu(x).1;
                }
            }
            Self::GeluNew => {
                for (gradient, &x) in pairs {
                    *gradient *= gelu_new(x).1;
                }
            }
            Self::Silu => {
                for (gradient, &x) in pairs {
                    *gradient *= silu(x).1;
                }
            }
        }
    }
}

impl Function {
    /// `f(x) · factors`.
    fn times(self, x: HostTensor, factors: &HostTensor) -> HostTensor {
        map_with(
            x,
            factors,
            #[inline(always)]
            |values: &mut [f32], factors: &[f32]| {
                self.apply_to(values);
                times(values, factors);
            },
        )
    }
}

#[derive(Debug, Clone)]
struct Activate {
    x: HostTensor,
    bias: HostTensor,
    function: Function,
}

impl Operation<2> for Activate {
    const KIND: Kind = Kind::Activation;

    fn backward(self, gradient: HostTensor, is_needed: [bool; 2]) -> [Option<HostTensor>; 2] {
        let Self { x, bias, function } = self;
        let (x, bias) = (x.values(), bias.values());
        let chunk = chunk_of_rows(bias.len());
        let mut sums: Vec<Vec<f32>> = Vec::new();
        let of_x = gradient.modified(|gradient| {
            let chunks = gradient.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).map(|(gradient, x)| {
                let mut sum = vec![0.0f32; if is_needed[1] { bias.len() } else { 0 }];
                vectorised(
                    #[inline(always)]
                    || {
                        if bias.is_empty() {
                            return function.apply_slope(gradient, x);
                        }
                        let mut row = vec![0.0f32; bias.len()];
                        for (gradient, x) in
                            gradient.chunks_exact_mut(bias.len()).zip(x.chunks_exact(bias.len()))
                        {
                            for i in 0..bias.len() {
                                row[i] = x[i] + bias[i];
                            }
                            function.apply_slope(gradient, &row);
                            add(&mut sum, gradient);
                        }
                    },
                );
                sum
            });
            sums = chunks.collect();
        });
        let of_bias = is_needed[1].then(|| HostTensor::new(total(&sums, bias.len()), [bias.len()]));
        [is_needed[0].then_some(of_x), of_bias]
    }
}

#[derive(Debug, Clone)]
struct Gated {
    x: HostTensor,
    gate: HostTensor,
    function: Function,
}

impl Operation<2> for Gated {
    const KIND: Kind = Kind::Activation;

    fn backward(self, gradient: HostTensor, is_needed: [bool; 2]) -> [Option<HostTensor>; 2] {
        let Self { x, gate, function } = self;
        let of_gate = is_needed[1].then(|| function.times(x.clone(), &gradient));
        let of_x = is_needed[0].then(|| {
            let gradient = map_with(gradient, &gate, times);
            map_with(
                gradient,
                &x,
                #[inline(always)]
                |gradient: &mut [f32], x: &[f32]| function.apply_slope(gradient, x),
            )
        });
        [of_x, of_gate]
    }
}

/// `x·Φ(x)` and `Φ(x) + x·φ(x)`.
#[inline(always)]
fn gelu(x: f32) -> (f32, f32) {
    let cdf = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
    let pdf = 0.398_942_3 * exp(-0.5 * x * x);
    (x * cdf, cdf + x * pdf)
}

/// GELU by the tanh formula and its derivative; `1 + tanh(u) = 2σ(2u)`.
#[inline(always)]
fn gelu_new(x: f32) -> (f32, f32) {
    const SCALE: f32 = 0.797_884_6;
    let inner = SCALE * (x + 0.044_715 * x * x * x);
    let sigmoid = 1.0 / (1.0 + exp(-2.0 * inner));
    let inner_slope = SCALE * (1.0 + 3.0 * 0.044_715 * x * x);
    (x * sigmoid, sigmoid + x * 2.0 * sigmoid * (1.0 - sigmoid) * inner_slope)
}

/// `x·σ(x)` and `σ(x)·(1 + x·(1 - σ(x)))`.
#[inline(always)]
fn silu(x: f32) -> (f32, f32) {
    let sigmoid = 1.0 / (1.0 + exp(-x));
    (x * sigmoid, sigmoid * (1.0 + x * (1.0 - sigmoid)))
}

/// Values that a thread takes at a time: whole rows of a bias.
fn chunk_of_rows(width: usize) -> usize {
    if width == 0 { CHUNK } else { rows_at_a_time(width) * width }
}

#[inline(always)]
fn times(values: &mut [f32], factors: &[f32]) {
    for (value, factor) in values.iter_mut().zip(factors) {
        *value *= factor;
    }
}

#[inline(always)]
fn add_to_rows(values: &mut [f32], bias: &[f32]) {
    if !bias.is_empty() {
        for row in values.chunks_exact_mut(bias.len()) {
            add(row, bias);
        }
    }
}

/// Changes the values, some whole rows at a time, on all cores.
fn map_rows(tensor: HostTensor, bias: &[f32], f: impl Fn(&mut [f32], &[f32]) + Sync) -> HostTensor {
    tensor.modified(|values| {
        values.par_chunks_mut(chunk_of_rows(bias.len())).for_each(|values| {
            vectorised(
                #[inline(always)]
                || f(values, bias),
            );
        });
    })
}

/// Changes the values piece by piece, with those of another tensor of the same shape, on all cores.
fn map_with(tensor: HostTensor, other: &HostTensor, f: impl Fn(&mut [f32], &[f32]) + Sync) -> HostTensor {
    tensor.modified(|values| {
        values.par_chunks_mut(CHUNK).zip(other.values().par_chunks(CHUNK)).for_each(|(values, other)| {
            vectorised(
                #[inline(always)]
                || f(values, other),
            );
        });
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::activation;

    use super::super::tests::{Case, agrees_with_burn};
    use super::*;

    const FUNCTIONS: [Function; 4] = [Function::Relu, Function::Gelu, Function::GeluNew, Function::Silu];

    fn burns(x: Tensor<1>, function: Function) -> Tensor<1> {
        match function {
            Function::Relu => activation::relu(x),
            Function::Gelu => activation::gelu(x),
            Function::GeluNew => activation::gelu_approximate(x),
            Function::Silu => activation::silu(x),
        }
    }

    /// Burn's derivative of GELU has six digits.
    #[test]
    fn values_and_gradients_are_burns() {
        for function in FUNCTIONS {
            let case = Case { shapes: [vec![40_001]], tolerance: 2e-5 };
            let ours = |[x]: &[Tensor<1>; 1]| activate(x.clone(), None, function);
            agrees_with_burn(&case, ours, |[x]| burns(x.clone(), function));
        }
    }

    #[test]
    fn a_bias_is_added_before_and_has_a_gradient() {
        for (rows, d) in [(1, 1), (3, 7), (900, 37)] {
            let case = Case { shapes: [vec![rows, d], vec![d]], tolerance: 2e-5 };
            let x = |x: &Tensor<1>| x.clone().reshape([rows, d]);
            agrees_with_burn(
                &case,
                |[values, bias]| activate(x(values), Some(bias.clone()), Function::Gelu),
                |[values, bias]| activation::gelu(x(values) + bias.clone().unsqueeze()),
            );
        }
    }

    #[test]
    fn gated_values_and_gradients_are_burns() {
        for function in FUNCTIONS {
            let case = Case { shapes: [vec![20_003], vec![20_003]], tolerance: 4e-5 };
            agrees_with_burn(
                &case,
                |[x, gate]| activate_gated(x.clone(), gate.clone(), function),
                |[x, gate]| burns(x.clone(), function) * gate.clone(),
            );
        }
    }
}
