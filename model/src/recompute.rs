//! A training step in less memory (activation checkpointing, arXiv:1604.06174): of each block only what enters it is
//! kept, and its inside is computed a second time when its gradients are due.
//!
//! Burn has no such thing for more than single operations. Here the forward pass of a block leaves no graph but a leaf,
//! from which the graph of what follows starts, and an entry on a tape. The backward pass runs through the loss's graph
//! down to the leaves, then through the tape from last to first: each block is run again, now with a graph, and hands
//! the gradient of its output down to its inputs. What several blocks read (T5's relative bias, the encoder's output,
//! the image) is a leaf too, whose gradients add up until the last of its readers is through.
//!
//! The tape belongs to the thread that called [`backward`], and so do the random numbers of dropout: steps may run side
//! by side.

use std::cell::RefCell;
use std::rc::Rc;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{FloatDType, Gradients, Tensor};
use serde::{Deserialize, Serialize};

use crate::layers::{RandomStream, cast};
use crate::parameters::{draw, is_frozen};

/// Which parts of a model compute the inside of their blocks a second time; none by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recompute {
    /// The image encoder. A frozen one has no graph anyway, and is run once whatever this says.
    pub vision_model: bool,
    /// The Q-Former.
    pub qformer: bool,
    /// The language model; worth it when it is frozen too, as the gradients of the Q-Former pass through it.
    pub language_model: bool,
}

impl Recompute {
    /// Every part.
    pub const ALL: Self = Self { vision_model: true, qformer: true, language_model: true };

    fn has(self, part: Part) -> bool {
        match part {
            Part::VisionModel => self.vision_model,
            Part::QFormer => self.qformer,
            Part::LanguageModel => self.language_model,
        }
    }
}

/// A part of a model that is a stack of blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    VisionModel,
    QFormer,
    LanguageModel,
}

/// The loss that `forward` gives, as a plain tensor, and the gradients of all parameters that `model` trains.
///
/// `recompute` changes the memory and the time that this takes, and nothing else: the loss is the same, and the gradients
/// are but for rounding. With no part chosen they are those of `GradientsParams::from_grads(loss.backward(), model)`.
///
/// `seed` names the random numbers of dropout, which are the same for the same seed whatever parts are chosen and
/// whatever other threads do. (On another device than the CPU the generator is the device's: one step at a time there.)
///
/// `forward` must not call `backward`, and must leave Burn's own gradient checkpointing off. A tensor with a graph that
/// several passes through a chosen part read must go through [`share`] first.
///
/// # Errors
/// Those of `forward`.
pub fn backward<M: Module, E>(
    model: &M,
    recompute: Recompute,
    seed: u64,
    forward: impl FnOnce() -> Result<Tensor<1>, E>,
) -> Result<(Tensor<1>, GradientsParams), E> {
    let device = model.devices().into_iter().next().unwrap_or_default();
    let recording = Recording::start(recompute, seed);
    // the blocks have streams of their own, from 1 on
    let loss = RandomStream { device, seed, number: 0 }.run(forward)?;
    let gradients = recording.finish().backward(loss.backward(), model);
    Ok((loss.without_autodiff(), gradients))
}

/// Makes a tensor fit to be read by several passes through parts that are recomputed: the gradients of all of them are
/// summed before they go on into the tensor's own graph, which can be gone through only once. Outside of [`backward`]
/// it is the tensor itself.
#[must_use]
pub fn share(tensor: Tensor<3>) -> Tensor<3> {
    match Recording::with(|recording| recording.recompute == Recompute::default()) {
        None | Some(true) => tensor,
        Some(false) => cut(BlockInput::new(tensor)).hidden,
    }
}

/// What a block reads.
#[derive(Debug, Clone)]
pub(crate) struct BlockInput {
    /// Output of the block before: `[b, t, d]`.
    pub hidden: Tensor<3>,
    /// Another sequence, which all blocks read: `[b, s, d_other]`.
    pub memory: Option<Tensor<3>>,
    /// Added to the scores of all blocks' attention, where it has a gradient: `[b|1, h, t, t]`.
    pub bias: Option<Tensor<4>>,
}

impl BlockInput {
    /// The output of the block before, and nothing else.
    pub(crate) fn new(hidden: Tensor<3>) -> Self {
        Self { hidden, memory: None, bias: None }
    }

    fn is_tracked(&self) -> bool {
        self.hidden.is_tracked()
            || self.memory.as_ref().is_some_and(Tensor::is_tracked)
            || self.bias.as_ref().is_some_and(Tensor::is_tracked)
    }

