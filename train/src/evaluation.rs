//! Measuring a model on a split: captions are written to a file first and scored then, so that a failing score loses
//! nothing. Selection is made on the validation split; the test split is scored once, for the selected model.

use std::path::Path;
use std::sync::Arc;

use data::datasets::Split;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::dashboard::{LOSS, Metrics};
use crate::loader::{Examples, Loader, Sampler};
use crate::processes::ProcessGroup;
use crate::task::Task;
use crate::{TrainError, files};

/// A caption that the model wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Index of the example in its split.
    pub item: usize,
    /// The text.
    pub caption: String,
    /// Sum of the tokens' log-probabilities.
    pub log_probability: f32,
}

/// Scores what a model wrote.
pub trait Scorer: Send + Sync {
    /// Names of the figures that [`judge`](Self::judge) gives; the dashboard shows them in this order.
    fn names(&self) -> Vec<String>;

    /// What the predictions' file lists, with the examples' names; COCO results where nothing else is said.
    fn results(&self, written: &[Prediction], ids: &[String]) -> Vec<Value> {
        coco_results(written, ids)
    }

    /// Scores a whole split.
    ///
    /// # Errors
    /// When the captions cannot be scored.
    fn score_predictions(&self, written: &[Prediction]) -> Result<Metrics, TrainError>;
}

/// A split that a model is measured on.
#[derive(Clone)]
pub struct Validation {
    /// Which one; a run refuses to select on the test split.
    pub split: Split,
    /// The examples.
    pub examples: Arc<dyn Examples>,
    /// Name of each example, for the predictions' file.
    pub ids: Vec<String>,
    /// Scores captions; without it the means of what the task measures are the only figures.
    pub scorer: Option<Arc<dyn Scorer>>,
    /// Examples at a time.
    pub batch_size: usize,
}

impl Validation {
    /// Names of the figures that measuring gives.
    pub fn names(&self) -> Vec<String> {
        match &self.scorer {
            Some(scorer) => scorer.names(),
            None => vec![LOSS.to_owned()],
        }
    }
}

/// What an evaluation gave.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Scores.
    pub metrics: Metrics,
    /// One caption an example, in order.
    pub written: Vec<Prediction>,
}

/// Measures a model in evaluation on a split; nothing when `go_on`, told of the examples done, says so before the end.
///
/// # Errors
/// When an example cannot be had, the device fails, the predictions cannot be written, or they cannot be scored.
pub fn evaluate<T: Task>(
    task: &T,
    set: &Validation,
    processes: &Arc<dyn ProcessGroup>,
    predictions: Option<&Path>,
    mut go_on: impl FnMut(usize) -> Result<bool, TrainError>,
) -> Result<Option<Measured>, TrainError> {
    let loader = Loader::new(set.examples.clone(), set.batch_size, Sampler::Sequential, processes.clone());
    let (mut written, mut means, mut done) = (Vec::new(), Metrics::default(), 0);
    for batch in loader.once() {
        let batch = batch?;
        let items = batch.items().len();
        // the last batch may have fewer rows than there are processes
        if items > 0 {
            let mut part = task.evaluate(batch)?;
            written.append(&mut part.written);
            means.add(&part.metrics.times(items as f64));
            done += items;
        }
        if !go_on(done)? {
            return Ok(None);
        }
    }
    let mut count = [done as f64];
    processes.sum(&mut count)?;
    means.sum_over(&**processes)?;
    let mut metrics = means.times(1.0 / count[0].max(1.0));
    let written = gather_written(&**processes, written)?;
    if processes.rank() == 0
        && !written.is_empty()
        && let Some(path) = predictions
    {
        let results = match &set.scorer {
            Some(scorer) => scorer.results(&written, &set.ids),
            None => coco_results(&written, &set.ids),
        };
        files::replace_json(path, &results)?;
    }
    if let Some(scorer) = &set.scorer {
        metrics.extend(scorer.score_predictions(&written)?);
    }
    Ok(Some(Measured { metrics, written }))
}

/// What all processes wrote, in the examples' order.
fn gather_written(processes: &dyn ProcessGroup, own: Vec<Prediction>) -> Result<Vec<Prediction>, TrainError> {
    if processes.world_size() == 1 {
        return Ok(own);
    }
    let unreadable = |error: serde_json::Error| TrainError::Data(format!("captions of a process: {error}"));
    let mut all: Vec<Prediction> = Vec::new();
    for part in processes.gather(serde_json::to_vec(&own).map_err(unreadable)?)? {
        all.extend(serde_json::from_slice::<Vec<Prediction>>(&part).map_err(unreadable)?);
    }
    all.sort_by_key(|written| written.item);
    Ok(all)
}

fn coco_results(written: &[Prediction], ids: &[String]) -> Vec<Value> {
    let result =
        |written: &Prediction| json!({ "image_id": ids.get(written.item), "caption": written.caption });
    written.iter().map(result).collect()
}
