//! A training step in less memory (activation checkpointing, arXiv:1604.06174): only the inputs of each block
//! are kept, and the block is run again for its gradients.
//!
//! Burn offers this for single operations only. Here the forward pass of a block leaves no graph, only a
//! leaf, where the graph of later blocks starts, and an entry on a tape. The backward pass runs through the
//! loss's graph down to the leaves, then through the tape from last to first: each block is run again with a
//! graph and passes the gradient of its output to its inputs. An input of several blocks (T5's relative bias,
//! the encoder's output, the image) is a leaf too, whose gradients are summed over these blocks.
//!
//! The tape and the random numbers of dropout belong to the thread that called [`backward`], so steps may run
//! concurrently.

use std::cell::RefCell;
use std::rc::Rc;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{FloatDType, Gradients, Tensor};
use serde::{Deserialize, Serialize};

pub use crate::layers::Draws;
use crate::layers::{Layout, RandomStream, cast, layout};
use crate::parameters::{draw, is_frozen};

/// The parts of a model whose blocks are recomputed; none by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recompute {
    /// The image encoder. A frozen one has no graph and is always run once.
    pub vision_model: bool,
    /// The Q-Former.
    pub qformer: bool,
    /// The language model; useful even if frozen, as the gradients of the Q-Former pass through it.
    pub language_model: bool,
}

impl Recompute {
    /// Every part.
    pub const ALL: Self = Self { vision_model: true, qformer: true, language_model: true };

    fn has(self, part: ModelPart) -> bool {
        match part {
            ModelPart::VisionModel => self.vision_model,
            ModelPart::QFormer => self.qformer,
            ModelPart::LanguageModel => self.language_model,
        }
    }
}

/// A stack of blocks of the model.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ModelPart {
    VisionModel,
    QFormer,
    LanguageModel,
}

/// The loss of `forward`, as a plain tensor, and the gradients of all trainable parameters of `model`.
///
/// `recompute` changes only memory and time: the loss is the same, and the gradients are equal up to
/// rounding. Without any part they are those of `GradientsParams::from_grads(loss.backward(), model)`.
///
/// `draws` selects the random numbers of dropout, independent of `recompute`, of other threads and of the
/// batch's other rows. (On a device other than the CPU the generator is the device's: run one step at a time
/// there.)
///
/// `forward` must not call `backward` or enable Burn's gradient checkpointing. A tensor with a graph that
/// enters a recomputed part several times must go through [`share`] first.
///
/// # Errors
/// Those of `forward`.
pub fn backward<M: Module, E>(
    model: &M,
    recompute: Recompute,
    draws: Draws,
    forward: impl FnOnce() -> Result<Tensor<1>, E>,
) -> Result<(Tensor<1>, GradientsParams), E> {
    let device = model.devices().into_iter().next().unwrap_or_default();
    let recording = Recording::start(recompute, draws.clone());
    // the blocks use streams 1, 2, ...
    let loss = RandomStream { device, draws, layout: Layout::default(), number: 0 }.run(forward)?;
    let gradients = recording.finish().backward(loss.backward(), model);
    Ok((loss.without_autodiff(), gradients))
}

/// Prepares a tensor for several passes through recomputed parts: their gradients are summed before they
/// enter the tensor's graph, which can be traversed only once. Outside of [`backward`] it returns the tensor
/// unchanged.
#[must_use]
pub fn share(tensor: Tensor<3>) -> Tensor<3> {
    match Recording::with(|recording| recording.recompute == Recompute::default()) {
        None | Some(true) => tensor,
        Some(false) => cut(BlockInput::new(tensor)).hidden,
    }
}

/// The inputs of a block.
#[derive(Debug, Clone)]
pub(crate) struct BlockInput {
    /// Output of the block before: `[b, t, d]`.
    pub hidden: Tensor<3>,
    /// Another sequence, an input of all blocks: `[b, s, d_other]`.
    pub memory: Option<Tensor<3>>,
    /// Added to the attention scores of all blocks, if it has a gradient: `[b|1, h, t, t]`.
    pub bias: Option<Tensor<4>>,
}

impl BlockInput {
    /// Only the output of the block before.
    pub(crate) fn new(hidden: Tensor<3>) -> Self {
        Self { hidden, memory: None, bias: None }
    }

    fn is_tracked(&self) -> bool {
        self.hidden.is_tracked()
            || self.memory.as_ref().is_some_and(Tensor::is_tracked)
            || self.bias.as_ref().is_some_and(Tensor::is_tracked)
    }

