//! Scaled dot-product attention whose scores exist only for some queries of one head at a time.
//!
//! The gradient computes the probabilities again, from two numbers of each row of scores (as FlashAttention
//! does, arXiv:2205.14135): memory grows with the sequence and not with its square. A bias has a gradient,
//! summed over what it is broadcast over.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::matrix::{Matrix, Output, multiply_here};
use super::vectors::{RowScale, add, softmax_again, softmax_in_place, sum, vectorised};
use super::{HostTensor, Input, Operation, apply};
use crate::profile::Kind;

/// Queries of a head whose scores exist at a time.
const BLOCK: usize = 128;

/// Sequences whose gradients of a shared bias are summed by one task: at most so many tasks hold one each.
const BIAS_TASKS: usize = 8;

/// Queries, keys and values, as dense layers return them.
#[allow(clippy::large_enum_variant)] // made for one call, and never stored
pub(crate) enum Sources {
    /// `[b, t, 3d]`: queries, keys and values side by side.
    Joint(Tensor<3>),
    /// `[b, t, d]` and, side by side, keys and values, `[b, s, 2d]`.
    Crossed(Tensor<3>, Tensor<3>),
    /// `[b, t, d]`, `[b, s, d]` and `[b, s, d]`.
    Separate([Tensor<3>; 3]),
}

impl Sources {
    /// Every tensor.
    pub(crate) fn tensors(&self) -> Vec<&Tensor<3>> {
        match self {
            Self::Joint(all) => vec![all],
            Self::Crossed(query, both) => vec![query, both],
            Self::Separate(each) => each.iter().collect(),
        }
    }

    /// Sequences and queries of each.
    pub(crate) fn queries(&self) -> [usize; 2] {
        let (Self::Joint(query) | Self::Crossed(query, _) | Self::Separate([query, ..])) = self;
        let [b, t, _] = query.dims();
        [b, t]
    }

    /// Keys of each sequence.
    pub(crate) fn keys(&self) -> usize {
        let (Self::Joint(key) | Self::Crossed(_, key) | Self::Separate([_, key, _])) = self;
        key.dims()[1]
    }

    /// Whether a tensor is on the training device.
    pub(crate) fn is_training(&self) -> bool {
        self.tensors().iter().any(|tensor| tensor.device().is_autodiff())
    }
}

/// Arguments of [`attend`].
pub(crate) struct HostAttention {
    pub sources: Sources,
    /// `h`
    pub heads: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Added to the scores: `[b|1, h|1, t|1, s]`.
    pub bias: Option<Tensor<4>>,
    /// Factors of the probabilities.
    pub dropout: Option<DropoutMask>,
}

/// Which probabilities are kept, `[b, h, t, s]`, and their factor.
#[derive(Debug, Clone)]
pub(crate) struct DropoutMask {
    pub is_kept: Vec<bool>,
    pub factor: f32,
}

/// `dropout(softmax(scale · q kᵀ + bias)) v`, head by head.
///
/// # Shapes
/// - output: `[b, t, d]`
pub(crate) fn attend(input: HostAttention) -> Tensor<3> {
    let HostAttention { sources, heads, scale, bias, dropout } = input;
    let (tensors, columns) = match sources {
        Sources::Joint(all) => {
            let d = all.dims()[2] / 3;
            ([Some(all), None, None], [(0, 0), (0, d), (0, 2 * d)])
        }
        Sources::Crossed(query, both) => {
            let d = query.dims()[2];
            ([Some(query), Some(both), None], [(0, 0), (1, 0), (1, d)])
        }
        Sources::Separate(each) => (each.map(Some), [(0, 0), (1, 0), (2, 0)]),
    };
    let [first, second, third] = tensors.map(Input::optional);
    apply([first, second, third, Input::optional(bias)], |[first, second, third, bias]| {
        let tensors = [first, second, third];
        let [b, t, _] = tensors[0].dims();
        let [_, s, _] = tensors[columns[1].0].dims();
        let last = columns.map(|(tensor, start)| (tensors[tensor].dims::<3>()[2], start));
        // the values end a tensor in every layout
        let d = last[2].0 - last[2].1;
        let bias = (!bias.values().is_empty()).then(|| Bias::new(bias));
        let shape = Sizes { b, t, s, d, heads };
        let mut attention = Attention { tensors, columns, shape, scale, bias, dropout, rows: Vec::new() };
        let output = attention.forward();
        (output, attention)
    })
}

