//! Keys and values of earlier tokens of a decoder, in memory that grows in blocks.

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};

/// Number of tokens that memory grows by at least; longer caches grow by half, so that the copies of all
/// growths together stay linear in the length.
const BLOCK: usize = 64;

/// The capacity, at most `limit`, for `length` tokens where there is room for `capacity`.
pub(crate) fn grown(capacity: usize, length: usize, limit: usize) -> usize {
    if length <= capacity {
        return capacity;
    }
    (length + BLOCK).max(capacity + capacity / 2).min(limit).max(length)
}

/// Sizes of a [`KeyValues`].
pub(crate) struct KeyValuesConfig {
    /// Sequences.
    pub rows: usize,
    /// Heads of keys and values.
    pub heads: usize,
    /// Maximum number of tokens of a sequence.
    pub capacity: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Type of the values.
    pub dtype: FloatDType,
}

impl KeyValuesConfig {
    pub(crate) fn init(&self, device: &Device) -> KeyValues {
        let shape = [self.rows, self.heads, 0, self.d_head];
        let empty = Tensor::<4>::empty(shape, device).cast(self.dtype);
        KeyValues { keys: empty.clone(), values: empty, limit: self.capacity }
    }
}

/// The keys and values of one layer, `[rows, h, capacity, d_head]`.
#[derive(Debug, Clone)]
pub(crate) struct KeyValues {
    keys: Tensor<4>,
    values: Tensor<4>,
    limit: usize,
}

impl KeyValues {
    /// Stores the keys and values of tokens from position `at` on, `[rows, h, t, d_head]`, and returns those
    /// of all tokens so far.
    pub(crate) fn extend(&mut self, at: usize, keys: Tensor<4>, values: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [rows, h, t, d_head] = keys.dims();
        let capacity = grown(self.keys.dims()[2], at + t, self.limit);
        let place = [0..rows, 0..h, at..at + t, 0..d_head];
        let so_far = [0..rows, 0..h, 0..at + t, 0..d_head];
        self.keys = with_capacity(take(&mut self.keys), capacity).slice_assign(place.clone(), keys);
        self.values = with_capacity(take(&mut self.values), capacity).slice_assign(place, values);
        (self.keys.clone().slice(so_far.clone()), self.values.clone().slice(so_far))
    }

    /// Makes row `i` a copy of row `rows[i]`.
    pub(crate) fn select(&mut self, rows: &Tensor<1, Int>) {
        self.keys = take(&mut self.keys).select(0, rows.clone());
        self.values = take(&mut self.values).select(0, rows.clone());
    }
}

/// Copies a cache into a larger one where it has less room.
fn with_capacity(tensor: Tensor<4>, capacity: usize) -> Tensor<4> {
    let [rows, h, old, d_head] = tensor.dims();
    if old == capacity {
        return tensor;
    }
    let shape = [rows, h, capacity, d_head];
    let larger = Tensor::<4>::zeros(shape, &tensor.device()).cast(FloatDType::from(tensor.dtype()));
    if old == 0 { larger } else { larger.slice_assign([0..rows, 0..h, 0..old, 0..d_head], tensor) }
}

/// Moves a tensor out: it is modified in place only while it has no other owner.
fn take(tensor: &mut Tensor<4>) -> Tensor<4> {
    let device = tensor.device();
    std::mem::replace(tensor, Tensor::empty([1, 1, 1, 1], &device))
}

/// Indices of rows as a tensor.
pub(crate) fn indices(rows: &[usize], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    Tensor::from_data(TensorData::new(values, [rows.len()]), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Distribution;

    #[test]
    fn memory_grows_in_blocks_up_to_the_limit() {
        assert_eq!(grown(0, 1, 32), 32, "a short limit is allocated at once");
        assert_eq!(grown(0, 257, 289), 289);
        assert_eq!(grown(0, 1, 20_000), 65);
        assert_eq!(grown(65, 65, 20_000), 65);
        assert_eq!(grown(65, 66, 20_000), 130);
        assert_eq!(grown(1000, 1001, 20_000), 1500);
        assert_eq!(grown(18_000, 18_001, 20_000), 20_000);
        let (mut capacity, mut growths, mut copied) = (0, 0, 0);
        for length in 1..=100_000 {
            let next = grown(capacity, length, 100_000);
            if next != capacity {
                (growths, copied) = (growths + 1, copied + capacity);
            }
            capacity = next;
            assert!(capacity <= length + (length / 2).max(BLOCK));
        }
        assert!(growths < 30 && copied < 300_000, "{growths} {copied}");
    }

    #[test]
    fn what_was_stored_stays_over_growth_and_selection() {
        let device = Device::flex();
        let config = KeyValuesConfig { rows: 2, heads: 3, capacity: 200, d_head: 4, dtype: FloatDType::F32 };
        let mut cache = config.init(&device);
        let keys = Tensor::<4>::random([2, 3, 200, 4], Distribution::Default, &device);
        let values = keys.clone() + 1.0;
        let mut at = 0;
        for t in [5usize, 1, 60, 1, 1, 70, 62] {
            let part = |x: &Tensor<4>| x.clone().slice([0..2, 0..3, at..at + t, 0..4]);
            let (got_keys, got_values) = cache.extend(at, part(&keys), part(&values));
            at += t;
            let so_far = |x: &Tensor<4>| x.clone().slice([0..2, 0..3, 0..at, 0..4]).into_data();
            assert_eq!(got_keys.into_data(), so_far(&keys));
            assert_eq!(got_values.into_data(), so_far(&values));
        }
        assert_eq!(cache.keys.dims(), [2, 3, 200, 4]);
        cache.select(&indices(&[1, 1, 0], &device));
        let expected = keys.select(0, indices(&[1, 1, 0], &device)).into_data();
        assert_eq!(cache.keys.into_data(), expected);
    }
}
