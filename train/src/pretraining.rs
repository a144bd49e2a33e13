//! The first stage of BLIP-2's pretraining (arXiv:2301.12597, section 3.2): image-text contrast (ITC),
//! matching (ITM) and generation (ITG), without a language model. The second stage is
//! [`CrossEntropy`](crate::CrossEntropy).
//!
//! [`model::pretraining`] computes the parts; this file sums the losses and draws hard negatives. As in LAVIS
//! (`blip2_qformer.py`), images and texts are compared with those of all processes, and hard negatives are
//! drawn from them in proportion to their similarity. Two differences: negatives are drawn on the host from
//! the step's seed, so that a resumed run draws the same; and the gradients are those of the whole batch,
//! whatever the number of processes.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use captioner::HostTokens;
use captioner::host::device_of;
use data::random::RandomStream;
use model::checkpoint::save_pretraining;
use model::device;
use model::loss::Targets;
use model::pretraining::{HardNegatives, ItcFeatures, Pairs, Pretraining, Texts};
use model::recompute;

use crate::metrics::{LOSS, MetricSpec, Metrics};
use crate::objective::{Evaluation, Loss, Objective, StepContext};
use crate::processes::{ProcessGroup, SingleProcess, gather_json, gather_rows};
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
        let Batch::Pairs { visual, texts, .. } = batch else {
            let (task, batch) = ("the first stage of pretraining", "anything but image-text pairs");
            return Err(TrainError::WrongBatch { task, batch });
        };
        let share = Share::new(texts, context.processes)?;
        if share.own().is_empty() {
            return share.without_rows(&device_of(model), context.processes);
        }
        let device = device_of(model);
        let (first, b) = (share.first(), share.own().len());
        let Targets { ids, mask } = HostTokens::join(&share.texts).upload(&device);
        let own = Pairs {
            image: recompute::share(model.image_tokens(visual.upload(&device))),
            ids: ids.clone().narrow(0, first, b),
            mask: mask.clone().narrow(0, first, b),
        };
        let all_texts = Texts { ids, mask };
        let contrast = model.itc_features(&own)?;
        let all = ItcFeatures {
            image: gather_rows(context.processes, Some(&contrast.image), &device)?,
            text: gather_rows(context.processes, Some(&contrast.text), &device)?,
        };
        let itc = model.itc(&contrast, &all, first);
        let by_image = rows_of(&itc.similarities.image_to_text)?;
        let retrieved =
            by_image.iter().enumerate().filter(|(row, scores)| most_similar(scores) == first + row).count();
        let drawn = match negatives {
            Some(negatives) => negatives,
            // a single pair has no negatives
            None if share.rows() == 1 => HardNegatives::default(),
            None => {
                let by_text = rows_of(&itc.similarities.text_to_image)?;
                let texts = draw(&by_image, first, context.seed, "texts that look as if they belonged");
                let images = draw(&by_text, first, context.seed, "images that look as if they belonged");
                HardNegatives { texts, images }
            }
        };
        let negatives = gather_negatives(context.processes, drawn)?;
        Ok(Losses {
            itc: itc.loss,
            itm: model.itm_loss(&own, first, &all_texts, &negatives)?,
            itg: model.itg_loss(&own, self.start_token)? * share.share_of_tokens(),
            recall_at_1: retrieved as f64 / b as f64,
        })
    }
}

/// The rows of a batch that a process has, and the texts of all.
struct Share {
    /// Those of each process, in the order of ranks.
    texts: Vec<HostTokens>,
    rank: usize,
}

impl Share {
    fn new(own: HostTokens, processes: &dyn ProcessGroup) -> Result<Self, TrainError> {
        Ok(Self { texts: gather_json(processes, own, "the texts")?, rank: processes.rank() })
    }

    fn own(&self) -> &HostTokens {
        &self.texts[self.rank]
    }

    /// Of all processes.
    fn rows(&self) -> usize {
        self.texts.iter().map(HostTokens::len).sum()
    }

    /// The first row of this process among those of all.
    fn first(&self) -> usize {
        self.texts[..self.rank].iter().map(HostTokens::len).sum()
    }

    /// What the mean over this process's tokens is multiplied by, so that its mean over the rows of all
    /// processes is the mean over all tokens.
    fn share_of_tokens(&self) -> f64 {
        // the first token of a text is not predicted
        let tokens = |texts: &HostTokens| texts.count() - texts.len() as f64;
        let own = self.own();
        let share_of_rows = own.len() as f64 / self.rows() as f64;
        tokens(own) / self.texts.iter().map(tokens).sum::<f64>().max(1.0) / share_of_rows
    }

    /// Takes part in the exchanges of a step without computing anything: the last batch of an epoch may have
    /// fewer rows than there are processes.
    fn without_rows(&self, device: &Device, processes: &dyn ProcessGroup) -> Result<Losses, TrainError> {
        gather_rows::<3>(processes, None, device)?;
        gather_rows::<2>(processes, None, device)?;
        gather_negatives(processes, HardNegatives::default())?;
        let zero = Tensor::zeros([1], &device.clone().inner()).autodiff().require_grad();
        Ok(Losses { itc: zero.clone(), itm: zero.clone(), itg: zero, recall_at_1: 0.0 })
    }
}

/// Those of all rows.
fn gather_negatives(processes: &dyn ProcessGroup, own: HardNegatives) -> Result<HardNegatives, TrainError> {
    let mut all = HardNegatives::default();
    for part in gather_json(processes, own, "the hard negatives")? {
        all.images.extend(part.images);
        all.texts.extend(part.texts);
    }
    Ok(all)
}

/// Values on the host, row by row.
fn rows_of(similarities: &Tensor<2>) -> Result<Vec<Vec<f32>>, TrainError> {
    let [_, columns] = similarities.dims();
    let values = device::values(similarities.clone().without_autodiff())?;
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
        let (model, stage) = first_stage(4, 0.0);
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
        let (model, stage) = first_stage(5, 0.0);
        let loss = |seed| {
            let context = StepContext { seed, processes: &SingleProcess };
            stage.loss(&model, pairs(&[0, 1, 2, 3, 4, 5]), &context).unwrap().metrics.get(ITM).unwrap()
        };
        assert_eq!(loss(3), loss(3));
        assert!((0..20).any(|seed| loss(seed) != loss(3)), "another seed draws others");
    }
}