#[derive(Debug, Clone, Copy)]
struct Sizes {
    b: usize,
    t: usize,
    s: usize,
    d: usize,
    heads: usize,
}

/// A bias and the strides of its first three axes; 0 where it is broadcast.
#[derive(Debug, Clone)]
struct Bias {
    tensor: HostTensor,
    strides: [usize; 3],
}

impl Bias {
    fn new(tensor: HostTensor) -> Self {
        let [rows, heads, queries, keys] = tensor.dims();
        let stride = |length: usize, step: usize| if length == 1 { 0 } else { step };
        let strides =
            [stride(rows, heads * queries * keys), stride(heads, queries * keys), stride(queries, keys)];
        Self { tensor, strides }
    }

    /// Whether all sequences share it.
    fn is_shared(&self) -> bool {
        self.tensor.dims::<4>()[0] == 1
    }

    /// Where the values of a row of scores start within those of the sequence.
    fn start(&self, head: usize, query: usize) -> usize {
        head * self.strides[1] + query * self.strides[2]
    }
}

#[derive(Debug, Clone)]
struct Attention {
    tensors: [HostTensor; 3],
    /// Tensor and first column of queries, keys and values.
    columns: [(usize, usize); 3],
    shape: Sizes,
    scale: f32,
    bias: Option<Bias>,
    dropout: Option<DropoutMask>,
    /// Of each row of scores: `[b, t, h]`.
    rows: Vec<RowScale>,
}

/// Some queries of a head of a sequence.
#[derive(Debug, Clone, Copy)]
struct Place {
    sequence: usize,
    head: usize,
    first: usize,
    queries: usize,
}

impl Attention {
    fn forward(&mut self) -> HostTensor {
        let Sizes { b, t, d, heads, .. } = self.shape;
        let mut output = vec![0.0f32; b * t * d];
        let mut rows = vec![RowScale::default(); b * t * heads];
        let sequences = output.par_chunks_mut((t * d).max(1)).zip(rows.par_chunks_mut((t * heads).max(1)));
        let blocks = sequences.enumerate().flat_map(|(sequence, (output, rows))| {
            let blocks = output.par_chunks_mut(BLOCK * d).zip(rows.par_chunks_mut(BLOCK * heads)).enumerate();
            blocks.map(move |(block, (output, rows))| (sequence, block * BLOCK, output, rows))
        });
        blocks.for_each(|(sequence, first, output, rows)| self.forward_of(sequence, first, output, rows));
        self.rows = rows;
        HostTensor::new(output, [b, t, d])
    }

    /// All heads of some queries.
    fn forward_of(&self, sequence: usize, first: usize, output: &mut [f32], rows: &mut [RowScale]) {
        let Sizes { s, d, heads, .. } = self.shape;
        let queries = output.len() / d;
        let mut scores = vec![0.0f32; queries * s];
        for head in 0..heads {
            let place = Place { sequence, head, first, queries };
            self.scores(place, &mut scores);
            vectorised(
                #[inline(always)]
                || {
                    let pairs = scores.chunks_exact_mut(s.max(1)).zip(rows.chunks_exact_mut(heads));
                    pairs.for_each(|(scores, row)| row[head] = softmax_in_place(scores));
                },
            );
            self.drop_out(place, &mut scores);
            let (probabilities, value) = (Matrix::new(&scores, [queries, s]), self.source(2, place));
            let output = &mut output[self.columns_of(0, head).start..];
            multiply_here(probabilities, value, 1.0, Output::new(output, d));
        }
    }

