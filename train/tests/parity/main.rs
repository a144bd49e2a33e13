//! Twenty steps of AdamW as PyTorch takes them, from the same weights and batches, through the whole trainer.
//!
//! The fixtures are made by `scripts/reference/train_captioner.py` and `train_first_stage.py`. With
//! `--nocapture` each test prints its row of the table in `docs/training-parity.md`.

#![allow(clippy::unwrap_used, clippy::panic)] // what fails in a helper fails the test

mod captioning;
mod compare;
mod first_stage;
mod fixture;
mod watched;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use train::dashboard::Dashboard;
use train::processes::SingleProcess;
use train::{Batch, Examples, Fit, Objective, Outcome, TrainConfig, TrainError, fit};

/// Steps of every run.
const STEPS: usize = 20;

/// One batch an epoch, each epoch's its own, so that the trainer asks for a batch by its step. Its items are
/// numbered through the run.
struct Batches<F> {
    rows: usize,
    batch: F,
}

impl<F: Fn(usize, Vec<usize>) -> Batch + Send + Sync> Examples for Batches<F> {
    fn len(&self) -> usize {
        self.rows
    }

    fn batch(&self, epoch: usize, items: &[usize], _own: Range<usize>) -> Result<Batch, TrainError> {
        assert_eq!(items.len(), self.rows, "a whole batch");
        let step = epoch - 1;
        Ok((self.batch)(step, (step * self.rows..(step + 1) * self.rows).collect()))
    }
}

/// Trains on one batch a step.
fn trained<O: Objective>(
    model: O::Model,
    objective: O,
    config: &TrainConfig,
    batch: impl Fn(usize, Vec<usize>) -> Batch + Send + Sync + 'static,
    directory: &Path,
) -> Outcome<O::Model> {
    let rows = config.batch_size;
    let run = Fit {
        config: TrainConfig { epochs: STEPS, save_every: 1000, ..config.clone() },
        objective,
        train: Arc::new(Batches { rows, batch }),
        validation: None,
        directory: directory.to_owned(),
        device: Device::default(),
        seed: 1,
        label: "parity".to_owned(),
        settings: serde_json::Value::Null,
        stop: Arc::new(AtomicBool::new(false)),
        dashboard: Dashboard::Silent,
        processes: Arc::new(SingleProcess),
    };
    fit(model, run).unwrap()
}
