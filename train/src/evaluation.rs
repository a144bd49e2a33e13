//! Evaluation of a model on a split. Predictions are saved before they are scored, so that a failing scorer
//! loses nothing. The best model is selected on the validation split; the test split is scored once.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use captioner::{Context, Videos};
use data::datasets::Split;
use data::files;
use data::loader::Order;
use model::Blip2;

use crate::cross_entropy::CrossEntropy;
use crate::loader::{Examples, Loader};
use crate::metrics::{LOSS, MetricSpec, Metrics};
use crate::objective::{Evaluation, Objective};
use crate::prediction::{Prediction, Scorer, coco_results};
use crate::processes::{ProcessGroup, SingleProcess, agree, gather_json};
use crate::{Batch, TrainError};

/// A split for evaluation.
#[derive(Clone)]
pub struct Validation {
    /// Which split; a run must not select on the test split.
    pub split: Split,
    /// The examples.
    pub examples: Arc<dyn Examples>,
    /// Id of each example, for the predictions' file.
    pub ids: Vec<String>,
    /// Scores the predictions; without it the metrics are those of the objective alone.
    pub scorer: Option<Arc<dyn Scorer>>,
    /// Examples per batch.
    pub batch_size: usize,
}

impl Validation {
    /// Captions of every clip of a split.
    pub fn of_videos(videos: Videos, split: Split, scorer: Arc<dyn Scorer>, batch_size: usize) -> Self {
        let ids = videos.ids().to_vec();
        Self { split, ids, examples: Arc::new(videos), scorer: Some(scorer), batch_size }
    }

    /// The metrics of an evaluation.
    pub(crate) fn metrics(&self) -> Vec<MetricSpec> {
        let names = match &self.scorer {
            Some(scorer) => scorer.names(),
            None => vec![LOSS.to_owned()],
        };
        names.iter().map(|name| MetricSpec::new(name, name != LOSS)).collect()
    }
}

/// Generates and scores the captions of a split, each process those of whole batches; the first saves the
/// predictions to `path` if there is one.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_captions(
    context: &Context,
    model: &Blip2,
    split: &Validation,
    path: Option<&Path>,
    processes: &Arc<dyn ProcessGroup>,
) -> Result<Evaluation, TrainError> {
    let objective = CrossEntropy::new(context.clone(), 0.0);
    Ok(evaluate(&objective, model, split, processes, path, |_| Ok(true))?.unwrap_or_default())
}

/// Evaluates a model, which must not be in training, on a split. `go_on` is called with the number of
/// examples done after each batch; the result is `None` if it returned false.
///
/// # Errors
/// When an example cannot be loaded, the device fails, or the predictions cannot be saved or scored.
pub fn evaluate<O: Objective>(
    objective: &O,
    model: &O::Model,
    split: &Validation,
    processes: &Arc<dyn ProcessGroup>,
    path: Option<&Path>,
    mut go_on: impl FnMut(usize) -> Result<bool, TrainError>,
) -> Result<Option<Evaluation>, TrainError> {
    let examples = Arc::new(WholeBatches {
        examples: split.examples.clone(),
        batch_size: split.batch_size.max(1),
        processes: processes.clone(),
    });
    let loader = Loader::new(examples, split.batch_size, Order::Sequential, Arc::new(SingleProcess));
    let (mut predictions, mut sums, mut done) = (Vec::new(), Metrics::default(), 0);
    for batch in loader.once() {
        // another process evaluates it
        let evaluate = |batch: Batch| match batch.items().len() {
            0 => Ok((0, Evaluation::default())),
            items => Ok((items, objective.evaluate(model, batch)?)),
        };
        let (items, mut evaluated) = agree(&**processes, batch.and_then(evaluate))?;
        predictions.append(&mut evaluated.predictions);
        sums.add(&evaluated.metrics.times(items as f64));
        done += items;
        if !go_on(done)? {
            return Ok(None);
        }
    }
    let mut count = [done as f64];
    processes.sum(&mut count)?;
    sums.sum_over(&**processes)?;
    let mut metrics = sums.times(1.0 / count[0].max(1.0));
    let predictions = gather_predictions(&**processes, predictions)?;
    let saved = match path.filter(|_| processes.rank() == 0 && !predictions.is_empty()) {
        Some(path) => {
            let results = match &split.scorer {
                Some(scorer) => scorer.results(&predictions, &split.ids),
                None => coco_results(&predictions, &split.ids),
            };
            files::replace_json(path, &results).map_err(TrainError::from)
        }
        None => Ok(()),
    };
    agree(&**processes, saved)?;
    if let Some(scorer) = &split.scorer {
        metrics.extend(agree(&**processes, scorer.score_predictions(&predictions))?);
    }
    Ok(Some(Evaluation { metrics, predictions }))
}

/// Every batch is evaluated whole by one process, so that means over a batch do not depend on their number:
/// the others get none of its rows.
struct WholeBatches {
    examples: Arc<dyn Examples>,
    batch_size: usize,
    processes: Arc<dyn ProcessGroup>,
}

impl Examples for WholeBatches {
    fn len(&self) -> usize {
        self.examples.len()
    }

    fn batch(&self, epoch: usize, items: &[usize], _own: Range<usize>) -> Result<Batch, TrainError> {
        // batches are in the examples' order
        let number = items.first().map_or(0, |first| first / self.batch_size);
        let is_own = number % self.processes.world_size() == self.processes.rank();
        self.examples.batch(epoch, items, 0..if is_own { items.len() } else { 0 })
    }

    fn name(&self, item: usize) -> String {
        self.examples.name(item)
    }
}

/// The predictions of all processes, in the examples' order.
fn gather_predictions(
    processes: &dyn ProcessGroup,
    own: Vec<Prediction>,
) -> Result<Vec<Prediction>, TrainError> {
    let mut all: Vec<Prediction> = gather_json(processes, own, "captions")?.into_iter().flatten().collect();
    all.sort_by_key(|prediction| prediction.item);
    Ok(all)
}