    /// Queries (0) of a place, or keys (1) or values (2) of its sequence and head.
    fn source(&self, which: usize, place: Place) -> Matrix<'_> {
        let (tensor, start) = self.columns[which];
        let tensor = &self.tensors[tensor];
        let [_, length, width] = tensor.dims();
        let values = &tensor.values()[place.sequence * length * width..][..length * width];
        let columns = self.columns_of(start, place.head);
        if which == 0 {
            let values = &values[place.first * width..][..place.queries * width];
            Matrix::columns(values, place.queries, width, columns)
        } else {
            Matrix::columns(values, length, width, columns)
        }
    }

    fn columns_of(&self, start: usize, head: usize) -> std::ops::Range<usize> {
        let d_head = self.shape.d / self.shape.heads;
        start + head * d_head..start + (head + 1) * d_head
    }

    /// `scale · q kᵀ + bias`.
    fn scores(&self, place: Place, scores: &mut [f32]) {
        let s = self.shape.s;
        let (query, key) = (self.source(0, place), self.source(1, place));
        multiply_here(query, key.t(), self.scale, Output::new(scores, s));
        let Some(bias) = &self.bias else { return };
        let values = &bias.tensor.values()[place.sequence * bias.strides[0]..];
        for (row, scores) in scores.chunks_exact_mut(s.max(1)).enumerate() {
            add(scores, &values[bias.start(place.head, place.first + row)..][..s]);
        }
    }

    fn drop_out(&self, place: Place, probabilities: &mut [f32]) {
        let Some(DropoutMask { is_kept, factor }) = &self.dropout else { return };
        let Sizes { t, s, heads, .. } = self.shape;
        let start = ((place.sequence * heads + place.head) * t + place.first) * s;
        for (probability, &is_kept) in probabilities.iter_mut().zip(&is_kept[start..]) {
            *probability = if is_kept { *probability * factor } else { 0.0 };
        }
    }

    /// Gradients of one sequence, in rows of the tensors that hold queries, keys and values.
    fn backward_of(
        &self,
        sequence: usize,
        gradient: &[f32],
        tensors: &mut [&mut [f32]; 3],
        of_bias: &mut [f32],
    ) {
        let Sizes { t, s, d, heads, .. } = self.shape;
        let most = BLOCK.min(t);
        let (mut scores, mut of_scores) = (vec![0.0f32; most * s], vec![0.0f32; most * s]);
        for head in 0..heads {
            for first in (0..t).step_by(BLOCK) {
                let queries = BLOCK.min(t - first);
                let place = Place { sequence, head, first, queries };
                let (scores, of_scores) = (&mut scores[..queries * s], &mut of_scores[..queries * s]);
                self.scores(place, scores);
                let rows = self.rows[(sequence * t + first) * heads..].chunks_exact(heads);
                let [query, key, value] = [0, 1, 2].map(|which| self.source(which, place));
                let of_output = Matrix::columns(
                    &gradient[first * d..(first + queries) * d],
                    queries,
                    d,
                    self.columns_of(0, head),
                );
                multiply_here(of_output, value.t(), 1.0, Output::new(of_scores, s));
                self.drop_out(place, of_scores);
                vectorised(
                    #[inline(always)]
                    || {
                        let pairs =
                            scores.chunks_exact_mut(s.max(1)).zip(of_scores.chunks_exact_mut(s.max(1)));
                        for ((scores, of_scores), row) in pairs.zip(rows.clone()) {
                            softmax_again(scores, row[head]);
                            let along = sum(s, |i| scores[i] * of_scores[i]);
                            for i in 0..s {
                                of_scores[i] = scores[i] * (of_scores[i] - along);
                            }
                        }
                    },
                );
                self.drop_out(place, scores);
                let (probabilities, of_scores) =
                    (Matrix::new(scores, [queries, s]), Matrix::new(of_scores, [queries, s]));
                let mut sum_into = |which: usize, left: Matrix<'_>, right: Matrix<'_>, factor: f32| {
                    let (tensor, start) = self.columns[which];
                    if tensors[tensor].is_empty() {
                        return;
                    }
                    let width = self.tensors[tensor].dims::<3>()[2];
                    let row = if which == 0 { first } else { 0 };
                    let values = &mut tensors[tensor][row * width + self.columns_of(start, head).start..];
                    let adds = which != 0 && first > 0;
                    multiply_here(left, right, factor, Output { values, row_stride: width, adds });
                };
                sum_into(0, of_scores, key, self.scale);
                sum_into(1, of_scores.t(), query, self.scale);
                sum_into(2, probabilities.t(), of_output, 1.0);
                if let (Some(bias), false) = (&self.bias, of_bias.is_empty()) {
                    for (row, of_scores) in of_scores.values.chunks_exact(s.max(1)).enumerate() {
                        add(&mut of_bias[bias.start(head, first + row)..][..s], of_scores);
                    }
                }
            }
        }
    }
}

