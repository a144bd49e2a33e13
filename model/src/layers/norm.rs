//! Layer norm and RMS norm. Both compute in f32, as the reference implementations, and return the input's
//! type.

use burn::module::{Initializer, Module, Param};
use burn::tensor::module::layer_norm;
use burn::tensor::{Device, FloatDType, Tensor};

use super::cast;
use crate::host::{self, is_host_f32};

/// Width and epsilon of a [`LayerNorm`].
#[derive(Debug, Clone)]
pub struct LayerNormConfig {
    /// Width of the normalised axis.
    pub d: usize,
    /// Added to the variance.
    pub epsilon: f64,
}

impl LayerNormConfig {
    /// A norm over `d` values.
    pub fn new(d: usize, epsilon: f64) -> Self {
        Self { d, epsilon }
    }

    /// Makes the layer with weight 1 and bias 0.
    pub fn init(&self, device: &Device) -> LayerNorm {
        LayerNorm {
            weight: Initializer::Ones.init([self.d], device),
            bias: Initializer::Zeros.init([self.d], device),
            epsilon: self.epsilon,
        }
    }
}

/// `(x - mean) / sqrt(var + ε) · weight + bias` over the last axis.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[d]`
    pub weight: Param<Tensor<1>>,
    /// `[d]`
    pub bias: Param<Tensor<1>>,
    epsilon: f64,
}

impl LayerNorm {
    /// Normalises the last axis.
    ///
    /// # Shapes
    /// - input and output: `[..., d]`
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let dtype: FloatDType = input.dtype().into();
        let weight = cast(self.weight.val(), FloatDType::F32);
        let bias = cast(self.bias.val(), FloatDType::F32);
        let input = cast(input, FloatDType::F32);
        let output = if is_host_f32(&input) {
            host::norm::layer_norm(input, weight, bias, self.epsilon)
        } else {
            layer_norm(input, weight, Some(bias), self.epsilon)
        };
        cast(output, dtype)
    }
}

/// Width and epsilon of an [`RmsNorm`].
#[derive(Debug, Clone)]
pub struct RmsNormConfig {
    /// Width of the normalised axis.
    pub d: usize,
    /// Added to the mean square.
    pub epsilon: f64,
}

impl RmsNormConfig {
    /// A norm over `d` values.
    pub fn new(d: usize, epsilon: f64) -> Self {
        Self { d, epsilon }
    }

    /// Makes the layer with weight 1.
    pub fn init(&self, device: &Device) -> RmsNorm {
        RmsNorm { weight: Initializer::Ones.init([self.d], device), epsilon: self.epsilon }
    }
}

/// `x / sqrt(mean(x²) + ε) · weight` over the last axis: no mean is subtracted and no bias added (T5, LLaMA).
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[d]`
    pub weight: Param<Tensor<1>>,
    epsilon: f64,
}

impl RmsNorm {
    /// Normalises the last axis.
    ///
    /// # Shapes
    /// - input and output: `[..., d]`
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let dtype: FloatDType = input.dtype().into();
        let input = cast(input, FloatDType::F32);
        let weight = cast(self.weight.val(), FloatDType::F32);
        if is_host_f32(&input) {
            return cast(host::norm::rms_norm(input, weight, self.epsilon), dtype);
        }
        let scale = input.clone().square().mean_dim(D - 1).add_scalar(self.epsilon).sqrt().recip();
        cast(input * scale * weight.unsqueeze(), dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Tolerance;

    #[test]
    fn layer_norm_gives_mean_zero_and_variance_one() {
        let device = Device::flex();
        let input = Tensor::<2>::from_floats([[1.0, 2.0, 3.0, 6.0]], &device);
        let output = LayerNormConfig::new(4, 0.0).init(&device).forward(input);
        // mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5
        let expected = Tensor::<2>::from_floats([[-2.0, -1.0, 0.0, 3.0]], &device) / 3.5f32.sqrt();
        output.into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-6));
    }

    #[test]
    fn rms_norm_divides_by_the_root_mean_square_and_keeps_the_mean() {
        let device = Device::flex();
        let input = Tensor::<2>::from_floats([[1.0, 2.0, 2.0, 4.0]], &device);
        let output = RmsNormConfig::new(4, 0.0).init(&device).forward(input.clone());
        let expected = input / 2.5;
        output.into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-6));
    }
}
