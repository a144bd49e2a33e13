//! The operations that Recap's models consist of, computed on a device and on the CPU.
//!
//! A driver can compute wrong numbers without an error, as SwiftShader, Chromium's software Vulkan, does with
//! cubecl's SPIR-V.

use burn::tensor::activation::softmax;
use burn::tensor::module::linear;
use burn::tensor::{Device, Distribution, FloatDType, Int, Tensor, TensorData};
use model::layers::Activation;
use serde::{Deserialize, Serialize};

/// How an operation's result on the device differs from that on the CPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The operation and the type of its values.
    pub operation: String,
    /// Largest absolute difference, divided by the largest value; the largest number where a
    /// value is not a number.
    pub difference: f64,
    /// Largest difference that is accepted.
    pub tolerance: f64,
}

impl Measured {
    /// Whether the device computes what the CPU computes.
    pub fn passes(&self) -> bool {
        self.difference <= self.tolerance
    }
}

/// An operation in a type, on a device: its values.
type Operation = fn(&Device, FloatDType) -> Tensor<1>;

/// Each operation. Sizes are not multiples of a kernel's tiles, so that the edges of tiles count.
const OPERATIONS: [(&str, Operation); 8] = [
    ("matrix product", matrix_product),
    ("batched matrix product", batched_matrix_product),
    ("attention", attention),
    ("softmax", |device, dtype| flat(softmax(input([37, 53], 3.0, device, dtype), 1))),
    ("layer norm", layer_norm),
    ("embedding", embedding),
    ("random numbers", random),
    ("backward pass", backward),
];

/// The types that the device computes with, and the difference that each accepts: f32 to the rounding of
/// sums of a hundred terms, f16 and bf16 to a few of their last digits (11 and 8 bits).
fn types(device: &Device) -> impl Iterator<Item = (FloatDType, &'static str, f64)> {
    let all =
        [(FloatDType::F32, "f32", 1e-4), (FloatDType::F16, "f16", 1e-2), (FloatDType::BF16, "bf16", 5e-2)];
    let device = device.clone();
    all.into_iter().filter(move |(dtype, ..)| device.supports_dtype(*dtype))
}

/// Computes every operation in every type of the device, and on the CPU.
pub(super) fn run(device: &Device, begins: impl Fn(&str), ends: impl Fn(Measured)) {
    let cpu = Device::flex();
    for (dtype, name, tolerance) in types(device) {
        for (operation, compute) in OPERATIONS {
            let operation = format!("{operation} in {name}");
            begins(&operation);
            let difference = difference(compute(device, dtype), compute(&cpu, dtype));
            ends(Measured { operation, difference, tolerance });
        }
    }
}

/// The difference where a value is not a number. JSON has no infinity.
const NOT_A_NUMBER: f64 = f64::MAX;

fn difference(found: Tensor<1>, expected: Tensor<1>) -> f64 {
    let values = |tensor: Tensor<1>| tensor.cast(FloatDType::F32).into_data().try_to_vec::<f32>();
    let (Ok(found), Ok(expected)) = (values(found), values(expected)) else { return NOT_A_NUMBER };
    if found.len() != expected.len() || found.iter().any(|value| !value.is_finite()) {
        return NOT_A_NUMBER;
    }
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    let differences = found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs());
    f64::from(differences.fold(0.0, f32::max) / largest)
}

/// Values in `[-scale, scale]` without a pattern that a wrong kernel could reproduce.
fn input<const D: usize>(shape: [usize; D], scale: f32, device: &Device, dtype: FloatDType) -> Tensor<D> {
    let count: usize = shape.iter().product();
    let value = |index: usize| (index * 7919 % 2003) as f32 / 1001.0 - 1.0;
    let values: Vec<f32> = (0..count).map(|index| scale * value(index + count)).collect();
    Tensor::<D>::from_data(TensorData::new(values, shape), device).cast(dtype)
}

fn flat<const D: usize>(values: Tensor<D>) -> Tensor<1> {
    values.flatten(0, D - 1)
}

fn matrix_product(device: &Device, dtype: FloatDType) -> Tensor<1> {
    flat(input([67, 129], 1.0, device, dtype).matmul(input([129, 71], 1.0, device, dtype)))
}

fn batched_matrix_product(device: &Device, dtype: FloatDType) -> Tensor<1> {
    flat(input([3, 17, 40], 1.0, device, dtype).matmul(input([3, 40, 9], 1.0, device, dtype)))
}

