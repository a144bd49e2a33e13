//! AdamW over the trained parameters: no weight decay on biases, norms and other one-dimensional tensors (as
//! in LAVIS), a learning-rate scale for each group, and clipping of the global gradient norm (Burn's own
//! clips each parameter).

use std::collections::VecDeque;

use burn::lr_scheduler::constant::ConstantLr;
use burn::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler};
use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use model::parameters::FieldPath;

use crate::TrainError;
use crate::adamw::HostAdamW;
use crate::config::TrainConfig;
use crate::freezing::{Freezing, Scale};

/// The trained parameters of a model, grouped.
pub struct ParameterGroups {
    trained: Vec<ParamId>,
    without_decay: Vec<ParamId>,
    scaled: Vec<(f64, Vec<ParamId>)>,
}

impl ParameterGroups {
    /// Groups a model's parameters by the freezing table and by their rank.
    pub fn new<M: Module>(model: &M, freezing: &Freezing) -> Self {
        let groups = Self { trained: Vec::new(), without_decay: Vec::new(), scaled: Vec::new() };
        let mut visitor = Grouper { path: FieldPath::default(), freezing, groups };
        model.visit(&mut visitor);
        visitor.groups
    }

    /// All trained parameters.
    pub fn trained(&self) -> ParamGroup {
        ParamGroup::from_ids(self.trained.clone())
    }

    /// The optimizer, its moments at zero.
    pub fn optimizer(&self, config: &TrainConfig) -> ModuleOptimizer {
        let adamw = |decay: f64| HostAdamW::new(config, decay);
        let without_decay = ParamGroup::from_ids(self.without_decay.clone());
        ModuleOptimizer::from(adamw(config.weight_decay)).with_group(without_decay, adamw(0.0), None)
    }

    /// The learning rate of each group in a step.
    pub fn learning_rates(&self, rate: f64) -> ModuleLearningRate {
        let base = ModuleLrScheduler::new(ConstantLr::from(rate));
        let mut scheduler = self.scaled.iter().fold(base, |scheduler, (scale, ids)| {
            scheduler.with_group(ParamGroup::from_ids(ids.clone()), ConstantLr::from(rate * scale))
        });
        scheduler.step()
    }
}

struct Grouper<'a> {
    path: FieldPath,
    freezing: &'a Freezing,
    groups: ParameterGroups,
}

impl ModuleVisitor for Grouper<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let name = self.path.name();
        let Scale::Times(times) = self.freezing.scale(&name) else { return };
        self.groups.trained.push(parameter.id);
        // T5's relative positions are a bias of rank 2
        if D < 2 || name.contains("bias") {
            self.groups.without_decay.push(parameter.id);
        }
        if times != 1.0 {
            match self.groups.scaled.iter_mut().find(|(scale, _)| *scale == times) {
                Some((_, ids)) => ids.push(parameter.id),
                None => self.groups.scaled.push((times, vec![parameter.id])),
            }
        }
    }
}

/// Scales all gradients so that their joint norm is at most `max_norm`, 0 for no limit; returns the norm
/// before.
///
/// On the CPU all values are taken out once and changed in place: operations on hundreds of small tensors
/// took 3 % of a tiny model's step.
///
/// # Errors
/// When the device fails.
pub fn clip_global_norm<M: Module>(
    model: &M,
    gradients: &mut GradientsParams,
    max_norm: f64,
) -> Result<f64, TrainError> {
    let mut taken = Taken { gradients, on_host: VecDeque::new(), on_device: None };
    model.visit(&mut taken);
    let Taken { mut on_host, on_device, .. } = taken;
    let mut squares = 0.0;
    for (_, data) in &mut on_host {
        squares += sum_of_squares(data.as_mut_slice::<f32>().map_err(TrainError::device)?);
    }
    if let Some(sum) = on_device {
        squares += sum.try_into_scalar::<f64>().map_err(TrainError::device)?;
    }
    let norm = squares.sqrt();
    let factor = (max_norm > 0.0 && norm > max_norm).then(|| max_norm / (norm + 1e-6));
    if let Some(factor) = factor {
        for (_, data) in &mut on_host {
            let values = data.as_mut_slice::<f32>().map_err(TrainError::device)?;
            values.iter_mut().for_each(|value| *value *= factor as f32);
        }
    }
    model.visit(&mut Returned { gradients, on_host, factor });
    Ok(norm)
}

