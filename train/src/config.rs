//! How a model is trained, typed.

use model::recompute::Recompute;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::dashboard::{BLEU_4, CIDER, LOSS, Metrics};
use crate::freezing::Freezing;
use crate::schedule::{Schedule, Shape};

/// How a model is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the training examples.
    pub epochs: usize,
    /// Steps of the whole run, where that is not a number of epochs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Steps between two evaluations; one an epoch where it is not given. The last step is always evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluate_every: Option<usize>,
    /// Examples a step.
    pub batch_size: usize,
    /// Whether examples of similar length are put together, so that little of a batch is padding.
    pub group_by_length: bool,
    /// Parts that a batch is split into, whose gradients are added up. On the CPU they run side by side.
    pub micro_batches: usize,
    /// Blocks that are computed a second time in the backward pass, which takes less memory and more time.
    pub recompute: Recompute,
    /// Curve of the learning rate.
    pub schedule: Shape,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Learning rate of the last step.
    pub min_learning_rate: f64,
    /// Learning rate that the warm-up starts from.
    pub warmup_learning_rate: f64,
    /// Steps in which the rate rises.
    pub warmup_steps: usize,
    /// Decay of matrices; biases, norms and other one-dimensional tensors never decay.
    pub weight_decay: f64,
    /// AdamW's first moment.
    pub beta_1: f64,
    /// AdamW's second moment.
    pub beta_2: f64,
    /// AdamW's epsilon.
    pub epsilon: f64,
    /// Largest joint norm of the gradients; 0 for no limit, as the authors have it.
    pub max_grad_norm: f64,
    /// Share of the target's probability spread over all tokens.
    pub label_smoothing: f64,
    /// Steps between saved states.
    pub save_every: usize,
    /// Minutes after which a state is saved in any case.
    pub save_minutes: f64,
    /// Saved states that are kept, the best evaluation's aside.
    pub keep: usize,
    /// Figures of the validation whose sum chooses the best evaluation.
    pub select: Selection,
    /// Evaluations without a better one after which the run ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<usize>,
    /// What is trained, and how fast.
    pub parameters: Freezing,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 10,
            steps: None,
            evaluate_every: None,
            batch_size: 32,
            group_by_length: false,
            micro_batches: 1,
            recompute: Recompute::default(),
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
            keep: 2,
            select: Selection::default(),
            patience: None,
            parameters: Freezing::default(),
        }
    }
}

impl TrainConfig {
    /// Steps of the run over epochs of so many batches.
    pub fn total_steps(&self, batches: usize) -> usize {
        self.steps.unwrap_or(self.epochs * batches)
    }

    /// Steps from one evaluation to the next.
    pub fn round(&self, batches: usize) -> usize {
        self.evaluate_every.unwrap_or(batches).max(1)
    }

    /// The learning rates of the run.
    pub fn rates(&self, batches: usize) -> Schedule {
        Schedule {
            shape: self.schedule,
            first: self.warmup_learning_rate,
            peak: self.learning_rate,
            last: self.min_learning_rate,
            warmup: self.warmup_steps,
            total: self.total_steps(batches),
            // LAVIS's iteration runner calls the steps between two evaluations an epoch
            epoch: self.round(batches),
        }
    }
}

/// The figure, or the sum of figures, that the best evaluation is chosen by: `cider`, or the authors' `cider+bleu4`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection(Vec<String>);

impl Default for Selection {
    fn default() -> Self {
        Self(vec![CIDER.to_owned()])
    }
}

impl Selection {
    /// By the mean loss on the validation split, the lowest first.
    pub fn loss() -> Self {
        Self(vec![LOSS.to_owned()])
    }

    /// Reads names joined by `+`; those of the published metrics may be written in small letters, without dashes.
    pub fn parse(text: &str) -> Self {
        let name = |word: &str| {
            let plain: String = word.chars().filter(char::is_ascii_alphanumeric).collect();
            let known = [CIDER, BLEU_4, LOSS].into_iter().find(|known| {
                known
                    .chars()
                    .filter(char::is_ascii_alphanumeric)
                    .collect::<String>()
                    .eq_ignore_ascii_case(&plain)
            });
            known.map_or_else(|| word.trim().to_owned(), str::to_owned)
        };
        Self(text.split('+').map(name).collect())
    }

    /// How good an evaluation is: higher is better.
    ///
    /// # Errors
    /// The name of a figure that the evaluation does not give.
    pub fn value(&self, metrics: &Metrics) -> Result<f64, String> {
        let each = self.0.iter().map(|name| {
            // a loss is better when it is lower, every other figure when it is higher
            let sign = if name == LOSS { -1.0 } else { 1.0 };
            metrics.get(name).map(|value| sign * value).ok_or_else(|| name.clone())
        });
        each.sum()
    }
}

impl std::fmt::Display for Selection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0.join("+"))
    }
}

impl Serialize for Selection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::parse(&String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_chosen_by_a_figure_or_by_a_sum_and_a_loss_counts_downwards() {
        let metrics = Metrics::one(CIDER, 0.5).with(BLEU_4, 0.25).with(LOSS, 2.0).with("event", 0.125);
        assert_eq!(Selection::parse("cider").value(&metrics), Ok(0.5));
        assert_eq!(Selection::parse("cider+bleu4"), Selection::parse("CIDEr+BLEU-4"));
        assert_eq!(Selection::parse("cider+bleu4").value(&metrics), Ok(0.75));
        assert_eq!(Selection::loss().value(&metrics), Ok(-2.0));
        assert_eq!(Selection::parse("event").value(&metrics), Ok(0.125));
        assert_eq!(Selection::parse("cider+spice").value(&metrics), Err("spice".to_owned()));
    }

    #[test]
    fn a_run_is_as_long_as_its_epochs_or_its_steps() {
        let config = TrainConfig { epochs: 3, ..TrainConfig::default() };
        assert_eq!((config.total_steps(7), config.round(7)), (21, 7));
        let config = TrainConfig { steps: Some(10), evaluate_every: Some(4), ..config };
        assert_eq!((config.total_steps(7), config.round(7)), (10, 4));
    }
}
