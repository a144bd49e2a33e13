//! Peak memory and time of a training step of a mid-size BLIP-2, with and without recomputing blocks. The
//! sizes are those of `scripts/bench/blip2.sh`, the weights are random.
//!
//!     cargo bench --workspace --profile dev --bench recompute -- [--rounds N] [--only CASE]
//!
//!     all_trained   2 clips of 8 frames, `concat`
//!     lora          8 clips of 8 frames, `concat_queries` (256 tokens into the language model), given ViT
//!                   features, LoRA on queries and values of a frozen language model
//!
//! Memory is counted in bytes, without the weights; the rounds of the four steps alternate. The CPU seconds
//! next to the wall seconds (Linux only) depend less on other work on the machine. The prediction follows the
//! backward pass: what earlier steps keep, the gradients so far, and the inside of one block if it is
//! recomputed. The inside of a block is the difference that one block makes to the peak of the step that
//! keeps all.

#[path = "../tests/counting/mod.rs"]
mod counting;

use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use model::lm::LanguageModelConfig;
use model::lm::t5::T5Config;
use model::lora::LoraConfig;
use model::loss::Targets;
use model::parameters::{count, draw, set_trainable};
use model::qformer::QFormerConfig;
use model::recompute::{Draws, Recompute, backward};
use model::vit::VitConfig;
use model::{Blip2, Blip2Config, Fusion, Prompt, Visual};

use counting::{Counting, peak_of};

type Failure = Box<dyn std::error::Error>;

/// mimalloc, as in the programs.
#[global_allocator]
static ALLOCATOR: Counting<mimalloc::MiMalloc> = Counting(mimalloc::MiMalloc);

const FRAMES: usize = 8;
const SIDE: usize = 112;
/// Of an image: its patches and the CLS token.
const TOKENS: usize = (SIDE / 14) * (SIDE / 14) + 1;
const QUERIES: usize = 32;
const CAPTION: usize = 12;
const BYTES: usize = size_of::<f32>();

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
    Lora,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::AllTrained => "all_trained",
            Self::Lora => "lora",
        }
    }

    fn clips(self) -> usize {
        match self {
            Self::AllTrained => 2,
            Self::Lora => 8,
        }
    }

    /// What the language model reads of a clip.
    fn queries(self) -> usize {
        match self {
            Self::AllTrained => QUERIES,
            Self::Lora => FRAMES * QUERIES,
        }
    }

    fn is_trained(self, name: &str) -> bool {
        let is_frozen = name.starts_with("vision_model.") || name.starts_with("language_model.");
        self == Self::AllTrained || !is_frozen || name.contains(".lora.")
    }

    /// A model of so many blocks, ready to be trained.
    fn model(self, blocks: Blocks) -> Blip2 {
        let device = Device::flex();
        device.seed(1);
        let model = self.config(blocks).init(&device);
        draw(&model);
        set_trainable(model.train(), |name| self.is_trained(name))
    }

    fn config(self, blocks: Blocks) -> Blip2Config {
        let lora = LoraConfig { lora_dropout: 0.0, ..LoraConfig::default() };
        let (fusion, lora) = match self {
            Self::AllTrained => (Fusion::Concat, None),
            Self::Lora => (Fusion::ConcatQueries, Some(lora)),
        };
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
            num_query_tokens: QUERIES,
            fusion,
            lora,
            ..Blip2Config::default()
        }
    }

    fn visual(self) -> Visual {
        let (b, device) = (self.clips(), Device::flex());
        let ramp = |len: usize| Tensor::<1, Int>::arange(0..len as i64, &device).float().sin();
        match self {
            Self::AllTrained => {
                Visual::Frames(ramp(b * FRAMES * 3 * SIDE * SIDE).reshape([b, FRAMES, 3, SIDE, SIDE]))
            }
            Self::Lora => Visual::Features(ramp(b * FRAMES * TOKENS * 384).reshape([b, FRAMES, TOKENS, 384])),
        }
    }
}

/// The least of several rounds.
struct Measured {
    peak: usize,
    seconds: f64,
    cpu_seconds: f64,
    loss: f32,
}

/// What this process has spent on all cores: fields 14 and 15 of its `stat`, in hundredths.
fn cpu_seconds() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("no name in stat")?.1.split_whitespace().collect();
    let ticks =
        |field: usize| fields.get(field - 3).ok_or("stat is short")?.parse::<f64>().map_err(Failure::from);
    Ok((ticks(14)? + ticks(15)?) / 100.0)
}

fn measure(case: Case, model: &Blip2, recompute: Recompute) -> Result<Measured, Failure> {
    let (b, device) = (case.clips(), Device::flex());
    let visual = case.visual();
    let targets = Targets {
        ids: Tensor::<1, Int>::arange(2..(2 + b * CAPTION) as i64, &device).reshape([b, CAPTION]),
        mask: Tensor::ones([b, CAPTION], &device),
    };
    let (start, cpu_start) = (Instant::now(), cpu_seconds()?);
    let forward = || model.caption_loss(visual, &Prompt::default(), &targets);
    let (peak, step) = peak_of(|| backward(model, recompute, Draws::of_batch(0, 1), forward));
    let (seconds, cpu_seconds) = (start.elapsed().as_secs_f64(), cpu_seconds()? - cpu_start);
    let (loss, gradients) = step?;
    drop(gradients);
    Ok(Measured { peak, seconds, cpu_seconds, loss: loss.into_scalar() })
}

