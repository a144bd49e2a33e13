//! Our numbers against those of `transformers` on tiny random models of every language model.
//!
//! The references are made by `python scripts/reference/fixtures.py`; what they hold, and the tolerances, are those of
//! `experiments verify`.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use experiments::verify::{Comparison, Reference, verify};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/parity")
}

/// Compares a checkpoint with the references of these names, and gives back what was compared.
fn check(checkpoint: &str, references: &[&str]) -> Vec<Comparison> {
    let folder = fixtures().join(checkpoint);
    references
        .iter()
        .map(|name| {
            let reference = Reference::read(&folder.join(name).with_extension("safetensors")).unwrap();
            let comparison = verify(&folder, &reference, false, &Device::flex()).unwrap();
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
fn llama_equals_transformers() {
    check("llama", &EVERY);
    check("llama-grouped", &EVERY);
}

#[test]
fn weights_in_bf16_give_the_logits_of_f32_to_two_hundredths() {
    for checkpoint in ["opt", "t5-flan", "llama-grouped"] {
        let folder = fixtures().join(checkpoint);
        let reference = Reference::read(&folder.join("frames3-concat-prompt.safetensors")).unwrap();
        let comparison = verify(&folder, &reference, true, &Device::flex()).unwrap();
        println!("{checkpoint}\n{}", comparison.to_text());
        assert!(comparison.passed, "{checkpoint}\n{}", comparison.to_text());
    }
}
