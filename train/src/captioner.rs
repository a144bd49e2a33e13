//! BLIP-2 as a captioner: cross-entropy on captions, and writing them. Questions and their answers, and the two halves of
//! a caption in stage 2 of pretraining, are captions whose rows have prompts of their own.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData, TensorReadError};
use data::text::Tokenizer;
use model::generate::GenerateConfig;
use model::lm::Prefix;
use model::loss::{cross_entropy, token_log_probabilities};
use model::{Blip2, Blip2Config, Prompt};

use crate::TrainError;
use crate::batch::{Batch, HostPrompts, HostVisual};
use crate::dashboard::{LOSS, Metrics};
use crate::evaluation::Prediction;
use crate::task::{Evaluated, Loss, StepContext, Task, device_of};

/// What the captioner needs besides weights.
#[derive(Debug, Clone)]
pub struct Context {
    /// The model's sizes.
    pub config: Blip2Config,
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Tokens that stand behind the video in the language model's input; none by default.
    pub prompt: Vec<u32>,
    /// How captions are written.
    pub generate: GenerateConfig,
    /// Share of the target's probability that is spread over all tokens.
    pub label_smoothing: f64,
}

/// BLIP-2 with its context.
#[derive(Debug, Clone)]
pub struct Captioner {
    /// The model.
    pub blip2: Blip2,
    context: Context,
}

impl Captioner {
    /// Joins a model and its context.
    pub fn new(blip2: Blip2, context: Context) -> Self {
        Self { blip2, context }
    }

    /// Text to tokens and back, and the rest that is not a weight.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Mean loss over the batch's tokens.
    ///
    /// # Shapes
    /// - output: `[1]`
    ///
    /// # Errors
    /// When a batch has no captions, or an instruction that the model cannot read.
    pub fn cross_entropy(&self, batch: Batch) -> Result<Tensor<1>, TrainError> {
        let device = device_of(&self.blip2);
        match batch {
            Batch::Caption { visual, prompts, captions, .. } => {
                let targets = captions.ok_or(TrainError::NoTargets)?.upload(&device);
                let visual = visual.upload(&device);
                let prompt = self.prompt(prompts, visual.batch_size(), &device);
                let logits = self.blip2.logits(visual, &prompt, targets.ids.clone())?;
                Ok(cross_entropy(logits, &targets, self.context.label_smoothing))
            }
            Batch::Text { source, target, .. } => {
                let (source, targets) = (source.upload(&device), target.upload(&device));
                let lm = &self.blip2.language_model;
                let prefix = Prefix { embedded: lm.embed(source.ids), mask: Some(source.mask) };
                let logits = lm.score(prefix, targets.ids.clone());
                Ok(cross_entropy(logits, &targets, self.context.label_smoothing))
            }
            Batch::Pairs { .. } => {
                Err(TrainError::WrongBatch { task: "captioning", batch: "image-text pairs" })
            }
        }
    }

    /// Mean over the batch's rows of each row's mean loss over its tokens: here a row counts as much as another,
    /// however long it is.
    ///
    /// # Shapes
    /// - output: `[1]`
    ///
    /// # Errors
    /// As [`cross_entropy`](Self::cross_entropy).
    pub fn cross_entropy_by_row(&self, batch: Batch) -> Result<Tensor<1>, TrainError> {
        let Batch::Caption { visual, prompts, captions, .. } = batch else {
            return Err(TrainError::NoTargets);
        };
        let device = device_of(&self.blip2);
        let targets = captions.ok_or(TrainError::NoTargets)?.upload(&device);
        let visual = visual.upload(&device);
        let prompt = self.prompt(prompts, visual.batch_size(), &device);
        let logits = self.blip2.logits(visual, &prompt, targets.ids.clone())?;
        let sums = (token_log_probabilities(logits, targets.ids) * targets.mask.clone()).sum_dim(1);
        Ok((sums / targets.mask.sum_dim(1).clamp_min(1.0)).mean().neg())
    }

    /// Writes a caption for each example of a batch; call it on a model in evaluation ([`Module::valid`]).
    ///
    /// # Errors
    /// When the device or the tokenizer fails.
    pub fn write(
        &self,
        visual: HostVisual,
        prompts: Option<HostPrompts>,
        items: &[usize],
    ) -> Result<Vec<Prediction>, TrainError> {
        let device = device_of(&self.blip2);
        let visual = visual.upload(&device);
        let mut prompt = self.prompt(prompts, visual.batch_size(), &device);
        prompt.streams = Some(items.iter().map(|&item| item as u64).collect());
        let sequences = self
            .blip2
            .caption(visual, &prompt, &self.context.generate)
            .map_err(|error| TrainError::Device(error.to_string()))?;
        let written = items.iter().zip(sequences).filter_map(|(&item, best)| {
            let best = best.into_iter().next()?;
            let caption = self.context.tokenizer.decode(&best.ids).map_err(TrainError::from);
            Some(caption.map(|caption| Prediction { item, caption, log_probability: best.log_probability }))
        });
        written.collect()
    }

    /// Output of the ViT for a batch of frames: `[b, f, p, d]`, row by row.
    ///
    /// # Errors
    /// When the device fails.
    pub fn features(
        &self,
        values: Vec<f32>,
        shape: [usize; 5],
    ) -> Result<(Vec<f32>, [usize; 4]), TensorReadError> {
        let device = device_of(&self.blip2).inner();
        let frames = Tensor::<5>::from_data(TensorData::new(values, shape), &device);
        let features = self.blip2.vision_features(frames);
        let shape = features.dims();
        // a frozen ViT may compute in bf16
        Ok((features.cast(FloatDType::F32).into_data().try_to_vec::<f32>()?, shape))
    }

    /// The rows' own prompts, or the context's for all of them.
    pub(crate) fn prompt(&self, prompts: Option<HostPrompts>, b: usize, device: &Device) -> Prompt {
        if let Some(prompts) = prompts {
            return prompts.upload(device);
        }
        let prompt = &self.context.prompt;
        if prompt.is_empty() {
            return Prompt::default();
        }
        let ids: Vec<i32> = prompt.iter().map(|&id| id as i32).collect();
        let t = ids.len();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, t]), &device.clone().inner());
        Prompt::text(ids.expand([b, t]))
    }
}

impl Task for Captioner {
    type Model = Blip2;

    fn model(&self) -> &Blip2 {
        &self.blip2
    }

    fn into_model(self) -> Blip2 {
        self.blip2
    }

    fn with_model(&self, blip2: Blip2) -> Self {
        Self { blip2, context: self.context.clone() }
    }

    fn weight(&self, batch: &Batch) -> f64 {
        batch.target_tokens()
    }

    fn loss(&self, batch: Batch, _moment: &StepContext<'_>) -> Result<Loss, TrainError> {
        self.cross_entropy(batch).map(Loss::from)
    }

    fn export(&self, directory: &Path) -> Result<(), TrainError> {
        Ok(model::checkpoint::save(&self.blip2, &self.context.config, directory)?)
    }

    fn evaluate(&self, batch: Batch) -> Result<Evaluated, TrainError> {
        match batch {
            Batch::Caption { visual, prompts, items, .. } => {
                Ok(Evaluated { written: self.write(visual, prompts, &items)?, ..Evaluated::default() })
            }
            other => {
                let loss = self.cross_entropy(other)?.try_into_scalar::<f64>().map_err(TrainError::device)?;
                Ok(Evaluated { metrics: Metrics::one(LOSS, loss), ..Evaluated::default() })
            }
        }
    }
}
