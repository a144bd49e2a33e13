//! BLIP-2's two stages of pretraining (arXiv:2301.12597, sections 3.2 and 3.3).
//!
//! In the first the Q-Former learns to read images by telling pairs apart, matching and writing, with no language model in
//! sight. Where every part of it is computed is in [`model::pretraining`]; here the three losses become one, and negatives
//! are drawn. In the second it learns to tell a frozen language model what it reads, by the loss of captions.
//!
//! As LAVIS has it (`blip2_qformer.py`), images and texts are compared with those of all processes, while hard negatives
//! come from all images and texts in proportion to their similarity. What departs: they are drawn on the host, from the
//! step's seed, so that a resumed run draws the same.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Tensor;
use data::random::RandomStream;
use model::Blip2;
use model::checkpoint::save_pretraining;
use model::loss::Targets;
use model::pretraining::{HardNegatives, Pairs, Pretraining, PretrainingConfig};
use model::recompute::share;

use crate::TrainError;
use crate::batch::Batch;
use crate::captioner::Captioner;
use crate::dashboard::{LOSS, MetricSpec, Metrics};
use crate::processes::{gather_ids, gather_rows};
use crate::task::{Evaluated, Loss, StepContext, Task, device_of};

/// Loss of telling which text belongs to which image.
pub const ITC: &str = "ITC loss";
/// Loss of telling pairs that belong together from others that look as if they did.
pub const ITM: &str = "ITM loss";
/// Loss of writing each text.
pub const ITG: &str = "ITG loss";
/// Share of images whose own text is the likest in the batch.
pub const RECALL_AT_1: &str = "Image-to-text R@1";

/// The first stage.
#[derive(Debug, Clone)]
pub struct FirstStage {
    /// The model.
    pub model: Pretraining,
    context: Arc<FirstStageContext>,
}

/// What the first stage needs besides weights.
#[derive(Debug, Clone)]
pub struct FirstStageContext {
    /// The model's sizes.
    pub config: PretrainingConfig,
    /// The token that a written text starts with, in the place of the class token.
    pub start: u32,
}

/// The three losses of a batch, `[1]` each, and the share of images whose own text is the likest.
pub struct Losses {
    contrast: Tensor<1>,
    matching: Tensor<1>,
    writing: Tensor<1>,
    retrieved: f64,
}

impl Losses {
    /// What is trained on.
    ///
    /// # Shapes
    /// - output: `[1]`
    pub fn sum(&self) -> Tensor<1> {
        self.contrast.clone() + self.matching.clone() + self.writing.clone()
    }
}

impl FirstStage {
    /// Joins a model and its context.
    pub fn new(model: Pretraining, context: FirstStageContext) -> Self {
        Self { model, context: Arc::new(context) }
    }

    /// The three losses. Negatives are drawn as `moment` says, or are those that `negatives` names.
    ///
    /// # Errors
    /// When the batch is not of pairs, a process is gone, or the device fails.
    pub fn losses(
        &self,
        batch: Batch,
        negatives: Option<HardNegatives>,
        step_context: &StepContext<'_>,
    ) -> Result<Losses, TrainError> {
        let Batch::Pairs { visual, texts, .. } = batch else { return Err(wrong_batch()) };
        let device = device_of(&self.model);
        let Targets { ids, mask } = texts.upload(&device);
        let own = Pairs { image: share(self.model.image_tokens(visual.upload(&device))), ids, mask };
        let contrast = self.model.itc_features(&own)?;
        let all = model::pretraining::ItcFeatures {
            image: gather_rows(step_context.processes, &contrast.image)?,
            text: gather_rows(step_context.processes, &contrast.text)?,
        };
        let [b, _] = own.ids.dims();
        let mut before = vec![0.0; step_context.processes.world_size()];
        before[step_context.processes.rank()] = b as f64;
        step_context.processes.sum(&mut before)?;
        let first = before[..step_context.processes.rank()].iter().sum::<f64>() as usize;
        let similarities = self.model.similarities(&contrast, &all);
        let by_image = rows_of(&similarities.image_to_text)?;
        let retrieved =
            by_image.iter().enumerate().filter(|(row, scores)| likest(scores) == first + row).count();
        let negatives = match negatives {
            Some(negatives) => negatives,
            None => HardNegatives {
                texts: draw(&by_image, first, step_context.seed, "texts that look as if they belonged"),
                images: draw(
                    &rows_of(&similarities.text_to_image)?,
                    first,
                    step_context.seed,
                    "images that look as if they belonged",
                ),
            },
        };
        let everyone = Pairs {
            image: gather_rows(step_context.processes, &own.image)?,
            ids: gather_ids(step_context.processes, &own.ids)?,
            mask: gather_rows(step_context.processes, &own.mask)?,
        };
        Ok(Losses {
            contrast: self.model.itc_loss(&similarities, first),
            matching: self.model.itm_loss(&own, &everyone, &negatives)?,
            writing: self.model.itg_loss(&own, self.context.start)?,
            retrieved: retrieved as f64 / b.max(1) as f64,
        })
    }
}

