//! Scaled dot-product attention with an additive bias (T5), a mask, a given scale, and dropout on the
//! probabilities (Burn's module applies it to the scores).

use burn::tensor::activation::softmax;
use burn::tensor::{FloatDType, Tensor};

use super::linear::side_by_side;
use super::{Dropout, Linear, cast};
use crate::host::attention::{HostAttention, attend as attend_on_host};
use crate::host::{is_host_f32, is_on_host};

pub(crate) use crate::host::attention::Sources;

/// The bias of a masked position: far below any score, and finite, so that a fully masked row gives equal
/// weights, not NaN.
pub const MASKED: f32 = -1.0e9;

/// Arguments of [`attend`].
pub(crate) struct AttentionInput<'a> {
    /// Queries `[b, t, h·d_head]`, keys and values `[b, s, h·d_head]`.
    pub sources: Sources,
    /// `h`
    pub heads: usize,
    /// Factor of the scores: `1/√d_head`, or 1 for T5.
    pub scale: f64,
    /// Added to the scores before the softmax, broadcast: `[b|1, h|1, t|1, s]`. A mask is a bias of
    /// [`MASKED`].
    pub bias: Option<Tensor<4>>,
    /// Dropout on the probabilities.
    pub dropout: &'a Dropout,
}

/// `dropout(softmax(scale · q kᵀ + bias)) v`, head by head, the softmax in f32.
///
/// # Shapes
/// - output: `[b, t, h·d_head]`
pub(crate) fn attend(input: AttentionInput<'_>) -> Tensor<3> {
    let AttentionInput { sources, heads, scale, bias, dropout } = input;
    if sources.tensors().into_iter().all(is_host_f32) && bias.as_ref().is_none_or(is_host_f32) {
        let ([b, t], s, is_training) = (sources.queries(), sources.keys(), sources.is_training());
        let dropout = if is_training { dropout.mask([b, heads, t, s]) } else { None };
        return attend_on_host(HostAttention { sources, heads, scale: scale as f32, bias, dropout });
    }
    if sources.tensors().into_iter().all(is_on_host) && bias.as_ref().is_none_or(is_on_host) {
        // the scores of two-byte types are computed in f32, as the softmax
        let dtype: FloatDType = sources.tensors()[0].dtype().into();
        let (sources, bias) = (sources.cast(FloatDType::F32), bias.map(|bias| cast(bias, FloatDType::F32)));
        return cast(attend(AttentionInput { sources, heads, scale, bias, dropout }), dtype);
    }
    let [query, key, value] = sources.separate();
    // scaled before it is split, while its values are contiguous
    let query = if scale == 1.0 { query } else { query * scale };
    let [query, key, value] = [query, key, value].map(|x| split_heads(x, heads));
    join_heads(attend_heads(HeadsInput { query, key, value, scale: 1.0, bias, dropout }))
}

impl Sources {
    /// Self-attention: queries, keys and values of the same tokens, side by side where that is faster.
    pub(crate) fn own([query, key, value]: [&Linear; 3], x: Tensor<3>) -> Self {
        match side_by_side([query, key, value], &x) {
            Some(all) => Self::Joint(all),
            None => Self::Separate([query.forward(x.clone()), key.forward(x.clone()), value.forward(x)]),
        }
    }

    /// Cross-attention: keys and values of other tokens, side by side where that is faster.
    pub(crate) fn crossed([query, key, value]: [&Linear; 3], x: Tensor<3>, memory: &Tensor<3>) -> Self {
        let query = query.forward(x);
        match side_by_side([key, value], memory) {
            Some(both) => Self::Crossed(query, both),
            None => Self::Separate([query, key.forward(memory.clone()), value.forward(memory.clone())]),
        }
    }

    fn cast(self, dtype: FloatDType) -> Self {
        match self {
            Self::Joint(all) => Self::Joint(cast(all, dtype)),
            Self::Crossed(query, both) => Self::Crossed(cast(query, dtype), cast(both, dtype)),
            Self::Separate(each) => Self::Separate(each.map(|x| cast(x, dtype))),
        }
    }

    fn separate(self) -> [Tensor<3>; 3] {
        let part = |x: &Tensor<3>, index: usize, count: usize| {
            let d = x.dims()[2] / count;
            x.clone().narrow(2, index * d, d)
        };
        match self {
            Self::Joint(all) => [0, 1, 2].map(|index| part(&all, index, 3)),
            Self::Crossed(query, both) => [query, part(&both, 0, 2), part(&both, 1, 2)],
            Self::Separate(each) => each,
        }
    }
}

