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
use data::random::Draws;
use model::Blip2;
use model::checkpoint::save_pretraining;
use model::loss::Targets;
use model::pretraining::{HardNegatives, Pairs, Pretraining, PretrainingConfig};
use model::recompute::share;

use crate::TrainError;
use crate::batch::Batch;
use crate::captioner::Captioner;
use crate::dashboard::{Figure, Figures, LOSS};
use crate::processes::{gather_ids, gather_rows};
use crate::task::{Evaluated, Loss, Moment, Task, device_of};

/// Loss of telling which text belongs to which image.
pub const CONTRAST: &str = "Contrast";
/// Loss of telling pairs that belong together from others that look as if they did.
pub const MATCHING: &str = "Matching";
/// Loss of writing each text.
pub const WRITING: &str = "Writing";
/// Share of images whose own text is the likest in the batch.
pub const RETRIEVED: &str = "Retrieved";

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
        moment: &Moment<'_>,
    ) -> Result<Losses, TrainError> {
        let Batch::Pairs { visual, texts, .. } = batch else { return Err(wrong_batch()) };
        let device = device_of(&self.model);
        let Targets { ids, mask } = texts.upload(&device);
        let own = Pairs { image: share(self.model.see(visual.upload(&device))), ids, mask };
        let contrast = self.model.contrast(&own)?;
        let all = model::pretraining::Contrast {
            image: gather_rows(moment.processes, &contrast.image)?,
            text: gather_rows(moment.processes, &contrast.text)?,
        };
        let [b, _] = own.ids.dims();
        let mut before = vec![0.0; moment.processes.count()];
        before[moment.processes.rank()] = b as f64;
        moment.processes.sum(&mut before)?;
        let first = before[..moment.processes.rank()].iter().sum::<f64>() as usize;
        let similarities = self.model.similarities(&contrast, &all);
        let by_image = rows_of(&similarities.image_to_text)?;
        let retrieved =
            by_image.iter().enumerate().filter(|(row, scores)| likest(scores) == first + row).count();
        let negatives = match negatives {
            Some(negatives) => negatives,
            None => HardNegatives {
                texts: draw(&by_image, first, moment.seed, "texts that look as if they belonged"),
                images: draw(
                    &rows_of(&similarities.text_to_image)?,
                    first,
                    moment.seed,
                    "images that look as if they belonged",
                ),
            },
        };
        let everyone = Pairs {
            image: gather_rows(moment.processes, &own.image)?,
            ids: gather_ids(moment.processes, &own.ids)?,
            mask: gather_rows(moment.processes, &own.mask)?,
        };
        Ok(Losses {
            contrast: self.model.contrastive_loss(&similarities, first),
            matching: self.model.matching_loss_among(&own, &everyone, &negatives)?,
            writing: self.model.generation_loss(&own, self.context.start)?,
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
        Draws::new(seed, purpose, own as u64).weighted(similarities.iter().enumerate().map(weight))
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

    fn loss(&self, batch: Batch, moment: &Moment<'_>) -> Result<Loss, TrainError> {
        let losses = self.losses(batch, None, moment)?;
        let number = |loss: &Tensor<1>| {
            loss.clone().without_autodiff().try_into_scalar::<f64>().map_err(TrainError::device)
        };
        let figures = Figures::one(CONTRAST, number(&losses.contrast)?)
            .with(MATCHING, number(&losses.matching)?)
            .with(WRITING, number(&losses.writing)?)
            .with(RETRIEVED, losses.retrieved);
        Ok(Loss { value: losses.sum(), figures })
    }

    fn evaluate(&self, batch: Batch) -> Result<Evaluated, TrainError> {
        let moment = Moment { seed: 0, processes: &crate::processes::Alone };
        let Loss { value, figures } = self.loss(batch, &moment)?;
        let value = value.try_into_scalar::<f64>().map_err(TrainError::device)?;
        Ok(Evaluated { written: Vec::new(), figures: figures.with(LOSS, value) })
    }

    fn export(&self, directory: &Path) -> Result<(), TrainError> {
        Ok(save_pretraining(&self.model, directory)?)
    }

    /// Every pair is a negative of every other.
    fn can_split(&self) -> bool {
        false
    }

    fn figures(&self) -> Vec<Figure> {
        [(LOSS, false), (CONTRAST, false), (MATCHING, false), (WRITING, false), (RETRIEVED, true)]
            .map(|(name, higher_is_better)| Figure::new(name, higher_is_better))
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

    fn loss(&self, batch: Batch, moment: &Moment<'_>) -> Result<Loss, TrainError> {
        self.0.loss(batch, moment)
    }

    fn evaluate(&self, batch: Batch) -> Result<Evaluated, TrainError> {
        let loss = match &batch {
            Batch::Caption { captions: Some(_), .. } => Some(self.0.cross_entropy(batch.clone())?),
            _ => None,
        };
        let mut evaluated = self.0.evaluate(batch)?;
        if let Some(loss) = loss {
            let loss = loss.try_into_scalar::<f64>().map_err(TrainError::device)?;
            evaluated.figures = evaluated.figures.with(LOSS, loss);
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
    use crate::processes::Alone;
    use crate::testing::{captioner, first_stage, language_models, pairs};

    #[test]
    fn the_second_stage_measures_the_loss_and_writes() {
        let stage = SecondStage(captioner(language_models(0.0).remove(0), 3));
        let batch = crate::testing::batch(&[0, 1, 2]);
        let expected = stage.0.cross_entropy(batch.clone()).unwrap().into_scalar::<f64>();
        let evaluated = stage.evaluate(batch).unwrap();
        assert_eq!((evaluated.figures.get(LOSS), evaluated.written.len()), (Some(expected), 3));
        let text = crate::HostTokens::pad(&[vec![4, 1]]);
        let text = Batch::Text { source: text.clone(), target: text, items: vec![0] };
        assert!(stage.evaluate(text).unwrap().figures.get(LOSS).is_some());
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
        let moment = Moment { seed: 1, processes: &Alone };
        let Loss { value, figures } = stage.loss(pairs(&[0, 1, 2, 3]), &moment).unwrap();
        let sum: f64 = [CONTRAST, MATCHING, WRITING].iter().map(|name| figures.get(name).unwrap()).sum();
        assert!((value.into_scalar::<f64>() - sum).abs() < 1e-5);
        let retrieved = figures.get(RETRIEVED).unwrap() * 4.0;
        assert!(retrieved.fract() == 0.0 && (0.0..=4.0).contains(&retrieved));
        let error = stage.loss(crate::testing::batch(&[0]), &moment).unwrap_err();
        assert!(error.to_string().contains("image-text pairs"), "{error}");
    }

    #[test]
    fn the_same_moment_draws_the_same_negatives() {
        let stage = first_stage(5);
        let loss = |seed| {
            let moment = Moment { seed, processes: &Alone };
            stage.loss(pairs(&[0, 1, 2, 3, 4, 5]), &moment).unwrap().figures.get(MATCHING).unwrap()
        };
        assert_eq!(loss(3), loss(3));
        assert!((0..20).any(|seed| loss(seed) != loss(3)), "another seed draws others");
    }
}
