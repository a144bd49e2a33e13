//! What PyTorch recorded: settings, batches, every step, and the weights at the end.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use captioner::HostVisual;
use model::checkpoint::source::Source;
use model::{Blip2, Blip2Config};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use train::TrainConfig;

/// A file CASE.json of `scripts/reference/training.py`, which tells what is in it.
#[derive(Debug, Deserialize)]
pub(crate) struct Case<B> {
    /// Folder of the initial weights, among the fixtures of `model`.
    pub(crate) model: String,
    /// Folder of the adapter.
    #[serde(default)]
    pub(crate) adapter: Option<String>,
    #[serde(default)]
    pub(crate) fusion: model::fusion::Fusion,
    pub(crate) train: TrainConfig,
    pub(crate) batches: Vec<B>,
    pub(crate) steps: Vec<Step>,
    pub(crate) without_gradient: Vec<String>,
    pub(crate) float64: Floor,
}

/// What PyTorch saw of a step.
#[derive(Debug, Deserialize)]
pub(crate) struct Step {
    pub(crate) loss: f64,
    pub(crate) gradient_norm: f64,
    pub(crate) learning_rate: f64,
}

/// How far PyTorch in f64 is from PyTorch in f32.
#[derive(Debug, Deserialize)]
pub(crate) struct Floor {
    pub(crate) loss: f64,
    pub(crate) weights: f64,
}

/// Reads CASE.json.
pub(crate) fn open<C: DeserializeOwned>(case: &str) -> C {
    let text = std::fs::read_to_string(fixtures().join(format!("{case}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The fixtures of this crate.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity")
}

/// The fixtures of the model crate, which hold the initial weights.
pub(crate) fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/parity")
}

impl<B> Case<B> {
    /// The model at its start, nothing dropped out.
    pub(crate) fn initial(&self) -> (Blip2Config, Blip2) {
        let adapt = |config: &mut Blip2Config| {
            config.set_dropout(0.0);
            config.fusion = self.fusion;
        };
        let (mut config, mut blip2) =
            model::checkpoint::load(&models().join(&self.model), adapt, &Device::default()).unwrap();
        if let Some(adapter) = &self.adapter {
            let adapter = models().join(adapter);
            let lora = model::checkpoint::load_adapter(&mut blip2, &adapter, |lora| lora.lora_dropout = 0.0);
            config.lora = Some(lora.unwrap());
        }
        (config, blip2)
    }
}

/// The pictures of some clips; `frames` are the first ones of each.
pub(crate) fn pixels(clips: &[usize], frames: usize) -> HostVisual {
    let source = Source::open(&fixtures().join("clips.safetensors")).unwrap();
    let shape = source.get("pixel_values").unwrap().shape.to_vec();
    let [_, all_frames, channels, height, width] = shape.try_into().unwrap();
    let all = source.read_f32("pixel_values").unwrap();
    let picture = channels * height * width;
    let of_clip = |&clip: &usize| &all[clip * all_frames * picture..][..frames * picture];
    let values: Vec<f32> = clips.iter().flat_map(of_clip).copied().collect();
    HostVisual::Frames { values, shape: [clips.len(), frames, channels, height, width] }
}
