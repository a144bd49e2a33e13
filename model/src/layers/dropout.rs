//! Dropout with reproducible random numbers, so that a forward pass can be repeated, and split.
//!
//! Burn's CPU backend has one generator for all threads. Within a [`RandomStream`] dropout uses the stream's
//! numbers, which depend neither on other threads nor on earlier draws. A row's numbers depend on the row's
//! place in the batch, and not on the rows that are computed with it: micro-batches and processes draw what
//! one pass over the whole batch draws.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use burn::module::{Flag, Module, Param};
use burn::tensor::{Device, Distribution, FloatDType, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::cast;
use crate::host::attention::DropoutMask;

thread_local! {
    static ACTIVE: RefCell<Option<Active>> = const { RefCell::new(None) };
}

/// The random numbers of a training step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draws {
    /// Selects all numbers of the step.
    pub seed: u64,
    /// The rows of the whole batch that are computed here.
    pub rows: Range<usize>,
}

impl Draws {
    /// Those of a batch that is computed at once.
    pub fn of_batch(seed: u64, rows: usize) -> Self {
        Self { seed, rows: 0..rows }
    }
}

/// How a tensor with several rows for each row of the batch has them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Layout {
    /// Those of a row one after the other: frames, or candidates.
    #[default]
    Consecutive,
    /// In any order, which may include rows of other processes.
    Rows(Rc<[RowDraws]>),
}

/// The draws of one row of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowDraws {
    /// Row of the whole batch.
    pub row: usize,
    /// Number among the rows of a tensor that belong to this row of the batch.
    pub place: usize,
}

/// A stream of random numbers, selected by seed and number.
#[derive(Debug, Clone)]
pub(crate) struct RandomStream {
    pub device: Device,
    pub draws: Draws,
    pub layout: Layout,
    pub number: u64,
}

/// The stream that dropout draws from, and how often it has.
struct Active {
    generator: ChaCha8Rng,
    rows: Range<usize>,
    layout: Layout,
    calls: u128,
}

impl RandomStream {
    /// Runs `work` with this stream's numbers, from the first on. A stream that is active already continues
    /// afterwards.
    ///
    /// On a device other than the CPU this seeds the device's generator, so that only equal rows draw equal
    /// numbers; nothing else may use it at the same time.
    pub(crate) fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        let Draws { seed, rows } = self.draws.clone();
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(self.number);
        if !is_host(&self.device) {
            generator.set_word_pos(position(0, rows.start));
            self.device.clone().inner().seed(generator.next_u64());
        }
        let active = Active { generator, rows, layout: self.layout.clone(), calls: 0 };
        let _interrupted = Interrupted(ACTIVE.replace(Some(active)));
        work()
    }
}

/// Runs `work` with tensors whose rows are in this layout.
pub(crate) fn with_layout<R>(layout: Layout, work: impl FnOnce() -> R) -> R {
    let set = |layout| {
        let of = |active: &mut Option<Active>| {
            active.as_mut().map(|active| std::mem::replace(&mut active.layout, layout))
        };
        ACTIVE.with_borrow_mut(of)
    };
    let before = set(layout);
    let result = work();
    before.map(set);
    result
}

/// The layout of the active stream.
pub(crate) fn layout() -> Layout {
    ACTIVE.with_borrow(|active| active.as_ref().map(|active| active.layout.clone())).unwrap_or_default()
}

/// Restores the outer stream at the end of an inner one, also after a panic.
struct Interrupted(Option<Active>);

impl Drop for Interrupted {
    fn drop(&mut self) {
        ACTIVE.set(self.0.take());
    }
}

/// Where a stream has the numbers of a row in a call of dropout: a row has 2³² words of 4 bytes.
fn position(call: u128, row: usize) -> u128 {
    (call << 56) | ((row as u128) << 32)
}

fn is_host(device: &Device) -> bool {
    device.clone().inner() == Device::flex()
}