/// Arguments of [`attend_heads`].
pub(crate) struct HeadsInput<'a> {
    /// `[b, h, t_query, d_head]`
    pub query: Tensor<4>,
    /// `[b, h, t_key, d_head]`
    pub key: Tensor<4>,
    /// `[b, h, t_key, d_head]`
    pub value: Tensor<4>,
    /// As in [`AttentionInput`].
    pub scale: f64,
    /// As in [`AttentionInput`].
    pub bias: Option<Tensor<4>>,
    /// As in [`AttentionInput`].
    pub dropout: &'a Dropout,
}

/// [`attend`] for split heads.
///
/// # Shapes
/// - output: `[b, h, t_query, d_head]`
pub(crate) fn attend_heads(input: HeadsInput<'_>) -> Tensor<4> {
    let dtype: FloatDType = input.query.dtype().into();
    let query = if input.scale == 1.0 { input.query } else { input.query * input.scale };
    let scores = cast(query.matmul(input.key.swap_dims(2, 3)), FloatDType::F32);
    let scores = match input.bias {
        Some(bias) => scores + cast(bias, FloatDType::F32),
        None => scores,
    };
    let probabilities = cast(softmax(scores, 3), dtype);
    input.dropout.forward(probabilities).matmul(input.value)
}

/// Splits the width into heads.
///
/// # Shapes
/// - input: `[b, t, h·d_head]`
/// - output: `[b, h, t, d_head]`
pub(crate) fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [b, t, d] = x.dims();
    x.reshape([b, t, heads, d / heads]).swap_dims(1, 2)
}

/// The inverse of [`split_heads`].
///
/// # Shapes
/// - input: `[b, h, t, d_head]`
/// - output: `[b, t, h·d_head]`
pub(crate) fn join_heads(x: Tensor<4>) -> Tensor<3> {
    let [b, h, t, d_head] = x.dims();
    x.swap_dims(1, 2).reshape([b, t, h * d_head])
}

#[cfg(test)]
mod tests {
    use super::super::DropoutConfig;
    use super::*;
    use burn::tensor::module::attention;
    use burn::tensor::ops::AttentionModuleOptions;
    use burn::tensor::{Device, Distribution, Tolerance};

    #[test]
    fn equals_burns_attention_where_that_one_applies() {
        let device = Device::flex();
        device.seed(1);
        let random = |t| Tensor::<4>::random([2, 3, t, 8], Distribution::Normal(0.0, 1.0), &device);
        let (query, key, value) = (random(4), random(6), random(6));
        let ours = attend_heads(HeadsInput {
            query: query.clone(),
            key: key.clone(),
            value: value.clone(),
            scale: 8f64.powf(-0.5),
            bias: None,
            dropout: &DropoutConfig::new(0.0).init(),
        });
        let theirs = attention(query, key, value, None, None, AttentionModuleOptions::default());
        ours.into_data().assert_approx_eq::<f32>(&theirs.into_data(), Tolerance::absolute(1e-5));
    }

    /// Both sum in f32, in another order: 1e-5 on values of size 1.
    #[test]
    fn every_layout_of_the_sources_gives_the_same_on_every_path() {
        let device = Device::flex();
        device.seed(2);
        let dropout = DropoutConfig::new(0.0).init();
        let all = Tensor::<3>::random([2, 5, 36], Distribution::Normal(0.0, 1.0), &device);
        let part = |i: usize| all.clone().narrow(2, 12 * i, 12);
        let layouts = || {
            let crossed = Tensor::cat(vec![part(1), part(2)], 2);
            [
                Sources::Joint(all.clone()),
                Sources::Crossed(part(0), crossed),
                Sources::Separate([part(0), part(1), part(2)]),
            ]
        };
        let attend =
            |sources| attend(AttentionInput { sources, heads: 3, scale: 0.4, bias: None, dropout: &dropout });
        let [expected, ..] = layouts().map(attend).map(Tensor::into_data);
        for sources in layouts() {
            let of_device = join_heads(attend_heads({
                let [query, key, value] = sources.separate().map(|x| split_heads(x, 3));
                HeadsInput { query, key, value, scale: 0.4, bias: None, dropout: &dropout }
            }));
            of_device.into_data().assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
        }
        for sources in layouts() {
            attend(sources).into_data().assert_eq(&expected, true);
        }
    }

    #[test]
    fn heads_are_split_and_joined_without_loss() {
        let device = Device::flex();
        let x = Tensor::<3>::random([2, 5, 12], Distribution::Default, &device);
        let split = split_heads(x.clone(), 3);
        assert_eq!(split.dims(), [2, 3, 5, 4]);
        assert_eq!(join_heads(split).into_data(), x.into_data());
    }
}
