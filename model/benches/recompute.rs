//! Peak memory and time of a training step of a mid-size BLIP-2, of 2 clips of 8 frames, with and without computing the
//! inside of blocks a second time. The sizes are those of `scripts/bench/blip2.sh`, the weights are random.
//!
//!     cargo bench -p model --profile dev --bench recompute -- [--rounds N] [--only CASE]
//!
//! Memory is counted byte by byte, above what the weights take. The prediction is the peak of the step that keeps all,
//! less the inside of every recomputed block, and plus what enters each and the inside of the largest; what a block's
//! inside takes is the difference that one block makes to the peak.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use model::lm::LanguageModelConfig;
use model::lm::t5::T5Config;
use model::lora::LoraConfig;
use model::loss::Targets;
use model::parameters::{draw, set_trainable};
use model::qformer::QFormerConfig;
use model::recompute::{Recompute, backward};
use model::vit::VitConfig;
use model::{Blip2, Blip2Config, Prompt, Visual};

type Failure = Box<dyn std::error::Error>;

/// mimalloc, as in the programs, and a count of the bytes in use.
struct Counting(mimalloc::MiMalloc);

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to mimalloc as it is.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { self.0.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting(mimalloc::MiMalloc);

const CLIPS: usize = 2;
const FRAMES: usize = 8;
const SIDE: usize = 112;
const CAPTION: usize = 12;

/// Number of blocks of the three parts.
#[derive(Clone, Copy)]
struct Blocks {
    vision_model: usize,
    qformer: usize,
    /// Of the encoder and of the decoder.
    language_model: usize,
}

const BLOCKS: Blocks = Blocks { vision_model: 12, qformer: 6, language_model: 6 };

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    AllTrained,
    FrozenVitAndLora,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::AllTrained => "all_trained",
            Self::FrozenVitAndLora => "frozen_vit_and_lora",
        }
    }

    /// A model of so many blocks, ready to be trained.
    fn model(self, blocks: Blocks) -> Blip2 {
        let device = Device::flex();
        device.seed(1);
        let model = config(self, blocks).init(&device);
        draw(&model);
        set_trainable(model.train(), |name| match self {
            Self::AllTrained => true,
            Self::FrozenVitAndLora => {
                name.contains(".lora.")
                    || !(name.starts_with("vision_model.") || name.starts_with("language_model."))
            }
        })
    }
}

fn config(case: Case, blocks: Blocks) -> Blip2Config {
    let lora = LoraConfig { lora_dropout: 0.0, ..LoraConfig::default() };
    Blip2Config {
        vision_config: VitConfig {
            hidden_size: 384,
            intermediate_size: 1536,
            num_hidden_layers: blocks.vision_model,
            num_attention_heads: 6,
            image_size: SIDE,
            ..VitConfig::default()
        },
        qformer_config: QFormerConfig {
            hidden_size: 256,
            num_hidden_layers: blocks.qformer,
            num_attention_heads: 4,
            intermediate_size: 1024,
            encoder_hidden_size: 384,
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            ..QFormerConfig::default()
        },
        text_config: LanguageModelConfig::T5(T5Config {
            vocab_size: 8000,
            d_model: 256,
            d_kv: 64,
            d_ff: 1024,
            num_layers: blocks.language_model,
            num_decoder_layers: blocks.language_model,
            num_heads: 4,
            dropout_rate: 0.0,
            ..T5Config::default()
        }),
        lora: (case == Case::FrozenVitAndLora).then_some(lora),
        ..Blip2Config::default()
    }
}

struct Measured {
    peak: usize,
    seconds: f64,
    loss: f32,
}

