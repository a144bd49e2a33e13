//! Results do not depend on the number of cores: losses, gradients and captions are equal bit for bit, for
//! sizes at which products, rows, frames and prompts are distributed.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};
use model::blip2::Blip2Config;
use model::generate::GenerateConfig;
use model::lm::LanguageModelConfig;
use model::lm::t5::T5Config;
use model::loss::Targets;
use model::parameters::draw;
use model::qformer::QFormerConfig;
use model::vit::VitConfig;
use model::{Blip2, Prompt, Visual};
use rayon::ThreadPoolBuilder;

const CLIPS: usize = 9;
const FRAMES: usize = 4;

fn captioner() -> Blip2 {
    let device = Device::flex();
    device.seed(31);
    let config = Blip2Config {
        vision_config: VitConfig {
            hidden_size: 96,
            intermediate_size: 256,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            image_size: 64,
            patch_size: 8,
            ..VitConfig::default()
        },
        qformer_config: QFormerConfig {
            hidden_size: 64,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            intermediate_size: 128,
            encoder_hidden_size: 96,
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            ..QFormerConfig::default()
        },
        text_config: LanguageModelConfig::T5(T5Config {
            vocab_size: 2000,
            d_model: 64,
            d_kv: 16,
            d_ff: 128,
            num_layers: 2,
            num_decoder_layers: 2,
            num_heads: 4,
            dropout_rate: 0.0,
            ..T5Config::default()
        }),
        ..Blip2Config::default()
    };
    let model = config.init(&device);
    draw(&model);
    model
}

fn clips() -> Visual {
    let device = Device::flex();
    let count = (CLIPS * FRAMES * 3 * 64 * 64) as i64;
    let frames = Tensor::<1, Int>::arange(0..count, &device).float().sin();
    Visual::Frames(frames.reshape([CLIPS, FRAMES, 3, 64, 64]))
}

/// Every gradient, in the order of the parameters.
struct Reader<'a> {
    gradients: &'a GradientsParams,
    values: Vec<u32>,
}

impl ModuleVisitor for Reader<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(parameter.id) {
            let values: Vec<f32> = gradient.into_data().try_to_vec().unwrap();
            self.values.extend(values.into_iter().map(f32::to_bits));
        }
    }
}

fn step(model: &Blip2) -> (u32, Vec<u32>) {
    let device = Device::flex();
    let ids = Tensor::<1, Int>::arange(2..2 + 12 * CLIPS as i64, &device).reshape([CLIPS, 12]);
    let targets = Targets { ids, mask: Tensor::ones([CLIPS, 12], &device) };
    let loss = model.caption_loss(clips(), &Prompt::default(), &targets).unwrap();
    let value = loss.clone().without_autodiff().into_scalar::<f32>().to_bits();
    let gradients = GradientsParams::from_grads(loss.backward(), model);
    let mut reader = Reader { gradients: &gradients, values: Vec::new() };
    model.visit(&mut reader);
    (value, reader.values)
}

#[test]
fn losses_gradients_and_captions_have_the_same_bits_for_every_number_of_cores() {
    let model = captioner();
    let training = model.clone().train();
    let config = GenerateConfig { num_beams: 3, max_new_tokens: 6, ..GenerateConfig::default() };
    let on_cores = |cores: usize| {
        let pool = ThreadPoolBuilder::new().num_threads(cores).build().unwrap();
        pool.install(|| {
            let captions = model.caption(clips(), &Prompt::default(), &config).unwrap();
            let features = model.vision_features(match clips() {
                Visual::Frames(frames) => frames,
                Visual::Features(_) => unreachable!(),
            });
            (step(&training), captions, features.into_data())
        })
    };
    let (alone, captions, features) = on_cores(1);
    assert_eq!(captions.len(), CLIPS);
    assert!(alone.1.len() > 100_000);
    for cores in [2, 3, 5] {
        let (together, same_captions, same_features) = on_cores(cores);
        assert_eq!(together.0, alone.0, "loss on {cores} cores");
        assert!(together.1 == alone.1, "gradients on {cores} cores");
        assert_eq!(same_captions, captions, "captions on {cores} cores");
        assert_eq!(same_features, features, "features on {cores} cores");
    }
}
