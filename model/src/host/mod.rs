//! Operations on f32 tensors in host memory. Each is one node of Burn's graph and computes its own gradient.
//!
//! Burn's CPU backend composes attention, norms, losses and activations from operations that each read and
//! write whole tensors, and so do their gradients. Here each is one pass over data that is in the cache, on
//! all cores, and keeps for its gradient what the pass cannot compute again. Results depend neither on the
//! number of threads nor on whether there is a graph. Other devices and types use Burn's operations; the
//! layers choose ([`is_host_f32`]). See `docs/decisions/0016-cpu-operations.md`.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod int8;
pub(crate) mod linear;
pub(crate) mod log_probabilities;
pub(crate) mod matrix;
pub(crate) mod narrow;
pub(crate) mod norm;
pub(crate) mod vectors;

use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{DType, Device, Shape, Tensor, TensorData};

use crate::profile::{Kind, span};

/// Whether a tensor's values are in host memory, as f32.
pub(crate) fn is_host_f32<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && is_on_host(x)
}

/// Whether a tensor's values are in host memory.
pub(crate) fn is_on_host<const D: usize>(x: &Tensor<D>) -> bool {
    x.device().inner() == Device::flex()
}

/// A contiguous f32 tensor in host memory. Clones share the values.
#[derive(Debug, Clone)]
pub(crate) struct HostTensor(FlexTensor);

impl HostTensor {
    /// A tensor of these values.
    pub(crate) fn new(values: Vec<f32>, shape: impl Into<Shape>) -> Self {
        Self(FlexTensor::from_data(TensorData::new(values, shape)))
    }

    fn of(tensor: &FlexTensor) -> Self {
        Self(tensor.to_contiguous())
    }

    /// The values in row-major order.
    pub(crate) fn values(&self) -> &[f32] {
        self.0.as_slice().unwrap_or_else(|| unreachable!("a host tensor is contiguous f32"))
    }

    /// Lengths of the axes.
    pub(crate) fn dims<const D: usize>(&self) -> [usize; D] {
        self.0.layout().shape().dims()
    }

    /// Calls `modify` on the values, which are copied before only if they have another owner.
    pub(crate) fn modified(self, modify: impl FnOnce(&mut [f32])) -> Self {
        let shape = self.0.layout().shape().clone();
        let mut data = self.0.into_data();
        if let Ok(values) = data.as_mut_slice::<f32>() {
            modify(values);
        }
        debug_assert_eq!(data.shape(), &shape);
        Self(FlexTensor::from_data(data))
    }
}

/// An input of an operation.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// A tensor without a graph.
    Plain(FlexTensor),
    /// A tensor on the training device.
    Training(FloatTensor<Autodiff<Flex>>),
}

impl Input {
    /// A tensor for which [`is_on_host`] holds.
    pub(crate) fn new<const D: usize>(tensor: Tensor<D>) -> Self {
        let is_training = tensor.device().is_autodiff();
        let input = if is_training {
            tensor.try_into_primitive::<Autodiff<Flex>>().map(Self::Training)
        } else {
            tensor.try_into_primitive::<Flex>().map(Self::Plain)
        };
        input.unwrap_or_else(|error| unreachable!("the tensor is in host memory: {error:?}"))
    }

    /// An optional input that is not given: an empty tensor without a gradient.
    pub(crate) fn absent() -> Self {
        Self::Plain(FlexTensor::from_data(TensorData::new(Vec::<f32>::new(), [0])))
    }

    /// [`Self::new`] or [`Self::absent`].
    pub(crate) fn optional<const D: usize>(tensor: Option<Tensor<D>>) -> Self {
        tensor.map_or_else(Self::absent, Self::new)
    }

    fn values(&self) -> HostTensor {
        match self {
            Self::Plain(tensor) => HostTensor::of(tensor),
            Self::Training(tensor) => HostTensor::of(tensor.primitive()),
        }
    }

    fn into_training(self) -> FloatTensor<Autodiff<Flex>> {
        match self {
            Self::Plain(tensor) => FloatTensor::<Autodiff<Flex>>::new(tensor),
            Self::Training(tensor) => tensor,
        }
    }
}

/// What an operation keeps for its gradient.
pub(crate) trait Operation<const N: usize>: Debug + Clone + Send + 'static {
    /// What it is counted as.
    const KIND: Kind;

    /// Gradients of the inputs for which `is_needed`, from that of the output.
    fn backward(self, gradient: HostTensor, is_needed: [bool; N]) -> [Option<HostTensor>; N];
}

