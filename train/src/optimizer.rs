//! AdamW over the trained parameters: no decay on biases, norms and other one-dimensional tensors (as LAVIS has it), a
//! learning-rate scale for each group, and clipping of the global gradient norm (Burn's own clips each parameter).

use burn::lr_scheduler::constant::ConstantLr;
use burn::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler};
use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use model::parameters::FieldPath;

use crate::adamw::HostAdamW;
use crate::config::TrainConfig;
use crate::freezing::{Freezing, Scale};

/// The trained parameters of a model, grouped.
pub struct Groups {
    trained: Vec<ParamId>,
    without_decay: Vec<ParamId>,
    scaled: Vec<(f64, Vec<ParamId>)>,
}

impl Groups {
    /// Groups a model's parameters by the freezing table and by their number of dimensions.
    pub fn new<M: Module>(model: &M, freezing: &Freezing) -> Self {
        let groups = Self { trained: Vec::new(), without_decay: Vec::new(), scaled: Vec::new() };
        let mut visitor = Grouper { path: FieldPath::default(), freezing, groups };
        model.visit(&mut visitor);
        visitor.groups
    }

    /// Number of trained tensors.
    pub fn len(&self) -> usize {
        self.trained.len()
    }

    /// Whether nothing is trained.
    pub fn is_empty(&self) -> bool {
        self.trained.is_empty()
    }

    /// All trained parameters.
    pub fn trained(&self) -> ParamGroup {
        ParamGroup::from_ids(self.trained.clone())
    }

    /// The optimiser, its moments at zero.
    pub fn optimizer(&self, config: &TrainConfig) -> ModuleOptimizer {
        let adamw = |decay: f64| HostAdamW::new(config, decay);
        let without_decay = ParamGroup::from_ids(self.without_decay.clone());
        ModuleOptimizer::from(adamw(config.weight_decay)).with_group(without_decay, adamw(0.0), None)
    }

    /// The rate of each group in a step.
    pub fn rates(&self, rate: f64) -> ModuleLearningRate {
        let base = ModuleLrScheduler::new(ConstantLr::from(rate));
        let scheduler = self.scaled.iter().fold(base, |scheduler, (scale, ids)| {
            scheduler.with_group(ParamGroup::from_ids(ids.clone()), ConstantLr::from(rate * scale))
        });
        let mut scheduler = scheduler;
        scheduler.step()
    }
}

struct Grouper<'a> {
    path: FieldPath,
    freezing: &'a Freezing,
    groups: Groups,
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
        // T5's relative positions are a bias of two dimensions
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

/// Scales all gradients so that their joint norm is at most `max_norm`, 0 for no limit; returns the norm before.
///
/// On the CPU the values are taken out once and gone through where they lie: operations on hundreds of small tensors took
/// 3 % of a tiny model's step.
pub fn clip_global_norm<M: Module>(model: &M, gradients: &mut GradientsParams, max_norm: f64) -> f64 {
    let mut taken = Taken { gradients, on_host: Vec::new(), on_device: None };
    model.visit(&mut taken);
    let Taken { mut on_host, on_device, .. } = taken;
    let is_on_device = on_device.is_some();
    let squares: f64 = on_host.iter_mut().map(|(_, data)| sum_of_squares(values(data))).sum();
    let norm = (squares + on_device.map_or(0.0, |sum| sum.into_scalar::<f64>())).sqrt();
    let factor = (max_norm > 0.0 && norm > max_norm).then(|| max_norm / (norm + 1e-6));
    for (id, mut data) in on_host {
        if let Some(factor) = factor {
            values(&mut data).iter_mut().for_each(|value| *value *= factor as f32);
        }
        match data.shape().num_dims() {
            1 => put::<1>(gradients, id, data),
            2 => put::<2>(gradients, id, data),
            3 => put::<3>(gradients, id, data),
            4 => put::<4>(gradients, id, data),
            rank => unreachable!("no parameter of a model has {rank} dimensions"),
        }
    }
    if let Some(factor) = factor
        && is_on_device
    {
        model.visit(&mut Rescale { gradients, factor });
    }
    norm
}