/// Whether the values of a tensor are f32 in this process's memory.
fn is_on_host<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.device() == Device::flex() && tensor.dtype() == DType::F32
}

/// Eight sums, which a processor adds at once.
fn sum_of_squares(values: &[f32]) -> f64 {
    let mut sums = [0.0_f64; 8];
    let whole = values.chunks_exact(8);
    let rest: f64 = whole.remainder().iter().map(|&value| f64::from(value).powi(2)).sum();
    for values in whole {
        for (sum, &value) in sums.iter_mut().zip(values) {
            *sum += f64::from(value) * f64::from(value);
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// Takes out the values of gradients in this process's memory, and sums the squares of the others on their
/// device.
struct Taken<'a> {
    gradients: &'a mut GradientsParams,
    /// In the order of the visit.
    on_host: VecDeque<(ParamId, TensorData)>,
    on_device: Option<Tensor<1>>,
}

impl ModuleVisitor for Taken<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let Some(gradient) = self.gradients.remove::<D>(parameter.id) else { return };
        if is_on_host(&gradient) {
            self.on_host.push_back((parameter.id, gradient.into_data()));
            return;
        }
        let square = gradient.clone().cast(FloatDType::F32).square().sum();
        self.gradients.register::<D>(parameter.id, gradient);
        self.on_device = Some(match self.on_device.take() {
            Some(sum) => sum + square,
            None => square,
        });
    }
}

/// Puts the values back as tensors of their parameter's rank, and scales the gradients of other devices.
struct Returned<'a> {
    gradients: &'a mut GradientsParams,
    on_host: VecDeque<(ParamId, TensorData)>,
    factor: Option<f64>,
}

