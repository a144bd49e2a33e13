//! What is timed, and its inputs.

use std::path::Path;

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use model::checkpoint::source::Source;
use model::cores::Lanes;
use model::generate::{GenerateConfig, Sample, Search};
use model::loss::{Targets, token_log_probabilities};
use model::parameters::set_trainable;
use model::pretraining::{HardNegatives, Pairs, Pretraining, PretrainingConfig};
use model::qformer::QFormerConfig;
use model::recompute::share;
use model::{Blip2, Prompt, Visual};
use train::TrainConfig;
use train::adamw::HostAdamW;

use crate::Failure;

/// A case of the benchmark. The sizes are those of `scripts/bench/blip2_torch.py`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    /// Forward, backward and AdamW on every weight, four clips in micro-batches of two, one a core.
    Train,
    /// The same, the ViT frozen.
    TrainFrozenVit,
    /// Self-critical training, the ViT frozen: five samples of twelve tokens for each of four clips, and the
    /// gradient of their log-probabilities.
    Scst,
    /// ITC, ITM and ITG of 32 images and texts of twelve tokens, the ViT frozen.
    FirstStage,
    /// Captions of eight clips with five beams, 20 tokens.
    Caption,
    /// Of that the ViT.
    CaptionVit,
    /// Of that all after the ViT.
    CaptionGenerate,
}

/// One round of a case, which returns a loss if it has one.
pub(crate) type Round<'a> = Box<dyn FnMut() -> Result<Option<f64>, Failure> + 'a>;

/// A model's folder and the inputs of a case.
pub(crate) struct Inputs {
    folder: std::path::PathBuf,
    pixels: Vec<f32>,
    shape: [usize; 5],
    labels: Vec<i32>,
    tokens: usize,
}

impl Inputs {
    /// Reads what `blip2_torch.py` saved.
    pub(crate) fn read(folder: &Path, case: Case) -> Result<Self, Failure> {
        let is_training = matches!(case, Case::Train | Case::TrainFrozenVit | Case::Scst | Case::FirstStage);
        let name = if is_training { "train.safetensors" } else { "caption.safetensors" };
        let source = Source::open(&folder.join(name))?;
        let shape = source.get("pixel_values").ok_or("no pixel_values")?.shape.to_vec();
        let labels: Vec<i32> = match source.get("labels") {
            Some(_) => {
                let bytes = source.read_bytes("labels")?;
                bytes.chunks_exact(8).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            None => Vec::new(),
        };
        let shape: [usize; 5] = shape.try_into().map_err(|_| "pixel_values must have 5 axes")?;
        let tokens = labels.len() / shape[0];
        let pixels = source.read_f32("pixel_values")?;
        Ok(Self { folder: folder.to_owned(), pixels, shape, labels, tokens })
    }

    /// Some of the clips.
    fn clips(&self, rows: std::ops::Range<usize>, device: &Device) -> (Visual, Targets) {
        let [_, f, channels, height, width] = self.shape;
        let each = f * channels * height * width;
        let b = rows.len();
        let pixels = self.pixels[rows.start * each..rows.end * each].to_vec();
        let labels = self.labels[rows.start * self.tokens..rows.end * self.tokens].to_vec();
        let shape = [b, f, channels, height, width];
        let targets = Targets {
            ids: Tensor::<2, Int>::from_data(TensorData::new(labels, [b, self.tokens]), device),
            mask: Tensor::ones([b, self.tokens], device),
        };
        (Visual::Frames(Tensor::from_data(TensorData::new(pixels, shape), device)), targets)
    }

    fn all(&self) -> (Visual, Targets) {
        self.clips(0..self.shape[0], &Device::flex())
    }

    fn model(&self) -> Result<Blip2, Failure> {
        Ok(model::checkpoint::load(&self.folder, |config| config.set_dropout(0.0), &Device::flex())?.1)
    }
}

impl Case {
    pub(crate) const ALL: [Self; 7] = [
        Self::Train,
        Self::TrainFrozenVit,
        Self::Scst,
        Self::FirstStage,
        Self::Caption,
        Self::CaptionVit,
        Self::CaptionGenerate,
    ];