    /// The same values without a graph but on the training device, so that dropout is active.
    fn untracked(&self) -> Self {
        Self {
            hidden: untracked(&self.hidden),
            memory: self.memory.as_ref().map(untracked),
            bias: self.bias.as_ref().map(untracked),
        }
    }
}

fn untracked<const D: usize>(tensor: &Tensor<D>) -> Tensor<D> {
    tensor.clone().without_autodiff().autodiff()
}

/// Runs a stack of blocks in order, recorded on the tape if its part is recomputed.
pub(crate) fn stack<B: Module + 'static>(
    part: ModelPart,
    blocks: &[B],
    input: BlockInput,
    forward: impl Fn(&B, BlockInput) -> Tensor<3> + 'static,
) -> Tensor<3> {
    let device = input.hidden.device();
    let streams = Recording::with(|recording| {
        let first = recording.streams + 1;
        recording.streams += blocks.len() as u64;
        (recording.draws.clone(), first, recording.recompute.has(part))
    });
    let Some((draws, first, is_chosen)) = streams else {
        return run_through(blocks, input, forward);
    };
    let forward = Rc::new(forward);
    let mut input = if is_chosen { cut(input) } else { input };
    for (number, block) in (first..).zip(blocks) {
        let stream = RandomStream { device: device.clone(), draws: draws.clone(), layout: layout(), number };
        let has_gradients = input.is_tracked() || !is_frozen(block);
        input.hidden = if is_chosen && has_gradients {
            record(block, input.clone(), stream, forward.clone())
        } else {
            stream.run(|| forward(block, input.clone()))
        };
    }
    input.hidden
}

fn run_through<B>(
    blocks: &[B],
    mut input: BlockInput,
    forward: impl Fn(&B, BlockInput) -> Tensor<3>,
) -> Tensor<3> {
    for block in blocks {
        input.hidden = forward(block, input.clone());
    }
    input.hidden
}

/// Runs a block without a graph and puts it on the tape.
fn record<B: Module + 'static>(
    block: &B,
    input: BlockInput,
    stream: RandomStream,
    forward: Rc<impl Fn(&B, BlockInput) -> Tensor<3> + 'static>,
) -> Tensor<3> {
    // copies of parameters that are not initialised yet share their flags
    draw(block);
    let frozen = block.clone().no_grad();
    let output = Leaf::new(stream.run(|| forward(&frozen, input.untracked())));
    let tensor = output.tensor.clone();
    let block = block.clone();
    let backward = move |gradient: Tensor<3>, sums: &mut GradientsParams| {
        let output = stream.run(|| forward(&block, input));
        let mut gradients = (output * gradient).sum().backward();
        collect(&block, &mut gradients, sums);
        gradients
    };
    Recording::with(|recording| {
        recording.tape.0.push(Entry::Block { output, backward: Box::new(backward) });
    });
    tensor
}

/// Detaches the inputs of a stack from their graph, and puts the cut on the tape.
fn cut(input: BlockInput) -> BlockInput {
    let (hidden, hidden_cut) = detach(input.hidden);
    let (memory, memory_cut) = input.memory.map(detach).unzip();
    let (bias, bias_cut) = input.bias.map(detach).unzip();
    let cut = Cut { sequences: [hidden_cut, memory_cut.flatten()], bias: bias_cut.flatten() };
    Recording::with(|recording| recording.tape.0.push(Entry::Cut(cut)));
    BlockInput { hidden, memory, bias }
}

fn detach<const D: usize>(origin: Tensor<D>) -> (Tensor<D>, Option<Detached<D>>) {
    if !origin.is_tracked() {
        return (origin, None);
    }
    let leaf = Leaf::new(origin.clone());
    (leaf.tensor.clone(), Some(Detached { origin, leaf }))
}

thread_local! {
    static RECORDING: RefCell<Option<Recording>> = const { RefCell::new(None) };
}

/// A step whose forward pass runs in this thread.
struct Recording {
    recompute: Recompute,
    draws: Draws,
    /// Number of streams of random numbers in use.
    streams: u64,
    tape: Tape,
}

impl Recording {
    fn start(recompute: Recompute, draws: Draws) -> Started {
        let recording = Self { recompute, draws, streams: 0, tape: Tape::default() };
        Started { interrupted: RECORDING.replace(Some(recording)) }
    }

    /// Calls `work` with this thread's step; `None` outside of a step.
    fn with<R>(work: impl FnOnce(&mut Self) -> R) -> Option<R> {
        RECORDING.with_borrow_mut(|recording| recording.as_mut().map(work))
    }
}