impl Operation<4> for Attention {
    const KIND: Kind = Kind::Attention;

    fn backward(self, gradient: HostTensor, is_needed: [bool; 4]) -> [Option<HostTensor>; 4] {
        let Sizes { b, t, d, .. } = self.shape;
        let lengths: [usize; 3] =
            std::array::from_fn(|i| if is_needed[i] { self.tensors[i].values().len() } else { 0 });
        let [mut first, mut second, mut third] = lengths.map(|length| vec![0.0f32; length]);
        let bias = self.bias.as_ref().filter(|_| is_needed[3]);
        let is_shared = bias.is_some_and(Bias::is_shared);
        let sequences = if is_shared { b.div_ceil(BIAS_TASKS).max(1) } else { 1 };
        let tasks = b.div_ceil(sequences);
        let of_each = bias.map_or(0, |bias| bias.tensor.values().len() / if is_shared { 1 } else { b });
        let mut of_bias = vec![0.0f32; tasks * of_each];
        {
            let mut rows = [&mut first, &mut second, &mut third].map(|all| parts(all, b).into_iter());
            let mut next = || rows.each_mut().map(|rows| rows.next().unwrap_or_default());
            let mut of_sequences: Vec<_> = (0..b).map(|_| next()).collect();
            let mut of_biases = parts(&mut of_bias, tasks);
            let tasks = of_sequences.par_chunks_mut(sequences).zip(of_biases.par_iter_mut()).enumerate();
            tasks.for_each(|(task, (of_sequences, of_bias))| {
                for (index, tensors) in of_sequences.iter_mut().enumerate() {
                    let sequence = task * sequences + index;
                    let gradient = &gradient.values()[sequence * t * d..][..t * d];
                    self.backward_of(sequence, gradient, tensors, of_bias);
                }
            });
        }
        let of_bias = bias.map(|bias| {
            let dims: [usize; 4] = bias.tensor.dims();
            if !is_shared {
                return HostTensor::new(of_bias, dims);
            }
            let mut total = vec![0.0f32; of_each];
            of_bias.chunks_exact(of_each.max(1)).for_each(|part| add(&mut total, part));
            HostTensor::new(total, dims)
        });
        let [of_first, of_second, of_third] = [(0, first), (1, second), (2, third)].map(|(index, values)| {
            is_needed[index].then(|| HostTensor::new(values, self.tensors[index].dims::<3>()))
        });
        [of_first, of_second, of_third, of_bias]
    }
}

