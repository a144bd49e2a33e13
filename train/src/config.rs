//! Training settings.

use model::recompute::Recompute;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::freezing::Freezing;
use crate::metrics::{BLEU_4, CIDER, LOSS, Metrics};
use crate::schedule::{Schedule, Shape};

/// Training settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the training examples.
    pub epochs: usize,
    /// Steps of the whole run; replaces `epochs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Steps between two evaluations; an epoch by default. The last step is always evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluate_every: Option<usize>,
    /// Examples per step.
    pub batch_size: usize,
    /// Threads that make batches ahead of time, each a whole batch; two more batches wait. With 0 a batch is
    /// made when it is needed. It changes no result, so it is not saved and is no part of a run's identity.
    #[serde(skip_serializing)]
    pub workers: usize,
    /// Whether batches are made of examples of similar length, to reduce padding.
    pub group_by_length: bool,
    /// Micro-batches per batch, whose gradients are accumulated. On the CPU they run in parallel.
    pub micro_batches: usize,
    /// Activation checkpointing: blocks that are recomputed in the backward pass, for less memory and more
    /// time.
    pub recompute: Recompute,
    /// Whether several processes send their gradients to each other in bf16, in half the bytes, not in f32.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub bf16_transfer: bool,
    /// Learning-rate schedule.
    pub schedule: Shape,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Learning rate of the last step.
    pub min_learning_rate: f64,
    /// Learning rate at the start of the warm-up.
    pub warmup_learning_rate: f64,
    /// Steps of the warm-up.
    pub warmup_steps: usize,
    /// Weight decay of matrices; biases, norms and other one-dimensional tensors have none.
    pub weight_decay: f64,
    /// AdamW's decay rate of the first moment.
    pub beta_1: f64,
    /// AdamW's decay rate of the second moment.
    pub beta_2: f64,
    /// AdamW's epsilon.
    pub epsilon: f64,
    /// Maximum joint norm of the gradients; 0 for no limit, as in the authors' code.
    pub max_grad_norm: f64,
    /// Label smoothing: share of the target's probability that is spread over all tokens.
    pub label_smoothing: f64,
    /// Steps between saved states.
    pub save_every: usize,
    /// Maximum minutes between saved states.
    pub save_minutes: f64,
    /// Saved states that are kept, besides the weights of the best evaluation.
    pub keep_checkpoints: usize,
    /// Validation metric, or sum of metrics, that selects the best evaluation.
    pub select: SelectionMetric,
    /// Early stopping: evaluations without improvement after which the run ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<usize>,
    /// Which parameters are trained, and how fast.
    pub parameters: Freezing,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 10,
            steps: None,
            evaluate_every: None,
            batch_size: 32,
            workers: 2,
            group_by_length: false,
            micro_batches: 1,
            recompute: Recompute::default(),
            bf16_transfer: false,
            schedule: Shape::Cosine,
            learning_rate: 1e-3,
            min_learning_rate: 1e-4,
            warmup_learning_rate: 0.0,
            warmup_steps: 30,
            weight_decay: 0.05,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            max_grad_norm: 1.0,
            label_smoothing: 0.0,
            save_every: 500,
            save_minutes: 10.0,
            keep_checkpoints: 2,
            select: SelectionMetric::default(),
            patience: None,
            parameters: Freezing::default(),
        }
    }
}

impl TrainConfig {
    /// Steps of the run, with `batches` batches an epoch.
    pub fn total_steps(&self, batches: usize) -> usize {
        self.steps.unwrap_or(self.epochs * batches)
    }

    /// Steps from one evaluation to the next.
    pub fn evaluation_interval(&self, batches: usize) -> usize {
        self.evaluate_every.unwrap_or(batches).max(1)
    }

    /// The learning rates of the run.
    pub fn learning_rates(&self, batches: usize) -> Schedule {
        Schedule {
            shape: self.schedule,
            first: self.warmup_learning_rate,
            peak: self.learning_rate,
            last: self.min_learning_rate,
            warmup: self.warmup_steps,
            total: self.total_steps(batches),
            // LAVIS's iteration runner calls the steps between two evaluations an epoch
            epoch: self.evaluation_interval(batches),
        }
    }
}

/// The metric, or sum of metrics, that selects the best evaluation: `cider`, or the authors' `cider+bleu4`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectionMetric(Vec<String>);

impl Default for SelectionMetric {
    fn default() -> Self {
        Self(vec![CIDER.to_owned()])
    }
}

impl SelectionMetric {
    /// The mean loss on the validation split; lower is better.
    pub fn loss() -> Self {
        Self(vec![LOSS.to_owned()])
    }

    /// Parses names joined by `+`; case and dashes of the published metrics' names are ignored.
    pub fn parse(text: &str) -> Self {
        let plain = |name: &str| name.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "");
        let name = |word: &str| {
            let known = [CIDER, BLEU_4, LOSS].into_iter().find(|known| plain(known) == plain(word));
            known.unwrap_or(word.trim()).to_owned()
        };
        Self(text.split('+').map(name).collect())
    }

    /// Value of an evaluation; higher is better.
    ///
    /// # Errors
    /// The name of a metric that the evaluation does not have.
    pub fn value(&self, metrics: &Metrics) -> Result<f64, String> {
        let each = self.0.iter().map(|name| {
            // a lower loss is better
            let sign = if name == LOSS { -1.0 } else { 1.0 };
            metrics.get(name).map(|value| sign * value).ok_or_else(|| name.clone())
        });
        each.sum()
    }
}

impl std::fmt::Display for SelectionMetric {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0.join("+"))
    }
}

impl Serialize for SelectionMetric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SelectionMetric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::parse(&String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_selected_by_a_metric_or_a_sum_and_a_lower_loss_is_better() {
        let metrics = Metrics::one(CIDER, 0.5).with(BLEU_4, 0.25).with(LOSS, 2.0).with("event", 0.125);
        assert_eq!(SelectionMetric::parse("cider").value(&metrics), Ok(0.5));
        assert_eq!(SelectionMetric::parse("cider+bleu4"), SelectionMetric::parse("CIDEr+BLEU-4"));
        assert_eq!(SelectionMetric::parse("cider+bleu4").value(&metrics), Ok(0.75));
        assert_eq!(SelectionMetric::loss().value(&metrics), Ok(-2.0));
        assert_eq!(SelectionMetric::parse("event").value(&metrics), Ok(0.125));
        assert_eq!(SelectionMetric::parse("cider+spice").value(&metrics), Err("spice".to_owned()));
    }

    #[test]
    fn the_number_of_workers_is_read_and_is_no_part_of_a_runs_identity() {
        let read: TrainConfig = serde_json::from_str(r#"{ "workers": 6 }"#).unwrap();
        assert_eq!((read.workers, TrainConfig::default().workers), (6, 2));
        assert_eq!(
            serde_json::to_string(&read).unwrap(),
            serde_json::to_string(&TrainConfig::default()).unwrap()
        );
    }

    #[test]
    fn a_run_is_as_long_as_its_epochs_or_its_steps() {
        let config = TrainConfig { epochs: 3, ..TrainConfig::default() };
        assert_eq!((config.total_steps(7), config.evaluation_interval(7)), (21, 7));
        let config = TrainConfig { steps: Some(10), evaluate_every: Some(4), ..config };
        assert_eq!((config.total_steps(7), config.evaluation_interval(7)), (10, 4));
    }
}
