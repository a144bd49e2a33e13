//! Dropout whose random numbers can be named, so that a forward pass can be run a second time with the same ones.
//!
//! Burn's CPU backend has one generator for all threads, which can be seeded but not read. Within a [`RandomStream`] the
//! numbers are the stream's alone: no other thread and nothing that was drawn before changes them.

use std::cell::RefCell;

use burn::module::{Flag, Module, Param};
use burn::tensor::{Device, Distribution, FloatDType, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::cast;

thread_local! {
    static GENERATOR: RefCell<Option<ChaCha8Rng>> = const { RefCell::new(None) };
}

/// Random numbers by name.
#[derive(Debug, Clone)]
pub(crate) struct RandomStream {
    pub device: Device,
    pub seed: u64,
    pub number: u64,
}

impl RandomStream {
    /// Runs `work` with this stream's numbers, from the first on. A stream that `work` interrupts goes on behind it.
    ///
    /// On a device other than the CPU the numbers are the device's own, seeded here: what else runs there at the same time
    /// must draw none.
    pub(crate) fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        let mut generator = ChaCha8Rng::seed_from_u64(self.seed);
        generator.set_stream(self.number);
        if !is_host(&self.device) {
            self.device.clone().inner().seed(generator.next_u64());
        }
        let _interrupted = Interrupted(GENERATOR.replace(Some(generator)));
        work()
    }
}

/// What goes on when a stream ends, by return or by panic.
struct Interrupted(Option<ChaCha8Rng>);

impl Drop for Interrupted {
    fn drop(&mut self) {
        GENERATOR.set(self.0.take());
    }
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
    /// Drops values, where both the layer and its input are in training.
    ///
    /// # Shapes
    /// - input and output: any
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        if self.prob == 0.0 || !self.training.is_enabled() || !input.device().is_autodiff() {
            return input;
        }
        let keep = 1.0 - self.prob;
        if is_host(&input.device())
            && let Some(mask) = draw(input.shape().num_elements(), keep)
        {
            let mask = Tensor::<D>::from_data(TensorData::new(mask, input.shape()), &Device::flex());
            let dtype: FloatDType = input.dtype().into();
            return input * cast(mask, dtype);
        }
        let mask = input.random_like(Distribution::Bernoulli(keep));
        input * mask * (1.0 / keep)
    }
}

/// What each of so many values is multiplied by, from the stream that runs; nothing outside of one.
fn draw(len: usize, keep: f64) -> Option<Vec<f32>> {
    // as many of the generator's 2³² values as come nearest to the probability
    let below = (keep * 2f64.powi(32)) as u32;
    let scale = (1.0 / keep) as f32;
    GENERATOR.with_borrow_mut(|generator| {
        let generator = generator.as_mut()?;
        Some((0..len).map(|_| if generator.next_u32() < below { scale } else { 0.0 }).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(seed: u64, number: u64) -> RandomStream {
        RandomStream { device: Device::flex(), seed, number }
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
    fn a_stream_names_its_numbers_and_goes_on_behind_one_that_interrupts_it() {
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
