//! Activation functions under the names that Hugging Face configs give them.
//!
//! GELU on the CPU is implemented here: the CPU backend computes `erf` and `tanh` one value at a time on one
//! thread, 25 times slower than PyTorch. One pass over plain data computes value and derivative. The graph
//! holds the tangent, `x·f'(x₀) + (f(x₀) - x₀·f'(x₀))`, whose value is `f(x₀)` and whose gradient is
//! `f'(x₀)`.

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData, activation};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// An activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `max(x, 0)` (OPT, plain T5).
    Relu,
    /// `x·Φ(x)` with the error function (ViT, Q-Former, LAVIS's T5).
    Gelu,
    /// `x·Φ(x)` by the tanh formula (FLAN-T5).
    #[serde(alias = "gelu_pytorch_tanh")]
    GeluNew,
    /// `x·σ(x)` (LLaMA).
    Silu,
}

impl Activation {
    /// Applies the function to every value.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Relu => activation::relu(x),
            Self::Silu => activation::silu(x),
            Self::Gelu if is_host_f32(&x) => on_host(x, gelu_with_slope),
            Self::GeluNew if is_host_f32(&x) => on_host(x, gelu_new_with_slope),
            Self::Gelu if is_on_host(&x) => activation::gelu(x),
            Self::GeluNew if is_on_host(&x) => activation::gelu_approximate(x),
            Self::Gelu | Self::GeluNew if x.dtype() != DType::F32 => {
                let dtype: FloatDType = x.dtype().into();
                self.forward(x.cast(FloatDType::F32)).cast(dtype)
            }
            Self::Gelu => on_device(x),
            Self::GeluNew => new_on_device(x),
        }
    }
}

/// GELU in a device's own operations. [`activation::gelu`] of Burn 0.22 has the derivative of the tanh
/// formula with six digits (`ActivationOps::gelu_backward`): gradients that differ by 2e-4.
fn on_device<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let cdf = ((x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5;
    x * cdf
}

/// GELU by the tanh formula in a device's own operations; `1 + tanh(u) = 2σ(2u)`, which stays finite where a
/// driver's tanh overflows.
fn new_on_device<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    const TWICE_SCALE: f64 = 2.0 * 0.797_884_560_802_865_4;
    let inner = (x.clone() + x.clone() * x.clone() * x.clone() * 0.044_715) * TWICE_SCALE;
    x * activation::sigmoid(inner)
}

/// Whether a tensor's values are in host memory, as f32.
pub(super) fn is_host_f32<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && is_on_host(x)
}

fn is_on_host<const D: usize>(x: &Tensor<D>) -> bool {
    x.device().inner() == Device::flex()
}

/// Values a thread takes at a time; smaller tensors stay on the calling thread.
const CHUNK: usize = 16 * 1024;

fn on_host<const D: usize>(
    x: Tensor<D>,
    function: impl Fn(f32) -> (f32, f32) + Copy + Send + Sync,
) -> Tensor<D> {
    let device = x.device().inner();
    // the widest vector instructions of this machine; they neither fuse nor reorder, so every machine has the
    // same bits
    let vectors = pulp::Arch::new();
    if !x.is_tracked() {
        // in training a block may run a second time with a graph, and must give the bits of the tangent
        let is_in_training = x.device().is_autodiff();
        let value_of = move |x: f32| {
            let (value, slope) = function(x);
            if is_in_training { x * slope + (value - x * slope) } else { value }
        };
        // without a copy if this is the only owner of the values
        let mut data = x.without_autodiff().into_data();
        if let Ok(values) = data.as_mut_slice::<f32>() {
            values.par_chunks_mut(CHUNK).for_each(|values| {
                vectors.dispatch(
                    #[inline(always)]
                    || values.iter_mut().for_each(|x| *x = value_of(*x)),
                );
            });
        }
        return Tensor::from_data(data, &device);
    }
    let shape = x.shape();
    let input = x.clone().without_autodiff().into_data();
    let Ok(input) = input.as_slice::<f32>() else { return activation::gelu(x) };
    let (mut rest, mut slope) = (vec![0.0f32; input.len()], vec![0.0f32; input.len()]);
    let chunks = rest.par_chunks_mut(CHUNK).zip(slope.par_chunks_mut(CHUNK)).zip(input.par_chunks(CHUNK));
    chunks.for_each(|((rest, slope), input)| {
        vectors.dispatch(
            #[inline(always)]
            || {
                for ((rest, slope), &x) in rest.iter_mut().zip(slope).zip(input) {
                    let value;
                    (value, *slope) = function(x);
                    *rest = value - x * *slope;
                }
            },
        );
    });
    let rest = Tensor::from_data(TensorData::new(rest, shape.clone()), &device);
    let slope = Tensor::from_data(TensorData::new(slope, shape), &device);
    x * slope + rest
}