/// What a part of the model takes.
struct Part {
    is_chosen: fn(Recompute) -> bool,
    blocks: usize,
    /// Bytes that a block keeps.
    inside: usize,
    /// Bytes that enter a block.
    input: usize,
    /// Bytes of the part's gradients.
    gradients: usize,
}

/// In the order of the backward pass.
fn parts(case: Case, peak: usize) -> Result<[Part; 3], Failure> {
    let model = case.model(BLOCKS);
    let gradients =
        |part: &str| BYTES * count(&model, |name| name.starts_with(part) && case.is_trained(name));
    let inside = |fewer: Blocks| -> Result<usize, Failure> {
        let model = case.model(fewer);
        measure(case, &model, Recompute::default())?;
        Ok(peak.saturating_sub(measure(case, &model, Recompute::default())?.peak))
    };
    let b = case.clips();
    let language_model = Part {
        is_chosen: |recompute| recompute.language_model,
        // a block of the encoder and one of the decoder are taken for one
        blocks: BLOCKS.language_model,
        inside: inside(Blocks { language_model: BLOCKS.language_model - 1, ..BLOCKS })?,
        input: b * (case.queries() + CAPTION) * 256 * BYTES,
        gradients: gradients("language_model."),
    };
    let qformer = Part {
        is_chosen: |recompute| recompute.qformer,
        // every second layer reads the image
        blocks: BLOCKS.qformer / 2,
        inside: inside(Blocks { qformer: BLOCKS.qformer - 2, ..BLOCKS })?,
        input: 2 * b * case.queries() * 256 * BYTES,
        gradients: gradients("qformer."),
    };
    let is_vit_trained = case.is_trained("vision_model.");
    let vision_model = Part {
        is_chosen: |recompute| recompute.vision_model,
        blocks: if is_vit_trained { BLOCKS.vision_model } else { 0 },
        inside: if is_vit_trained {
            inside(Blocks { vision_model: BLOCKS.vision_model - 1, ..BLOCKS })?
        } else {
            0
        },
        input: b * FRAMES * TOKENS * 384 * BYTES,
        gradients: gradients("vision_model."),
    };
    Ok([language_model, qformer, vision_model])
}

fn predict(peak: usize, parts: &[Part], recompute: Recompute) -> usize {
    let kept = |part: &Part| part.blocks * if (part.is_chosen)(recompute) { part.input } else { part.inside };
    let again = |part: &Part| if (part.is_chosen)(recompute) { part.inside } else { 0 };
    let all: usize = parts.iter().map(|part| part.blocks * part.inside).sum();
    let mut live = peak.saturating_sub(all) + parts.iter().map(kept).sum::<usize>();
    let mut most = live;
    for part in parts {
        most = most.max(live + again(part));
        live = live - kept(part) + part.gradients;
        most = most.max(live + again(part));
    }
    most
}

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| words.iter().position(|word| word == name).and_then(|at| words.get(at + 1));
    let rounds: usize = option("--rounds").map_or(Ok(5), |rounds| rounds.parse())?;
    let steps = [
        ("nothing", Recompute::default()),
        ("vision_model", Recompute { vision_model: true, ..Recompute::default() }),
        ("language_model", Recompute { language_model: true, ..Recompute::default() }),
        ("all", Recompute::ALL),
    ];
    println!("| trained | recomputed | peak, MB | predicted, MB | seconds | CPU seconds | loss |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: |");
    for case in [Case::AllTrained, Case::Lora] {
        if option("--only").is_some_and(|only| only != case.name()) {
            continue;
        }
        let model = case.model(BLOCKS);
        let mut least: Vec<Measured> = Vec::new();
        // the first round sets things up
        for _ in 0..=rounds.max(1) {
            for (index, (_, recompute)) in steps.iter().enumerate() {
                let now = measure(case, &model, *recompute)?;
                match least.get_mut(index) {
                    None => {
                        least.push(Measured { seconds: f64::INFINITY, cpu_seconds: f64::INFINITY, ..now });
                    }
                    Some(so_far) => {
                        so_far.peak = so_far.peak.min(now.peak);
                        so_far.seconds = so_far.seconds.min(now.seconds);
                        so_far.cpu_seconds = so_far.cpu_seconds.min(now.cpu_seconds);
                    }
                }
            }
        }
        let all_peak = least[0].peak;
        let parts = parts(case, all_peak)?;
        for ((name, recompute), least) in steps.iter().zip(&least) {
            let predicted = predict(all_peak, &parts, *recompute) as f64 / 1e6;
            let Measured { peak, seconds, cpu_seconds, loss } = least;
            let (case, peak) = (case.name(), *peak as f64 / 1e6);
            println!(
                "| {case} | {name} | {peak:.1} | {predicted:.1} | {seconds:.2} | {cpu_seconds:.2} | {loss:.6} |"
            );
        }
    }
    Ok(())
}
