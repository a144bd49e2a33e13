//! Dropout with reproducible random numbers, so that a forward pass can be repeated.
//!
//! Burn's CPU backend has one generator for all threads. Within a [`RandomStream`] dropout uses the stream's
//! numbers, which depend neither on other threads nor on earlier draws.

use std::cell::RefCell;

use burn::module::{Flag, Module, Param};
use burn::tensor::{Device, Distribution, FloatDType, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::cast;

thread_local! {
    static GENERATOR: RefCell<Option<ChaCha8Rng>> = const { RefCell::new(None) };
}

/// A stream of random numbers, selected by seed and number.
#[derive(Debug, Clone)]
pub(crate) struct RandomStream {
    pub device: Device,
    pub seed: u64,
    pub number: u64,
}

impl RandomStream {
    /// Runs `work` with this stream's numbers, from the first on. A stream that is active already continues
    /// afterwards.
    ///
    /// On a device other than the CPU this seeds the device's generator; nothing else may use it at the same
    /// time.
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

/// Restores the outer stream at the end of an inner one, also after a panic.
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
    /// Drops values if both the layer and its input are in training.
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

/// The factor of each value, from the active stream; `None` without one.
fn draw(len: usize, keep: f64) -> Option<Vec<f32>> {
    // the share of the generator's 2³² values that is nearest to the probability
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
