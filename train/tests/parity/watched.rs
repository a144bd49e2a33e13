//! An objective whose losses are recorded step by step, with what it would otherwise draw given to it.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::tensor::Tensor;
use train::objective::{Evaluation, Loss, StepContext};
use train::{Batch, Objective, TrainError};

/// The loss of a model on a batch of a step, counted from 0.
type LossOfStep<M> =
    dyn Fn(&M, usize, Batch, &StepContext<'_>) -> Result<Tensor<1>, TrainError> + Send + Sync;

/// The objective. A batch's items name its step: there are `rows` of them in every step, numbered through the
/// run.
pub(crate) struct Watched<O: Objective> {
    objective: O,
    rows: usize,
    loss: Box<LossOfStep<O::Model>>,
    /// Of each step, its parts' losses times their weights, and the weights, summed.
    seen: Seen,
}

/// The losses seen so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<[f64; 2]>>>);

impl Seen {
    /// The loss of each step so far.
    pub(crate) fn losses(&self) -> Vec<f64> {
        self.0.lock().unwrap().iter().map(|[sum, weight]| sum / weight).collect()
    }
}

impl<O: Objective> Watched<O> {
    pub(crate) fn new(
        objective: O,
        rows: usize,
        loss: impl Fn(&O::Model, usize, Batch, &StepContext<'_>) -> Result<Tensor<1>, TrainError>
        + Send
        + Sync
        + 'static,
    ) -> (Self, Seen) {
        let seen = Seen::default();
        (Self { objective, rows, loss: Box::new(loss), seen: seen.clone() }, seen)
    }
}

impl<O: Objective> fmt::Debug for Watched<O> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Watched").field("objective", &self.objective).finish_non_exhaustive()
    }
}

impl<O: Objective> Objective for Watched<O> {
    type Model = O::Model;

    fn weight(&self, batch: &Batch) -> f64 {
        self.objective.weight(batch)
    }

    fn loss(&self, model: &O::Model, batch: Batch, context: &StepContext<'_>) -> Result<Loss, TrainError> {
        let (step, weight) = (batch.items()[0] / self.rows, self.weight(&batch));
        let value = (self.loss)(model, step, batch, context)?;
        let number = value.clone().without_autodiff().into_scalar::<f64>();
        let mut seen = self.seen.0.lock().unwrap();
        if seen.len() <= step {
            seen.resize(step + 1, [0.0; 2]);
        }
        seen[step] = [seen[step][0] + weight * number, seen[step][1] + weight];
        Ok(Loss::from(value))
    }

    fn evaluate(&self, model: &O::Model, batch: Batch) -> Result<Evaluation, TrainError> {
        self.objective.evaluate(model, batch)
    }

    fn save(&self, model: &O::Model, directory: &Path) -> Result<(), TrainError> {
        self.objective.save(model, directory)
    }

    fn can_split(&self) -> bool {
        self.objective.can_split()
    }
}
