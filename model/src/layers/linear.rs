//! `y = x Wᵀ + b`, with the weight stored `[out, in]` as PyTorch stores it.

use burn::module::{Initializer, Module, Param};
use burn::tensor::module::linear;
use burn::tensor::{Device, FloatDType, Tensor};

use super::{Lora, cast};
use crate::host;
use crate::host::half::{HalfWeight, linear_half};
use crate::host::matrix::FEW_ROWS;
use crate::host::{is_host_f32, is_on_host};

/// Sizes and initial values of a [`Linear`].
#[derive(Debug, Clone)]
pub struct LinearConfig {
    /// Width of the input.
    pub d_input: usize,
    /// Width of the output.
    pub d_output: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// Initial values of the weight; the bias is initially zero.
    pub initializer: Initializer,
}

impl LinearConfig {
    /// A layer with a bias whose weight is drawn from N(0, `std`).
    pub fn new(d_input: usize, d_output: usize, std: f64) -> Self {
        Self { d_input, d_output, bias: true, initializer: Initializer::Normal { mean: 0.0, std } }
    }

    /// The same layer without a bias.
    #[must_use]
    pub fn without_bias(mut self) -> Self {
        self.bias = false;
        self
    }

    /// Makes the layer; its values are drawn at first use.
    pub fn init(&self, device: &Device) -> Linear {
        Linear {
            weight: self.initializer.init([self.d_output, self.d_input], device),
            bias: self.bias.then(|| Initializer::Zeros.init([self.d_output], device)),
            lora: None,
        }
    }
}

/// A dense layer.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Param<Tensor<2>>,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
    /// A low-rank update of the weight, if attached.
    pub lora: Option<Lora>,
}

impl Linear {
    /// Applies the layer to the last axis.
    ///
    /// # Shapes
    /// - input: `[..., in]`
    /// - output: `[..., out]`
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        self.forward_with_bias(input, self.bias.as_ref().map(Param::val))
    }

    /// `residual +` [`forward`](Self::forward). In training the residual is kept for other gradients, so that
    /// it would be copied: adding to it is faster without.
    ///
    /// # Shapes
    /// - residual and output: `[..., out]`
    pub(crate) fn forward_onto<const D: usize>(&self, residual: Tensor<D>, input: Tensor<D>) -> Tensor<D> {
        let (weight, bias) = (self.weight.val(), self.bias.as_ref().map(Param::val));
        let is_plain = !residual.device().is_autodiff() && !input.device().is_autodiff();
        let is_host = is_plain && is_host_f32(&residual) && is_host_f32(&input) && is_host_f32(&weight);
        let rows = input.dims()[..D - 1].iter().product::<usize>();
        if !is_host || !bias.as_ref().is_none_or(is_host_f32) || self.lora.is_some() || rows <= FEW_ROWS {
            return residual + self.forward(input);
        }
        let dims = residual.dims();
        let [d_output, d_input] = weight.dims();
        let (residual, input) = (residual.reshape([rows, d_output]), input.reshape([rows, d_input]));
        host::linear::linear_onto(residual, input, (weight, bias)).reshape(dims)
    }

    /// [`forward`](Self::forward) with another bias: `[out]`.
    pub(crate) fn forward_with_bias<const D: usize>(
        &self,
        input: Tensor<D>,
        bias: Option<Tensor<1>>,
    ) -> Tensor<D> {
        let mut dims = input.dims();
        let d_input = dims[D - 1];
        let rows = dims[..D - 1].iter().product::<usize>();
        let weight = self.weight.val();
        dims[D - 1] = weight.dims()[0];
        let input = input.reshape([rows, d_input]);
        let update = self.lora.as_ref().map(|lora| lora.forward(input.clone()));
        let output = product(input, weight, bias);
        let output = match update {
            Some(update) => {
                let dtype: FloatDType = output.dtype().into();
                cast(cast(output, FloatDType::F32) + update, dtype)
            }
            None => output,
        };
        output.reshape(dims)
    }
}

