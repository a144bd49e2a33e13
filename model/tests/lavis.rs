//! The first stage of pretraining against LAVIS's own modules (scripts/reference/lavis_modules.py, which says
//! what each tensor of the fixture is).
//!
//! Tolerance: 1e-4 of a tensor's largest magnitude, 1e-5 of a loss, 1e-3 of a gradient, as sums run in
//! another order.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use model::checkpoint::source::Source;
use model::checkpoint::{Parts, Role, load_pretraining};
use model::parameters::gradient;
use model::pretraining::{HardNegatives, Pairs, Pretraining, PretrainingConfig};
use model::qformer::{QFormerConfig, QFormerText, TextAttention};
use model::vit::VitConfig;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/lavis")
}

fn config() -> PretrainingConfig {
    PretrainingConfig {
        vision_config: VitConfig {
            hidden_size: 20,
            intermediate_size: 46,
            num_hidden_layers: 3,
            num_attention_heads: 2,
            image_size: 21,
            patch_size: 7,
            post_layernorm_eps: Some(1e-5),
            ..VitConfig::default()
        },
        qformer_config: QFormerConfig {
            hidden_size: 15,
            num_hidden_layers: 3,
            num_attention_heads: 3,
            intermediate_size: 26,
            encoder_hidden_size: 20,
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            reads_text: true,
            vocab_size: 31,
            max_position_embeddings: 12,
            ..QFormerConfig::default()
        },
        num_query_tokens: 5,
        embed_dim: 8,
        ..PretrainingConfig::default()
    }
}

const START: u32 = 30;

struct Fixture {
    tensors: Source,
}

impl Fixture {
    fn open() -> Self {
        Self { tensors: Source::open(&folder().join("stage1.safetensors")).unwrap() }
    }

    fn floats<const D: usize>(&self, name: &str) -> Tensor<D> {
        let shape: Vec<usize> = self.tensors.get(name).unwrap().shape.to_vec();
        let shape: [usize; D] = shape.try_into().unwrap();
        Tensor::from_data(TensorData::new(self.tensors.read_f32(name).unwrap(), shape), &Device::default())
    }

    fn integers(&self, name: &str) -> Vec<i64> {
        let bytes = self.tensors.read_bytes(name).unwrap();
        bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
    }

    fn pairs(&self, image: Tensor<3>) -> Pairs {
        let ids = self.integers("text_ids");
        let mask: Vec<f32> = ids.iter().map(|&id| f32::from(u8::from(id != 0))).collect();
        let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        let device = Device::default();
        Pairs {
            image,
            ids: Tensor::<2, Int>::from_data(TensorData::new(ids, [4, 7]), &device),
            mask: Tensor::from_data(TensorData::new(mask, [4, 7]), &device),
        }
    }

    fn negatives(&self) -> HardNegatives {
        let rows = |name: &str| self.integers(name).iter().map(|&row| row as usize).collect();
        HardNegatives { images: rows("negative_images"), texts: rows("negative_texts") }
    }

    fn check<const D: usize>(&self, name: &str, got: Tensor<D>, tolerance: f32) {
        let expected = self.floats::<D>(name);
        assert_eq!(expected.dims(), got.dims(), "{name}");
        let most = expected.clone().abs().max().into_scalar::<f32>();
        let relative = (got - expected).abs().max().into_scalar::<f32>() / most;
        println!("{name}: {relative:.1e}");
        assert!(relative <= tolerance, "{name}: {relative:e}");
    }
}

fn load(device: &Device) -> Pretraining {
    let (stage, vit) = (folder().join("stage1.pth"), folder().join("eva_vit_g.pth"));
    let parts = Parts::open(&[(Role::Whole, &stage), (Role::Vision, &vit)]).unwrap();
    load_pretraining(parts, &config(), device).unwrap()
}

fn image(model: &Pretraining, fixture: &Fixture) -> Tensor<3> {
    let vit = model.vision_model.valid();
    model.ln_vision.forward(vit.forward(fixture.floats::<4>("pixel_values")))
}

