//! The first stage of BLIP-2's pretraining (arXiv:2301.12597, section 3.2): image-text contrast (ITC),
//! matching (ITM) and generation (ITG), without a language model. The second stage is
//! [`CrossEntropy`](crate::CrossEntropy).
//!
//! [`model::pretraining`] computes the parts; this file sums the losses and draws hard negatives. As in LAVIS
//! (`blip2_qformer.py`), images and texts are compared with those of all processes, and hard negatives are
//! drawn from them in proportion to their similarity. One difference: they are drawn on the host from the
//! step's seed, so that a resumed run draws the same.

use std::path::Path;

use burn::tensor::Tensor;
use captioner::host::device_of;
use data::random::RandomStream;
use model::checkpoint::save_pretraining;
use model::loss::Targets;
use model::pretraining::{HardNegatives, Pairs, Pretraining};
use model::recompute::share;

use crate::metrics::{LOSS, MetricSpec, Metrics};
use crate::objective::{Evaluation, Loss, Objective, StepContext};
use crate::processes::{SingleProcess, gather_ids, gather_rows, row_counts};
use crate::{Batch, TrainError};

/// Image-text contrastive loss.
pub const ITC: &str = "ITC loss";
/// Image-text matching loss, on pairs and hard negatives.
pub const ITM: &str = "ITM loss";
/// Image-grounded text generation loss.
pub const ITG: &str = "ITG loss";
/// Image-to-text recall@1 within the batch.
pub const RECALL_AT_1: &str = "Image-to-text R@1";

/// The first stage.
#[derive(Debug, Clone)]
pub struct FirstStage {
    /// First token of a generated text, in place of the class token.
    pub start_token: u32,
}

/// The three losses of a batch, `[1]` each, and its recall@1.
pub struct Losses {
    itc: Tensor<1>,
    itm: Tensor<1>,
    itg: Tensor<1>,
    recall_at_1: f64,
}

impl Losses {
    /// The training loss.
    ///
    /// # Shapes
    /// - output: `[1]`
    pub fn sum(&self) -> Tensor<1> {
        self.itc.clone() + self.itm.clone() + self.itg.clone()
    }
}

impl FirstStage {
    /// The three losses. Hard negatives are `negatives`, or drawn from the step's seed.
    ///
    /// # Errors
    /// When the batch is not of pairs, a process is gone, or the device fails.
    pub fn losses(
        &self,
        model: &Pretraining,
        batch: Batch,
        negatives: Option<HardNegatives>,
        context: &StepContext<'_>,
    ) -> Result<Losses, TrainError> {
        let Batch::Pairs { visual, texts, items } = batch else {
            let (task, batch) = ("the first stage of pretraining", "anything but image-text pairs");
            return Err(TrainError::WrongBatch { task, batch });
        };
        let device = device_of(model);
        // the first token of a text is not predicted
        let tokens = texts.count() - items.len() as f64;
        let Targets { ids, mask } = texts.upload(&device);
        let own = Pairs { image: share(model.image_tokens(visual.upload(&device))), ids, mask };
        let contrast = model.itc_features(&own)?;
        let all = model::pretraining::ItcFeatures {
            image: gather_rows(context.processes, &contrast.image)?,
            text: gather_rows(context.processes, &contrast.text)?,
        };
        let [b, _] = own.ids.dims();
        let counts = row_counts(context.processes, b)?;
        let rows: usize = counts.iter().sum();
        if counts.contains(&0) {
            let processes = counts.len();
            return Err(TrainError::Data(format!(
                "{processes} processes cannot share a batch of {rows} pairs"
            )));
        }
        let first: usize = counts[..context.processes.rank()].iter().sum();
        let similarities = model.similarities(&contrast, &all);
        let by_image = rows_of(&similarities.image_to_text)?;
        let retrieved =
            by_image.iter().enumerate().filter(|(row, scores)| most_similar(scores) == first + row).count();
        let negatives = match negatives {
            Some(negatives) => negatives,
            None => {
                let by_text = rows_of(&similarities.text_to_image)?;
                let texts = draw(&by_image, first, context.seed, "texts that look as if they belonged");
                let images = draw(&by_text, first, context.seed, "images that look as if they belonged");
                HardNegatives { texts, images }
            }
        };
        let all_pairs = Pairs {
            image: gather_rows(context.processes, &own.image)?,
            ids: gather_ids(context.processes, &own.ids)?,
            mask: gather_rows(context.processes, &own.mask)?,
        };
        Ok(Losses {
            itc: model.itc_loss(&similarities, first),
            itm: model.itm_loss(&own, &all_pairs, &negatives)?,
            itg: share_of_tokens(
                model.itg_loss(&own, self.start_token)?,
                tokens,
                b as f64 / rows as f64,
                context,
            )?,
            recall_at_1: retrieved as f64 / b.max(1) as f64,
        })
    }
}

