//! `y = x Wᵀ + b`, with the weight stored `[out, in]` as PyTorch stores it.

use burn::module::{Initializer, Module, Param};
use burn::tensor::module::linear;
use burn::tensor::{Device, FloatDType, Tensor, TensorData};

use super::{Lora, cast};
use crate::host;
use crate::host::int8::Int8Weight;
use crate::host::matrix::FEW_ROWS;
use crate::host::narrow::{NarrowWeight, linear_narrow};
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
            int8: None,
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
    /// The frozen weight in one byte a value. Then `weight` takes memory only where something else reads it.
    #[module(skip)]
    int8: Option<Int8Weight>,
}

impl Linear {
    /// Replaces the weight by one in int8, which is frozen.
    pub(crate) fn set_int8(&mut self, int8: Int8Weight) {
        let (id, device) = (self.weight.id, self.weight.lazy_device());
        let (dims, values) = (int8.dims(), int8.clone());
        let widen =
            move |device: &Device, _| Tensor::from_data(TensorData::new(values.widened(), dims), device);
        self.weight = Param::uninitialized(id, widen, device, false, dims.into());
        self.int8 = Some(int8);
    }

    /// Changes the weight, which has f32 values afterwards if they were in int8.
    pub(crate) fn map_weight(&mut self, change: impl FnOnce(Tensor<2>) -> Tensor<2>) {
        self.int8 = None;
        self.weight = self.weight.clone().map(change);
    }

    fn bias(&self) -> Option<Tensor<1>> {
        self.bias.as_ref().map(Param::val)
    }

    /// The weight in one or two bytes a value, if it has the type of `x`, or is in int8.
    fn narrow<const D: usize>(&self, x: &Tensor<D>) -> Option<NarrowWeight> {
        match &self.int8 {
            Some(int8) => Some(NarrowWeight::Int8(int8.clone())),
            None => NarrowWeight::half(self.weight.val()).filter(|_| self.weight.val().dtype() == x.dtype()),
        }
    }

    /// Applies the layer to the last axis.
    ///
    /// # Shapes
    /// - input: `[..., in]`
    /// - output: `[..., out]`
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        self.forward_with_bias(input, self.bias())
    }

    /// `residual +` [`forward`](Self::forward). In training the residual is kept for other gradients, so that
    /// it would be copied: adding to it is faster without.
    ///
    /// # Shapes
    /// - residual and output: `[..., out]`
    pub(crate) fn forward_onto<const D: usize>(&self, residual: Tensor<D>, input: Tensor<D>) -> Tensor<D> {
        if self.int8.is_some() {
            return residual + self.forward(input);
        }
        let (weight, bias) = (self.weight.val(), self.bias());
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
        let [d_output, _] = self.weight.lazy_shape().dims();
        dims[D - 1] = d_output;
        let input = input.reshape([rows, d_input]);
        let update = self.lora.as_ref().map(|lora| lora.forward(input.clone()));
        let output = match &self.int8 {
            Some(int8) => in_narrow(input, vec![(NarrowWeight::Int8(int8.clone()), bias)]),
            None => product(input, self.weight.val(), bias),
        };
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
        && let Some(half) = NarrowWeight::half(weight.clone())
    {
        return in_narrow(x, vec![(half, bias)]);
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
    let flat = x.clone().reshape([b * t, d_input]);
    let is_f32 = |layer: &Linear| {
        layer.int8.is_none()
            && is_host_f32(&layer.weight.val())
            && layer.bias().as_ref().is_none_or(is_host_f32)
    };
    let output = if is_host_f32(x) && layers.iter().all(|layer| is_f32(layer)) {
        host::linear::linear(flat, layers.map(|layer| (layer.weight.val(), layer.bias())))
    } else {
        let narrow = |layer: &Linear| Some((layer.narrow(x)?, layer.bias()));
        in_narrow(flat, layers.into_iter().map(narrow).collect::<Option<_>>()?)
    };
    let [_, width] = output.dims();
    Some(output.reshape([b, t, width]))
}

/// Layers whose frozen weights have one or two bytes a value, in the type of the input; computed in f32.
fn in_narrow(x: Tensor<2>, parts: Vec<(NarrowWeight, Option<Tensor<1>>)>) -> Tensor<2> {
    let dtype: FloatDType = x.dtype().into();
    let wide = |(weight, bias): (NarrowWeight, Option<Tensor<1>>)| {
        (weight, bias.map(|bias| cast(bias, FloatDType::F32)))
    };
    let parts = parts.into_iter().map(wide).collect();
    cast(linear_narrow(cast(x, FloatDType::F32), parts), dtype)
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

    /// Whatever reads the weight instead of applying the layer gets the values that the layer computes with.
    #[test]
    fn a_layer_in_int8_computes_with_the_values_that_its_weight_has() {
        let device = Device::flex();
        device.seed(4);
        let plain = LinearConfig::new(24, 40, 0.5).init(&device);
        let values: Vec<f32> = plain.weight.val().into_data().try_to_vec().unwrap();
        let mut layer = plain.clone();
        layer.set_int8(Int8Weight::quantise(&values, [40, 24]).unwrap());
        assert_eq!(layer.weight.lazy_shape().dims(), [40, 24]);
        for rows in [3, FEW_ROWS + 1] {
            let input = Tensor::<3>::random([2, rows, 24], Distribution::Default, &device);
            let output = layer.forward(input.clone());
            let widened = product(input.clone().reshape([2 * rows, 24]), layer.weight.val(), layer.bias());
            let expected = widened.reshape([2, rows, 40]).into_data();
            output.clone().into_data().assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
            let together = side_by_side([&layer, &layer], &input).unwrap();
            let first = together.slice([0..2, 0..rows, 0..40]).into_data();
            first.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
            let onto = layer.forward_onto(output.clone(), input.clone());
            onto.into_data()
                .assert_approx_eq::<f32>(&(output.clone() * 2).into_data(), Tolerance::absolute(1e-5));
            // a step is 1/127 of the largest weight, and 24 half steps are averaged out in part
            let difference = (output - plain.forward(input)).abs().max().into_scalar::<f32>();
            assert!((1e-4..0.1).contains(&difference), "{difference}");
        }
        layer.map_weight(|weight| weight * 2);
        let input = Tensor::<2>::random([5, 24], Distribution::Default, &device);
        let expected = product(input.clone(), layer.weight.val(), None).into_data();
        layer.forward(input).into_data().assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-6));
    }

    #[test]
    fn the_bias_is_optional_and_leading_axes_are_kept() {
        let device = Device::flex();
        let layer = LinearConfig::new(3, 2, 1.0).without_bias().init(&device);
        assert!(layer.bias.is_none());
        assert_eq!(layer.forward(Tensor::<4>::zeros([2, 5, 7, 3], &device)).dims(), [2, 5, 7, 2]);
    }
}
