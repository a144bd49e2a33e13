//! Captions or answers that a model generated, and how they are scored.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::TrainError;
use crate::metrics::Metrics;

/// A generated caption or answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Index of the example in its split.
    pub item: usize,
    /// The text.
    pub caption: String,
    /// Sum of the tokens' log-probabilities, in nats.
    pub log_probability: f32,
}

/// Scores the predictions of a split.
pub trait Scorer: Send + Sync {
    /// Names of the metrics that [`score_predictions`](Self::score_predictions) returns, in the dashboard's
    /// order.
    fn names(&self) -> Vec<String>;

    /// The entries of the predictions' file; COCO results by default. `ids` names the examples.
    fn results(&self, predictions: &[Prediction], ids: &[String]) -> Vec<Value> {
        coco_results(predictions, ids)
    }

    /// Scores a whole split.
    ///
    /// # Errors
    /// When the predictions cannot be scored.
    fn score_predictions(&self, predictions: &[Prediction]) -> Result<Metrics, TrainError>;
}

pub(crate) fn coco_results(predictions: &[Prediction], ids: &[String]) -> Vec<Value> {
    let result = |one: &Prediction| json!({ "image_id": ids.get(one.item), "caption": one.caption });
    predictions.iter().map(result).collect()
}
