//! What a run trains: a model together with what turns a batch into a loss. The loop knows no more of captions, rewards
//! or image-text pairs than this.

use std::path::Path;

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor};
use model::recompute::{Recompute, backward};

use crate::dashboard::{LOSS, MetricSpec, Metrics};
use crate::evaluation::Prediction;
use crate::processes::ProcessGroup;
use crate::{Batch, TrainError};

/// A model and its objective.
pub trait Task: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// The weights.
    type Model: Module + Clone + std::fmt::Debug + Send + 'static;

    /// The weights.
    fn model(&self) -> &Self::Model;

    /// The weights themselves, which nothing else of the task holds on to.
    fn into_model(self) -> Self::Model;

    /// The same task on other weights.
    #[must_use]
    fn with_model(&self, model: Self::Model) -> Self;

    /// How much a batch, or a part of one, counts beside others: the loss is a mean over that many things.
    fn weight(&self, batch: &Batch) -> f64;

    /// The mean loss of a batch. What is drawn follows from `moment` alone.
    ///
    /// # Errors
    /// When the batch is not of the task's kind, or something fails.
    fn loss(&self, batch: Batch, step_context: &StepContext<'_>) -> Result<Loss, TrainError>;

    /// Measures a batch; called on a model in evaluation.
    ///
    /// # Errors
    /// When something fails.
    fn evaluate(&self, batch: Batch) -> Result<Evaluated, TrainError>;

    /// Writes the weights as others can read them.
    ///
    /// # Errors
    /// When the directory cannot be written to.
    fn export(&self, directory: &Path) -> Result<(), TrainError>;

    /// Whether a batch may be computed in parts: not where its rows are compared with each other.
    fn can_split(&self) -> bool {
        true
    }

    /// Figures of a training step that the dashboard shows.
    fn metrics(&self) -> Vec<MetricSpec> {
        vec![MetricSpec::new(LOSS, false)]
    }
}

/// When in a run a loss is computed.
#[derive(Debug, Clone, Copy)]
pub struct StepContext<'a> {
    /// Decides everything that is drawn in this step.
    pub seed: u64,
    /// The processes that compute it.
    pub processes: &'a dyn ProcessGroup,
}

/// A loss that can still be differentiated.
#[derive(Debug)]
pub struct Loss {
    /// `[1]`
    pub value: Tensor<1>,
    /// What else is worth showing; means over what [`Task::weight`] counts.
    pub metrics: Metrics,
}

impl From<Tensor<1>> for Loss {
    fn from(value: Tensor<1>) -> Self {
        Self { value, metrics: Metrics::default() }
    }
}

/// What the evaluation of a batch gave.
#[derive(Debug, Clone, Default)]
pub struct Evaluated {
    /// Captions or answers.
    pub written: Vec<Prediction>,
    /// Means over the batch's examples.
    pub metrics: Metrics,
}

/// How a step is computed.
#[derive(Debug, Clone, Copy)]
pub struct MicroBatches {
    /// Parts that a batch is split into.
    pub count: usize,
    /// Whether they run in threads of their own.
    pub side_by_side: bool,
    /// Which blocks are computed a second time in the backward pass.
    pub recompute: Recompute,
}

/// The gradients of a step, and its figures.
pub struct Step {
    /// Of the mean loss over the batch, in every process.
    pub gradients: GradientsParams,
    /// Its loss among others.
    pub metrics: Metrics,
}

/// Loss and gradients of a batch. It is split into parts, whose gradients add up to the whole batch's: every token (or
/// whatever the task counts) counts the same, in whichever part or process it is. Parts side by side are on a CPU what
/// makes use of its cores: the operations of a small model are too small to be shared among them.
///
/// # Errors
/// As [`Task::loss`].
pub fn gradients<T: Task>(
    task: &T,
    batch: Batch,
    parts: MicroBatches,
    step_context: &StepContext<'_>,
) -> Result<Step, TrainError> {
    let mut all = [task.weight(&batch)];
    step_context.processes.sum(&mut all)?;
    let all = all[0].max(1.0);
    let count = if task.can_split() { parts.count } else { 1 };
    // the last batch of an epoch may have fewer rows than there are processes
    let split = if batch.items().is_empty() && task.can_split() { Vec::new() } else { batch.split(count) };
    let weighted: Vec<MicroBatch> = split
        .into_iter()
        .enumerate()
        .map(|(number, batch)| MicroBatch { number, weight: task.weight(&batch) / all, batch })
        .collect();
    let done: Vec<_> = if parts.side_by_side && weighted.len() > 1 {
        std::thread::scope(|scope| {
            let running: Vec<_> = weighted
                .into_iter()
                .map(|part| {
                    // a fork has leaves of its own, so that the parts' graphs have nothing in common
                    let fork = task.with_model(fork(task.model()));
                    scope.spawn(move || part.gradients(&fork, parts.recompute, step_context))
                })
                .collect();
            running
                .into_iter()
                .map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    } else {
        weighted.into_iter().map(|part| part.gradients(task, parts.recompute, step_context)).collect()
    };
    let mut accumulator = GradientsAccumulator::new();
    let mut metrics = Metrics::default();
    for part in done {
        let part = part?;
        metrics.add(&part.metrics);
        accumulator.accumulate(task.model(), part.gradients);
    }
    let gradients =
        crate::processes::sum_gradients(step_context.processes, task.model(), accumulator.grads())?;
    metrics.sum_over(step_context.processes)?;
    Ok(Step { gradients, metrics })
}

/// A part of a batch.
struct MicroBatch {
    number: usize,
    weight: f64,
    batch: Batch,
}

impl MicroBatch {
    /// What it contributes, already weighted.
    fn gradients<T: Task>(
        self,
        task: &T,
        recompute: Recompute,
        step_context: &StepContext<'_>,
    ) -> Result<Step, TrainError> {
        let Self { number, weight, batch } = self;
        let mut metrics = Metrics::default();
        // parts of a batch must not drop out alike
        let seed = step_context.seed.wrapping_add(number as u64);
        let (loss, gradients) = backward(task.model(), recompute, seed, || {
            let loss = task.loss(batch, step_context)?;
            metrics = loss.metrics;
            Ok::<_, TrainError>(loss.value.mul_scalar(weight))
        })?;
        let loss = loss.try_into_scalar::<f64>().map_err(TrainError::device)?;
        Ok(Step { gradients, metrics: metrics.times(weight).with(LOSS, loss) })
    }
}

/// Weights on the same device with leaves of their own.
fn fork<M: Module + Clone>(model: &M) -> M {
    match model.devices().into_iter().next() {
        Some(device) => model.clone().fork(&device),
        None => model.clone(),
    }
}

/// Where a model computes.
pub fn device_of<M: Module>(model: &M) -> Device {
    model.devices().into_iter().next().unwrap_or_default()
}
