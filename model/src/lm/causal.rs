//! Common code of the decoder-only language models OPT and LLaMA: one sequence of embedded tokens, the video
//! first, with causal attention.

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};

use super::cache::{KeyValues, KeyValuesConfig};
use crate::layers::MASKED;

/// The input of a decoder.
pub(crate) struct CausalInput<'a> {
    /// `[b, t, d]`
    pub embedded: Tensor<3>,
    /// Position of each token among the tokens that count: `[b, t]`.
    pub positions: Tensor<2, Int>,
    /// [`MASKED`] where a token must not attend, else 0: `[b|1, 1, t, keys]`.
    pub bias: Tensor<4>,
    /// Keys and values of earlier tokens.
    pub cache: Option<&'a mut CausalCache>,
}

/// Keys and values of every layer.
#[derive(Debug, Clone)]
pub(crate) struct CausalCache {
    pub layers: Vec<KeyValues>,
    /// Number of tokens.
    pub length: usize,
}

impl CausalCache {
    /// An empty cache.
    pub(crate) fn new(layers: usize, config: &KeyValuesConfig, device: &Device) -> Self {
        Self { layers: (0..layers).map(|_| config.init(device)).collect(), length: 0 }
    }

    /// Extends the keys and values of one layer, if there is a cache.
    pub(crate) fn extend(
        cache: Option<(&mut Self, usize)>,
        keys: Tensor<4>,
        values: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        match cache {
            Some((cache, layer)) => cache.layers[layer].extend(cache.length, keys, values),
            None => (keys, values),
        }
    }
}

/// Positions and bias of sequences from their first token on. Only tokens of `mask` are counted; a masked
/// token has the position of a neighbour, which has no effect.
///
/// # Shapes
/// - mask: `[b, t]`; every token counts where absent
/// - output: `[b, t]` and `[b|1, 1, t, t]`
pub(crate) fn positions_and_bias(
    mask: Option<Tensor<2>>,
    [b, t]: [usize; 2],
    device: &Device,
) -> (Tensor<2, Int>, Tensor<4>) {
    let causal = causal_bias(t, device);
    match mask {
        None => (Tensor::arange(0..t as i64, device).reshape([1, t]).expand([b, t]), causal),
        Some(mask) => {
            let positions = (mask.clone().cumsum(1) - 1.0).clamp_min(0.0).int();
            (positions, causal + mask_to_bias(mask))
        }
    }
}

/// `[1, 1, t, t]`: 0 on and below the diagonal, [`MASKED`] above.
pub(crate) fn causal_bias(t: usize, device: &Device) -> Tensor<4> {
    let values: Vec<f32> = (0..t * t).map(|index| if index % t > index / t { MASKED } else { 0.0 }).collect();
    Tensor::from_data(TensorData::new(values, [1, 1, t, t]), device)
}

/// `[b, t]` of ones and zeros to `[b, 1, 1, t]` of 0 and [`MASKED`].
pub(crate) fn mask_to_bias(mask: Tensor<2>) -> Tensor<4> {
    let [b, t] = mask.dims();
    ((mask.cast(FloatDType::F32) - 1.0) * -MASKED).reshape([b, 1, 1, t])
}
