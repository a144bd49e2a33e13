//! A task whose losses are kept step by step, and which may be told what it would otherwise draw.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::tensor::Tensor;
use train::task::{Evaluated, Loss, StepContext};
use train::{Batch, Task, TrainError};

/// The loss of a task on a batch of a step, counted from 0.
type LossOfStep<T> =
    dyn Fn(&T, usize, Batch, &StepContext<'_>) -> Result<Tensor<1>, TrainError> + Send + Sync;

/// The task. A batch's items tell its step: there are `rows` of them in every step, numbered through the run.
#[derive(Clone)]
pub(crate) struct Watched<T> {
    task: T,
    rows: usize,
    loss: Arc<LossOfStep<T>>,
    /// Of each step, its parts' losses times their weights, and the weights, added up.
    seen: Arc<Mutex<Vec<[f64; 2]>>>,
}

impl<T> Watched<T> {
    pub(crate) fn new(
        task: T,
        rows: usize,
        loss: impl Fn(&T, usize, Batch, &StepContext<'_>) -> Result<Tensor<1>, TrainError> + Send + Sync + 'static,
    ) -> Self {
        Self { task, rows, loss: Arc::new(loss), seen: Arc::default() }
    }

    /// The loss of each step so far.
    pub(crate) fn losses(&self) -> Vec<f64> {
        self.seen.lock().unwrap().iter().map(|[sum, weight]| sum / weight).collect()
    }
}

impl<T: fmt::Debug> fmt::Debug for Watched<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Watched").field("task", &self.task).finish_non_exhaustive()
    }
}

impl<T: Task> Task for Watched<T> {
    type Model = T::Model;

    fn model(&self) -> &T::Model {
        self.task.model()
    }

    fn into_model(self) -> T::Model {
        self.task.into_model()
    }

    fn with_model(&self, model: T::Model) -> Self {
        Self { task: self.task.with_model(model), ..self.clone() }
    }

    fn weight(&self, batch: &Batch) -> f64 {
        self.task.weight(batch)
    }

    fn loss(&self, batch: Batch, step_context: &StepContext<'_>) -> Result<Loss, TrainError> {
        let (step, weight) = (batch.items()[0] / self.rows, self.weight(&batch));
        let value = (self.loss)(&self.task, step, batch, step_context)?;
        let number = value.clone().without_autodiff().into_scalar::<f64>();
        let mut seen = self.seen.lock().unwrap();
        if seen.len() <= step {
            seen.resize(step + 1, [0.0; 2]);
        }
        seen[step] = [seen[step][0] + weight * number, seen[step][1] + weight];
        Ok(Loss::from(value))
    }

    fn evaluate(&self, batch: Batch) -> Result<Evaluated, TrainError> {
        self.task.evaluate(batch)
    }

    fn export(&self, directory: &Path) -> Result<(), TrainError> {
        self.task.export(directory)
    }

    fn can_split(&self) -> bool {
        self.task.can_split()
    }
}
