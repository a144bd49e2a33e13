//! T5's relative positions: a learned bias on the attention scores.

use burn::module::{Module, Param};
use burn::tensor::module::embedding;
use burn::tensor::{FloatDType, Int, Tensor, TensorData};

use crate::layers::cast;

/// A learned bias for each head and bucket of distances.
#[derive(Module, Debug)]
pub(super) struct RelativeBias {
    /// `[buckets, h]`
    pub(super) weight: Param<Tensor<2>>,
    pub(super) max_distance: usize,
    pub(super) is_bidirectional: bool,
}

impl RelativeBias {
    /// The bias of `queries` on the keys `0..keys`: `[1, h, queries, keys]`.
    pub(super) fn forward(&self, queries: std::ops::Range<usize>, keys: usize) -> Tensor<4> {
        let weight = self.weight.val();
        let [buckets, h] = weight.dims();
        let rows = queries.len();
        let ids: Vec<i32> = queries
            .flat_map(|query| (0..keys).map(move |key| key as i64 - query as i64))
            .map(|distance| self.bucket(distance, buckets) as i32)
            .collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [rows, keys]), &weight.device().inner());
        let bias = embedding(weight, ids).permute([2, 0, 1]).reshape([1, h, rows, keys]);
        cast(bias, FloatDType::F32) // the type of the scores
    }

    /// The bias of a causal decoder's newest token on the keys up to itself, for sequences of up to `length`
    /// tokens: `[1, h, 1, length]`, the newest key last. A shorter sequence has the last columns.
    pub(super) fn newest(&self, length: usize) -> Tensor<4> {
        let last = length.saturating_sub(1);
        self.forward(last..length, length)
    }

    /// The bucket of `key - query`. Half of the buckets hold one distance each; the sizes of the others grow
    /// logarithmically. The arithmetic is f32 as in the reference, so that borders are the same.
    fn bucket(&self, distance: i64, buckets: usize) -> usize {
        let (offset, buckets, distance) = if self.is_bidirectional {
            let half = buckets / 2;
            (if distance > 0 { half } else { 0 }, half, distance.unsigned_abs() as usize)
        } else {
            (0, buckets, (-distance).max(0) as usize)
        };
        let exact = buckets / 2;
        if distance < exact {
            return offset + distance;
        }
        let ratio =
            (distance as f32 / exact as f32).ln() / ((self.max_distance as f64 / exact as f64).ln() as f32);
        let grown = exact + (ratio * (buckets - exact) as f32) as usize;
        offset + grown.min(buckets - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::Initializer;
    use burn::tensor::Device;

    fn bias(is_bidirectional: bool) -> RelativeBias {
        let weight = Initializer::Zeros.init([32, 2], &Device::flex());
        RelativeBias { weight, max_distance: 128, is_bidirectional }
    }

    /// Decoding one token at a time needs one row for all lengths.
    #[test]
    fn the_newest_tokens_bias_is_the_last_row_of_the_whole_one() {
        let device = Device::flex();
        let weight = Initializer::Normal { mean: 0.0, std: 1.0 }.init([32, 2], &device);
        let bias = RelativeBias { weight, max_distance: 128, is_bidirectional: false };
        let newest = bias.newest(300);
        for length in [1usize, 2, 64, 300] {
            let whole = bias.forward(length - 1..length, length).into_data();
            assert_eq!(newest.clone().slice([0..1, 0..2, 0..1, 300 - length..300]).into_data(), whole);
        }
    }

    /// Values of transformers' `T5Attention._relative_position_bucket` for key - query = -200, -20, -8, -1,
    /// 0, 1, 7, 8, 20, 200.
    #[test]
    fn buckets_are_the_references() {
        let distances = [-200, -20, -8, -1, 0, 1, 7, 8, 20, 200];
        let encoder: Vec<usize> = distances.iter().map(|&d| bias(true).bucket(d, 32)).collect();
        assert_eq!(encoder, [15, 10, 8, 1, 0, 17, 23, 24, 26, 31]);
        let decoder: Vec<usize> = distances.iter().map(|&d| bias(false).bucket(d, 32)).collect();
        assert_eq!(decoder, [31, 17, 8, 1, 0, 0, 0, 0, 0, 0]);
    }
}
