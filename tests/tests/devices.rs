//! Accelerators: what Burn computes there, and what the program does with them. `scripts/test-gpu.sh` builds
//! and runs this on a real adapter or on Mesa's lavapipe.
#![cfg(feature = "wgpu")]
#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use burn::tensor::activation::gelu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use model::layers::Activation;
use model::loss::{Targets, cross_entropy};
use serde_json::Value;
use tests::Desk;

fn ramp<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|at| (at * 7919 % 2003) as f32 / 500.0 - 2.0).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// Largest difference, divided by the largest expected value.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let differences = found.iter().zip(expected).map(|(one, other)| (one - other).abs());
    assert!(found.iter().all(|value| value.is_finite()), "{found:?}");
    differences.fold(0.0, f32::max) / largest
}

/// The gradients of low-rank updates of a frozen weight, whose input has no gradient: burn #5162 has NaN.
fn low_rank_gradients(device: &Device) -> Vec<f32> {
    let device = device.clone().autodiff();
    let input = ramp([2, 33, 64], &device);
    let frozen = ramp([64, 48], &device);
    let (down, up) = (ramp([64, 8], &device).require_grad(), ramp([8, 48], &device).require_grad());
    let flat = input.reshape([66, 64]);
    let output = flat.clone().matmul(frozen) + flat.matmul(down.clone()).matmul(up.clone()) * 0.5;
    let mut gradients = (output.clone() * output).mean().backward();
    let of = |tensor: &Tensor<2>, gradients: &mut _| values(tensor.grad_remove(gradients).unwrap());
    [of(&down, &mut gradients), of(&up, &mut gradients)].concat()
}

#[test]
fn low_rank_updates_of_a_frozen_weight_have_the_gradients_of_the_cpu() {
    let found = difference(&low_rank_gradients(&Device::default()), &low_rank_gradients(&Device::flex()));
    assert!(found < 1e-4, "{found:e}");
}

/// `model/src/layers/activation.rs` computes GELU by `erf`, because Burn's has an approximate derivative.
#[test]
fn burns_gradient_of_gelu_still_needs_the_workaround() {
    let gradient = |device: &Device, gelu: fn(Tensor<1>) -> Tensor<1>| {
        let x = ramp([601], &device.clone().autodiff()).require_grad();
        let mut gradients = gelu(x.clone()).sum().backward();
        values(x.grad_remove(&mut gradients).unwrap())
    };
    let device = Device::default();
    let (own, burns) = (gradient(&device, |x| Activation::Gelu.forward(x)), gradient(&device, gelu));
    let on_cpu = gradient(&Device::flex(), gelu);
    assert!(difference(&own, &on_cpu) < 1e-5);
    assert!(
        difference(&burns, &on_cpu) > 5e-5,
        "Burn's gelu has an exact gradient now: remove on_device from model/src/layers/activation.rs"
    );
}

#[test]
fn a_tensor_beyond_the_adapters_limit_is_an_error_and_not_a_crash() {
    let device = Device::default();
    let too_large =
        Tensor::<2>::from_data(TensorData::new(vec![1.0_f32; 50 << 20], [50 << 10, 1 << 10]), &device);
    let read = (too_large + 1.0).slice([0..1, 0..1]).try_into_data();
    let error = format!("{:?}", read.unwrap_err());
    assert!(error.contains("allocate buffer of size: 209715200"), "{error}");
}