fn attention(device: &Device, dtype: FloatDType) -> Tensor<1> {
    let query = input([2, 3, 11, 16], 1.0, device, dtype);
    let key = input([2, 3, 19, 16], 1.0, device, dtype);
    let value = input([2, 3, 19, 16], 2.0, device, dtype);
    flat(softmax(query.matmul(key.swap_dims(2, 3)) * 0.25, 3).matmul(value))
}

fn layer_norm(device: &Device, dtype: FloatDType) -> Tensor<1> {
    let weight = input([45], 1.0, device, dtype);
    let bias = input([45], 0.5, device, dtype);
    flat(burn::tensor::module::layer_norm(input([23, 45], 4.0, device, dtype), weight, Some(bias), 1e-5))
}

fn embedding(device: &Device, dtype: FloatDType) -> Tensor<1> {
    let table = input([28, 24], 1.0, device, dtype);
    let rows = Tensor::<1, Int>::from_data([3, 27, 0, 3, 17], device);
    let gathered = table.clone().gather(1, Tensor::<2, Int>::from_data([[5], [0]], device).repeat_dim(0, 14));
    Tensor::cat(vec![flat(table.select(0, rows)), flat(gathered)], 0)
}

/// What must hold of random numbers, as ones: they are in their range, about uniform, and differ.
fn random(device: &Device, dtype: FloatDType) -> Tensor<1> {
    let draw = || Tensor::<1>::random([4096], Distribution::Uniform(0.0, 1.0), device).cast(dtype);
    let (one, other) = (draw().cast(FloatDType::F32), draw().cast(FloatDType::F32));
    let holds = [
        one.clone().greater_equal_elem(0.0).float().mean(),
        one.clone().lower_equal_elem(1.0).float().mean(),
        (one.clone().mean() - 0.5).abs().lower_elem(0.05).float(),
        (one.clone().powf_scalar(2.0).mean() - 1.0 / 3.0).abs().lower_elem(0.05).float(),
        (one - other).abs().mean().greater_elem(0.2).float(),
    ];
    Tensor::cat(holds.to_vec(), 0)
}

/// Gradients of an embedding, a linear layer with GELU, and a layer norm.
fn backward(device: &Device, dtype: FloatDType) -> Tensor<1> {
    let device = device.clone().autodiff();
    let table = input([13, 24], 1.0, &device, dtype).require_grad();
    let weight = input([24, 31], 0.3, &device, dtype).require_grad();
    let scale = input([31], 1.0, &device, dtype).require_grad();
    let rows = Tensor::<1, Int>::from_data([3, 12, 0, 3, 7, 7, 1], &device);
    let hidden = linear(table.clone().select(0, rows), weight.clone(), None);
    let output =
        burn::tensor::module::layer_norm(Activation::Gelu.forward(hidden), scale.clone(), None, 1e-5);
    let target = input([7, 31], 1.0, &device, dtype);
    let mut gradients = (output * target).sum().backward();
    let of = |found: Option<Tensor<1>>| found.unwrap_or_else(|| Tensor::<1>::full([1], f32::NAN, &device));
    let parts = vec![
        of(table.grad_remove(&mut gradients).map(flat)),
        of(weight.grad_remove(&mut gradients).map(flat)),
        of(scale.grad_remove(&mut gradients)),
    ];
    Tensor::cat(parts.into_iter().map(|part| part.inner()).collect(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_passes_its_own_test_in_every_type() {
        let measured = std::cell::RefCell::new(Vec::new());
        run(&Device::flex(), |_| {}, |of| measured.borrow_mut().push(of));
        let measured = measured.into_inner();
        assert!(measured.iter().all(Measured::passes), "{measured:?}");
        let names: Vec<&str> = measured.iter().map(|of| of.operation.as_str()).collect();
        assert!(names.contains(&"backward pass in f32") && names.contains(&"attention in bf16"), "{names:?}");
    }

    #[test]
    fn every_operation_gives_values_that_a_wrong_kernel_would_not() {
        for (name, operation) in OPERATIONS {
            let expected = || operation(&Device::flex(), FloatDType::F32);
            assert_eq!(difference(expected(), expected()), 0.0, "{name}: repeats");
            let zeros = expected().zeros_like();
            assert!(difference(zeros, expected()) > 0.1, "{name}: nothing was computed");
            assert_eq!(difference(expected() * f32::NAN, expected()), NOT_A_NUMBER, "{name}: not a number");
            let reversed = expected().flip([0]);
            assert!(name == "random numbers" || difference(reversed, expected()) > 0.05, "{name}: misplaced");
        }
    }
}
