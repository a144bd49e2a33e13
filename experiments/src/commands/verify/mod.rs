//! `experiments verify`: compares a checkpoint's outputs here with those of another program.

mod compare;
mod reference;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use clap::Args;
use model::checkpoint;
use model::device::values;
use model::generate::GenerateConfig;
use model::loss::{Targets, cross_entropy};
use model::parameters::{gradient, set_trainable};
use model::{Blip2, Blip2Config, Prompt, PromptTokens, Visual};

pub use compare::{Compared, Comparison};
use compare::{FEATURES_IN_BF16, GRADIENT, IDS, IN_INT8, LOGITS_IN_BF16, LOSS, Sequences, TENSOR};
pub use reference::Reference;
use reference::{HostTensor, Values, generation};

pub use super::options::Weights;
use super::options::{CheckpointOption, DeviceOption};
use crate::runtime::Caches;

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    checkpoint: CheckpointOption,
    /// Folder of LoRA updates in the layout of peft, for a checkpoint in another folder
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Tensors of another program, with their settings in a JSON file of the same stem
    #[arg(long, value_name = "REF.safetensors")]
    reference: PathBuf,
    /// Number type of the values of ViT and language model. In bf16 features are compared to 5e-2 and logits
    /// to 2e-2, in int8 both to 5e-2, and nothing else
    #[arg(long, value_enum, default_value_t, value_name = "TYPE")]
    weights: Weights,
    #[command(flatten)]
    pub(super) device: DeviceOption,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// What is verified.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Folder of the checkpoint.
    pub checkpoint: &'a Path,
    /// Folder of LoRA updates for it.
    pub adapter: Option<&'a Path>,
    /// Number type of the values of ViT and language model.
    pub weights: Weights,
}

/// Returns whether every tensor is within its tolerance.
///
/// # Errors
/// When a file cannot be read or the reference does not fit the checkpoint.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let device = arguments.device.open(&Caches::new(None))?.device;
    let reference = Reference::read(&arguments.reference)?;
    let Arguments { checkpoint, adapter, weights, .. } = arguments;
    let subject =
        Subject { checkpoint: &checkpoint.checkpoint, adapter: adapter.as_deref(), weights: *weights };
    let comparison = verify(&subject, &reference, &device)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&comparison)?);
    } else {
        println!("{}", comparison.to_text());
    }
    Ok(comparison.passed)
}

/// Gradients of a reference, and the parameters that they belong to.
const GRADIENTS: [(&str, &str); 3] = [
    ("grad_query_tokens", "query_tokens"),
    ("grad_language_projection_weight", "language_projection.weight"),
    ("grad_vision_layer0_fc1_weight", "vision_model.layers.0.mlp.fc1.weight"),
];

/// Loads a checkpoint and computes every tensor of the reference.
///
/// # Errors
/// When the checkpoint cannot be read or the reference does not fit it.
pub fn verify(subject: &Subject<'_>, reference: &Reference, device: &Device) -> anyhow::Result<Comparison> {
    let Subject { checkpoint: directory, adapter, weights } = *subject;
    let inputs = Inputs::new(reference, device)?;
    let [_, _, _, _, size] = inputs.frames.dims();
    let adapt = |config: &mut Blip2Config| {
        config.fusion = reference.settings.fusion;
        config.vision_config.image_size = size;
        config.vision_config.attention_dropout = 0.0;
        config.set_dropout(0.0);
    };
    let precision = weights.precision(directory, device)?;
    let (config, mut blip2) = checkpoint::load_in(directory, adapt, precision, device)?;
    if let Some(adapter) = adapter {
        checkpoint::load_adapter(&mut blip2, adapter, |lora| lora.lora_dropout = 0.0)?;
    }
    inputs.check(&config)?;

    let mut comparison = Comparison::new();
    let (features, scores) = match weights {
        Weights::F32 => (TENSOR, TENSOR),
        Weights::Bf16 => (FEATURES_IN_BF16, LOGITS_IN_BF16),
        Weights::Int8 => (IN_INT8, IN_INT8),
    };
    let logits = forward(&blip2, &inputs, reference, features, &mut comparison)?;
    compare_logits(&logits, &inputs, reference, scores, &mut comparison)?;
    if weights != Weights::F32 {
        return Ok(comparison);
    }
    let loss = cross_entropy(logits, &inputs.targets, 0.0);
    comparison.floats("loss", reference, loss, LOSS)?;
    generate(directory, &blip2, &config, &inputs, reference, &mut comparison)?;
    if GRADIENTS.iter().any(|(name, _)| reference.tensors.contains_key(*name)) {
        gradients(blip2, &inputs, reference, device, &mut comparison)?;
    }
    comparison.note_the_rest(reference);
    Ok(comparison)
}