/// The rate of a [`Dropout`].
#[derive(Debug, Clone, Copy)]
pub struct DropoutConfig {
    /// Probability that a value is dropped: 0 or more and less than 1.
    pub prob: f64,
}

impl DropoutConfig {
    /// Dropout at this rate.
    pub fn new(prob: f64) -> Self {
        Self { prob }
    }

    /// Makes the layer.
    pub fn init(&self) -> Dropout {
        Dropout { prob: self.prob, training: Param::from_bool(true) }
    }
}

/// Sets values to zero at random in training, and scales the others so that the mean stays.
#[derive(Module, Debug)]
pub struct Dropout {
    prob: f64,
    training: Param<Flag>,
}

impl Dropout {
    /// Drops values if both the layer and its input are in training.
    ///
    /// # Shapes
    /// - input and output: any
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        if !self.is_active() || !input.device().is_autodiff() {
            return input;
        }
        let keep = 1.0 - self.prob;
        if is_host(&input.device())
            && let Some(mask) = draw(input.shape().num_elements(), input.dims()[0], keep)
        {
            let mask = Tensor::<D>::from_data(TensorData::new(mask, input.shape()), &Device::flex());
            let dtype: FloatDType = input.dtype().into();
            return input * cast(mask, dtype);
        }
        let mask = input.random_like(Distribution::Bernoulli(keep));
        input * mask * (1.0 / keep)
    }
}

impl Dropout {
    fn is_active(&self) -> bool {
        self.prob > 0.0 && self.training.is_enabled()
    }

    /// What [`forward`](Self::forward) keeps of values of this shape on the CPU in training.
    pub(crate) fn mask(&self, shape: [usize; 4]) -> Option<DropoutMask> {
        if !self.is_active() {
            return None;
        }
        let ones = Tensor::<4>::ones(shape, &Device::flex().autodiff());
        let factors = self.forward(ones).without_autodiff().into_data();
        let is_kept = factors.iter::<f32>().map(|factor| factor > 0.0).collect();
        Some(DropoutMask { is_kept, factor: (1.0 / (1.0 - self.prob)) as f32 })
    }
}

