//! Loss and gradients of a step, computed in micro-batches.

use std::ops::Range;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use captioner::host::device_of;
use model::cores::Lanes;
use model::recompute::{Draws, Recompute, backward};

use crate::metrics::{LOSS, Metrics};
use crate::objective::{Objective, StepContext};
use crate::processes::{Transfer, agree, row_counts, sum_gradients};
use crate::{Batch, TrainError};

/// How a batch is split.
#[derive(Debug, Clone, Copy)]
pub struct MicroBatches {
    /// Number of micro-batches.
    pub count: usize,
    /// Whether they run in parallel threads, one a core.
    pub in_parallel: bool,
    /// Which blocks are recomputed in the backward pass.
    pub recompute: Recompute,
    /// How the gradients of several processes are sent.
    pub transfer: Transfer,
}

/// Gradients and metrics of a step.
pub struct Step {
    /// Gradients of the mean loss over the batch, summed over all processes.
    pub gradients: GradientsParams,
    /// The loss and other metrics.
    pub metrics: Metrics,
    /// Seconds in which gradients and metrics were summed over the processes.
    pub exchange: f64,
}

/// Loss and gradients of a batch. The gradients of its micro-batches are weighted so that every token (or
/// whatever the objective counts) has the same weight, in every micro-batch and process. Each micro-batch is
/// added as soon as it is finished: there is one sum of gradients, whatever their number. Parallel
/// micro-batches share the cores of a CPU: a core that takes one through all operations never waits for
/// another.
///
/// Dropout depends on the step's seed and a row's place in the whole batch: its masks are the same for every
/// number of micro-batches and of processes. (On a GPU they depend on the rows that are computed together.)
///
/// # Errors
/// As [`Objective::loss`], on every process where one fails.
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
    let before: usize =
        row_counts(context.processes, batch.items().len())?[..context.processes.rank()].iter().sum();
    let MicroBatches { count, in_parallel, recompute, transfer } = micro_batches;
    let count = if objective.can_split() { count } else { 1 };
    // the last batch of an epoch may have fewer rows than there are processes
    let batches = match count {
        _ if batch.items().is_empty() && objective.can_split() => Vec::new(),
        0 | 1 => vec![batch],
        _ => batch.into_parts(count),
    };
    let mut first = before;
    let part = |(number, batch): (usize, Batch)| {
        let rows = first..first + batch.items().len();
        first = rows.end;
        MicroBatch { number, weight: objective.weight(&batch) / total, rows, batch }
    };
    let parts: Vec<MicroBatch> = batches.into_iter().enumerate().map(part).collect();
    let mut sum = Sum { model, accumulator: GradientsAccumulator::new(), metrics: Metrics::default() };
    let threads = if in_parallel { threads().min(parts.len()) } else { 1 };
    let work = Work { objective, recompute, context };
    let computed = if threads > 1 {
        in_threads(model, parts, threads, &work, |step| sum.add(step))
    } else {
        parts.into_iter().try_for_each(|part| work.gradients(model, part).map(|step| sum.add(step)))
    };
    agree(context.processes, computed)?;
    let Sum { mut accumulator, mut metrics, .. } = sum;
    let started = Instant::now();
    let gradients = sum_gradients(context.processes, model, accumulator.grads(), transfer)?;
    metrics.sum_over(context.processes)?;
    Ok(Step { gradients, metrics, exchange: started.elapsed().as_secs_f64() })
}

/// The gradients of the micro-batches so far, as one buffer.
struct Sum<'a, M: Module> {
    model: &'a M,
    accumulator: GradientsAccumulator<M>,
    metrics: Metrics,
}

impl<M: Module> Sum<'_, M> {
    fn add(&mut self, step: Step) {
        self.metrics.add(&step.metrics);
        self.accumulator.accumulate(self.model, step.gradients);
    }
}

/// Micro-batches that are computed at the same time on a CPU. Each has a separate graph, so that more threads
/// than cores would only take memory.
pub fn threads() -> usize {
    data::threads().get()
}

/// Computes micro-batches in threads and passes each result on in the order of the micro-batches, so that
/// sums do not depend on the number of threads. A thread waits until its result is taken and added: there are
/// at most as many graphs and sets of gradients as threads.
fn in_threads<O: Objective>(
    model: &O::Model,
    parts: Vec<MicroBatch>,
    threads: usize,
    work: &Work<'_, O>,
    mut take: impl FnMut(Step),
) -> Result<(), TrainError> {
    let count = parts.len();
    let mut of_thread: Vec<Vec<MicroBatch>> = (0..threads).map(|_| Vec::new()).collect();
    for part in parts {
        of_thread[part.number % threads].push(part);
    }
    let lanes = Lanes::new(threads);
    std::thread::scope(|scope| {
        let mut workers = Vec::new();
        for (lane, parts) in of_thread.into_iter().enumerate() {
            // a fork has separate leaves, and so each thread has a separate graph
            let fork = model.clone().fork(&device_of(model));
            let ((give, result), (taken, was_taken)) = (sync_channel(0), sync_channel(0));
            let lanes = &lanes;
            let run = move || {
                // after the failure of another thread results are no longer received
                for part in parts {
                    // a lane is never held by a thread that waits: steps of other models use it too
                    let step = lanes.run(lane, || work.gradients(&fork, part));
                    if give.send(step).is_err() || was_taken.recv().is_err() {
                        break;
                    }
                }
            };
            workers.push((scope.spawn(run), result, taken));
        }
        for number in 0..count {
            let (_, result, taken) = &workers[number % threads];
            let Ok(step) = result.recv() else { break };
            take(step?);
            // a thread that panicked does not wait for this
            let _ = taken.send(());
        }
        for (thread, result, taken) in workers {
            drop((result, taken));
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        Ok(())
    })
}

struct MicroBatch {
    number: usize,
    weight: f64,
    /// Its rows in the batch of all processes.
    rows: Range<usize>,
    batch: Batch,
}

/// What the micro-batches of a step share.
struct Work<'a, O: Objective> {
    objective: &'a O,
    recompute: Recompute,
    context: &'a StepContext<'a>,
}

impl<O: Objective> Work<'_, O> {
    /// The weighted part of the step that a micro-batch is, computed with `model`, the model or a fork of it.
    fn gradients(&self, model: &O::Model, part: MicroBatch) -> Result<Step, TrainError> {
        let MicroBatch { weight, rows, batch, .. } = part;
        let mut metrics = Metrics::default();
        let draws = Draws { seed: self.context.seed, rows };
        let (loss, gradients) = backward(model, self.recompute, draws, || {
            let loss = self.objective.loss(model, batch, self.context)?;
            metrics = loss.metrics;
            Ok::<_, TrainError>(loss.value.mul_scalar(weight))
        })?;
        let loss = loss.try_into_scalar::<f64>().map_err(TrainError::device)?;
        Ok(Step { gradients, metrics: metrics.times(weight).with(LOSS, loss), exchange: 0.0 })
    }
}
