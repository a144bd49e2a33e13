//! Times a published model's sizes with random weights on any device: a training step of the Q-Former (ViT
//! and language model frozen), and beam-5 captioning. `scripts/gpu-check.sh` runs it beside
//! `scripts/bench/full_size_torch.py`.
//!
//! cargo bench -p experiments --features cuda --profile dev --bench full_size -- --preset blip2-flan-t5-xl
//! --device cuda

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, bail};
use burn::module::{Module, ModuleMapper, Param};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Distribution, Int, Tensor};
use clap::Parser;
use experiments::commands::verify::Weights;
use experiments::runtime::device;
use model::checkpoint::{self, Precision};
use model::generate::GenerateConfig;
use model::loss::Targets;
use model::parameters::{FieldPath, count, set_trainable};
use model::presets::Preset;
use model::{Blip2, Prompt, Visual};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sizes and amounts.
#[derive(Debug, Parser)]
struct Arguments {
    /// A published model's name
    #[arg(long, default_value = "blip2-flan-t5-xl")]
    preset: String,
    /// Other sizes, as a config.json
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where to compute
    #[arg(long, default_value = "auto")]
    device: String,
    /// Number type of the values of ViT and language model
    #[arg(long, value_enum, default_value_t, value_name = "TYPE")]
    weights: Weights,
    /// Clips
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Frames a clip
    #[arg(long, default_value_t = 8)]
    frames: usize,
    /// Tokens of a caption
    #[arg(long, default_value_t = 16)]
    tokens: usize,
    /// Rounds after the warm-up
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Do not time training
    #[arg(long)]
    captions_only: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    // `cargo bench --workspace` runs every benchmark without arguments; this one needs a quiet machine
    if std::env::args().skip(1).all(|word| word == "--bench") {
        println!("full size is not timed unless asked for: see scripts/gpu-check.sh");
        return Ok(());
    }
    let arguments = Arguments::parse();
    let device = device::select(&arguments.device)?.device;
    let mut config = match &arguments.config {
        Some(path) => checkpoint::load_config_file(path)?,
        None => Preset::from_name(&arguments.preset)
            .with_context(|| format!("no published model is named {}", arguments.preset))?
            .config(),
    };
    config.set_dropout(0.0);
    if config.qformer_config.reads_text {
        bail!("InstructBLIP wants an instruction; time a BLIP-2");
    }
    device.seed(0);
    let precision = match arguments.weights {
        Weights::F32 => Precision::default(),
        Weights::Bf16 => Precision::half(&device, &config.text_config),
        Weights::Int8 => Precision::int8(),
    };
    println!("types: {precision:?}");
    let mut model = config.init(&device);
    if precision.int8 {
        model::quantise::quantise(&mut model)?;
    } else {
        model = model.map(&mut Cast { path: FieldPath::default(), precision });
    }
    println!("parameters: {}", count(&model, |_| true));
    let size = config.vision_config.image_size;
    let shape = [arguments.batch, arguments.frames, 3, size, size];
    let frames = Tensor::<5>::random(shape, Distribution::Normal(0.0, 1.0), &device);
    caption(&arguments, &model, &frames, &device)?;
    if arguments.captions_only {
        return Ok(());
    }
    train(&arguments, model, &frames, &device)
}

/// Draws every weight, and casts it as soon as it is drawn.
struct Cast {
    path: FieldPath,
    precision: Precision,
}

impl ModuleMapper for Cast {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        let dtype = self.precision.of(&name);
        parameter.map(|tensor| tensor.cast(dtype))
    }
}

fn caption(arguments: &Arguments, model: &Blip2, frames: &Tensor<5>, device: &Device) -> anyhow::Result<()> {
    let config = GenerateConfig { num_beams: 5, max_new_tokens: 20, ..GenerateConfig::default() };
    let round = || {
        model.caption(Visual::Frames(frames.clone()), &Prompt::default(), &config)?;
        Ok(())
    };
    report(arguments, "caption", &time(arguments.rounds, device, round)?);
    let round = || {
        model.vision_features(frames.clone());
        Ok(())
    };
    report(arguments, "caption_vit", &time(arguments.rounds, device, round)?);
    Ok(())
}

fn train(arguments: &Arguments, model: Blip2, frames: &Tensor<5>, device: &Device) -> anyhow::Result<()> {
    let is_trained = |name: &str| !name.starts_with("vision_model.") && !name.starts_with("language_model.");
    let mut model = set_trainable(model.train(), is_trained);
    let mut optimizer: ModuleOptimizer = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.05).init();
    let [b, t] = [arguments.batch, arguments.tokens];
    let targets = Targets {
        ids: Tensor::<1, Int>::arange(5..(5 + b * t) as i64, device).reshape([b, t]),
        mask: Tensor::ones([b, t], device),
    };
    let times = time(arguments.rounds, device, || {
        let loss = model.caption_loss(Visual::Frames(frames.clone()), &Prompt::default(), &targets)?;
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(1e-5, model.clone(), gradients);
        Ok(())
    })?;
    report(arguments, "train_qformer", &times);
    Ok(())
}

/// A warm-up, in which kernels are compiled and tuned, and so many rounds.
fn time(
    rounds: usize,
    device: &Device,
    mut round: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for index in 0..=rounds.max(1) {
        let start = Instant::now();
        round()?;
        device.sync().map_err(|error| anyhow::anyhow!("{error:?}"))?;
        if index > 0 {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn report(arguments: &Arguments, case: &str, times: &[f64]) {
    let median = times[times.len() / 2];
    let clips = arguments.batch as f64 / median;
    println!(
        "recap {case}: {:.3} s least, {median:.3} s median, {clips:.2} clips a second",
        times.first().copied().unwrap_or(median)
    );
}
