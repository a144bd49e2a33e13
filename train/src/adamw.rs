//! AdamW whose update of a tensor is one loop on the CPU.
//!
//! Burn's update has fourteen operations, each with a new tensor; with the hundreds of small tensors of a
//! tiny model that took 6 % of a step. Large tensors are distributed over the cores. Values and saved state
//! are equal to Burn's bit for bit; other devices use Burn's own.

use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer};
use burn::tensor::{DType, Device, Tensor, TensorData};

use rayon::prelude::*;

use crate::config::TrainConfig;

/// Values that a thread updates at a time.
const CHUNK: usize = 16 * 1024;

/// AdamW, with Burn's state.
#[derive(Clone)]
pub struct HostAdamW {
    burn: AdamW,
    beta_1: f32,
    beta_2: f32,
    epsilon: f32,
    weight_decay: f32,
    processor: pulp::Arch,
}

impl HostAdamW {
    /// With a run's settings, and the weight decay of a group of tensors.
    pub fn new(config: &TrainConfig, weight_decay: f64) -> Self {
        let (beta_1, beta_2) = (config.beta_1 as f32, config.beta_2 as f32);
        let (epsilon, weight_decay) = (config.epsilon as f32, weight_decay as f32);
        let burn = AdamWConfig::new()
            .with_beta_1(beta_1)
            .with_beta_2(beta_2)
            .with_epsilon(epsilon)
            .with_weight_decay(weight_decay)
            .build();
        Self { burn, beta_1, beta_2, epsilon, weight_decay, processor: pulp::Arch::new() }
    }

    /// Updates values and moments in place. The order of operations is Burn's, so that the results are equal
    /// bit for bit, whatever the width of the processor's vectors.
    fn update(&self, rate: f64, time: usize, values: &mut [f32], gradient: &[f32], moments: [&mut [f32]; 2]) {
        let decay_rate = rate * f64::from(self.weight_decay);
        let kept = if decay_rate == 0.0 { 1.0 } else { (1.0 - decay_rate) as f32 };
        let (first, second) = (1.0 - self.beta_1, 1.0 - self.beta_2);
        let corrections = [1.0 - self.beta_1.powi(time as i32), 1.0 - self.beta_2.powi(time as i32)];
        let rate = rate as f32;
        let [moments_1, moments_2] = moments;
        let moments = moments_1.par_chunks_mut(CHUNK).zip(moments_2.par_chunks_mut(CHUNK));
        let chunks = values.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK)).zip(moments);
        chunks.for_each(|((values, gradient), (moments_1, moments_2))| {
            let all = values.iter_mut().zip(gradient).zip(moments_1).zip(moments_2);
            self.processor.dispatch(
                #[inline(always)]
                || {
                    for (((value, gradient), moment_1), moment_2) in all {
                        *moment_1 = *moment_1 * self.beta_1 + gradient * first;
                        *moment_2 = *moment_2 * self.beta_2 + (gradient * gradient) * second;
                        let delta = (*moment_1 / corrections[0])
                            / ((*moment_2 / corrections[1]).sqrt() + self.epsilon);
                        *value = *value * kept - delta * rate;
                    }
                },
            );
        });
    }
}

impl Optimizer for HostAdamW {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        rate: f64,
        tensor: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let device = tensor.device();
        let is_plain = device == Device::flex()
            && [tensor.dtype(), gradient.dtype()].iter().all(|dtype| *dtype == DType::F32);
        if !is_plain {
            return self.burn.step(rate, tensor, gradient, state);
        }
        let shape = tensor.dims();
        let (time, moments) = match state {
            Some(AdamWState { momentum }) => {
                (momentum.time + 1, Some((momentum.moment_1.into_data(), momentum.moment_2.into_data())))
            }
            None => (1, None),
        };
        let zeros = || TensorData::zeros::<f32, _>(shape);
        let (mut moment_1, mut moment_2) = moments.unwrap_or_else(|| (zeros(), zeros()));
        let (mut values, gradient) = (tensor.into_data(), gradient.into_data());
        match (
            values.as_mut_slice::<f32>(),
            gradient.as_slice::<f32>(),
            moment_1.as_mut_slice::<f32>(),
            moment_2.as_mut_slice::<f32>(),
        ) {
            (Ok(values), Ok(gradient), Ok(first), Ok(second)) => {
                self.update(rate, time, values, gradient, [first, second]);
            }
            _ => unreachable!("tensors in f32 hold values in f32"),
        }
        let tensor = |data: TensorData| Tensor::<D>::from_data(data, &device);
        let momentum = AdaptiveMomentumState::new(time, tensor(moment_1), tensor(moment_2));
        (tensor(values), Some(AdamWState::new(momentum)))
    }

    fn to_device<const D: usize>(state: AdamWState<D>, device: &Device) -> AdamWState<D> {
        AdamW::to_device(state, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::DRAWING;
    use burn::tensor::Distribution;

    #[test]
    fn values_and_moments_equal_burns_bit_for_bit() {
        let _guard = DRAWING.lock().unwrap();
        let device = Device::flex();
        for weight_decay in [0.0, 0.05] {
            let ours = HostAdamW::new(&TrainConfig::default(), weight_decay);
            let burns = ours.burn.clone();
            let start = Tensor::<2>::random([170, 201], Distribution::Normal(0.0, 1.0), &device);
            let (mut one, mut other) = ((start.clone(), None), (start, None));
            for step in 0..30 {
                let rate = 1e-3 * f64::from(step + 1);
                let gradient = Tensor::<2>::random([170, 201], Distribution::Normal(0.0, 1.0), &device);
                one = ours.step(rate, one.0, gradient.clone(), one.1);
                other = burns.step(rate, other.0, gradient, other.1);
                assert_eq!(one.0.to_data(), other.0.to_data(), "step {step}");
                let moments = |state: &Option<AdamWState<2>>| {
                    let momentum = &state.as_ref().unwrap().momentum;
                    (momentum.time, momentum.moment_1.to_data(), momentum.moment_2.to_data())
                };
                assert_eq!(moments(&one.1), moments(&other.1), "step {step}");
            }
        }
    }
}