/// `x wᵀ + b`.
///
/// # Shapes
/// - x: `[rows, in]`
/// - weight: `[out, in]`
/// - output: `[rows, out]`
pub(crate) fn product(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    if is_host_f32(&x) && is_host_f32(&weight) && bias.as_ref().is_none_or(is_host_f32) {
        return host::linear::linear(x, [(weight, bias)]);
    }
    if x.dtype() == weight.dtype()
        && let Some(half) = HalfWeight::new(weight.clone())
    {
        return in_half(x, vec![(half, bias)]);
    }
    if x.dims()[0] > FEW_ROWS {
        return linear(x, weight.transpose(), bias);
    }
    let product = weight.matmul(x.transpose()).transpose();
    match bias {
        Some(bias) => product + bias.unsqueeze(),
        None => product,
    }
}

/// Several layers of one input, side by side in one output, where that is faster: on the CPU, without
/// low-rank updates.
///
/// # Shapes
/// - x: `[b, t, in]`
/// - output: `[b, t, Σ out]`
pub(crate) fn side_by_side<const M: usize>(layers: [&Linear; M], x: &Tensor<3>) -> Option<Tensor<3>> {
    if !is_on_host(x) || layers.iter().any(|layer| layer.lora.is_some()) {
        return None;
    }
    let [b, t, d_input] = x.dims();
    let parts = layers.map(|layer| (layer.weight.val(), layer.bias.as_ref().map(Param::val)));
    let is_f32 = |(weight, bias): &(Tensor<2>, Option<Tensor<1>>)| {
        is_host_f32(weight) && bias.as_ref().is_none_or(is_host_f32)
    };
    let flat = x.clone().reshape([b * t, d_input]);
    let output = if is_host_f32(x) && parts.iter().all(is_f32) {
        host::linear::linear(flat, parts)
    } else {
        let half = |(weight, bias): (Tensor<2>, Option<Tensor<1>>)| {
            (weight.dtype() == x.dtype()).then(|| HalfWeight::new(weight)).flatten().map(|half| (half, bias))
        };
        in_half(flat, parts.into_iter().map(half).collect::<Option<_>>()?)
    };
    let [_, width] = output.dims();
    Some(output.reshape([b, t, width]))
}

/// Layers whose frozen weights have two bytes a value, as the input and the output; computed in f32.
fn in_half(x: Tensor<2>, parts: Vec<(HalfWeight, Option<Tensor<1>>)>) -> Tensor<2> {
    let dtype: FloatDType = x.dtype().into();
    let wide = |(weight, bias): (HalfWeight, Option<Tensor<1>>)| {
        (weight, bias.map(|bias| cast(bias, FloatDType::F32)))
    };
    let parts = parts.into_iter().map(wide).collect();
    cast(linear_half(cast(x, FloatDType::F32), parts), dtype)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Distribution, Tolerance};

    #[test]
    fn few_rows_and_many_rows_give_the_same_numbers() {
        let device = Device::flex();
        device.seed(3);
        let layer = LinearConfig::new(24, 40, 0.5).init(&device);
        let input = Tensor::<2>::random([FEW_ROWS + 6, 24], Distribution::Default, &device);
        let whole = layer.forward(input.clone());
        let head = layer.forward(input.slice([0..5]));
        head.into_data().assert_approx_eq::<f32>(&whole.slice([0..5]).into_data(), Tolerance::absolute(1e-5));
    }

    #[test]
    fn the_bias_is_optional_and_leading_axes_are_kept() {
        let device = Device::flex();
        let layer = LinearConfig::new(3, 2, 1.0).without_bias().init(&device);
        assert!(layer.bias.is_none());
        assert_eq!(layer.forward(Tensor::<4>::zeros([2, 5, 7, 3], &device)).dims(), [2, 5, 7, 2]);
    }
}
