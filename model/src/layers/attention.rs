//! Scaled dot-product attention with everything that the networks here need at once: an additive bias (T5), a mask, a
//! scale of one's own, and dropout on the probabilities (Burn's own module drops the scores).

use burn::nn::Dropout;
use burn::tensor::activation::softmax;
use burn::tensor::{FloatDType, Tensor};

/// The bias of a position that must not be attended to: far below any score, and finite, so that a row with every
/// position masked gives equal weights and not NaN.
pub const MASKED: f32 = -1.0e9;

/// What [`attend`] takes.
pub struct AttentionInput<'a> {
    /// `[b, h, t_query, d_head]`
    pub query: Tensor<4>,
    /// `[b, h, t_key, d_head]`
    pub key: Tensor<4>,
    /// `[b, h, t_key, d_head]`
    pub value: Tensor<4>,
    /// What the scores are multiplied by: `1/√d_head`, or 1 for T5.
    pub scale: f64,
    /// Added to the scores before the softmax, broadcast: `[b|1, h|1, t_query|1, t_key]`. A mask is a bias of
    /// [`MASKED`].
    pub bias: Option<Tensor<4>>,
    /// Dropout on the probabilities.
    pub dropout: &'a Dropout,
}

/// `dropout(softmax(scale · q kᵀ + bias)) v`, the softmax in f32.
///
/// # Shapes
/// - output: `[b, h, t_query, d_head]`
pub fn attend(input: AttentionInput<'_>) -> Tensor<4> {
    let dtype: FloatDType = input.query.dtype().into();
    let query = if input.scale == 1.0 { input.query } else { input.query * input.scale };
    let scores = query.matmul(input.key.swap_dims(2, 3)).cast(FloatDType::F32);
    let scores = match input.bias {
        Some(bias) => scores + bias.cast(FloatDType::F32),
        None => scores,
    };
    let probabilities = softmax(scores, 3).cast(dtype);
    input.dropout.forward(probabilities).matmul(input.value)
}

/// Splits the width into heads.
///
/// # Shapes
/// - input: `[b, t, h·d_head]`
/// - output: `[b, h, t, d_head]`
pub fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [b, t, d] = x.dims();
    x.reshape([b, t, heads, d / heads]).swap_dims(1, 2)
}

/// The inverse of [`split_heads`].
///
/// # Shapes
/// - input: `[b, h, t, d_head]`
/// - output: `[b, t, h·d_head]`
pub fn join_heads(x: Tensor<4>) -> Tensor<3> {
    let [b, h, t, d_head] = x.dims();
    x.swap_dims(1, 2).reshape([b, t, h * d_head])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::DropoutConfig;
    use burn::tensor::module::attention;
    use burn::tensor::ops::AttentionModuleOptions;
    use burn::tensor::{Device, Distribution, Tolerance};

    #[test]
    fn equals_burns_attention_where_that_one_applies() {
        let device = Device::flex();
        device.seed(1);
        let random = |t| Tensor::<4>::random([2, 3, t, 8], Distribution::Normal(0.0, 1.0), &device);
        let (query, key, value) = (random(4), random(6), random(6));
        let ours = attend(AttentionInput {
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

    #[test]
    fn heads_are_split_and_joined_without_loss() {
        let device = Device::flex();
        let x = Tensor::<3>::random([2, 5, 12], Distribution::Default, &device);
        let split = split_heads(x.clone(), 3);
        assert_eq!(split.dims(), [2, 3, 5, 4]);
        assert_eq!(join_heads(split).into_data(), x.into_data());
    }
}