/// The factor of each of `len` values in `rows` rows, from the active stream; `None` without one.
fn draw(len: usize, rows: usize, keep: f64) -> Option<Vec<f32>> {
    // the share of the generator's 2³² values that is nearest to the probability
    let below = (keep * 2f64.powi(32)) as u32;
    let scale = (1.0 / keep) as f32;
    ACTIVE.with_borrow_mut(|active| {
        let Active { generator, rows: of_batch, layout, calls } = active.as_mut()?;
        let call = *calls;
        *calls += 1;
        let mut values = Vec::with_capacity(len);
        let examples = match layout {
            Layout::Consecutive => of_batch.len(),
            Layout::Rows(rows) => rows.len(),
        };
        let is_by_row = examples > 0 && rows > 0 && rows.is_multiple_of(examples);
        let (count, length) = if is_by_row { (rows, len / rows) } else { (1, len) };
        for row in 0..count {
            let (example, place) = match layout {
                _ if !is_by_row => (0, 0),
                Layout::Consecutive => (of_batch.start + row / (rows / examples), row % (rows / examples)),
                Layout::Rows(draws) => {
                    let of_each = rows / examples;
                    let RowDraws { row: example, place } = draws[row / of_each];
                    (example, place * of_each + row % of_each)
                }
            };
            generator.set_word_pos(position(call, example) + (place * length) as u128);
            values.extend((0..length).map(|_| if generator.next_u32() < below { scale } else { 0.0 }));
        }
        Some(values)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(seed: u64, number: u64) -> RandomStream {
        RandomStream {
            device: Device::flex(),
            draws: Draws::of_batch(seed, 100),
            layout: Layout::default(),
            number,
        }
    }

    /// The values of an input of ones of so many rows in the part `rows` of a batch.
    fn part(rows: Range<usize>, of_each: usize, layout: Layout) -> Vec<Vec<f32>> {
        let count = rows.len() * of_each;
        let stream = RandomStream { draws: Draws { seed: 7, rows }, layout, ..stream(7, 3) };
        let layer = DropoutConfig::new(0.5).init();
        stream.run(|| {
            let input = || Tensor::<3>::ones([count, 3, 5], &Device::flex().autodiff());
            layer.forward(input());
            let values: Vec<f32> = layer.forward(input()).into_data().try_to_vec().unwrap();
            values.chunks(15).map(<[f32]>::to_vec).collect()
        })
    }

    #[test]
    fn a_row_draws_the_same_numbers_whatever_rows_are_computed_with_it() {
        for of_each in [1, 2, 3] {
            let whole = part(0..6, of_each, Layout::Consecutive);
            let parts = [0..1, 1..4, 4..6].map(|rows| part(rows, of_each, Layout::Consecutive)).concat();
            assert_eq!(whole, parts, "{of_each} rows for each row of the batch");
            let places = |rows: &[usize]| -> Layout {
                let of_row = |&row: &usize| (0..of_each).map(move |place| RowDraws { row, place });
                Layout::Rows(rows.iter().flat_map(of_row).collect())
            };
            let mixed = part(0..2, of_each * 3, places(&[4, 0, 5, 1, 3, 2]));
            for (place, row) in [4, 0, 5, 1, 3, 2].into_iter().enumerate() {
                let range = |row: usize| row * of_each..(row + 1) * of_each;
                assert_eq!(mixed[range(place)], whole[range(row)], "{of_each}, row {row} of other processes");
            }
            let mut distinct = whole.clone();
            distinct.sort_by(|a, b| a.partial_cmp(b).unwrap());
            distinct.dedup();
            assert_eq!(distinct.len(), whole.len(), "no two rows draw the same");
        }
    }

    fn dropped(layer: &Dropout) -> Vec<f32> {
        let input = Tensor::<2>::ones([100, 100], &Device::flex().autodiff());
        layer.forward(input).into_data().try_to_vec().unwrap()
    }

    /// 10,000 values dropped at rate 0.3: five standard deviations are 230.
    #[test]
    fn as_many_values_are_dropped_as_the_rate_says_and_the_others_scaled() {
        let layer = DropoutConfig::new(0.3).init();
        for values in [stream(1, 0).run(|| dropped(&layer)), dropped(&layer)] {
            let zeros = values.iter().filter(|&&value| value == 0.0).count();
            assert!((2_770..3_230).contains(&zeros), "{zeros}");
            assert!(values.iter().all(|&value| value == 0.0 || (value - 1.0 / 0.7).abs() < 1e-6));
        }
    }

    #[test]
    fn a_stream_is_reproducible_and_continues_after_an_inner_one() {
        let layer = DropoutConfig::new(0.5).init();
        let twice = stream(1, 0).run(|| [dropped(&layer), dropped(&layer)]);
        let interrupted = stream(1, 0).run(|| {
            let first = dropped(&layer);
            assert_ne!(stream(1, 1).run(|| dropped(&layer)), first);
            [first, dropped(&layer)]
        });
        assert_eq!(twice, interrupted);
        assert_ne!(twice[0], twice[1]);
        assert_ne!(twice[0], stream(2, 0).run(|| dropped(&layer)));
    }

    #[test]
    fn nothing_is_dropped_in_evaluation_nor_in_a_frozen_layer() {
        let layer = DropoutConfig::new(0.5).init();
        let plain = Tensor::<1>::ones([50], &Device::flex());
        let values = stream(1, 0).run(|| layer.forward(plain.clone()));
        assert_eq!(values.into_data(), plain.clone().into_data());
        let frozen = layer.freeze();
        let values = stream(1, 0).run(|| frozen.forward(plain.clone().autodiff()));
        assert_eq!(values.into_data(), plain.into_data());
    }
}