#[test]
fn every_pass_gives_what_lavis_computes() {
    let (fixture, model) = (Fixture::open(), load(&Device::default()));
    let image = image(&model, &fixture);
    fixture.check("image_embeds", image.clone(), 1e-4);
    fixture.check("query_output", model.query_output(&image), 1e-4);
    let pairs = fixture.pairs(image.clone());
    let text = QFormerText {
        ids: pairs.ids.clone(),
        mask: Some(pairs.mask.clone()),
        attention: TextAttention::Bidirectional,
    };
    let text = model.qformer.forward_with_text(None, text, None).unwrap();
    fixture.check("text_cls", text.slice([0..4, 0..1]).reshape([4, 15]), 1e-4);
    let contrast = model.itc_features(&pairs).unwrap();
    let similarities = model.itc(&contrast, &contrast, 0).similarities;
    fixture.check("sim_i2t", similarities.image_to_text, 1e-4);
    fixture.check("sim_t2i", similarities.text_to_image, 1e-4);
    fixture.check("lm_logits", model.itg_logits(&pairs, START).unwrap(), 1e-4);
}

#[test]
fn the_three_losses_and_their_gradients_are_lavis() {
    let (fixture, device) = (Fixture::open(), Device::default().autodiff());
    let model = load(&device).train();
    let pairs = fixture.pairs(image(&model, &fixture));
    let contrast = model.itc_features(&pairs).unwrap();
    let contrastive = model.itc(&contrast, &contrast, 0).loss;
    let matching = model.itm_loss(&pairs, 0, &pairs.texts(), &fixture.negatives()).unwrap();
    let generation = model.itg_loss(&pairs, START).unwrap();
    let plain = |loss: &Tensor<1>| loss.clone().without_autodiff();
    fixture.check("loss_itc", plain(&contrastive), 1e-5);
    fixture.check("loss_itm", plain(&matching), 1e-5);
    fixture.check("loss_lm", plain(&generation), 1e-5);
    let loss = contrastive + matching + generation;
    fixture.check("loss", plain(&loss), 1e-5);
    let gradients = loss.backward();
    for (theirs, ours) in [
        ("Qformer.bert.embeddings.position_embeddings.weight", "qformer.text.position"),
        ("Qformer.bert.embeddings.word_embeddings.weight", "qformer.text.word"),
        (
            "Qformer.bert.encoder.layer.0.crossattention.self.key.weight",
            "qformer.layers.0.crossattention.key.weight",
        ),
        (
            "Qformer.bert.encoder.layer.1.attention.self.query.weight",
            "qformer.layers.1.attention.query.weight",
        ),
        ("Qformer.bert.encoder.layer.2.intermediate.dense.weight", "qformer.layers.2.intermediate.weight"),
        (
            "Qformer.bert.encoder.layer.2.intermediate_query.dense.weight",
            "qformer.layers.2.intermediate_query.weight",
        ),
        ("Qformer.cls.predictions.bias", "writer.bias"),
        ("itm_head.weight", "itm_head.weight"),
        ("ln_vision.weight", "ln_vision.weight"),
        ("query_tokens", "query_tokens"),
        ("text_proj.weight", "text_proj.weight"),
        ("vision_proj.weight", "vision_proj.weight"),
    ] {
        let (got, _) = gradient(&model, ours, &gradients).expect("every parameter gets a gradient");
        let expected = fixture.tensors.read_f32(&format!("grad.{theirs}")).unwrap();
        assert_eq!(got.len(), expected.len(), "{theirs}");
        let most = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let worst = got.iter().zip(&expected).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
        println!("{theirs}: {:.1e}", worst / most);
        assert!(worst <= 1e-3 * most, "{theirs}: {:e}", worst / most);
    }
    let temperature = fixture.tensors.read_f32("grad.temp").unwrap()[0];
    let (got, _) = gradient(&model, "temperature", &gradients).expect("every parameter gets a gradient");
    let got = got[0];
    assert!((got - temperature).abs() <= 1e-3 * temperature.abs(), "{got} {temperature}");
}
