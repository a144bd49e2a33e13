//! Keys and values of earlier tokens of a decoder, in memory that is allocated once.

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};

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
        let shape = [self.rows, self.heads, self.capacity, self.d_head];
        let empty = Tensor::<4>::zeros(shape, device).cast(self.dtype);
        KeyValues { keys: empty.clone(), values: empty }
    }
}

/// The keys and values of one layer, `[rows, h, capacity, d_head]`.
#[derive(Debug, Clone)]
pub(crate) struct KeyValues {
    keys: Tensor<4>,
    values: Tensor<4>,
}

impl KeyValues {
    /// Stores the keys and values of tokens from position `at` on, `[rows, h, t, d_head]`, and returns those
    /// of all tokens so far.
    pub(crate) fn extend(&mut self, at: usize, keys: Tensor<4>, values: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [rows, h, t, d_head] = keys.dims();
        let place = [0..rows, 0..h, at..at + t, 0..d_head];
        let so_far = [0..rows, 0..h, 0..at + t, 0..d_head];
        self.keys = take(&mut self.keys).slice_assign(place.clone(), keys);
        self.values = take(&mut self.values).slice_assign(place, values);
        (self.keys.clone().slice(so_far.clone()), self.values.clone().slice(so_far))
    }

    /// Makes row `i` a copy of row `rows[i]`.
    pub(crate) fn select(&mut self, rows: &Tensor<1, Int>) {
        self.keys = take(&mut self.keys).select(0, rows.clone());
        self.values = take(&mut self.values).select(0, rows.clone());
    }
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
