//! The model as the learner sees it: a training step and an evaluation step.

use std::sync::Arc;

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Int, Tensor, TensorData, TensorReadError};
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use data::text::Tokenizer;
use model::generate::GenerateConfig;
use model::lm::Prefix;
use model::loss::cross_entropy;
use model::qformer::NoTextPath;
use model::{Blip2, Prompt};

use crate::TrainError;
use crate::batch::{Batch, HostVisual};
use crate::dashboard::{Figures, LOSS, StepOutput};

/// What the captioner needs besides weights.
#[derive(Debug, Clone)]
pub struct Context {
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Tokens that stand behind the video in the language model's input; none by default.
    pub prompt: Vec<u32>,
    /// How captions are written.
    pub generate: GenerateConfig,
    /// Share of the target's probability that is spread over all tokens.
    pub label_smoothing: f64,
}

/// A caption that the model wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Index of the example in its split.
    pub item: usize,
    /// The text.
    pub caption: String,
    /// Sum of the tokens' log-probabilities.
    pub log_probability: f32,
}

/// BLIP-2 with its context, as burn-train's learner takes it.
#[derive(Module, Debug)]
pub struct Captioner {
    /// The model.
    pub blip2: Blip2,
    #[module(skip)]
    pub(crate) context: Context,
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
    /// When a caption batch has no captions.
    pub fn loss(&self, batch: Batch) -> Result<Tensor<1>, LossError> {
        let device = self.device();
        match batch {
            Batch::Caption { visual, captions, .. } => {
                let targets = captions.ok_or(LossError::NoCaptions)?.upload(&device);
                let visual = visual.upload(&device);
                let prompt = self.prompt(visual.batch_size(), &device);
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
        }
    }

    /// Loss and gradients of a batch. It is split into `parts`, whose gradients add up to the whole batch's: every token
    /// counts the same, in whichever part it is. `side_by_side` runs the parts in threads of their own, which on a CPU
    /// is what makes use of its cores: the operations of a small model are too small to be shared among them.
    ///
    /// # Errors
    /// When a caption batch has no captions.
    pub fn gradients(
        &self,
        batch: Batch,
        parts: usize,
        side_by_side: bool,
    ) -> Result<(f64, GradientsParams), LossError> {
        let all = batch.target_tokens().max(1.0);
        let parts: Vec<(f64, Batch)> =
            batch.split(parts).into_iter().map(|part| (part.target_tokens() / all, part)).collect();
        let done: Vec<_> = if side_by_side && parts.len() > 1 {
            std::thread::scope(|scope| {
                let running: Vec<_> = parts
                    .into_iter()
                    .map(|(weight, part)| {
                        // a fork has leaves of its own, so that the parts' graphs have nothing in common
                        let fork = self.clone().fork(&self.device());
                        scope.spawn(move || fork.weighted_gradients(part, weight))
                    })
                    .collect();
                running
                    .into_iter()
                    .map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                    .collect()
            })
        } else {
            parts.into_iter().map(|(weight, part)| self.weighted_gradients(part, weight)).collect()
        };
        let mut accumulator = GradientsAccumulator::new();
        let mut loss = 0.0;
        for part in done {
            let (part_loss, gradients) = part?;
            loss += part_loss;
            accumulator.accumulate(&self.blip2, gradients);
        }
        Ok((loss, accumulator.grads()))
    }

    fn weighted_gradients(&self, batch: Batch, weight: f64) -> Result<(f64, GradientsParams), LossError> {
        let loss = self.loss(batch)?.mul_scalar(weight);
        let value = loss.clone().without_autodiff().into_scalar::<f64>();
        Ok((value, GradientsParams::from_grads(loss.backward(), &self.blip2)))
    }

    /// Writes a caption for each example of a batch; call it on a model in evaluation ([`Module::valid`]).
    ///
    /// # Errors
    /// When the device or the tokenizer fails.
    pub fn write(&self, visual: HostVisual, items: &[usize]) -> Result<Vec<Written>, TrainError> {
        let device = self.device();
        let visual = visual.upload(&device);
        let prompt = self.prompt(visual.batch_size(), &device);
        let sequences = self
            .blip2
            .caption(visual, &prompt, &self.context.generate)
            .map_err(|error| TrainError::Device(error.to_string()))?;
        let written = items.iter().zip(sequences).filter_map(|(&item, best)| {
            let best = best.into_iter().next()?;
            let caption = self.context.tokenizer.decode(&best.ids);
            let caption = caption.map_err(|error| TrainError::Data(error.to_string()));
            Some(caption.map(|caption| Written { item, caption, log_probability: best.log_probability }))
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
        let frames = Tensor::<5>::from_data(TensorData::new(values, shape), &self.device().inner());
        let features = self.blip2.vision_features(frames);
        let shape = features.dims();
        Ok((features.into_data().try_to_vec::<f32>()?, shape))
    }

    fn device(&self) -> Device {
        self.blip2.query_tokens.val().device()
    }

    fn prompt(&self, b: usize, device: &Device) -> Prompt {
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

/// Why a batch has no loss.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub enum LossError {
    /// It came without captions.
    #[error("a batch without captions has no loss")]
    NoCaptions,
    /// It has an instruction that the model cannot read.
    #[error(transparent)]
    Instruction(#[from] NoTextPath),
}

impl TrainStep for Captioner {
    type Input = Batch;
    type Output = StepOutput;

    fn step(&self, batch: Batch) -> TrainOutput<StepOutput> {
        let items = batch.items().len();
        // examples for training always carry captions: only a bug gets here without
        let (loss, grads) = self.gradients(batch, 1, false).unwrap_or_else(|error| panic!("{error}"));
        TrainOutput { grads, item: StepOutput::new(Figures::one(LOSS, loss), items) }
    }
}

impl InferenceStep for Captioner {
    type Input = Batch;
    type Output = StepOutput;

    fn step(&self, batch: Batch) -> StepOutput {
        let items = batch.items().len();
        let result = match batch {
            Batch::Caption { visual, items, .. } => self
                .write(visual, &items)
                .map(|written| StepOutput { written, ..StepOutput::new(Figures::default(), items.len()) }),
            text @ Batch::Text { .. } => match self.loss(text) {
                Ok(loss) => loss
                    .try_into_scalar::<f64>()
                    .map(|loss| StepOutput::new(Figures::one(LOSS, loss), items))
                    .map_err(|error| TrainError::Device(format!("{error:?}"))),
                Err(error) => Err(TrainError::Data(error.to_string())),
            },
        };
        result.unwrap_or_else(|error| StepOutput {
            failure: Some(error),
            ..StepOutput::new(Figures::default(), items)
        })
    }
}