fn wrong_batch() -> TrainError {
    TrainError::WrongBatch { task: "the first stage of pretraining", batch: "anything but image-text pairs" }
}

/// Similarities on the host, row by row.
fn rows_of(similarities: &Tensor<2>) -> Result<Vec<Vec<f32>>, TrainError> {
    let [_, columns] = similarities.dims();
    let values = similarities.clone().without_autodiff().into_data();
    let values = values.try_to_vec::<f32>().map_err(TrainError::device)?;
    Ok(values.chunks_exact(columns.max(1)).map(<[f32]>::to_vec).collect())
}

fn likest(scores: &[f32]) -> usize {
    scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(place, _)| place)
}

/// One column a row, never the row's own, in proportion to the softmax of the row's similarities. As in LAVIS, 1e-4 is added
/// to every weight, so that a row that is sure of itself still has negatives.
fn draw(rows: &[Vec<f32>], first: usize, seed: u64, purpose: &str) -> Vec<usize> {
    let one = |(row, similarities): (usize, &Vec<f32>)| {
        let own = first + row;
        let most = similarities.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exponential = |similarity: &f32| f64::from(similarity - most).exp();
        let sum: f64 = similarities.iter().map(exponential).sum();
        let weight = |(column, similarity): (usize, &f32)| {
            if column == own { 0.0 } else { exponential(similarity) / sum + 1e-4 }
        };
        RandomStream::new(seed, purpose, own as u64).weighted(similarities.iter().enumerate().map(weight))
    };
    rows.iter().enumerate().map(one).collect()
}

impl Task for FirstStage {
    type Model = Pretraining;

    fn model(&self) -> &Pretraining {
        &self.model
    }

    fn into_model(self) -> Pretraining {
        self.model
    }

    fn with_model(&self, model: Pretraining) -> Self {
        Self { model, context: self.context.clone() }
    }

    fn weight(&self, batch: &Batch) -> f64 {
        batch.items().len() as f64
    }

    fn loss(&self, batch: Batch, step_context: &StepContext<'_>) -> Result<Loss, TrainError> {
        let losses = self.losses(batch, None, step_context)?;
        let number = |loss: &Tensor<1>| {
            loss.clone().without_autodiff().try_into_scalar::<f64>().map_err(TrainError::device)
        };
        let metrics = Metrics::one(ITC, number(&losses.contrast)?)
            .with(ITM, number(&losses.matching)?)
            .with(ITG, number(&losses.writing)?)
            .with(RECALL_AT_1, losses.retrieved);
        Ok(Loss { value: losses.sum(), metrics })
    }

    fn evaluate(&self, batch: Batch) -> Result<Evaluated, TrainError> {
        let step_context = StepContext { seed: 0, processes: &crate::processes::SingleProcess };
        let Loss { value, metrics } = self.loss(batch, &step_context)?;
        let value = value.try_into_scalar::<f64>().map_err(TrainError::device)?;
        Ok(Evaluated { written: Vec::new(), metrics: metrics.with(LOSS, value) })
    }

    fn export(&self, directory: &Path) -> Result<(), TrainError> {
        Ok(save_pretraining(&self.model, directory)?)
    }

    /// Every pair is a negative of every other.
    fn can_split(&self) -> bool {
        false
    }

    fn metrics(&self) -> Vec<MetricSpec> {
        [(LOSS, false), (ITC, false), (ITM, false), (ITG, false), (RECALL_AT_1, true)]
            .map(|(name, higher_is_better)| MetricSpec::new(name, higher_is_better))
            .to_vec()
    }
}

/// The second stage: a captioner that is also measured by the loss of held-out captions, where a batch has them.
#[derive(Debug, Clone)]
pub struct SecondStage(pub Captioner);

impl Task for SecondStage {
    type Model = Blip2;

    fn model(&self) -> &Blip2 {
        self.0.model()
    }

    fn into_model(self) -> Blip2 {
        self.0.into_model()
    }

