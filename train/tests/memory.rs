//! Peak memory of a step with gradient accumulation, counted byte by byte on the CPU: it does not depend on
//! the number of micro-batches.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

#[path = "../../model/tests/counting/mod.rs"]
mod counting;

use std::alloc::System;
use std::path::Path;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use captioner::{HostTokens, HostVisual};
use model::recompute::Recompute;
use train::gradients::{MicroBatches, gradients, threads};
use train::objective::{Evaluation, Loss, Objective, StepContext};
use train::processes::{SingleProcess, Transfer};
use train::{Batch, TrainError};

use counting::{Counting, peak_of};

#[global_allocator]
static ALLOCATOR: Counting<System> = Counting(System);

const WIDTH: usize = 256;

/// Layers whose gradients are larger than their activations, as those of a language model are.
#[derive(Module, Debug)]
struct Layers {
    layers: Vec<Linear>,
}

#[derive(Debug)]
struct MeanSquare;

impl Objective for MeanSquare {
    type Model = Layers;

    fn weight(&self, batch: &Batch) -> f64 {
        batch.items().len() as f64
    }

    fn loss(&self, model: &Layers, batch: Batch, _: &StepContext<'_>) -> Result<Loss, TrainError> {
        let rows = batch.items().len();
        let Batch::Caption { visual: HostVisual::Features { values, .. }, .. } = batch else {
            panic!("the batches of this test hold features")
        };
        let device = model.devices().remove(0);
        let input = Tensor::<2>::from_data(TensorData::new(values, [rows, WIDTH]), &device);
        let output = model.layers.iter().fold(input, |hidden, layer| layer.forward(hidden).tanh());
        Ok(output.square().mean().into())
    }

    fn evaluate(&self, _: &Layers, _: Batch) -> Result<Evaluation, TrainError> {
        Ok(Evaluation::default())
    }

    fn save(&self, _: &Layers, _: &Path) -> Result<(), TrainError> {
        Ok(())
    }
}

/// Rows of features.
fn batch(rows: usize) -> Batch {
    Batch::Caption {
        visual: HostVisual::Features { values: vec![0.5; rows * WIDTH], shape: [rows, 1, 1, WIDTH] },
        prompts: None,
        captions: Some(HostTokens::pad(&vec![vec![1]; rows])),
        texts: Vec::new(),
        clips: Vec::new(),
        items: (0..rows).collect(),
    }
}

#[test]
fn sixty_four_micro_batches_take_no_more_memory_than_four() {
    let device = Device::flex().autodiff();
    let layer = || LinearConfig::new(WIDTH, WIDTH).init(&device);
    let model = Layers { layers: (0..8).map(|_| layer()).collect() };
    let context = StepContext { seed: 1, processes: &SingleProcess };
    let buffer = model.num_params() * 4;
    let peak = |count: usize, in_parallel: bool| {
        let micro_batches =
            MicroBatches { count, in_parallel, recompute: Recompute::default(), transfer: Transfer::F32 };
        let step = || gradients(&MeanSquare, &model, batch(2 * count), micro_batches, &context).unwrap();
        // the first step sets things up
        drop(step());
        peak_of(step).0
    };
    let (four, many) = (peak(4, false), peak(64, false));
    println!("4: {four} bytes, 64: {many} bytes, one buffer: {buffer} bytes");
    assert!(many * 100 <= four * 105, "{many} bytes with 64 micro-batches, {four} with 4");
    assert!(many > 2 * buffer, "the sum and the gradients of a micro-batch are there together");
    // in threads, how many are at their peak at the same time is a matter of chance
    let threaded = peak(64, true);
    let most = four * threads().min(64);
    assert!(threaded * 100 <= most * 105, "{threaded} bytes in {} threads, {four} in one", threads());
}