    /// The same values in training but without a graph, so that dropout is on and nothing is kept for gradients.
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

/// Runs a stack of blocks, one after the other, with what is asked of their part.
pub(crate) fn stack<B: Module + 'static>(
    part: Part,
    blocks: &[B],
    input: BlockInput,
    forward: impl Fn(&B, BlockInput) -> Tensor<3> + 'static,
) -> Tensor<3> {
    let device = input.hidden.device();
    let streams = Recording::with(|recording| {
        let first = recording.streams + 1;
        recording.streams += blocks.len() as u64;
        (recording.seed, first, recording.recompute.has(part))
    });
    let Some((seed, first, is_chosen)) = streams else {
        return run_through(blocks, input, forward);
    };
    let forward = Rc::new(forward);
    let mut input = if is_chosen { cut(input) } else { input };
    for (number, block) in (first..).zip(blocks) {
        let stream = RandomStream { device: device.clone(), seed, number };
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
    // copies of parameters that were never used share their flags
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

/// Parts what a stack reads from the graph that it comes from, and puts the parting on the tape.
fn cut(input: BlockInput) -> BlockInput {
    let (hidden, hidden_parted) = part(input.hidden);
    let (memory, memory_parted) = input.memory.map(part).unzip();
    let (bias, bias_parted) = input.bias.map(part).unzip();
    let entry =
        Entry::Cut { sequences: [hidden_parted, memory_parted.flatten()], bias: bias_parted.flatten() };
    Recording::with(|recording| recording.tape.0.push(entry));
    BlockInput { hidden, memory, bias }
}

fn part<const D: usize>(origin: Tensor<D>) -> (Tensor<D>, Option<Parted<D>>) {
    if !origin.is_tracked() {
        return (origin, None);
    }
    let leaf = Leaf::new(origin.clone());
    (leaf.tensor.clone(), Some(Parted { origin, leaf }))
}

thread_local! {
    static RECORDING: RefCell<Option<Recording>> = const { RefCell::new(None) };
}

/// A step whose forward pass runs in this thread.
struct Recording {
    recompute: Recompute,
    seed: u64,
    /// Streams of random numbers given out so far.
    streams: u64,
    tape: Tape,
}

impl Recording {
    fn start(recompute: Recompute, seed: u64) -> Started {
        let recording = Self { recompute, seed, streams: 0, tape: Tape::default() };
        Started { interrupted: RECORDING.replace(Some(recording)) }
    }

    /// What `work` makes of this thread's step; nothing outside of one.
    fn with<R>(work: impl FnOnce(&mut Self) -> R) -> Option<R> {
        RECORDING.with_borrow_mut(|recording| recording.as_mut().map(work))
    }
}

/// Ends the recording when it goes, be it by an error or a panic of the forward pass.
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

/// What was run without a graph, in order.
#[derive(Default)]
struct Tape(Vec<Entry>);

type BlockBackward = Box<dyn FnOnce(Tensor<3>, &mut GradientsParams) -> Gradients>;

enum Entry {
    /// A block ran; `backward` runs it again and takes its output's gradient through it.
    Block { output: Leaf<3>, backward: BlockBackward },
    /// The graph was parted before a stack of blocks.
    Cut { sequences: [Option<Parted<3>>; 2], bias: Option<Parted<4>> },
}

/// A tensor from which a graph starts, and the sum of its gradients so far.
struct Leaf<const D: usize> {
    tensor: Tensor<D>,
    gradient: Option<Tensor<D>>,
}

/// A tensor with a graph, and the leaf that blocks read in its place.
struct Parted<const D: usize> {
    origin: Tensor<D>,
    leaf: Leaf<D>,
}

impl Tape {
    /// Goes on where the backward pass of the loss has stopped, at the leaves.
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
                // nothing that the loss hangs on has read it
                Entry::Block { .. } => {}
                Entry::Cut { sequences, bias } => {
                    let sequences = sequences.into_iter().flatten().filter_map(Parted::product);
                    let products = sequences.chain(bias.and_then(Parted::product));
                    // they may have parts of their graphs in common, so it is gone through for all of them at once
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

    /// Adds the leaves' gradients to what they have.
    fn collect(&mut self, gradients: &mut Gradients) {
        for entry in &mut self.0 {
            match entry {
                Entry::Block { output, .. } => output.collect(gradients),
                Entry::Cut { sequences, bias } => {
                    sequences.iter_mut().flatten().for_each(|parted| parted.leaf.collect(gradients));
                    bias.iter_mut().for_each(|parted| parted.leaf.collect(gradients));
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

impl<const D: usize> Parted<D> {
    /// A number whose gradient, in the tensor that the leaf was parted from, is the leaf's.
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