    fn with_model(&self, model: Blip2) -> Self {
        Self(self.0.with_model(model))
    }

    fn weight(&self, batch: &Batch) -> f64 {
        self.0.weight(batch)
    }

    fn loss(&self, batch: Batch, step_context: &StepContext<'_>) -> Result<Loss, TrainError> {
        self.0.loss(batch, step_context)
    }

    fn evaluate(&self, batch: Batch) -> Result<Evaluated, TrainError> {
        let loss = match &batch {
            Batch::Caption { captions: Some(_), .. } => Some(self.0.cross_entropy(batch.clone())?),
            _ => None,
        };
        let mut evaluated = self.0.evaluate(batch)?;
        if let Some(loss) = loss {
            let loss = loss.try_into_scalar::<f64>().map_err(TrainError::device)?;
            evaluated.metrics = evaluated.metrics.with(LOSS, loss);
        }
        Ok(evaluated)
    }

    fn export(&self, directory: &Path) -> Result<(), TrainError> {
        self.0.export(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::SingleProcess;
    use crate::testing::{captioner, first_stage, language_models, pairs};

    #[test]
    fn the_second_stage_measures_the_loss_and_writes() {
        let stage = SecondStage(captioner(language_models(0.0).remove(0), 3));
        let batch = crate::testing::batch(&[0, 1, 2]);
        let expected = stage.0.cross_entropy(batch.clone()).unwrap().into_scalar::<f64>();
        let evaluated = stage.evaluate(batch).unwrap();
        assert_eq!((evaluated.metrics.get(LOSS), evaluated.written.len()), (Some(expected), 3));
        let text = crate::HostTokens::pad(&[vec![4, 1]]);
        let text = Batch::Text { source: text.clone(), target: text, items: vec![0] };
        assert!(stage.evaluate(text).unwrap().metrics.get(LOSS).is_some());
    }

    #[test]
    fn negatives_are_never_the_pairs_own_and_likelier_the_more_alike() {
        let similarities = vec![vec![9.0, 2.0, 2.0, -5.0], vec![0.0, 9.0, 3.0, 0.0]];
        let mut counts = [[0_u32; 4]; 2];
        for seed in 0..2000 {
            for (row, column) in draw(&similarities, 0, seed, "test").into_iter().enumerate() {
                counts[row][column] += 1;
            }
        }
        assert_eq!((counts[0][0], counts[1][1]), (0, 0), "never its own, however alike");
        // 1e-4 and twice softmax(9, 2, 2, -5) at 2, which is 9.1e-4: 0.05 of the draws go to the unlike one
        assert!(counts[0][1].abs_diff(counts[0][2]) < 150, "{counts:?}");
        assert!((60..160).contains(&counts[0][3]), "{counts:?}");
        // the softmax of (0, 9, 3, 0) is 1.2e-4, 0.997, 2.5e-3, 1.2e-4: 0.85 of the draws go to the third
        assert!((1600..1800).contains(&counts[1][2]), "{counts:?}");
        let shifted = draw(&similarities, 2, 1, "test");
        assert!(shifted[0] != 2 && shifted[1] != 3, "the first row stands for pair 2: {shifted:?}");
    }

    #[test]
    fn the_loss_is_the_sum_of_three_and_other_batches_are_refused() {
        let stage = first_stage(4);
        let step_context = StepContext { seed: 1, processes: &SingleProcess };
        let Loss { value, metrics } = stage.loss(pairs(&[0, 1, 2, 3]), &step_context).unwrap();
        let sum: f64 = [ITC, ITM, ITG].iter().map(|name| metrics.get(name).unwrap()).sum();
        assert!((value.into_scalar::<f64>() - sum).abs() < 1e-5);
        let retrieved = metrics.get(RECALL_AT_1).unwrap() * 4.0;
        assert!(retrieved.fract() == 0.0 && (0.0..=4.0).contains(&retrieved));
        let error = stage.loss(crate::testing::batch(&[0]), &step_context).unwrap_err();
        assert!(error.to_string().contains("image-text pairs"), "{error}");
    }

    #[test]
    fn the_same_moment_draws_the_same_negatives() {
        let stage = first_stage(5);
        let loss = |seed| {
            let step_context = StepContext { seed, processes: &SingleProcess };
            stage.loss(pairs(&[0, 1, 2, 3, 4, 5]), &step_context).unwrap().metrics.get(ITM).unwrap()
        };
        assert_eq!(loss(3), loss(3));
        assert!((0..20).any(|seed| loss(seed) != loss(3)), "another seed draws others");
    }
}
