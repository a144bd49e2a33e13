//! Loss and gradients of a step, computed in micro-batches.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use captioner::host::device_of;
use model::recompute::{Recompute, backward};

use crate::metrics::{LOSS, Metrics};
use crate::objective::{Objective, StepContext};
use crate::processes::sum_gradients;
use crate::{Batch, TrainError};

/// How a batch is split.
#[derive(Debug, Clone, Copy)]
pub struct MicroBatches {
    /// Number of micro-batches.
    pub count: usize,
    /// Whether they run in parallel threads.
    pub in_parallel: bool,
    /// Which blocks are recomputed in the backward pass.
    pub recompute: Recompute,
}

/// Gradients and metrics of a step.
pub struct Step {
    /// Gradients of the mean loss over the batch, summed over all processes.
    pub gradients: GradientsParams,
    /// The loss and other metrics.
    pub metrics: Metrics,
}

/// Loss and gradients of a batch. The gradients of its micro-batches are weighted so that every token (or
/// whatever the objective counts) has the same weight, in every micro-batch and process. Parallel
/// micro-batches use the cores of a CPU: the operations of a small model are too small to be split among
/// them.
///
/// # Errors
/// As [`Objective::loss`].
pub fn gradients<O: Objective>(
    objective: &O,
    model: &O::Model,
    batch: Batch,
    micro_batches: MicroBatches,
    context: &StepContext<'_>,
) -> Result<Step, TrainError> {
    let mut total = [objective.weight(&batch)];
    context.processes.sum(&mut total)?;
    let total = total[0].max(1.0);
    let MicroBatches { count, in_parallel, recompute } = micro_batches;
    let count = if objective.can_split() { count } else { 1 };
    // the last batch of an epoch may have fewer rows than there are processes
    let batches = match count {
        _ if batch.items().is_empty() && objective.can_split() => Vec::new(),
        0 | 1 => vec![batch],
        _ => batch.into_parts(count),
    };
    let parts: Vec<MicroBatch> = batches
        .into_iter()
        .enumerate()
        .map(|(number, batch)| MicroBatch { number, weight: objective.weight(&batch) / total, batch })
        .collect();
    let steps: Vec<_> = if in_parallel && parts.len() > 1 {
        std::thread::scope(|scope| {
            let threads: Vec<_> = parts
                .into_iter()
                .map(|part| {
                    // a fork has separate leaves, and so each thread has a separate graph
                    let fork = model.clone().fork(&device_of(model));
                    scope.spawn(move || part.gradients(objective, &fork, recompute, context))
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    } else {
        parts.into_iter().map(|part| part.gradients(objective, model, recompute, context)).collect()
    };
    let mut accumulator = GradientsAccumulator::new();
    let mut metrics = Metrics::default();
    for step in steps {
        let step = step?;
        metrics.add(&step.metrics);
        accumulator.accumulate(model, step.gradients);
    }
    let gradients = sum_gradients(context.processes, model, accumulator.grads())?;
    metrics.sum_over(context.processes)?;
    Ok(Step { gradients, metrics })
}

struct MicroBatch {
    number: usize,
    weight: f64,
    batch: Batch,
}

impl MicroBatch {
    /// Its weighted part of the step.
    fn gradients<O: Objective>(
        self,
        objective: &O,
        model: &O::Model,
        recompute: Recompute,
        context: &StepContext<'_>,
    ) -> Result<Step, TrainError> {
        let Self { number, weight, batch } = self;
        let mut metrics = Metrics::default();
        // Dropout must differ between the micro-batches of a step. The seeds of steps are hashes, so that the
        // sum of a seed and a number is the seed of another step only by chance. Changing it would change
        // every result.
        let seed = context.seed.wrapping_add(number as u64);
        let (loss, gradients) = backward(model, recompute, seed, || {
            let loss = objective.loss(model, batch, context)?;
            metrics = loss.metrics;
            Ok::<_, TrainError>(loss.value.mul_scalar(weight))
        })?;
        let loss = loss.try_into_scalar::<f64>().map_err(TrainError::device)?;
        Ok(Step { gradients, metrics: metrics.times(weight).with(LOSS, loss) })
    }
}
