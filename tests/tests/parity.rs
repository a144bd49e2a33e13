//! Our numbers against those of `transformers` on tiny random models of every language model.
//!
//! The references are made by `python scripts/reference/fixtures.py`; what they hold, and the tolerances, are
//! those of `experiments verify`.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use experiments::commands::verify::{Comparison, Reference, Subject, Weights, verify};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/parity")
}

/// Burn's default device: the CPU, or what `BURN_DEVICE` names where the tests are built with it
/// (`scripts/test-gpu.sh`).
fn device() -> Device {
    Device::default()
}

/// Compares a checkpoint with the references of these names, and gives back what was compared.
fn check(checkpoint: &str, references: &[&str]) -> Vec<Comparison> {
    let folder = fixtures().join(checkpoint);
    references
        .iter()
        .map(|name| {
            let reference = Reference::read(&folder.join(name).with_extension("safetensors")).unwrap();
            let subject = Subject { checkpoint: &folder, adapter: None, weights: Weights::F32 };
            let comparison = verify(&subject, &reference, &device()).unwrap();
            println!("{checkpoint}/{name}\n{}", comparison.to_text());
            assert!(comparison.passed, "{checkpoint}/{name}\n{}", comparison.to_text());
            assert!(comparison.tensors.len() >= 6, "{checkpoint}/{name} compares next to nothing");
            comparison
        })
        .collect()
}

const EVERY: [&str; 4] = ["frames1", "frames3-average", "frames3-concat-prompt", "padded-prompts"];

#[test]
fn opt_equals_transformers() {
    check("opt", &EVERY);
}

#[test]
fn flan_t5_equals_transformers() {
    check("t5-flan", &EVERY);
}

#[test]
fn flan_t5_with_the_exact_gelu_of_lavis_equals_transformers() {
    check("t5-flan-erf-gelu", &EVERY);
}

#[test]
fn t5_with_a_tied_head_equals_transformers() {
    check("t5-v1.0", &EVERY);
    check("t5-tied-unscaled", &EVERY);
}

#[test]
fn t5_with_three_embedding_tables_equals_transformers() {
    check("t5-three-tables", &["frames1", "frames3-concat-prompt"]);
}

#[test]
fn llama_equals_transformers() {
    check("llama", &EVERY);
    check("llama-grouped", &EVERY);
}

fn check_narrow(weights: Weights) {
    for checkpoint in ["opt", "t5-flan", "llama-grouped"] {
        let folder = fixtures().join(checkpoint);
        let reference = Reference::read(&folder.join("frames3-concat-prompt.safetensors")).unwrap();
        let subject = Subject { checkpoint: &folder, adapter: None, weights };
        let comparison = verify(&subject, &reference, &device()).unwrap();
        println!("{checkpoint}\n{}", comparison.to_text());
        assert!(comparison.passed, "{checkpoint}\n{}", comparison.to_text());
        assert_eq!(comparison.tensors.len(), 5, "every stage and the logits");
    }
}

#[test]
fn weights_in_bf16_give_the_features_and_logits_of_f32_to_their_tolerances() {
    check_narrow(Weights::Bf16);
}

#[test]
fn weights_in_int8_give_the_features_and_logits_of_f32_to_their_tolerances() {
    if device() == Device::flex() {
        check_narrow(Weights::Int8);
    }
}

#[test]
fn instructblip_equals_transformers_on_images_and_on_video() {
    for checkpoint in ["instructblip-t5", "instructblip-llama", "instructblipvideo-llama"] {
        check(checkpoint, &["reference"]);
    }
}

#[test]
fn updates_of_peft_give_what_peft_computes() {
    for (base, adapter) in
        [("t5-flan", "t5-flan"), ("opt", "opt"), ("opt", "opt-rslora"), ("llama-grouped", "llama-grouped")]
    {
        let adapter = fixtures().join("lora").join(adapter);
        let reference = Reference::read(&adapter.join("reference.safetensors")).unwrap();
        let with = |adapter: Option<&Path>| {
            let subject = Subject { checkpoint: &fixtures().join(base), adapter, weights: Weights::F32 };
            verify(&subject, &reference, &device()).unwrap()
        };
        let comparison = with(Some(&adapter));
        println!("{base} with its adapter\n{}", comparison.to_text());
        assert!(comparison.passed, "{base}\n{}", comparison.to_text());
        assert!(!with(None).passed, "{base}: without its adapter it must compute something else");
    }
}

#[test]
fn shards_and_pickles_hold_the_same_model() {
    let reference = |name: &str| Reference::read(&fixtures().join(name)).unwrap();
    for (checkpoint, of) in [
        ("opt/sharded", "opt/frames1.safetensors"),
        ("opt/bin", "opt/frames1.safetensors"),
        ("t5-flan/sharded", "t5-flan/frames1.safetensors"),
        ("llama/sharded", "llama/frames1.safetensors"),
    ] {
        let subject =
            Subject { checkpoint: &fixtures().join(checkpoint), adapter: None, weights: Weights::F32 };
        let comparison = verify(&subject, &reference(of), &device()).unwrap();
        assert!(comparison.passed, "{checkpoint}\n{}", comparison.to_text());
    }
}
