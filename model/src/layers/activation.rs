//! Activation functions under the names that Hugging Face configs give them.

use burn::tensor::{DType, FloatDType, Tensor, activation};
use serde::{Deserialize, Serialize};

use super::Linear;
use crate::host::activation::{Function, activate, activate_gated};
use crate::host::is_host_f32;

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
        if is_host_f32(&x) {
            return activate(x, None, self.function());
        }
        match self {
            Self::Relu => activation::relu(x),
            Self::Silu => activation::silu(x),
            Self::Gelu | Self::GeluNew if x.dtype() != DType::F32 => {
                let dtype: FloatDType = x.dtype().into();
                self.forward(x.cast(FloatDType::F32)).cast(dtype)
            }
            Self::Gelu => on_device(x),
            Self::GeluNew => new_on_device(x),
        }
    }

    /// The function of a dense layer's output.
    ///
    /// # Shapes
    /// - x: `[..., in]`
    /// - output: `[..., out]`
    pub fn forward_dense<const D: usize>(self, layer: &Linear, x: Tensor<D>) -> Tensor<D> {
        match &layer.bias {
            Some(bias) if is_host_f32(&x) && is_host_f32(&bias.val()) && layer.lora.is_none() => {
                activate(layer.forward_with_bias(x, None), Some(bias.val()), self.function())
            }
            _ => self.forward(layer.forward(x)),
        }
    }

    /// The function of every value times the value of `gate`.
    ///
    /// # Shapes
    /// - x, gate and output: the same
    pub fn forward_gated<const D: usize>(self, x: Tensor<D>, gate: Tensor<D>) -> Tensor<D> {
        if is_host_f32(&x) && is_host_f32(&gate) {
            activate_gated(x, gate, self.function())
        } else {
            self.forward(x) * gate
        }
    }

    fn function(self) -> Function {
        match self {
            Self::Relu => Function::Relu,
            Self::Gelu => Function::Gelu,
            Self::GeluNew => Function::GeluNew,
            Self::Silu => Function::Silu,
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

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tolerance};

    fn value_and_gradient(activation: impl Fn(Tensor<1>) -> Tensor<1>) -> (Tensor<1>, Tensor<1>) {
        let device = Device::flex().autodiff();
        let ramp = |device: &Device| {
            Tensor::from_floats((-60..=60).map(|i| i as f32 * 0.1).collect::<Vec<_>>().as_slice(), device)
        };
        let x: Tensor<1> = ramp(&device).require_grad();
        let y = activation(x.clone());
        // weights make a wrong pairing of values and slopes visible
        let mut gradients = (y.clone() * ramp(&Device::flex())).sum().backward();
        (y.without_autodiff(), x.grad_remove(&mut gradients).unwrap())
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
}