/// `x·Φ(x)` and `Φ(x) + x·φ(x)`.
#[inline(always)]
fn gelu_with_slope(x: f32) -> (f32, f32) {
    let cdf = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
    let pdf = 0.398_942_3 * exp(-0.5 * x * x);
    (x * cdf, cdf + x * pdf)
}

/// GELU by `0.5·x·(1 + tanh(√(2/π)(x + 0.044715x³)))` and its derivative; `1 + tanh(u) = 2σ(2u)`.
#[inline(always)]
fn gelu_new_with_slope(x: f32) -> (f32, f32) {
    const SCALE: f32 = 0.797_884_6;
    let inner = SCALE * (x + 0.044_715 * x * x * x);
    let sigmoid = 1.0 / (1.0 + exp(-2.0 * inner));
    let inner_slope = SCALE * (1.0 + 3.0 * 0.044_715 * x * x);
    (x * sigmoid, sigmoid + x * 2.0 * sigmoid * (1.0 - sigmoid) * inner_slope)
}

/// A rational minimax approximation of the error function on [-4, 4] (as in Eigen; absolute error below
/// 1.3e-6), which the compiler vectorises. It uses `a * b + c` because `mul_add` is a library call where the
/// target has no fused instruction.
#[inline(always)]
fn erf(x: f32) -> f32 {
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
pub(super) fn exp(x: f32) -> f32 {
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

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Tolerance;

    fn ramp(device: &Device) -> Tensor<1> {
        Tensor::from_floats((-60..=60).map(|i| i as f32 * 0.1).collect::<Vec<_>>().as_slice(), device)
    }

    fn value_and_gradient(activation: impl Fn(Tensor<1>) -> Tensor<1>) -> (Tensor<1>, Tensor<1>) {
        let device = Device::flex().autodiff();
        let x = ramp(&device).require_grad();
        let y = activation(x.clone());
        // weights make a wrong pairing of values and slopes visible
        let mut gradients = (y.clone() * ramp(&Device::flex())).sum().backward();
        (y.without_autodiff(), x.grad_remove(&mut gradients).unwrap())
    }

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
    fn gelu_equals_the_backends_in_value_and_gradient() {
        let (ours, our_gradient) = value_and_gradient(|x| Activation::Gelu.forward(x));
        let (theirs, their_gradient) = value_and_gradient(activation::gelu);
        ours.into_data().assert_approx_eq::<f32>(&theirs.into_data(), Tolerance::absolute(3e-6));
        our_gradient
            .into_data()
            .assert_approx_eq::<f32>(&their_gradient.into_data(), Tolerance::absolute(2e-5));
    }

    #[test]
    fn gelu_new_equals_the_backends_in_value_and_gradient() {
        let (ours, our_gradient) = value_and_gradient(|x| Activation::GeluNew.forward(x));
        let (theirs, their_gradient) = value_and_gradient(activation::gelu_approximate);
        ours.into_data().assert_approx_eq::<f32>(&theirs.into_data(), Tolerance::absolute(3e-6));
        our_gradient
            .into_data()
            .assert_approx_eq::<f32>(&their_gradient.into_data(), Tolerance::absolute(2e-5));
    }

    #[test]
    fn a_devices_operations_give_the_value_and_gradient_of_the_host() {
        for activation in [Activation::Gelu, Activation::GeluNew] {
            let (ours, our_gradient) = value_and_gradient(|x| activation.forward(x));
            let (theirs, their_gradient) = match activation {
                Activation::Gelu => value_and_gradient(on_device),
                _ => value_and_gradient(new_on_device),
            };
            ours.into_data().assert_approx_eq::<f32>(&theirs.into_data(), Tolerance::absolute(3e-6));
            let tolerance = Tolerance::absolute(2e-5);
            our_gradient.into_data().assert_approx_eq::<f32>(&their_gradient.into_data(), tolerance);
        }
    }

    #[test]
    fn plain_tensors_take_the_same_values_as_tracked_ones() {
        let plain = Activation::Gelu.forward(ramp(&Device::flex()));
        let (tracked, _) = value_and_gradient(|x| Activation::Gelu.forward(x));
        // the tangent is evaluated with two roundings more
        plain.into_data().assert_approx_eq::<f32>(&tracked.into_data(), Tolerance::absolute(1e-6));
    }
}
