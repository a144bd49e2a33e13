//! Times a training step and captioning of a mid-size BLIP-2 on the CPU, beside
//! `scripts/bench/blip2_torch.py`, which makes the model and the inputs: `scripts/bench/blip2.sh` runs both
//! in turns and prints the ratios.
//!
//!     cargo bench -p train --bench blip2 -- DIR [--rounds N] [--only CASE]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Int, Tensor, TensorData};
use model::checkpoint::source::Source;
use model::generate::GenerateConfig;
use model::loss::Targets;
use model::parameters::set_trainable;
use model::{Blip2, Prompt, Visual};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let Some(folder) = words.first().filter(|word| !word.starts_with('-')).map(PathBuf::from) else {
        println!("no model to time: run scripts/bench/blip2.sh, which makes one and its inputs");
        return Ok(());
    };
    let option = |name: &str| words.iter().position(|word| word == name).and_then(|at| words.get(at + 1));
    let rounds: usize = option("--rounds").map_or(Ok(5), |rounds| rounds.parse())?;
    let wanted = |case: &str| option("--only").is_none_or(|only| only == case);
    for (case, freezes_vit, parts) in [
        ("train", false, 1),
        ("train_in_halves", false, 2),
        ("train_frozen_vit", true, 1),
        ("train_frozen_vit_in_halves", true, 2),
    ] {
        if wanted(case) {
            train(case, &folder, freezes_vit, parts, rounds)?;
        }
    }
    if wanted("caption") {
        caption(&folder, rounds)?;
    }
    Ok(())
}

struct Inputs {
    pixels: Vec<f32>,
    shape: [usize; 5],
    labels: Vec<i32>,
    tokens: usize,
}

impl Inputs {
    fn read(path: &Path) -> Result<Self, Failure> {
        let source = Source::open(path)?;
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
        Ok(Self { pixels: source.read_f32("pixel_values")?, shape, labels, tokens })
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
}

fn train(case: &str, folder: &Path, freezes_vit: bool, parts: usize, rounds: usize) -> Result<(), Failure> {
    let inputs = Inputs::read(&folder.join("train.safetensors"))?;
    let (_, model) = model::checkpoint::load(folder, |config| config.set_dropout(0.0), &Device::flex())?;
    let is_trained =
        |name: &str| !(freezes_vit && (name.starts_with("vision_model.") || name.starts_with("ln_vision.")));
    let mut model = set_trainable(model.train(), is_trained);
    let mut optimizer: ModuleOptimizer =
        AdamWConfig::new().with_beta_2(0.999).with_epsilon(1e-8).with_weight_decay(0.05).init();
    let mut losses = Vec::new();
    let times = time(rounds, || {
        let (loss, gradients) = gradients(&model, &inputs, parts)?;
        model = optimizer.step(1e-4, model.clone(), gradients);
        losses.push(loss);
        Ok(())
    })?;
    report(case, &times, &format!(", \"losses\": {:?}", &losses[..losses.len().min(3)]));
    Ok(())
}

/// Loss and gradients of the batch, of its parts side by side as the trainer takes them.
fn gradients(model: &Blip2, inputs: &Inputs, parts: usize) -> Result<(f64, GradientsParams), Failure> {
    let b = inputs.shape[0];
    let part = |model: &Blip2, index: usize| -> Result<(f64, GradientsParams), String> {
        let rows = index * b / parts..(index + 1) * b / parts;
        let share = rows.len() as f64 / b as f64;
        let (visual, targets) = inputs.clips(rows, &Device::flex());
        let loss =
            model.caption_loss(visual, &Prompt::default(), &targets).map_err(|error| error.to_string())?;
        let loss = loss.mul_scalar(share);
        let value = loss.clone().without_autodiff().into_scalar::<f64>();
        Ok((value, GradientsParams::from_grads(loss.backward(), model)))
    };
    if parts == 1 {
        return Ok(part(model, 0)?);
    }
    let device = model.query_tokens.val().device();
    let done: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..parts)
            .map(|index| {
                let fork = model.clone().fork(&device);
                scope.spawn(move || part(&fork, index))
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

fn caption(folder: &Path, rounds: usize) -> Result<(), Failure> {
    let inputs = Inputs::read(&folder.join("caption.safetensors"))?;
    let device = Device::flex();
    let (_, model) = model::checkpoint::load(folder, |_| {}, &device)?;
    let config = GenerateConfig { num_beams: 5, max_new_tokens: 20, ..GenerateConfig::default() };
    let (visual, _) = inputs.clips(0..inputs.shape[0], &device);
    let times = time(rounds, || {
        model.caption(visual.clone(), &Prompt::default(), &config)?;
        Ok(())
    })?;
    report("caption", &times, "");
    let Visual::Frames(frames) = visual else { return Ok(()) };
    let times = time(rounds, || {
        model.vision_features(frames.clone()).into_data();
        Ok(())
    })?;
    report("caption_vit", &times, "");
    let features = model.vision_features(frames);
    let times = time(rounds, || {
        model.caption(Visual::Features(features.clone()), &Prompt::default(), &config)?;
        Ok(())
    })?;
    report("caption_without_vit", &times, "");
    Ok(())
}

/// A warm-up and so many rounds.
fn time(rounds: usize, mut round: impl FnMut() -> Result<(), Failure>) -> Result<Vec<Duration>, Failure> {
    round()?;
    let mut times = Vec::new();
    for _ in 0..rounds.max(1) {
        let start = Instant::now();
        round()?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times)
}

fn report(case: &str, times: &[Duration], more: &str) {
    let (least, median) = (times[0].as_secs_f64(), times[times.len() / 2].as_secs_f64());
    println!(
        "{{\"side\": \"recap\", \"case\": \"{case}\", \"seconds_min\": {least:.4}, \"seconds_median\": {median:.4}{more}}}"
    );
}
