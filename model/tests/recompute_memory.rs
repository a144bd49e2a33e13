//! Peak memory of a step that computes the inside of blocks a second time, counted byte by byte on the CPU.
//!
//! Doubling the number of blocks must cost what enters them, not what is inside them.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

mod counting;

use std::alloc::System;
use std::sync::Mutex;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use model::lm::opt::OptConfig;
use model::lm::{LanguageModelConfig, Prefix};
use model::lora::{LoraConfig, attach};
use model::parameters::{draw, set_trainable};
use model::recompute::{Draws, Recompute, backward};
use model::vit::VitConfig;

use counting::{Counting, peak_of};

#[global_allocator]
static ALLOCATOR: Counting<System> = Counting(System);

/// The tests count all of the process's memory, so only one may run.
static TURN: Mutex<()> = Mutex::new(());

/// Most bytes in use during a step beyond those before it, of two steps: the first sets things up.
fn peak<M: Module>(model: &M, recompute: Recompute, loss: impl Fn(&M) -> Tensor<1>) -> usize {
    let mut peak = 0;
    for _ in 0..2 {
        let step = || backward(model, recompute, Draws::of_batch(0, 1), || Ok::<_, ()>(loss(model))).unwrap();
        (peak, _) = peak_of(step);
    }
    peak
}

/// Bytes that each of the blocks 5 to 8 adds to the peak, without and with recomputing, and the peak of eight
/// blocks.
fn cost_of_a_block(peak_of: impl Fn(usize, Recompute) -> usize) -> [(usize, usize); 2] {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    [Recompute::default(), Recompute::ALL].map(|recompute| {
        let (four, eight) = (peak_of(4, recompute), peak_of(8, recompute));
        ((eight - four) / 4, eight)
    })
}

fn assert_a_block_costs_its_input([(all, all_peak), (least, least_peak)]: [(usize, usize); 2], input: usize) {
    println!("a block costs {all} bytes, or {least} recomputed; what enters it has {input}");
    println!("peaks of eight blocks: {all_peak}, {least_peak}");
    assert!(all > 10 * input, "a block keeps {all} bytes, which are no activations");
    // a tenth for the tape, and for what the allocator's users round up
    assert!(least * 10 < input * 11, "a block costs {least} bytes, but what enters it has {input}");
    // the inside of one block is there at a time, as a graph and, in part, as gradients
    let predicted = all_peak - 8 * all + 8 * input + all;
    assert!(least_peak * 10 < predicted * 12, "peak {least_peak}, predicted {predicted}");
}

#[test]
fn a_trained_vit_keeps_what_enters_its_blocks_and_the_inside_of_one() {
    let (b, d) = (16, 48);
    let costs = cost_of_a_block(|blocks, recompute| {
        let config = VitConfig {
            hidden_size: d,
            intermediate_size: 4 * d,
            num_hidden_layers: blocks,
            num_attention_heads: 4,
            image_size: 64,
            patch_size: 8,
            ..VitConfig::default()
        };
        let vit = config.init(&Device::flex());
        draw(&vit);
        let images = Tensor::<4>::ones([b, 3, 64, 64], &Device::flex());
        peak(&vit.train(), recompute, |vit| vit.forward(images.clone()).square().mean())
    });
    assert_a_block_costs_its_input(costs, b * 65 * d * 4);
}

#[test]
fn a_frozen_language_model_with_lora_does_too() {
    let (b, t, d) = (16, 64, 48);
    let costs = cost_of_a_block(|blocks, recompute| {
        let config = LanguageModelConfig::Opt(OptConfig {
            vocab_size: 50,
            hidden_size: d,
            num_hidden_layers: blocks,
            num_attention_heads: 4,
            ffn_dim: 4 * d,
            max_position_embeddings: t,
            ..OptConfig::default()
        });
        let mut language_model = config.init(&Device::flex());
        let lora = LoraConfig {
            r: 2,
            target_modules: vec!["q_proj".to_owned(), "v_proj".to_owned()],
            ..LoraConfig::default()
        };
        attach(&mut language_model, &lora);
        draw(&language_model);
        let language_model = set_trainable(language_model.train(), |name| name.contains(".lora."));
        let embedded = Tensor::<3>::ones([b, t - 4, d], &Device::flex());
        let targets = Tensor::<2, Int>::ones([b, 5], &Device::flex());
        peak(&language_model, recompute, |language_model| {
            let prefix = Prefix { embedded: embedded.clone(), mask: None };
            language_model.score(prefix, targets.clone()).unwrap().square().mean()
        })
    });
    assert_a_block_costs_its_input(costs, b * t * d * 4);
}