/// Computes an operation, and adds it to the graph if one of its inputs has a gradient.
pub(crate) fn apply<const N: usize, const D: usize, O: Operation<N>>(
    inputs: [Input; N],
    forward: impl FnOnce([HostTensor; N]) -> (HostTensor, O),
) -> Tensor<D> {
    let is_plain = |input: &Input| matches!(input, Input::Plain(_));
    if inputs.iter().all(is_plain) {
        let values = inputs.each_ref().map(Input::values);
        drop(inputs);
        let (output, _) = span(O::KIND, 0, || forward(values));
        return Tensor::from_primitive::<Flex>(output.0);
    }
    let inputs = inputs.map(Input::into_training);
    let nodes = inputs.each_ref().map(|input| input.node());
    let values = inputs.each_ref().map(|input| HostTensor::of(input.primitive()));
    drop(inputs);
    let (output, operation) = span(O::KIND, 0, || forward(values));
    let output = match Step(PhantomData::<O>).prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(step) => step.finish(operation, output.0),
        OpsKind::UnTracked(step) => step.finish(output.0),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(output)
}

/// The entry of an operation in Burn's graph.
#[derive(Debug)]
struct Step<O>(PhantomData<O>);

impl<const N: usize, O: Operation<N>> Backward<Flex, N> for Step<O> {
    type State = O;

    fn backward(self, step: Ops<O, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = HostTensor::of(&gradients.consume::<Flex>(&step.node));
        let is_needed = step.parents.each_ref().map(Option::is_some);
        let of_inputs = span(O::KIND, 0, || step.state.backward(gradient, is_needed));
        for (parent, gradient) in step.parents.into_iter().zip(of_inputs) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Distribution, Tolerance};

    /// Shapes of random inputs, and the largest difference of values and gradients, relative to the largest
    /// value, or to 1.
    pub(super) struct Case<const N: usize> {
        pub shapes: [Vec<usize>; N],
        pub tolerance: f32,
    }

    /// Compares an operation, given flat inputs, with Burn's operations: value and gradients with a graph,
    /// the value without one, and the gradients where only one input has one.
    pub(super) fn agrees_with_burn<const N: usize, const D: usize>(
        case: &Case<N>,
        ours: impl Fn(&[Tensor<1>; N]) -> Tensor<D>,
        theirs: impl Fn(&[Tensor<1>; N]) -> Tensor<D>,
    ) {
        let device = Device::flex();
        device.seed(case.shapes.iter().flatten().sum::<usize>() as u64);
        let inputs = case.shapes.each_ref().map(|shape| {
            Tensor::<1>::random([shape.iter().product::<usize>()], Distribution::Normal(0.0, 1.0), &device)
        });
        let expected = theirs(&inputs);
        let compare = |ours: Tensor<1>, theirs: Tensor<1>| {
            let largest = theirs.clone().abs().max().into_scalar::<f32>().max(1.0);
            let tolerance = Tolerance::<f32>::absolute(case.tolerance * largest);
            ours.into_data().assert_approx_eq::<f32>(&theirs.into_data(), tolerance);
        };
        let check = |found: Tensor<D>| {
            assert_eq!(found.dims(), expected.dims());
            compare(found.flatten(0, D - 1), expected.clone().flatten(0, D - 1));
        };
        check(ours(&inputs));
        let weights = Tensor::random(expected.dims(), Distribution::Normal(0.0, 1.0), &device);
        let is_tracked_alone = (0..N).map(|only| std::array::from_fn(|i| i == only));
        for is_tracked in is_tracked_alone.chain([[true; N], [false; N]]) {
            let gradients = |operation: &dyn Fn(&[Tensor<1>; N]) -> Tensor<D>| {
                let inputs: [Tensor<1>; N] = std::array::from_fn(|i| {
                    let input = inputs[i].clone().autodiff();
                    if is_tracked[i] { input.require_grad() } else { input }
                });
                let output = operation(&inputs);
                assert!(output.device().is_autodiff());
                check(output.clone().without_autodiff());
                if !output.is_tracked() {
                    return Vec::new();
                }
                let mut gradients = (output * weights.clone()).sum().backward();
                inputs.into_iter().map(|input| input.grad_remove(&mut gradients)).collect()
            };
            let (ours, theirs) = (gradients(&ours), gradients(&theirs));
            assert_eq!(ours.len(), theirs.len());
            for (index, (ours, theirs)) in ours.into_iter().zip(theirs).enumerate() {
                assert_eq!(ours.is_some(), theirs.is_some(), "input {index} of {is_tracked:?}");
                if let (Some(ours), Some(theirs)) = (ours, theirs) {
                    compare(ours, theirs);
                }
            }
        }
    }
}