#[test]
fn auto_is_no_software_adapter_and_a_named_device_is_printed_with_its_name() {
    let desk = Desk::new();
    let ran = desk.run(&["doctor", "--json"]);
    let findings: Vec<Value> = serde_json::from_str(&ran.out).unwrap();
    let found = |finding: &&Value| finding["what"].as_str().unwrap().starts_with("device wgpu");
    let adapter = findings.iter().find(found).unwrap();
    assert!(adapter["found"].as_str().unwrap().contains("self-test"), "{adapter}");
    let is_software = adapter["found"].as_str().unwrap().contains("software");
    let study = ["ablation", "fusion", "--profile", "smoke", "--only", "concat", "--no-tui", "--device"];
    let ran = desk.run(&[&study[..], &["wgpu:99"]].concat());
    assert!(ran.code == Some(2) && ran.err.contains("of this kind"), "{}", ran.err);
    if is_software {
        let ran = desk.run(&[&study[..], &["auto"]].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let provenance = desk.read("runs/fusion/concat/seed-1/provenance.json");
        assert!(provenance.contains("\"cpu\"") && !ran.err.contains("device wgpu"), "{provenance}");
    }
}

/// The CPU's run and the device's, of the smoke profile.
#[test]
fn a_run_has_the_losses_of_the_cpu() {
    let desk = Desk::new();
    let history = |device: &str| -> Vec<f64> {
        let study = ["ablation", "freeze_vit", "--profile", "smoke", "--only", "qformer_only", "--no-tui"];
        let ran = desk.run(&[&study[..], &["--device", device, "--no-reuse"]].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let summary: Value = serde_json::from_str(&desk.read("runs/freeze_vit/summary.json")).unwrap();
        let history = summary["variants"][0]["runs"][0]["history"].as_array().unwrap().clone();
        history.iter().map(|epoch| epoch["loss"].as_f64().unwrap()).collect()
    };
    let device = std::env::var("RECAP_DEVICE").unwrap_or_else(|_| "wgpu".to_owned());
    let (found, expected) = (history(&device), history("cpu"));
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-3 * expected, "{found} {expected}");
    }
}

/// `[image_to_text, text_to_image]` as in the first stage: the most similar of `q` queries.
fn contrastive(device: &Device, b: usize, q: usize, smoothing: f64) -> Vec<f32> {
    let image: Tensor<3> = ramp([b, q, 8], device);
    let text: Tensor<2> = ramp([b, 8], device) * 0.7;
    // [b images, b texts, q]
    let products = image.matmul(text.swap_dims(0, 1).unsqueeze::<3>().repeat_dim(0, b)).swap_dims(1, 2);
    let image_to_text: Tensor<2> = products.max_dim(2).squeeze_dim(2);
    let text_to_image = image_to_text.clone().swap_dims(0, 1);
    let loss = |similarities: Tensor<2>| {
        let ids = Tensor::<1, Int>::arange(0..b as i64, device).reshape([b, 1]);
        let targets = Targets { ids, mask: Tensor::ones([b, 1], device) };
        cross_entropy(similarities.reshape([b, 1, b]), &targets, smoothing)
    };
    [values(loss(image_to_text)), values(loss(text_to_image))].concat()
}

#[test]
fn cross_entropy_has_the_value_of_the_cpu_for_every_number_of_classes() {
    for smoothing in [0.0, 0.1] {
        for b in 2..10 {
            let [found, expected] =
                [Device::default(), Device::flex()].map(|device| contrastive(&device, b, 3, smoothing));
            assert!(difference(&found, &expected) < 1e-5, "{smoothing} {b}: {found:?} {expected:?}");
        }
    }
}

/// One variant of each, as a variant takes minutes where the driver computes on the CPU. `evaluate` must
/// reproduce its result.
#[test]
fn a_variant_of_every_ablation_runs_in_smoke_mode() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/configs/ablations");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let variant =
            text.lines().find_map(|line| line.strip_prefix("[variants.")?.strip_suffix(']')).unwrap();
        let start = std::time::Instant::now();
        let desk = Desk::new();
        let ran = desk.run(&["ablation", name, "--profile", "smoke", "--no-tui", "--only", variant]);
        assert_eq!(ran.code, Some(0), "{name}: {}{}", ran.out, ran.err);
        let run = format!("runs/{name}/{variant}/seed-1");
        let result: Value = serde_json::from_str(&desk.read(&format!("{run}/result.json"))).unwrap();
        let again = desk.run(&["evaluate", "--checkpoint", &format!("{run}/best"), "--json"]);
        assert_eq!(again.code, Some(0), "{run}: {}", again.err);
        let again: Value = serde_json::from_str(&again.out).unwrap();
        assert!(again.is_object() && again == result["test"], "{run}: {again} {}", result["test"]);
        println!("{name}, {variant}: {:.0} s", start.elapsed().as_secs_f64());
        count += 1;
    }
    assert_eq!(count, 11);
}