/// The inputs of the reference.
struct Inputs {
    frames: Tensor<5>,
    prompt: Prompt,
    targets: Targets,
    counts: Vec<bool>,
    most_ids: [(&'static str, i64); 3],
}

impl Inputs {
    fn new(reference: &Reference, device: &Device) -> anyhow::Result<Self> {
        let (pixels, shape) =
            reference.floats::<5>("pixel_values")?.context("there is no tensor pixel_values")?;
        let (labels, [b, t]) = reference.ids("labels")?.context("there is no tensor labels")?;
        let counts: Vec<bool> = labels.iter().map(|&label| label >= 0).collect();
        ensure!(counts.contains(&true), "no label counts: all are negative");
        let ids: Vec<i32> = labels.iter().map(|&label| label.max(0) as i32).collect();
        let mask: Vec<f32> = counts.iter().map(|&counts| f32::from(u8::from(counts))).collect();
        let tokens = |ids: &str, mask: &str| -> anyhow::Result<Option<PromptTokens>> {
            let Some((ids, shape)) = reference.ids(ids)? else { return Ok(None) };
            let values: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
            let mask = match reference.ids(mask)? {
                None => None,
                Some((values, mask_shape)) => {
                    ensure!(mask_shape == shape, "{mask} is {mask_shape:?}, expected {shape:?}");
                    let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
                    Some(Tensor::from_data(TensorData::new(values, shape), device))
                }
            };
            Ok(Some(PromptTokens { ids: Tensor::from_data(TensorData::new(values, shape), device), mask }))
        };
        let most = |name: &'static str| -> anyhow::Result<(&'static str, i64)> {
            let ids = reference.ids(name)?.map(|(ids, _)| ids).unwrap_or_default();
            ensure!(name == "labels" || ids.iter().all(|&id| id >= 0), "{name} hold a negative id");
            Ok((name, ids.into_iter().max().unwrap_or(0)))
        };
        Ok(Self {
            frames: Tensor::from_data(TensorData::new(pixels, shape), device),
            prompt: Prompt {
                text: tokens("input_ids", "input_mask")?,
                instruction: tokens("qformer_input_ids", "qformer_attention_mask")?,
                streams: None,
            },
            targets: Targets {
                ids: Tensor::<2, Int>::from_data(TensorData::new(ids, [b, t]), device),
                mask: Tensor::from_data(TensorData::new(mask, [b, t]), device),
            },
            counts,
            most_ids: [most("input_ids")?, most("labels")?, most("qformer_input_ids")?],
        })
    }

    /// Refuses ids that the model has no embedding for.
    fn check(&self, config: &Blip2Config) -> anyhow::Result<()> {
        let language_model = config.text_config.vocabulary_size();
        let counts = [language_model, language_model, config.qformer_config.vocab_size];
        for ((name, most), count) in self.most_ids.into_iter().zip(counts) {
            ensure!((most as usize) < count, "{name} hold id {most}, the checkpoint has {count} tokens");
        }
        Ok(())
    }

    fn visual(&self) -> Visual {
        Visual::Frames(self.frames.clone())
    }
}

/// Runs the model stage by stage, and compares the stages; returns the logits.
fn forward(
    blip2: &Blip2,
    inputs: &Inputs,
    reference: &Reference,
    tolerance: f64,
    comparison: &mut Comparison,
) -> anyhow::Result<Tensor<3>> {
    let features = blip2.normed_features(inputs.visual());
    let [b, f, p, d] = features.dims();
    let fused = blip2.fuse(features.clone());
    let queries = blip2.query(&fused, f, inputs.prompt.instruction.as_ref())?;
    let projected = blip2.language_projection.forward(queries.clone());
    let queries = frame_by_frame(queries, reference)?;
    comparison.floats("vision_features", reference, features.reshape([b * f, p, d]), tolerance)?;
    comparison.floats("fused_features", reference, fused, tolerance)?;
    comparison.floats("query_output", reference, queries, tolerance)?;
    comparison.floats("projected", reference, projected.clone(), tolerance)?;
    let prefix = blip2.with_prompt(projected, inputs.prompt.text.as_ref());
    Ok(blip2.language_model.score(prefix, inputs.targets.ids.clone())?)
}

/// Concatenated queries `[b, f·q, d]` in the reference's shape, which may be `[b·f, q, d]`.
fn frame_by_frame(queries: Tensor<3>, reference: &Reference) -> anyhow::Result<Tensor<3>> {
    let [b, all, d] = queries.dims();
    Ok(match reference.floats::<3>("query_output")? {
        Some((_, [rows, q, width])) if width == d && rows * q == b * all => queries.reshape([rows, q, d]),
        _ => queries,
    })
}

/// Compares logits where a label counts.
fn compare_logits(
    logits: &Tensor<3>,
    inputs: &Inputs,
    reference: &Reference,
    tolerance: f64,
    comparison: &mut Comparison,
) -> anyhow::Result<()> {
    let Some((expected, shape)) = reference.floats::<3>("logits")? else { return Ok(()) };
    ensure!(shape == logits.dims(), "logits are {shape:?} in the reference and {:?} here", logits.dims());
    let got = values(logits.clone())?;
    let [_, _, v] = shape;
    let counting = |values: &[f32]| -> Vec<f32> {
        let rows = values.chunks_exact(v).zip(&inputs.counts).filter(|(_, counts)| **counts);
        rows.flat_map(|(row, _)| row.iter().copied()).collect()
    };
    comparison.push("logits", &shape, &counting(&got), &counting(&expected), tolerance);
    Ok(())
}

/// Generates with every setting for which the reference has ids.
fn generate(
    directory: &Path,
    blip2: &Blip2,
    config: &Blip2Config,
    inputs: &Inputs,
    reference: &Reference,
    comparison: &mut Comparison,
) -> anyhow::Result<()> {
    let settings = &reference.settings;
    let end_tokens = match &settings.end_tokens {
        Some(tokens) => tokens.clone(),
        None => checkpoint::end_tokens(directory, config)?,
    };
    let beam = GenerateConfig { end_tokens: end_tokens.clone(), ..settings.beam.clone() };
    let greedy = GenerateConfig { num_beams: 1, ..beam.clone() };
    let mut asked = vec![
        ("generated_greedy".to_owned(), "generated_greedy_scores".to_owned(), Ok(greedy)),
        ("generated_beam".to_owned(), "generated_beam_scores".to_owned(), Ok(beam)),
    ];
    for (index, settings) in settings.generations.iter().enumerate() {
        let name = format!("generations.{index}");
        asked.push((
            format!("{name}.ids"),
            format!("{name}.scores"),
            generation(settings.clone(), &end_tokens),
        ));
    }
    for (name, scores_name, generate) in asked {
        let Some((expected, [_, columns])) = reference.ids(&name)? else { continue };
        let generate = match generate {
            Ok(generate) => generate,
            Err(reason) => {
                comparison.not_compared.push(format!("{name}: {reason}"));
                continue;
            }
        };
        let generated = blip2.caption(inputs.visual(), &inputs.prompt, &generate)?;
        let generated: Vec<_> = generated.into_iter().flatten().collect();
        let ids: Vec<Vec<i64>> =
            generated.iter().map(|one| one.ids.iter().map(|&id| i64::from(id)).collect()).collect();
        let sequences = Sequences {
            start: settings.decoder_start_token_id.or_else(|| config.text_config.start().map(i64::from)),
            ends: &generate.end_tokens,
            padding: settings.pad_token_id.or_else(|| config.text_config.padding().map(i64::from)),
        };
        let expected = expected.chunks(columns.max(1)).map(<[i64]>::to_vec).collect();
        comparison.sequences(&name, &sequences, ids, expected, IDS);
        if let Some((expected, [_])) = reference.floats::<1>(&scores_name)? {
            let scores: Vec<f32> = generated.iter().map(|one| one.score).collect();
            comparison.push(&scores_name, &[expected.len()], &scores, &expected, TENSOR);
        }
    }
    Ok(())
}

/// Compares the gradients of the loss.
fn gradients(
    blip2: Blip2,
    inputs: &Inputs,
    reference: &Reference,
    device: &Device,
    comparison: &mut Comparison,
) -> anyhow::Result<()> {
    let device = device.clone().autodiff();
    let blip2 = set_trainable(blip2.train().fork(&device), |_| true);
    let loss = blip2.caption_loss(inputs.visual(), &inputs.prompt, &inputs.targets)?;
    let gradients = loss.backward();
    for (name, parameter) in GRADIENTS {
        if !reference.tensors.contains_key(name) {
            continue;
        }
        let (values, shape) = gradient(&blip2, parameter, &gradients)
            .with_context(|| format!("{parameter} got no gradient"))?;
        let Some(HostTensor { shape: expected_shape, values: Values::Floats(expected) }) =
            reference.tensors.get(name)
        else {
            bail!("{name} must hold floats");
        };
        ensure!(&shape == expected_shape, "{name} is {expected_shape:?} in the reference and {shape:?} here");
        comparison.push(name, &shape, &values, expected, GRADIENT);
    }
    Ok(())
}
