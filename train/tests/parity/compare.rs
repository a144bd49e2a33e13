//! How far a run ended from PyTorch's.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use model::checkpoint::source::Source;
use model::parameters::FieldPath;
use train::dashboard::{GRADIENT_NORM, LEARNING_RATE, LOSS};

use crate::fixture::{Case, Step};

/// Of a loss, and of a gradient's norm, to PyTorch's.
const LOSS_TOLERANCE: f64 = 1e-4;
/// Of a learning rate to PyTorch's: both compute it in f64.
const RATE_TOLERANCE: f64 = 1e-9;
/// Of a weight to the largest of its tensor: Adam moves weights of any size by about as much, so that a difference is
/// not to be measured by the weight that it is found at.
const WEIGHT_TOLERANCE: f64 = 1e-3;

/// Tensors by name.
pub type Weights = BTreeMap<String, Vec<f32>>;

/// All tensors of a file.
pub fn weights(file: &Path) -> Weights {
    let source = Source::open(file).unwrap();
    source.names().map(|name| (name.to_owned(), source.read_f32(name).unwrap())).collect()
}

/// All parameters of a module, by their own names.
pub fn values<M: Module>(module: &M) -> Weights {
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

/// What the trainer showed of each step. burn-train logs the running mean of a round, from which the steps' own values
/// follow.
pub fn shown_steps(directory: &Path, round: usize, steps: usize) -> Vec<Step> {
    let each = |figure: &str| -> Vec<f64> {
        let rounds = 1..=steps.div_ceil(round);
        let of_round = |number| {
            let file = format!("dashboard/train/epoch-{number}/{}.log", figure.replace(' ', "_"));
            let log = std::fs::read_to_string(directory.join(file)).unwrap();
            let means: Vec<f64> =
                log.lines().map(|line| line.split(',').next().unwrap().parse().unwrap()).collect();
            let sum = |count: usize| if count == 0 { 0.0 } else { means[count - 1] * count as f64 };
            (0..means.len()).map(|at| sum(at + 1) - sum(at)).collect::<Vec<_>>()
        };
        rounds.flat_map(of_round).collect()
    };
    let figures = each(LOSS).into_iter().zip(each(GRADIENT_NORM)).zip(each(LEARNING_RATE));
    let step = |((loss, gradient_norm), learning_rate)| Step { loss, gradient_norm, learning_rate };
    figures.map(step).collect()
}

/// Compares steps and final weights with PyTorch's, prints a row of the table, and fails beyond the tolerances. `got` and
/// `initial` may hold more than what was trained; the rest must not have moved by a bit.
pub fn check<B>(name: &str, case: &Case<B>, steps: &[Step], got: &Weights, expected: &Weights, initial: &Weights) {
    assert_eq!(steps.len(), case.steps.len(), "{name}: steps");
    let worst = |of: fn(&Step) -> f64| {
        let pairs = steps.iter().zip(&case.steps);
        pairs.map(|(ours, theirs)| (of(ours) / of(theirs) - 1.0).abs()).fold(0.0, f64::max)
    };
    let (loss, norm, rate) =
        (worst(|step| step.loss), worst(|step| step.gradient_norm), worst(|step| step.learning_rate));
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
        compared.tensors, compared.relative, compared.absolute, compared.of_movement, case.float64.loss, case.float64.weights,
    );
    println!("  worst tensor of {name}: {}", compared.worst);
    assert!(loss <= LOSS_TOLERANCE && norm <= LOSS_TOLERANCE && rate <= RATE_TOLERANCE, "{name}: steps differ");
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

/// The largest distance of values from others.
fn largest(values: &[f32], others: impl Fn(usize) -> f32) -> f64 {
    let distances = values.iter().enumerate().map(|(at, &value)| f64::from((value - others(at)).abs()));
    distances.fold(0.0, f64::max)
}