    /// The name that both sides give it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::TrainFrozenVit => "train_frozen_vit",
            Self::Scst => "scst",
            Self::FirstStage => "first_stage",
            Self::Caption => "caption",
            Self::CaptionVit => "caption_vit",
            Self::CaptionGenerate => "caption_generate",
        }
    }

    /// The round that is timed, in so many micro-batches side by side.
    pub(crate) fn prepare(self, inputs: &Inputs, threads: usize) -> Result<Round<'_>, Failure> {
        Ok(match self {
            Self::Train => train(inputs, false, threads.min(2), caption_loss)?,
            Self::TrainFrozenVit => train(inputs, true, threads.min(2), caption_loss)?,
            Self::Scst => train(inputs, true, threads.min(2), self_critical_loss)?,
            Self::FirstStage => first_stage(inputs)?,
            Self::Caption | Self::CaptionVit | Self::CaptionGenerate => {
                let model = inputs.model()?;
                let (visual, _) = inputs.all();
                let Visual::Frames(frames) = visual.clone() else {
                    return Err("the inputs are frames".into());
                };
                let config = beams();
                let caption = move |model: &Blip2, visual: Visual| -> Result<Option<f64>, Failure> {
                    model.caption(visual, &Prompt::default(), &config)?;
                    Ok(None)
                };
                match self {
                    Self::Caption => Box::new(move || caption(&model, visual.clone())),
                    Self::CaptionVit => Box::new(move || {
                        model.vision_features(frames.clone()).into_data();
                        Ok(None)
                    }),
                    _ => {
                        let features = Visual::Features(model.vision_features(frames));
                        Box::new(move || caption(&model, features.clone()))
                    }
                }
            }
        })
    }
}

fn beams() -> GenerateConfig {
    GenerateConfig { num_beams: 5, max_new_tokens: 20, ..GenerateConfig::default() }
}

/// A loss of some clips.
type LossOf = fn(&Blip2, Visual, &Targets) -> Result<Tensor<1>, String>;

fn caption_loss(model: &Blip2, visual: Visual, targets: &Targets) -> Result<Tensor<1>, String> {
    model.caption_loss(visual, &Prompt::default(), targets).map_err(|error| error.to_string())
}

/// The rewards are alternately 1 and -1: what the metrics cost is not part of this.
fn self_critical_loss(model: &Blip2, visual: Visual, _: &Targets) -> Result<Tensor<1>, String> {
    const SAMPLES: usize = 5;
    const LENGTH: usize = 12;
    let prompt = Prompt::default();
    let prefix = model.prefix(visual, &prompt).map_err(|error| error.to_string())?;
    let config = GenerateConfig {
        num_return_sequences: SAMPLES,
        max_new_tokens: LENGTH,
        search: Search::Sample(Sample::default()),
        ..GenerateConfig::default()
    };
    let sampled = model.valid().generate(prefix.clone().without_autodiff(), None, &config);
    let sampled = sampled.map_err(|error| error.to_string())?;
    let ids: Vec<i32> =
        sampled.iter().flatten().flat_map(|one| one.ids.iter().map(|&id| id as i32)).collect();
    let rows = sampled.len() * SAMPLES;
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [rows, LENGTH]), &Device::flex());
    let scored = model.language_model.score(prefix.repeat(SAMPLES), ids.clone());
    let log_probabilities = token_log_probabilities(scored.map_err(|error| error.to_string())?, ids);
    let rewards: Vec<f32> = (0..rows).map(|row| if row % 2 == 0 { 1.0 } else { -1.0 }).collect();
    let rewards = Tensor::<2>::from_data(TensorData::new(rewards, [rows, 1]), &Device::flex());
    Ok((log_probabilities * rewards).mean().neg())
}

fn train(inputs: &Inputs, freezes_vit: bool, parts: usize, loss: LossOf) -> Result<Round<'_>, Failure> {
    let is_trained =
        |name: &str| !(freezes_vit && (name.starts_with("vision_model.") || name.starts_with("ln_vision.")));
    let mut model = Some(set_trainable(inputs.model()?.train(), is_trained));
    let mut optimizer = optimizer();
    Ok(Box::new(move || {
        let current = model.take().ok_or("a step failed")?;
        let (loss, gradients) = gradients(&current, inputs, parts, loss)?;
        model = Some(optimizer.step(1e-4, current, gradients));
        Ok(Some(loss))
    }))
}