/// Values in so many parts of equal length.
fn parts(values: &mut [f32], count: usize) -> Vec<&mut [f32]> {
    let length = values.len() / count.max(1);
    let mut rest = values;
    (0..count).map(|_| rest.split_off_mut(..length).unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::activation::softmax;

    use super::super::tests::{Case, agrees_with_burn};
    use super::*;

    const HEADS: usize = 3;

    /// Attention by Burn's operations on `[b, t, d]` each.
    fn composed(
        [query, key, value]: [Tensor<3>; 3],
        bias: Option<Tensor<4>>,
        dropout: Option<Tensor<4>>,
    ) -> Tensor<3> {
        let split = |x: Tensor<3>| {
            let [b, t, d] = x.dims();
            x.reshape([b, t, HEADS, d / HEADS]).swap_dims(1, 2)
        };
        let [query, key, value] = [query, key, value].map(split);
        let scores = query.matmul(key.swap_dims(2, 3)) * 0.4;
        let probabilities = softmax(if let Some(bias) = bias { scores + bias } else { scores }, 3);
        let probabilities = if let Some(mask) = dropout { probabilities * mask } else { probabilities };
        let output = probabilities.matmul(value);
        let [b, h, t, d_head] = output.dims();
        output.swap_dims(1, 2).reshape([b, t, h * d_head])
    }

    /// Values and gradients, those of a bias included, for every layout, form of bias and number of blocks.
    /// Sums of f32 in another order: 1e-5 on values of size 1.
    #[test]
    fn equals_burns_operations_for_every_layout_bias_and_length() {
        let d = HEADS * 4;
        for (b, t, s) in [(1, 1, 1), (2, 5, 7), (11, 3, 3), (2, 2 * BLOCK + 3, 6)] {
            let biases =
                [vec![], vec![1, 1, 1, s], vec![b, 1, 1, s], vec![1, HEADS, t, s], vec![b, HEADS, t, s]];
            for bias_shape in biases {
                let shape = |x: &Tensor<1>, [b, t, d]: [usize; 3]| x.clone().reshape([b, t, d]);
                let bias = |x: &Tensor<1>| {
                    let shape: Option<[usize; 4]> = bias_shape.clone().try_into().ok();
                    shape.map(|shape| x.clone().reshape(shape))
                };
                let of_bias = if bias_shape.is_empty() { vec![1] } else { bias_shape.clone() };
                let attend = |sources, bias| {
                    attend(HostAttention { sources, heads: HEADS, scale: 0.4, bias, dropout: None })
                };
                let case =
                    Case { shapes: [vec![b, t, d], vec![b, s, d], vec![b, s, d], of_bias], tolerance: 2e-5 };
                let whole = |q: &Tensor<1>, k: &Tensor<1>, v: &Tensor<1>| {
                    [shape(q, [b, t, d]), shape(k, [b, s, d]), shape(v, [b, s, d])]
                };
                let theirs = |[q, k, v, x]: &[Tensor<1>; 4]| composed(whole(q, k, v), bias(x), None);
                let separate =
                    |[q, k, v, x]: &[Tensor<1>; 4]| attend(Sources::Separate(whole(q, k, v)), bias(x));
                agrees_with_burn(&case, separate, theirs);
                let crossed = |[q, k, v, x]: &[Tensor<1>; 4]| {
                    let [q, k, v] = whole(q, k, v);
                    attend(Sources::Crossed(q, Tensor::cat(vec![k, v], 2)), bias(x))
                };
                agrees_with_burn(&case, crossed, theirs);
                if t == s {
                    let joint = |[q, k, v, x]: &[Tensor<1>; 4]| {
                        attend(Sources::Joint(Tensor::cat(whole(q, k, v).to_vec(), 2)), bias(x))
                    };
                    agrees_with_burn(&case, joint, theirs);
                }
            }
        }
    }

    #[test]
    fn dropped_probabilities_have_no_share_in_values_and_gradients() {
        let (b, t, s, d) = (2, BLOCK + 2, 5, HEADS * 2);
        let is_kept: Vec<bool> = (0..b * HEADS * t * s).map(|i| i * 7 % 5 > 1).collect();
        let factors: Vec<f32> = is_kept.iter().map(|&kept| if kept { 1.5 } else { 0.0 }).collect();
        let factors = burn::tensor::TensorData::new(factors, [b, HEADS, t, s]);
        let whole = |[q, k, v]: &[Tensor<1>; 3]| {
            [(q, t), (k, s), (v, s)].map(|(x, length)| x.clone().reshape([b, length, d]))
        };
        agrees_with_burn(
            &Case { shapes: [vec![b, t, d], vec![b, s, d], vec![b, s, d]], tolerance: 2e-5 },
            |inputs| {
                let dropout = Some(DropoutMask { is_kept: is_kept.clone(), factor: 1.5 });
                let sources = Sources::Separate(whole(inputs));
                attend(HostAttention { sources, heads: HEADS, scale: 0.4, bias: None, dropout })
            },
            |inputs| {
                let mask = Tensor::from_data(factors.clone(), &burn::tensor::Device::flex());
                composed(whole(inputs), None, Some(mask))
            },
        );
    }
}