/// The mean over the `tokens` of this process, which has a share of all rows, weighted so that its mean over
/// the rows of all processes is the mean over their tokens.
fn share_of_tokens(
    mean: Tensor<1>,
    tokens: f64,
    share_of_rows: f64,
    context: &StepContext<'_>,
) -> Result<Tensor<1>, TrainError> {
    if context.processes.world_size() == 1 {
        return Ok(mean);
    }
    let mut all = [tokens];
    context.processes.sum(&mut all)?;
    Ok(mean * (tokens / all[0].max(1.0) / share_of_rows))
}

/// Values on the host, row by row.
fn rows_of(similarities: &Tensor<2>) -> Result<Vec<Vec<f32>>, TrainError> {
    let [_, columns] = similarities.dims();
    let values = similarities.clone().without_autodiff().into_data();
    let values = values.try_to_vec::<f32>().map_err(TrainError::device)?;
    Ok(values.chunks_exact(columns.max(1)).map(<[f32]>::to_vec).collect())
}

fn most_similar(scores: &[f32]) -> usize {
    scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(place, _)| place)
}

/// A column for each row, never the row's own, in proportion to the softmax of the row's similarities. As in
/// LAVIS, 1e-4 is added to every weight, so that all rows have negatives.
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

impl Objective for FirstStage {
    type Model = Pretraining;

    fn weight(&self, batch: &Batch) -> f64 {
        batch.items().len() as f64
    }

    fn loss(&self, model: &Pretraining, batch: Batch, context: &StepContext<'_>) -> Result<Loss, TrainError> {
        let losses = self.losses(model, batch, None, context)?;
        let number = |loss: &Tensor<1>| {
            loss.clone().without_autodiff().try_into_scalar::<f64>().map_err(TrainError::device)
        };
        let metrics = Metrics::one(ITC, number(&losses.itc)?)
            .with(ITM, number(&losses.itm)?)
            .with(ITG, number(&losses.itg)?)
            .with(RECALL_AT_1, losses.recall_at_1);
        Ok(Loss { value: losses.sum(), metrics })
    }

    fn evaluate(&self, model: &Pretraining, batch: Batch) -> Result<Evaluation, TrainError> {
        let context = StepContext { seed: 0, processes: &SingleProcess };
        let Loss { value, metrics } = self.loss(model, batch, &context)?;
        let value = value.try_into_scalar::<f64>().map_err(TrainError::device)?;
        Ok(Evaluation { predictions: Vec::new(), metrics: metrics.with(LOSS, value) })
    }

    fn save(&self, model: &Pretraining, directory: &Path) -> Result<(), TrainError> {
        Ok(save_pretraining(model, directory)?)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{first_stage, pairs};

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
        let (model, stage) = first_stage(4);
        let context = StepContext { seed: 1, processes: &SingleProcess };
        let Loss { value, metrics } = stage.loss(&model, pairs(&[0, 1, 2, 3]), &context).unwrap();
        let sum: f64 = [ITC, ITM, ITG].iter().map(|name| metrics.get(name).unwrap()).sum();
        assert!((value.into_scalar::<f64>() - sum).abs() < 1e-5);
        let recalled = metrics.get(RECALL_AT_1).unwrap() * 4.0;
        assert!(recalled.fract() == 0.0 && (0.0..=4.0).contains(&recalled));
        let error = stage.loss(&model, crate::testing::batch(&[0]), &context).unwrap_err();
        assert!(error.to_string().contains("image-text pairs"), "{error}");
    }

    #[test]
    fn the_same_seed_draws_the_same_negatives() {
        let (model, stage) = first_stage(5);
        let loss = |seed| {
            let context = StepContext { seed, processes: &SingleProcess };
            stage.loss(&model, pairs(&[0, 1, 2, 3, 4, 5]), &context).unwrap().metrics.get(ITM).unwrap()
        };
        assert_eq!(loss(3), loss(3));
        assert!((0..20).any(|seed| loss(seed) != loss(3)), "another seed draws others");
    }
}