/// Ends the recording when dropped, also after an error or a panic of the forward pass.
struct Started {
    interrupted: Option<Recording>,
}

impl Started {
    fn finish(self) -> Tape {
        RECORDING.take().map(|recording| recording.tape).unwrap_or_default()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        RECORDING.set(self.interrupted.take());
    }
}

/// Blocks that ran without a graph, in order.
#[derive(Default)]
struct Tape(Vec<Entry>);

type BlockBackward = Box<dyn FnOnce(Tensor<3>, &mut GradientsParams) -> Gradients>;

#[allow(clippy::large_enum_variant)] // there is one a block
enum Entry {
    /// A block; `backward` runs it again and propagates its output's gradient.
    Block { output: Leaf<3>, backward: BlockBackward },
    /// A cut in the graph before a stack of blocks.
    Cut(Cut),
}

/// The inputs of a stack that have a graph.
struct Cut {
    sequences: [Option<Detached<3>>; 2],
    bias: Option<Detached<4>>,
}

/// A tensor where a graph starts, and the sum of its gradients so far.
struct Leaf<const D: usize> {
    tensor: Tensor<D>,
    gradient: Option<Tensor<D>>,
}

/// A tensor with a graph, and the leaf that replaces it as input.
struct Detached<const D: usize> {
    origin: Tensor<D>,
    leaf: Leaf<D>,
}

impl Tape {
    /// Continues the backward pass of the loss from the leaves.
    fn backward<M: Module>(mut self, mut gradients: Gradients, model: &M) -> GradientsParams {
        let mut sums = GradientsParams::new();
        collect(model, &mut gradients, &mut sums);
        self.collect(&mut gradients);
        drop(gradients);
        while let Some(entry) = self.0.pop() {
            match entry {
                Entry::Block { output: Leaf { gradient: Some(gradient), tensor }, backward } => {
                    drop(tensor);
                    self.collect(&mut backward(gradient, &mut sums));
                }
                // the loss does not depend on it
                Entry::Block { .. } => {}
                Entry::Cut(Cut { sequences, bias }) => {
                    let sequences = sequences.into_iter().flatten().filter_map(Detached::product);
                    let products = sequences.chain(bias.and_then(Detached::product));
                    // their graphs may overlap, so they are traversed together
                    if let Some(sum) = products.reduce(|sum, product| sum + product) {
                        let mut gradients = sum.backward();
                        collect(model, &mut gradients, &mut sums);
                        self.collect(&mut gradients);
                    }
                }
            }
        }
        sums
    }

    /// Adds gradients to the leaves.
    fn collect(&mut self, gradients: &mut Gradients) {
        for entry in &mut self.0 {
            match entry {
                Entry::Block { output, .. } => output.collect(gradients),
                Entry::Cut(Cut { sequences, bias }) => {
                    sequences.iter_mut().flatten().for_each(|cut| cut.leaf.collect(gradients));
                    bias.iter_mut().for_each(|cut| cut.leaf.collect(gradients));
                }
            }
        }
    }
}

impl<const D: usize> Leaf<D> {
    fn new(values: Tensor<D>) -> Self {
        Self { tensor: values.without_autodiff().autodiff().require_grad(), gradient: None }
    }

    fn collect(&mut self, gradients: &mut Gradients) {
        if let Some(more) = self.tensor.grad_remove(gradients) {
            self.gradient = Some(match self.gradient.take() {
                Some(gradient) => gradient + more,
                None => more,
            });
        }
    }
}

impl<const D: usize> Detached<D> {
    /// A scalar whose gradient with respect to the original tensor is the leaf's gradient.
    fn product(self) -> Option<Tensor<1>> {
        let Self { origin, leaf } = self;
        leaf.gradient.map(|gradient| cast((origin * gradient).sum(), FloatDType::F32))
    }
}

/// Adds the gradients of a module's parameters to the sums.
fn collect<M: Module>(module: &M, gradients: &mut Gradients, sums: &mut GradientsParams) {
    module.visit(&mut Collector { gradients, sums });
}

struct Collector<'a> {
    gradients: &'a mut Gradients,
    sums: &'a mut GradientsParams,
}

impl ModuleVisitor for Collector<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if !parameter.is_require_grad() {
            return;
        }
        if let Some(more) = parameter.val().grad_remove(self.gradients) {
            let sum = match self.sums.remove::<D>(parameter.id) {
                Some(sum) => sum + more,
                None => more,
            };
            self.sums.register(parameter.id, sum);
        }
    }
}
