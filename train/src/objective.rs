//! What a run minimises: from a batch to a loss, apart from the weights.

use std::fmt::Debug;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Tensor;

use crate::metrics::{LOSS, MetricSpec, Metrics};
use crate::prediction::Prediction;
use crate::processes::ProcessGroup;
use crate::{Batch, TrainError};

/// A training objective: loss, evaluation and file format of a kind of model.
pub trait Objective: Debug + Send + Sync + 'static {
    /// The weights.
    type Model: Module + Sync + Clone + Debug + Send + 'static;

    /// Weight of a batch, or of a micro-batch, in the mean loss: the number of tokens or examples.
    fn weight(&self, batch: &Batch) -> f64;

    /// Mean loss of a batch. Random draws depend on `context` alone.
    ///
    /// # Errors
    /// When the batch is of another kind, or the device or the tokenizer fails.
    fn loss(&self, model: &Self::Model, batch: Batch, context: &StepContext<'_>) -> Result<Loss, TrainError>;

    /// Evaluates a batch; `model` must not be in training.
    ///
    /// # Errors
    /// As [`loss`](Self::loss).
    fn evaluate(&self, model: &Self::Model, batch: Batch) -> Result<Evaluation, TrainError>;

    /// Saves the weights in a format that other programs read.
    ///
    /// # Errors
    /// When the directory cannot be written to.
    fn save(&self, model: &Self::Model, directory: &Path) -> Result<(), TrainError>;

    /// Whether a batch may be split into micro-batches; false where its rows are compared with each other.
    fn can_split(&self) -> bool {
        true
    }

    /// Metrics of a training step, for the dashboard.
    fn metrics(&self) -> Vec<MetricSpec> {
        vec![MetricSpec::new(LOSS, false)]
    }
}

/// The step that a loss is computed in.
#[derive(Debug, Clone, Copy)]
pub struct StepContext<'a> {
    /// Seed of all random draws of the step.
    pub seed: u64,
    /// The processes that train together.
    pub processes: &'a dyn ProcessGroup,
}

/// A loss with its graph.
#[derive(Debug)]
pub struct Loss {
    /// `[1]`
    pub value: Tensor<1>,
    /// Further metrics, as means weighted by [`Objective::weight`].
    pub metrics: Metrics,
}

impl From<Tensor<1>> for Loss {
    fn from(value: Tensor<1>) -> Self {
        Self { value, metrics: Metrics::default() }
    }
}

/// The evaluation of a batch or of a split.
#[derive(Debug, Clone, Default)]
pub struct Evaluation {
    /// Generated captions or answers, in the examples' order.
    pub predictions: Vec<Prediction>,
    /// Means over the examples; of a split, scores too.
    pub metrics: Metrics,
}