impl ModuleVisitor for Returned<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if self.on_host.front().is_some_and(|(id, _)| *id == parameter.id) {
            if let Some((id, data)) = self.on_host.pop_front() {
                self.gradients.register::<D>(id, Tensor::from_data(data, &Device::flex()));
            }
        } else if let Some(factor) = self.factor
            && let Some(gradient) = self.gradients.remove::<D>(parameter.id)
        {
            // one on the host is that of a shared parameter, and is scaled already
            let gradient = if is_on_host(&gradient) { gradient } else { gradient * factor };
            self.gradients.register::<D>(parameter.id, gradient);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::drawn;
    use burn::tensor::Tolerance;
    use model::layers::{Linear, LinearConfig};

    fn layer(device: &Device) -> Linear {
        drawn(1, |_| LinearConfig::new(2, 2, 1.0).init(device))
    }

    fn gradients(layer: &Linear, device: &Device, scale: f64) -> GradientsParams {
        let input = Tensor::<2>::from_floats([[3.0, 4.0]], device);
        GradientsParams::from_grads((layer.forward(input) * scale).sum().backward(), layer)
    }

    #[test]
    fn the_joint_norm_is_clipped_and_the_direction_kept() {
        let device = Device::flex().autodiff();
        let layer = layer(&device);
        // every row of the weight has gradient (3, 4), every bias 1: the norm is sqrt(2 * 25 + 2)
        let mut gradients = gradients(&layer, &device, 1.0);
        let norm = clip_global_norm(&layer, &mut gradients, 1.0).unwrap();
        assert!((norm - 52f64.sqrt()).abs() < 1e-5);
        let weight = gradients.get::<2>(layer.weight.id).unwrap() * 52f64.sqrt();
        let expected = Tensor::<2>::from_floats([[3.0, 4.0], [3.0, 4.0]], &Device::flex());
        weight.into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-4));
        assert!(
            (clip_global_norm(&layer, &mut gradients, 1.0).unwrap() - 1.0).abs() < 1e-5,
            "now within the limit"
        );
    }

    #[derive(Module, Debug)]
    struct Weights {
        five: Param<Tensor<5>>,
        one: Param<Tensor<1>>,
    }

    #[test]
    fn gradients_of_any_rank_are_clipped() {
        let device = Device::flex().autodiff();
        let weights = Weights {
            five: Param::from_tensor(Tensor::ones([1, 1, 3, 1, 1], &device)),
            one: Param::from_tensor(Tensor::ones([1], &device)),
        };
        let loss = weights.five.val().sum() + weights.one.val();
        let mut gradients = GradientsParams::from_grads(loss.backward(), &weights);
        assert_eq!(clip_global_norm(&weights, &mut gradients, 1.0).unwrap(), 2.0);
        let five = gradients.get::<5>(weights.five.id).unwrap();
        assert_eq!(five.dims(), [1, 1, 3, 1, 1]);
        let expected = Tensor::<5>::full([1, 1, 3, 1, 1], 0.5, &Device::flex()).into_data();
        five.into_data().assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
        assert!((clip_global_norm(&weights, &mut gradients, 0.0).unwrap() - 1.0).abs() < 1e-5);
    }

    #[test]
    fn a_largest_norm_of_zero_is_no_limit() {
        let device = Device::flex().autodiff();
        let layer = layer(&device);
        let mut gradients = gradients(&layer, &device, 1.0);
        let norm = clip_global_norm(&layer, &mut gradients, 0.0).unwrap();
        assert!((norm - 52f64.sqrt()).abs() < 1e-5);
        assert!(
            (clip_global_norm(&layer, &mut gradients, 0.0).unwrap() - norm).abs() < 1e-5,
            "nothing was scaled"
        );
    }

    #[test]
    fn decay_reaches_matrices_only_and_a_scale_its_pattern_only() {
        let device = Device::flex().autodiff();
        let layer = layer(&device);
        let freezing: Freezing = serde_json::from_str(r#"{"bias": 0.5}"#).unwrap();
        let groups = ParameterGroups::new(&layer, &freezing);
        let config = TrainConfig { weight_decay: 0.5, ..TrainConfig::default() };
        let mut optimizer = groups.optimizer(&config);
        let (weight, bias) = (layer.weight.val(), layer.bias.as_ref().unwrap().val());
        let still = gradients(&layer, &device, 0.0);
        let layer = optimizer.step(groups.learning_rates(0.1), layer, still);
        let decayed = weight.inner() * 0.95;
        let now = layer.weight.val().inner();
        now.into_data().assert_approx_eq::<f32>(&decayed.into_data(), Tolerance::absolute(1e-6));
        assert_eq!(layer.bias.as_ref().unwrap().val().inner().into_data(), bias.clone().inner().into_data());
        let moving = gradients(&layer, &device, 1.0);
        let layer = optimizer.step(groups.learning_rates(0.1), layer, moving);
        // Adam's second step after a zero gradient: (1-b1)g / (1-b1^2) over sqrt((1-b2)g^2 / (1-b2^2))
        let step = (0.1 / (1.0 - 0.9f64.powi(2))) / (0.001 / (1.0 - 0.999f64.powi(2))).sqrt();
        let moved = bias.inner() - 0.5 * 0.1 * step;
        let now = layer.bias.unwrap().val().inner();
        now.into_data().assert_approx_eq::<f32>(&moved.into_data(), Tolerance::absolute(1e-4));
    }

    #[test]
    fn frozen_parameters_are_in_no_group() {
        let device = Device::flex().autodiff();
        let freezing: Freezing = serde_json::from_str(r#"{"weight": "frozen"}"#).unwrap();
        assert_eq!(ParameterGroups::new(&layer(&device), &freezing).trained.len(), 1);
    }
}