fn measure(model: &Blip2, recompute: Recompute, rounds: usize) -> Result<Measured, Failure> {
    let device = Device::flex();
    let pixels =
        Tensor::<1, Int>::arange(0..(CLIPS * FRAMES * 3 * SIDE * SIDE) as i64, &device).float().sin();
    let frames = pixels.reshape([CLIPS, FRAMES, 3, SIDE, SIDE]);
    let targets = Targets {
        ids: Tensor::<1, Int>::arange(2..(2 + CLIPS * CAPTION) as i64, &device).reshape([CLIPS, CAPTION]),
        mask: Tensor::ones([CLIPS, CAPTION], &device),
    };
    let mut measured = Measured { peak: 0, seconds: Duration::MAX.as_secs_f64(), loss: 0.0 };
    for _ in 0..=rounds {
        let before = LIVE.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let start = Instant::now();
        let visual = Visual::Frames(frames.clone());
        let forward = || model.caption_loss(visual, &Prompt::default(), &targets);
        let (loss, gradients) = backward(model, recompute, 0, forward)?;
        measured.seconds = measured.seconds.min(start.elapsed().as_secs_f64());
        measured.peak = PEAK.load(Ordering::Relaxed) - before;
        measured.loss = loss.into_scalar();
        drop(gradients);
    }
    Ok(measured)
}

/// What one part's blocks take: how many there are, and the bytes inside each and on its way in.
struct Part {
    blocks: usize,
    inside: usize,
    input: usize,
}

fn parts(case: Case, all: &Measured) -> Result<[Part; 3], Failure> {
    let fewer = |blocks: Blocks| -> Result<usize, Failure> {
        Ok(all.peak.saturating_sub(measure(&case.model(blocks), Recompute::default(), 1)?.peak))
    };
    let tokens = (SIDE / 14).pow(2) + 1;
    Ok([
        Part {
            blocks: if case == Case::AllTrained { BLOCKS.vision_model } else { 0 },
            inside: fewer(Blocks { vision_model: BLOCKS.vision_model - 1, ..BLOCKS })?,
            input: CLIPS * FRAMES * tokens * 384 * 4,
        },
        Part {
            blocks: BLOCKS.qformer,
            // one block in two reads the image, so it is pairs that are alike
            inside: fewer(Blocks { qformer: BLOCKS.qformer - 2, ..BLOCKS })? / 2,
            input: CLIPS * 32 * 256 * 4,
        },
        Part {
            // a pair of an encoder's and a decoder's block
            blocks: BLOCKS.language_model,
            inside: fewer(Blocks { language_model: BLOCKS.language_model - 1, ..BLOCKS })?,
            input: CLIPS * (32 + CAPTION) * 256 * 4,
        },
    ])
}

fn predict(all: &Measured, parts: &[Part; 3], recompute: Recompute) -> usize {
    let chosen = [recompute.vision_model, recompute.qformer, recompute.language_model];
    let chosen = || parts.iter().zip(chosen).filter_map(|(part, is_chosen)| is_chosen.then_some(part));
    let gone: usize = chosen().map(|part| part.blocks * part.inside).sum();
    let kept: usize = chosen().map(|part| part.blocks * part.input).sum();
    let largest = chosen().filter(|part| part.blocks > 0).map(|part| part.inside).max();
    all.peak.saturating_sub(gone) + kept + largest.unwrap_or(0)
}

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| words.iter().position(|word| word == name).and_then(|at| words.get(at + 1));
    let rounds: usize = option("--rounds").map_or(Ok(5), |rounds| rounds.parse())?;
    let vision_model = Recompute { vision_model: true, ..Recompute::default() };
    let language_model = Recompute { language_model: true, ..Recompute::default() };
    println!("| trained | recomputed | peak, MB | predicted, MB | seconds | loss |");
    println!("| --- | --- | ---: | ---: | ---: | ---: |");
    for case in [Case::AllTrained, Case::FrozenVitAndLora] {
        if option("--only").is_some_and(|only| only != case.name()) {
            continue;
        }
        let model = case.model(BLOCKS);
        let all = measure(&model, Recompute::default(), rounds)?;
        let parts = parts(case, &all)?;
        for (name, recompute) in [
            ("nothing", Recompute::default()),
            ("vision_model", vision_model),
            ("language_model", language_model),
            ("all", Recompute::ALL),
        ] {
            let predicted = predict(&all, &parts, recompute) as f64 / 1e6;
            let Measured { peak, seconds, loss } = measure(&model, recompute, rounds)?;
            let (case, peak) = (case.name(), peak as f64 / 1e6);
            println!("| {case} | {name} | {peak:.1} | {predicted:.1} | {seconds:.3} | {loss:.6} |");
        }
    }
    Ok(())
}
