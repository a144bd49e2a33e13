//! Twenty steps of AdamW as PyTorch takes them, from the same weights and batches, through the whole trainer.
//!
//! The fixtures are made by `scripts/reference/train_captioner.py` and `train_first_stage.py`. An epoch is one batch, so that
//! the trainer asks for a batch by its step. Prints the table of `docs/training-parity.md` with `--nocapture`.

#![allow(clippy::unwrap_used, clippy::panic)] // what fails in a helper fails the test

mod compare;
mod first_stage;
mod fixture;
mod scst;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use data::text::Tokenizer;
use model::generate::GenerateConfig;
use model::lm::LanguageModelConfig;
use serde::Deserialize;
use train::dashboard::Dashboard;
use train::processes::Alone;
use train::{
    BEST, Batch, Captioner, Context, Examples, Fit, HostPrompts, HostTokens, Outcome, Task, TrainConfig,
    TrainError, fit,
};

use compare::{Weights, check, shown_steps, weights};
use fixture::{Case, models, open, pixels};

const FRAMES: usize = 2;

#[derive(Debug, Deserialize)]
struct Captions {
    clips: Vec<usize>,
    prompts: Vec<Vec<u32>>,
    captions: Vec<Vec<u32>>,
}

/// One batch an epoch, each epoch's its own.
struct Steps<F> {
    rows: usize,
    batch: F,
}

impl<F: Fn(usize, Vec<usize>) -> Batch + Send + Sync> Examples for Steps<F> {
    fn len(&self) -> usize {
        self.rows
    }

    fn batch(&self, epoch: usize, items: &[usize]) -> Result<Batch, TrainError> {
        assert_eq!(items.len(), self.rows, "a whole batch");
        let step = epoch - 1;
        Ok((self.batch)(step, (step * self.rows..(step + 1) * self.rows).collect()))
    }
}

/// A tokenizer of so many words: what is compared knows no text.
fn tokenizer(vocabulary: usize) -> Arc<Tokenizer> {
    let words: Vec<String> = (3..vocabulary).map(|id| format!("w{id}")).collect();
    Arc::new(Tokenizer::word_level(&words).unwrap())
}

fn captioner<B>(case: &Case<B>) -> Captioner {
    let (config, blip2) = case.initial();
    let context = Context {
        tokenizer: tokenizer(config.text_config.vocabulary_size()),
        config,
        prompt: Vec::new(),
        generate: GenerateConfig::default(),
        label_smoothing: case.train.label_smoothing,
    };
    Captioner::new(blip2, context)
}

/// Trains for twenty steps.
fn trained<T: Task>(
    task: T,
    config: &TrainConfig,
    batch: impl Fn(usize, Vec<usize>) -> Batch + Send + Sync + 'static,
    directory: &Path,
) -> Outcome<T> {
    let rows = config.batch_size;
    let run = Fit {
        config: TrainConfig { epochs: 20, save_every: 1000, ..config.clone() },
        task,
        train: Arc::new(Steps { rows, batch }),
        validation: None,
        directory: directory.to_owned(),
        device: Device::flex(),
        seed: 1,
        label: "parity".to_owned(),
        settings: serde_json::Value::Null,
        stop: Arc::new(AtomicBool::new(false)),
        dashboard: Dashboard::Silent,
        processes: Arc::new(Alone),
    };
    fit(run).unwrap()
}

/// The weights of a captioner's folder, the adapter's among them.
fn captioner_weights(folder: &Path, adapter: Option<&Path>) -> Weights {
    let mut all = weights(&folder.join("model.safetensors"));
    if let Some(adapter) = adapter {
        all.extend(weights(&adapter.join("adapter_model.safetensors")));
    }
    all
}

/// Compares what a captioner's run wrote, which is what others read.
fn check_captioner<B>(name: &str, case: &Case<B>, directory: &Path) {
    let best = directory.join(BEST);
    let adapter = case.adapter.as_ref().map(|adapter| models().join(adapter));
    let got = captioner_weights(&best, adapter.as_ref().map(|_| best.as_path()));
    let initial = captioner_weights(&models().join(&case.model), adapter.as_deref());
    let expected = weights(&fixture::fixtures().join(format!("{name}.safetensors")));
    let steps = shown_steps(directory, case.train.round(1), 20);
    check(name, case, &steps, &got, &expected, &initial);
}

fn check_cross_entropy(name: &str) {
    let case: Arc<Case<Captions>> = Arc::new(open(name));
    let captioner = captioner(&case);
    let has_encoder = matches!(captioner.context().config.text_config, LanguageModelConfig::T5(_));
    let given = case.clone();
    let batch = move |step: usize, items| {
        let batch = &given.batches[step];
        let pad = if has_encoder { HostTokens::pad } else { HostTokens::pad_start };
        Batch::Caption {
            visual: pixels(&batch.clips, FRAMES),
            prompts: Some(HostPrompts { text: Some(pad(&batch.prompts)), instruction: None }),
            captions: Some(HostTokens::pad(&batch.captions)),
            texts: Vec::new(),
            clips: batch.clips.clone(),
            items,
        }
    };
    let directory = tempfile::tempdir().unwrap();
    trained(captioner, &case.train, batch, directory.path());
    check_captioner(name, &case, directory.path());
}

#[test]
fn cross_entropy_through_lora_in_two_parts_with_clipped_gradients() {
    check_cross_entropy("xe-t5-lora");
}

#[test]
fn cross_entropy_of_a_whole_opt_with_a_slower_vit_by_laviss_schedule() {
    check_cross_entropy("xe-opt-whole");
}

#[test]
fn cross_entropy_of_a_whole_t5() {
    check_cross_entropy("xe-t5-whole");
}
