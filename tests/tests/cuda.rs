//! The CUDA kernels of captioning and of gradients compile to machine code. `scripts/cuda-check.sh` runs this
//! with `tests/cuda/driver.c` in place of NVIDIA's driver: the kernels are generated for the card that it
//! claims to be, NVRTC compiles them, and none is run, so that no number is compared.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use experiments::commands::verify::{Reference, Subject, Weights, verify};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/parity")
}

/// Modules that the driver has loaded.
fn loaded() -> u64 {
    std::fs::metadata(std::env::var("RECAP_CUDA_COUNT").unwrap()).map_or(0, |file| file.len())
}

/// Features, logits, generation, and gradients where the reference has them.
fn compute(checkpoint: &str, adapter: Option<&str>, weights: Weights) {
    let folder = fixtures().join(checkpoint);
    let adapter = adapter.map(|adapter| fixtures().join("lora").join(adapter));
    let reference = match &adapter {
        Some(adapter) => adapter.join("reference.safetensors"),
        None => folder.join("frames3-concat-prompt.safetensors"),
    };
    let before = loaded();
    let subject = Subject { checkpoint: &folder, adapter: adapter.as_deref(), weights };
    let comparison = verify(&subject, &Reference::read(&reference).unwrap(), &Device::cuda(0)).unwrap();
    assert!(comparison.tensors.len() >= 5, "{checkpoint} computes next to nothing");
    println!("{checkpoint}, adapter {adapter:?}, {weights:?}: {} kernels compiled", loaded() - before);
}

#[test]
fn every_kernel_of_captioning_and_of_its_gradients_compiles() {
    for weights in [Weights::F32, Weights::Bf16] {
        for checkpoint in ["t5-flan", "opt", "llama-grouped"] {
            compute(checkpoint, None, weights);
        }
    }
    for (checkpoint, adapter) in [("t5-flan", "t5-flan"), ("opt", "opt")] {
        compute(checkpoint, Some(adapter), Weights::F32);
    }
    assert!(loaded() > 50, "{} kernels", loaded());
}