fn put<const D: usize>(gradients: &mut GradientsParams, id: ParamId, data: TensorData) {
    gradients.register::<D>(id, Tensor::from_data(data, &Device::flex()));
}

fn values(data: &mut TensorData) -> &mut [f32] {
    data.as_mut_slice::<f32>().unwrap_or_else(|error| unreachable!("f32 values are f32: {error:?}"))
}

/// Whether the values of a tensor are numbers in f32 that lie in this process's memory.
fn is_on_host<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.device() == Device::flex() && tensor.dtype() == DType::F32
}

/// Eight sums side by side, which a processor adds up at once.
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

/// Takes the values of gradients that lie in this process's memory out, and sums up the squares of the others.
struct Taken<'a> {
    gradients: &'a mut GradientsParams,
    on_host: Vec<(ParamId, TensorData)>,
    on_device: Option<Tensor<1>>,
}

impl ModuleVisitor for Taken<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let Some(gradient) = self.gradients.remove::<D>(parameter.id) else { return };
        if is_on_host(&gradient) {
            self.on_host.push((parameter.id, gradient.into_data()));
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

/// Scales the gradients that do not lie in this process's memory.
struct Rescale<'a> {
    gradients: &'a mut GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Rescale<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let Some(gradient) = self.gradients.remove::<D>(parameter.id) else { return };
        let gradient = if is_on_host(&gradient) { gradient } else { gradient * self.factor };
        self.gradients.register::<D>(parameter.id, gradient);
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
        let norm = clip_global_norm(&layer, &mut gradients, 1.0);
        assert!((norm - 52f64.sqrt()).abs() < 1e-5);
        let weight = gradients.get::<2>(layer.weight.id).unwrap() * 52f64.sqrt();
        let expected = Tensor::<2>::from_floats([[3.0, 4.0], [3.0, 4.0]], &Device::flex());
        weight.into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-4));
        assert!((clip_global_norm(&layer, &mut gradients, 1.0) - 1.0).abs() < 1e-5, "now within the limit");
    }

    #[test]
    fn a_largest_norm_of_zero_is_no_limit() {
        let device = Device::flex().autodiff();
        let layer = layer(&device);
        let mut gradients = gradients(&layer, &device, 1.0);
        let norm = clip_global_norm(&layer, &mut gradients, 0.0);
        assert!((norm - 52f64.sqrt()).abs() < 1e-5);
        assert!((clip_global_norm(&layer, &mut gradients, 0.0) - norm).abs() < 1e-5, "nothing was scaled");
    }

    #[test]
    fn decay_reaches_matrices_only_and_a_scale_its_pattern_only() {
        let device = Device::flex().autodiff();
        let layer = layer(&device);
        let freezing: Freezing = serde_json::from_str(r#"{"bias": 0.5}"#).unwrap();
        let groups = Groups::new(&layer, &freezing);
        let config = TrainConfig { weight_decay: 0.5, ..TrainConfig::default() };
        let mut optimizer = groups.optimizer(&config);
        let (weight, bias) = (layer.weight.val(), layer.bias.as_ref().unwrap().val());
        let still = gradients(&layer, &device, 0.0);
        let layer = optimizer.step(groups.rates(0.1), layer, still);
        let decayed = weight.inner() * 0.95;
        let now = layer.weight.val().inner();
        now.into_data().assert_approx_eq::<f32>(&decayed.into_data(), Tolerance::absolute(1e-6));
        assert_eq!(layer.bias.as_ref().unwrap().val().inner().into_data(), bias.clone().inner().into_data());
        let moving = gradients(&layer, &device, 1.0);
        let layer = optimizer.step(groups.rates(0.1), layer, moving);
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
        assert_eq!(Groups::new(&layer(&device), &freezing).len(), 1);
    }
}
