//! Cross-entropy of captions: fine-tuning, question answering and the second stage of pretraining. Questions,
//! and the first part of a caption in the second stage, are prompts of their own for each row.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Tensor;
use captioner::host::device_of;
use captioner::{Context, HostPrompts, HostTokens, HostVisual};
use model::Blip2;
use model::checkpoint::{self, Trained};
use model::lm::Prefix;
use model::loss::{Targets, cross_entropy, token_log_probabilities};

use crate::metrics::{LOSS, Metrics};
use crate::objective::{Evaluation, Loss, Objective, StepContext};
use crate::prediction::Prediction;
use crate::{Batch, TrainError};

/// Mean cross-entropy over the tokens of a batch.
#[derive(Debug, Clone)]
pub struct CrossEntropy {
    /// Tokenizer, prompt and generation settings.
    pub context: Context,
    /// Share of the target's probability that is spread over all tokens.
    pub label_smoothing: f64,
    /// Whether an evaluation also computes the loss of captions, where a batch has them.
    pub evaluates_loss: bool,
    /// What a run with frozen parts trains: the best weights are saved without the others. Without it they
    /// are saved whole.
    pub trained: Option<Arc<Trained>>,
}

impl CrossEntropy {
    /// The objective with the label smoothing of training; an evaluation generates captions only.
    pub fn new(context: Context, label_smoothing: f64) -> Self {
        Self { context, label_smoothing, evaluates_loss: false, trained: None }
    }

    /// The same, saving only what the run trains.
    #[must_use]
    pub fn saving(self, trained: Arc<Trained>) -> Self {
        Self { trained: Some(trained), ..self }
    }

    /// Mean loss over the batch's tokens.
    ///
    /// # Shapes
    /// - output: `[1]`
    ///
    /// # Errors
    /// When a batch has no captions, or an instruction that the model cannot read.
    pub fn mean(&self, model: &Blip2, batch: Batch) -> Result<Tensor<1>, TrainError> {
        let device = device_of(model);
        let (logits, targets) = match batch {
            Batch::Caption { visual, prompts, captions, .. } => {
                let visual = visual.upload(&device);
                let prompt = self.context.prompt(prompts, visual.batch_size(), &device);
                logits(model, model.prefix(visual, &prompt)?, captions)?
            }
            Batch::Text { source, target, .. } => {
                let (source, targets) = (source.upload(&device), target.upload(&device));
                let lm = &model.language_model;
                let prefix = Prefix { embedded: lm.embed(source.ids), mask: Some(source.mask) };
                (lm.score(prefix, targets.ids.clone())?, targets)
            }
            Batch::Pairs { .. } => {
                return Err(TrainError::WrongBatch { task: "captioning", batch: "image-text pairs" });
            }
        };
        Ok(cross_entropy(logits, &targets, self.label_smoothing))
    }
}

/// Mean over a batch's rows of the mean loss over each row's tokens: rows have equal weight, whatever their
/// length.
///
/// # Shapes
/// - output: `[1]`
///
/// # Errors
/// When there are no captions, or one is longer than the language model's positions.
pub(crate) fn mean_by_row(
    model: &Blip2,
    prefix: Prefix,
    captions: Option<HostTokens>,
) -> Result<Tensor<1>, TrainError> {
    let (logits, targets) = logits(model, prefix, captions)?;
    let sums = (token_log_probabilities(logits, targets.ids) * targets.mask.clone()).sum_dim(1);
    Ok((sums / targets.mask.sum_dim(1).clamp_min(1.0)).mean().neg())
}

/// Logits of the captions' tokens, and the captions on the device.
fn logits(
    model: &Blip2,
    prefix: Prefix,
    captions: Option<HostTokens>,
) -> Result<(Tensor<3>, Targets), TrainError> {
    let targets = captions.ok_or(TrainError::NoTargets)?.upload(&device_of(model));
    Ok((model.language_model.score(prefix, targets.ids.clone())?, targets))
}

/// Generates the caption, or the answer, of each row of a batch.
///
/// # Errors
/// When the device or the tokenizer fails.
pub fn predict(
    context: &Context,
    model: &Blip2,
    visual: HostVisual,
    prompts: Option<HostPrompts>,
    items: &[usize],
) -> Result<Vec<Prediction>, TrainError> {
    // sampling draws from a stream of each example, whatever else is in the batch
    let streams = items.iter().map(|&item| item as u64).collect();
    let captions = context.generate(model, visual, prompts, streams)?;
    let prediction = |(&item, captions): (&usize, Vec<captioner::Caption>)| {
        let best = captions.into_iter().next()?;
        Some(Prediction { item, caption: best.text, log_probability: best.log_probability })
    };
    Ok(items.iter().zip(captions).filter_map(prediction).collect())
}

impl Objective for CrossEntropy {
    type Model = Blip2;

    fn weight(&self, batch: &Batch) -> f64 {
        batch.target_tokens()
    }

    fn loss(&self, model: &Blip2, batch: Batch, _: &StepContext<'_>) -> Result<Loss, TrainError> {
        self.mean(model, batch).map(Loss::from)
    }

    fn evaluate(&self, model: &Blip2, batch: Batch) -> Result<Evaluation, TrainError> {
        let has_loss = match &batch {
            Batch::Caption { captions, .. } => self.evaluates_loss && captions.is_some(),
            _ => true,
        };
        let loss = if has_loss { Some(self.mean(model, batch.clone())?) } else { None };
        let loss = loss.map(|loss| loss.try_into_scalar::<f64>().map_err(TrainError::device)).transpose()?;
        let metrics = loss.map_or_else(Metrics::default, |loss| Metrics::one(LOSS, loss));
        let predictions = match batch {
            Batch::Caption { visual, prompts, items, .. } => {
                predict(&self.context, model, visual, prompts, &items)?
            }
            _ => Vec::new(),
        };
        Ok(Evaluation { predictions, metrics })
    }

    fn save(&self, model: &Blip2, directory: &Path) -> Result<(), TrainError> {
        let config = &self.context.config;
        let saved = match &self.trained {
            Some(trained) => checkpoint::save_trained(model, config, trained, directory),
            None => checkpoint::save(model, config, directory),
        };
        Ok(saved?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{blip2, language_models};

    #[test]
    fn an_evaluation_with_losses_generates_too() {
        let (model, context) = blip2(language_models(0.0).remove(0), 3);
        let objective = CrossEntropy { evaluates_loss: true, ..CrossEntropy::new(context, 0.0) };
        let batch = crate::testing::batch(&[0, 1, 2]);
        let expected = objective.mean(&model, batch.clone()).unwrap().into_scalar::<f64>();
        let evaluated = objective.evaluate(&model, batch).unwrap();
        assert_eq!((evaluated.metrics.get(LOSS), evaluated.predictions.len()), (Some(expected), 3));
        let text = HostTokens::pad(&[vec![4, 1]]);
        let text = Batch::Text { source: text.clone(), target: text, items: vec![0] };
        assert!(objective.evaluate(&model, text).unwrap().metrics.get(LOSS).is_some());
    }
}
