//! How the time of a step and of captioning grows with each size, for fresh weights of the sizes of
//! `scripts/bench/blip2_torch.py`.

use std::time::Instant;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Int, Tensor};
use model::blip2::Blip2Config;
use model::generate::GenerateConfig;
use model::lm::LanguageModelConfig;
use model::lm::t5::T5Config;
use model::loss::Targets;
use model::qformer::QFormerConfig;
use model::vit::VitConfig;
use model::{Prompt, Visual};

use crate::Failure;

/// What grows, and what stays.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    clips: usize,
    frames: usize,
    pixels: usize,
    vocabulary: usize,
    beams: usize,
}

const BASE: Sizes = Sizes { clips: 2, frames: 8, pixels: 112, vocabulary: 8000, beams: 5 };

/// Name and values of a size, and the sizes with it.
type Axis = (&'static str, &'static [usize], fn(usize) -> Sizes);

/// Prints a table for each size. "growth" is the time's factor over that of the size before, divided by the
/// size's own factor: 1 is linear.
pub(crate) fn print() -> Result<(), Failure> {
    let axes: [Axis; 5] = [
        ("frames", &[4, 8, 16, 32], |frames| Sizes { frames, ..BASE }),
        ("tokens of a frame (112 to 448 px)", &[65, 257, 577, 1025], |tokens| Sizes {
            clips: 1,
            frames: 4,
            pixels: (tokens - 1).isqrt() * 14,
            ..BASE
        }),
        ("clips", &[1, 2, 4, 8, 16], |clips| Sizes { clips, ..BASE }),
        ("vocabulary", &[2000, 8000, 32_000], |vocabulary| Sizes { vocabulary, ..BASE }),
        ("beams", &[1, 2, 4, 8], |beams| Sizes { beams, ..BASE }),
    ];
    for (name, values, sizes_of) in axes {
        println!("| {name} | training step, s | growth | captions, s | growth |");
        println!("| ---: | ---: | ---: | ---: | ---: |");
        let mut before: Option<(usize, [f64; 2])> = None;
        for &value in values {
            let times = measure(sizes_of(value))?;
            let growth = |index: usize| match before {
                Some((size, earlier)) => {
                    format!("{:.2}", times[index] / earlier[index] / (value as f64 / size as f64))
                }
                None => String::new(),
            };
            println!("| {value} | {:.3} | {} | {:.3} | {} |", times[0], growth(0), times[1], growth(1));
            before = Some((value, times));
        }
        println!();
    }
    Ok(())
}

/// Seconds of forward and backward passes through all weights, and of captioning with 20 tokens: the least of
/// three rounds after a warm-up.
fn measure(sizes: Sizes) -> Result<[f64; 2], Failure> {
    let Sizes { clips, frames, pixels, vocabulary, beams } = sizes;
    let device = Device::flex();
    device.seed(1);
    let config = Blip2Config {
        vision_config: VitConfig {
            hidden_size: 384,
            intermediate_size: 1536,
            num_hidden_layers: 12,
            num_attention_heads: 6,
            image_size: pixels,
            ..VitConfig::default()
        },
        qformer_config: QFormerConfig {
            hidden_size: 256,
            num_hidden_layers: 6,
            num_attention_heads: 4,
            intermediate_size: 1024,
            encoder_hidden_size: 384,
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            ..QFormerConfig::default()
        },
        text_config: LanguageModelConfig::T5(T5Config {
            vocab_size: vocabulary,
            d_model: 256,
            d_kv: 64,
            d_ff: 1024,
            num_layers: 6,
            num_decoder_layers: 6,
            num_heads: 4,
            dropout_rate: 0.0,
            ..T5Config::default()
        }),
        ..Blip2Config::default()
    };
    let model = config.init(&device);
    let noise = Distribution::Normal(0.0, 1.0);
    let pixels = Tensor::<5>::random([clips, frames, 3, pixels, pixels], noise, &device);
    let ids = Tensor::<1, Int>::arange(2..2 + 12 * clips as i64, &device).reshape([clips, 12]);
    let targets = Targets { ids, mask: Tensor::ones([clips, 12], &device) };
    let training = model.clone().train();
    let step = least(|| {
        let loss = training.caption_loss(Visual::Frames(pixels.clone()), &Prompt::default(), &targets)?;
        GradientsParams::from_grads(loss.backward(), &training);
        Ok(())
    })?;
    let settings = GenerateConfig { num_beams: beams, max_new_tokens: 20, ..GenerateConfig::default() };
    let captions = least(|| {
        model.caption(Visual::Frames(pixels.clone()), &Prompt::default(), &settings)?;
        Ok(())
    })?;
    Ok([step, captions])
}

fn least(mut round: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    round()?;
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        round()?;
        least = least.min(start.elapsed().as_secs_f64());
    }
    Ok(least)
}
