//! Scaled dot-product attention with an additive bias (T5), a mask, a given scale, and dropout on the
//! probabilities (Burn's module applies it to the scores).
//!
//! On the CPU and without a graph it is implemented here: the scores of one head stay in the cache, sequences
//! are distributed over the cores, and heads are not copied into separate tensors.

use burn::tensor::activation::softmax;
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use rayon::prelude::*;

use super::activation::{exp, is_host_f32};
use super::{Dropout, cast};

/// The bias of a masked position: far below any score, and finite, so that a fully masked row gives equal
/// weights, not NaN.
pub const MASKED: f32 = -1.0e9;

/// Arguments of [`attend`].
pub struct AttentionInput<'a> {
    /// `[b, t_query, h·d_head]`
    pub query: Tensor<3>,
    /// `[b, t_key, h·d_head]`
    pub key: Tensor<3>,
    /// `[b, t_key, h·d_head]`
    pub value: Tensor<3>,
    /// `h`
    pub heads: usize,
    /// Factor of the scores: `1/√d_head`, or 1 for T5.
    pub scale: f64,
    /// Added to the scores before the softmax, broadcast: `[b|1, h|1, t_query|1, t_key]`. A mask is a bias of
    /// [`MASKED`].
    pub bias: Option<Tensor<4>>,
    /// Dropout on the probabilities.
    pub dropout: &'a Dropout,
}

/// `dropout(softmax(scale · q kᵀ + bias)) v`, head by head, the softmax in f32.
///
/// # Shapes
/// - output: `[b, t_query, h·d_head]`
pub fn attend(input: AttentionInput<'_>) -> Tensor<3> {
    let AttentionInput { query, key, value, heads, scale, bias, dropout } = input;
    let is_plain = |x: &Tensor<3>| is_host_f32(x) && !x.device().is_autodiff();
    let is_bias_plain = bias.as_ref().is_none_or(|bias| is_host_f32(bias) && !bias.device().is_autodiff());
    if is_plain(&query) && is_plain(&key) && is_plain(&value) && is_bias_plain {
        return attend_on_host([query, key, value], heads, scale as f32, bias.as_ref());
    }
    // scaled before it is split, while its values are contiguous
    let query = if scale == 1.0 { query } else { query * scale };
    let [query, key, value] = [query, key, value].map(|x| split_heads(x, heads));
    join_heads(attend_heads(HeadsInput { query, key, value, scale: 1.0, bias, dropout }))
}

