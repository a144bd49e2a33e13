//! How far a run ended from PyTorch's.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use model::checkpoint::source::Source;
use model::parameters::FieldPath;
use train::TrainConfig;
use train::checkpoint::EpochRecord;
use train::metrics::GRADIENT_NORM;

use crate::STEPS;
use crate::fixture::{Case, Step};

/// Of a loss, and of a gradient's norm, to PyTorch's.
const LOSS_TOLERANCE: f64 = 1e-4;
/// Of a learning rate to PyTorch's: both compute it in f64.
const RATE_TOLERANCE: f64 = 1e-9;
/// Of a weight to the largest of its tensor: Adam moves weights of any size by about as much, so that a
/// difference is not to be measured by the weight that it is found at.
const WEIGHT_TOLERANCE: f64 = 1e-3;

/// Tensors by name.
pub(crate) type Weights = BTreeMap<String, Vec<f32>>;

/// All tensors of a file.
pub(crate) fn weights(file: &Path) -> Weights {
    let source = Source::open(file).unwrap();
    source.names().map(|name| (name.to_owned(), source.read_f32(name).unwrap())).collect()
}

/// All parameters of a module, by their own names.
pub(crate) fn values<M: Module>(module: &M) -> Weights {
    let mut visitor = Values::default();
    module.visit(&mut visitor);
    visitor.weights
}

#[derive(Default)]
struct Values {
    path: FieldPath,
    weights: Weights,
}

impl ModuleVisitor for Values {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let values = parameter.val().into_data().try_to_vec::<f32>().unwrap();
        self.weights.insert(self.path.name(), values);
    }
}

/// Compares losses, the recorded metrics of each interval, and final weights with PyTorch's, prints a row of
/// the table, and fails beyond the tolerances. `got` and `initial` may hold more than what was trained; the
/// rest must not have moved by a bit.
pub(crate) fn check<B>(
    name: &str,
    case: &Case<B>,
    losses: &[f64],
    history: &[EpochRecord],
    got: &Weights,
    expected: &Weights,
    initial: &Weights,
) {
    assert_eq!((losses.len(), case.steps.len()), (STEPS, STEPS), "{name}: steps");
    if std::env::var_os("RECAP_COMPILE_ONLY").is_some() {
        // scripts/cuda-check.sh: a driver that runs no kernel
        println!("{name}: not compared");
        return;
    }
    let rates = TrainConfig { epochs: STEPS, ..case.train.clone() }.learning_rates(1);
    let steps = || case.steps.iter().enumerate();
    let loss = most(steps().map(|(at, step)| (losses[at], step.loss)));
    let interval = case.train.evaluation_interval(1);
    assert_eq!(history.len(), STEPS.div_ceil(interval), "{name}: evaluations");
    let intervals = || history.iter().zip(case.steps.chunks(interval));
    let mean = |steps: &[Step], of: fn(&Step) -> f64| steps.iter().map(of).sum::<f64>() / steps.len() as f64;
    let norm = most(intervals().map(|(record, steps)| {
        (record.training.get(GRADIENT_NORM).unwrap(), mean(steps, |step| step.gradient_norm))
    }));
    let recorded = most(intervals().map(|(record, steps)| (record.loss, mean(steps, |step| step.loss))));
    let last_rates =
        intervals().map(|(record, steps)| (record.learning_rate, steps[steps.len() - 1].learning_rate));
    let rate = most(steps().map(|(at, step)| (rates.at(at), step.learning_rate)).chain(last_rates));
    let mut compared = Largest::default();
    let mut still = 0;
    let mut failures = Vec::new();
    for (tensor, theirs) in expected {
        let ours = got.get(tensor).unwrap_or_else(|| panic!("{name}: {tensor} is not there"));
        let before = &initial[tensor];
        assert_eq!((ours.len(), before.len()), (theirs.len(), theirs.len()), "{name}: {tensor}");
        if case.without_gradient.contains(tensor) {
            still += 1;
            continue;
        }
        let (size, difference) = (largest(theirs, |_| 0.0), largest(theirs, |at| ours[at]));
        let moved = largest(theirs, |at| before[at]);
        compared.add(tensor, difference / size, difference, difference / moved);
        if difference / size > WEIGHT_TOLERANCE {
            failures.push(format!("{tensor}: {:.1e}", difference / size));
        }
    }
    println!(
        "| {name} | {loss:.0e} | {norm:.0e} | {rate:.0e} | {} | {still} | {:.0e} | {:.0e} | {:.0e} | {:.0e} | {:.0e} |",
        compared.tensors,
        compared.relative,
        compared.absolute,
        compared.of_movement,
        case.float64.loss,
        case.float64.weights,
    );
    println!("  {name}: the tensor that differs most is {}", compared.worst);
    assert!(loss <= LOSS_TOLERANCE, "{name}: a loss differs by {loss:.1e}");
    assert!(recorded <= LOSS_TOLERANCE, "{name}: the mean loss of an interval differs by {recorded:.1e}");
    assert!(norm <= LOSS_TOLERANCE, "{name}: a gradient's norm differs by {norm:.1e}");
    assert!(rate <= RATE_TOLERANCE, "{name}: a learning rate differs by {rate:.1e}");
    assert!(failures.is_empty(), "{name}: {} tensors differ:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(still, case.without_gradient.len(), "{name}: {:?}", case.without_gradient);
    for (tensor, before) in initial.iter().filter(|(tensor, _)| !expected.contains_key(*tensor)) {
        assert_eq!(got.get(tensor), Some(before), "{name}: {tensor} is frozen and moved");
    }
}

/// The largest differences over all tensors.
#[derive(Debug, Default)]
struct Largest {
    tensors: usize,
    /// To the largest weight of the tensor.
    relative: f64,
    absolute: f64,
    /// To how far the tensor's weight that moved most did.
    of_movement: f64,
    worst: String,
}

impl Largest {
    fn add(&mut self, tensor: &str, relative: f64, absolute: f64, of_movement: f64) {
        self.tensors += 1;
        if relative >= self.relative {
            (self.relative, self.worst) = (relative, tensor.to_owned());
        }
        self.absolute = self.absolute.max(absolute);
        self.of_movement = self.of_movement.max(of_movement);
    }
}

/// The largest relative difference of pairs of ours and theirs.
fn most(pairs: impl Iterator<Item = (f64, f64)>) -> f64 {
    pairs.map(|(ours, theirs)| (ours / theirs - 1.0).abs()).fold(0.0, f64::max)
}

/// The largest distance of values from others.
fn largest(values: &[f32], others: impl Fn(usize) -> f32) -> f64 {
    let distances = values.iter().enumerate().map(|(at, &value)| f64::from((value - others(at)).abs()));
    distances.fold(0.0, f64::max)
}