fn optimizer() -> ModuleOptimizer {
    let config = TrainConfig { beta_2: 0.999, epsilon: 1e-8, weight_decay: 0.05, ..TrainConfig::default() };
    ModuleOptimizer::from(HostAdamW::new(&config, config.weight_decay))
}

/// Loss and gradients of the batch, of its parts side by side as the trainer takes them.
fn gradients(
    model: &Blip2,
    inputs: &Inputs,
    parts: usize,
    loss: LossOf,
) -> Result<(f64, GradientsParams), Failure> {
    let b = inputs.shape[0];
    let part = |model: &Blip2, index: usize| -> Result<(f64, GradientsParams), String> {
        let rows = index * b / parts..(index + 1) * b / parts;
        let share = rows.len() as f64 / b as f64;
        let (visual, targets) = inputs.clips(rows, &Device::flex());
        let loss = loss(model, visual, &targets)?.mul_scalar(share);
        let value = loss.clone().without_autodiff().into_scalar::<f64>();
        Ok((value, GradientsParams::from_grads(loss.backward(), model)))
    };
    if parts == 1 {
        return Ok(part(model, 0)?);
    }
    let device = model.query_tokens.val().device();
    let lanes = Lanes::new(parts);
    let done: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..parts)
            .map(|index| {
                let fork = model.clone().fork(&device);
                let lanes = &lanes;
                scope.spawn(move || lanes.run(index, move || part(&fork, index)))
            })
            .collect();
        running.into_iter().map(|part| part.join().map_err(|_| "a part panicked".to_owned())?).collect()
    });
    let (mut accumulator, mut sum) = (GradientsAccumulator::new(), 0.0);
    for part in done {
        let (loss, gradients) = part?;
        sum += loss;
        accumulator.accumulate(model, gradients);
    }
    Ok((sum, accumulator.grads()))
}

/// The first stage with random weights, texts and hard negatives.
fn first_stage(inputs: &Inputs) -> Result<Round<'_>, Failure> {
    const PAIRS: usize = 32;
    const LENGTH: usize = 12;
    let device = Device::flex();
    device.seed(3);
    let blip2 = model::checkpoint::load_config(&inputs.folder)?;
    let vocabulary = blip2.text_config.vocabulary_size();
    let config = PretrainingConfig {
        vision_config: blip2.vision_config,
        qformer_config: QFormerConfig {
            reads_text: true,
            vocab_size: vocabulary,
            max_position_embeddings: 32,
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            ..blip2.qformer_config
        },
        num_query_tokens: blip2.num_query_tokens,
        ..PretrainingConfig::default()
    };
    let model: Pretraining = config.init(&device);
    let mut model = Some(set_trainable(model.train(), |name| !name.starts_with("vision_model.")));
    let mut optimizer = optimizer();
    let [_, _, channels, height, width] = inputs.shape;
    let pixels = inputs.pixels[..PAIRS * channels * height * width].to_vec();
    let frames =
        Tensor::<5>::from_data(TensorData::new(pixels, [PAIRS, 1, channels, height, width]), &device);
    let ids =
        Tensor::<2>::random([PAIRS, LENGTH], Distribution::Uniform(2.0, vocabulary as f64 - 2.0), &device);
    let ids = ids.int();
    let next = |row: usize| (row + 1) % PAIRS;
    let negatives =
        HardNegatives { images: (0..PAIRS).map(next).collect(), texts: (0..PAIRS).map(next).collect() };
    Ok(Box::new(move || {
        let current = model.take().ok_or("a step failed")?;
        let image = share(current.image_tokens(Visual::Frames(frames.clone())));
        let pairs = Pairs { image, ids: ids.clone(), mask: Tensor::ones([PAIRS, LENGTH], &device) };
        let features = current.itc_features(&pairs)?;
        let itc = current.itc(&features, &features, 0).loss;
        let itm = current.itm_loss(&pairs, 0, &pairs.texts(), &negatives)?;
        let itg = current.itg_loss(&pairs, vocabulary as u32 - 1)?;
        let loss = itc + itm + itg;
        let value = loss.clone().without_autodiff().into_scalar::<f64>();
        let gradients = GradientsParams::from_grads(loss.backward(), &current);
        model = Some(optimizer.step(1e-4, current, gradients));
        Ok(Some(value))
    }))
}