/// Arguments of [`attend_heads`].
pub struct HeadsInput<'a> {
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
pub fn attend_heads(input: HeadsInput<'_>) -> Tensor<4> {
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

/// Values of a bias, and the strides of its first three axes; 0 where it is broadcast.
struct HostBias {
    values: Vec<f32>,
    strides: [usize; 3],
}

fn attend_on_host(
    [query, key, value]: [Tensor<3>; 3],
    heads: usize,
    scale: f32,
    bias: Option<&Tensor<4>>,
) -> Tensor<3> {
    let ([b, t, d], [_, s, _]) = (query.dims(), key.dims());
    let d_head = d / heads;
    let bias = bias.map(|bias| {
        let [rows, bias_heads, queries, keys] = bias.dims();
        let stride = |length: usize, step: usize| if length == 1 { 0 } else { step };
        let strides = [
            stride(rows, bias_heads * queries * keys),
            stride(bias_heads, queries * keys),
            stride(queries, keys),
        ];
        HostBias { values: bias.to_data().iter::<f32>().collect(), strides }
    });
    let [query, key, value] = [query, key, value].map(Tensor::into_data);
    let [query, key, value] = [&query, &key, &value].map(values);
    let mut output = vec![0.0f32; b * t * d];
    let vectors = pulp::Arch::new();
    // one task is all heads of one sequence, whose rows of the output are contiguous
    output.par_chunks_mut((t * d).max(1)).enumerate().for_each(|(row, output)| {
        let (query, key, value) =
            (&query[row * t * d..][..t * d], &key[row * s * d..][..s * d], &value[row * s * d..][..s * d]);
        let mut scores = vec![0.0f32; t * s];
        for head in 0..heads {
            let columns = head * d_head;
            multiply(Product {
                rows: t,
                columns: s,
                inner: d_head,
                left: (&query[columns..], d, 1),
                right: (&key[columns..], 1, d),
                factor: scale,
                output: (&mut scores, s),
            });
            for (index, scores) in scores.chunks_exact_mut(s.max(1)).enumerate() {
                if let Some(HostBias { values, strides: [by_row, by_head, by_query] }) = &bias {
                    let start = row * by_row + head * by_head + index * by_query;
                    for (score, bias) in scores.iter_mut().zip(&values[start..start + s]) {
                        *score += bias;
                    }
                }
                vectors.dispatch(
                    #[inline(always)]
                    || softmax_in_place(scores),
                );
            }
            multiply(Product {
                rows: t,
                columns: d_head,
                inner: s,
                left: (&scores, s, 1),
                right: (&value[columns..], d, 1),
                factor: 1.0,
                output: (&mut output[columns..], d),
            });
        }
    });
    Tensor::from_data(TensorData::new(output, [b, t, d]), &Device::flex())
}

/// The values of an f32 tensor.
fn values(data: &TensorData) -> &[f32] {
    data.as_slice::<f32>().unwrap_or_else(|error| unreachable!("f32 values are f32: {error:?}"))
}

/// `output = factor · left · right`; each matrix with its strides of rows and columns.
struct Product<'a> {
    rows: usize,
    columns: usize,
    inner: usize,
    left: (&'a [f32], usize, usize),
    right: (&'a [f32], usize, usize),
    factor: f32,
    output: (&'a mut [f32], usize),
}

fn multiply(product: Product<'_>) {
    let Product { rows, columns, inner, left, right, factor, output: (output, output_row) } = product;
    if rows == 0 || columns == 0 {
        return;
    }
    let last = |rows: usize, row: usize, columns: usize, column: usize| {
        rows.saturating_sub(1) * row + columns.saturating_sub(1) * column
    };
    assert!(
        last(rows, left.1, inner, left.2) < left.0.len()
            && last(inner, right.1, columns, right.2) < right.0.len()
            && last(rows, output_row, columns, 1) < output.len(),
        "a product must stay within its matrices"
    );
    // SAFETY: the assertion keeps every element that is read or written within its slice; nothing of `output`
    // is read, as `read_dst` is false.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            output.as_mut_ptr(),
            1,
            output_row as isize,
            false,
            left.0.as_ptr(),
            left.2 as isize,
            left.1 as isize,
            right.0.as_ptr(),
            right.2 as isize,
            right.1 as isize,
            0.0,
            factor,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[inline(always)]
fn softmax_in_place(scores: &mut [f32]) {
    let max = scores.iter().fold(f32::NEG_INFINITY, |max, &score| if score > max { score } else { max });
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = exp(*score - max);
        sum += *score;
    }
    let share = 1.0 / sum;
    for score in scores {
        *score *= share;
    }
}

#[cfg(test)]
mod tests {
    use super::super::DropoutConfig;
    use super::*;
    use burn::tensor::module::attention;
    use burn::tensor::ops::AttentionModuleOptions;
    use burn::tensor::{Distribution, Tolerance};

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
    fn the_hosts_way_equals_the_graphs_with_every_form_of_bias() {
        let device = Device::flex();
        device.seed(2);
        let dropout = DropoutConfig::new(0.0).init();
        let (b, h, t, s) = (2, 3, 4, 7);
        let random = |t| Tensor::<3>::random([b, t, h * 5], Distribution::Normal(0.0, 1.0), &device);
        let (query, key, value) = (random(t), random(s), random(s));
        let shapes = [[1, 1, 1, s], [b, 1, 1, s], [1, h, t, s], [b, h, t, s]];
        let biases = shapes.map(|shape| Some(Tensor::random(shape, Distribution::Normal(0.0, 1.0), &device)));
        let masked = Tensor::<4>::full([b, 1, 1, s], MASKED, &device);
        for bias in biases.into_iter().chain([None, Some(masked)]) {
            let attend = |tracked: bool| {
                let query = if tracked { query.clone().autodiff().require_grad() } else { query.clone() };
                let (key, value, bias) = (key.clone(), value.clone(), bias.clone());
                attend(AttentionInput { query, key, value, heads: h, scale: 0.4, bias, dropout: &dropout })
            };
            let (plain, tracked) = (attend(false), attend(true).without_autodiff());
            assert_eq!(plain.dims(), [b, t, h * 5]);
            plain.into_data().assert_approx_eq::<f32>(&tracked.into_data(), Tolerance::absolute(1e-5));
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
