//! Steps that compute the inside of blocks a second time against steps that keep it: the loss bit for bit,
//! and the gradient of every trained parameter to 1e-5 of its largest value, as the sums over several readers
//! run in another order.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

mod small;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, FloatDType, Int, Tensor};
use model::InputError;
use model::lm::Prefix;
use model::loss::Targets;
use model::parameters::{FieldPath, draw, set_trainable};
use model::pretraining::{HardNegatives, Pairs, PretrainingConfig};
use model::qformer::QFormerConfig;
use model::recompute::{Draws, Recompute, backward, share};
use model::{Blip2, Blip2Config, Fusion, Prompt, PromptTokens, Visual};

use small::{captioner, language_models, qformer, vision, with_lora};

/// Held while weights are drawn: the tests share the CPU's one generator, and must find the same weights each
/// time.
static DRAWING: Mutex<()> = Mutex::new(());

fn drawing() -> MutexGuard<'static, ()> {
    DRAWING.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A model in training of whose parameters those are trained whose name is chosen.
fn model(config: &Blip2Config, choose: impl Fn(&str) -> bool) -> Blip2 {
    let _drawing = drawing();
    let device = Device::flex();
    device.seed(71);
    let mut model = config.init(&device);
    // a fresh update is zero in its second factor, and so is the gradient of its first
    model.language_model.visit_linears(&mut |_, linear| {
        if let Some(lora) = &mut linear.lora {
            lora.b = lora.b.clone().map(|b| b.random_like(Distribution::Normal(0.0, 0.5)));
        }
    });
    draw(&model);
    set_trainable(model.train(), choose)
}

/// A loss of three clips of two frames, with a padded prompt for the language model and an instruction for
/// the Q-Former.
fn caption_loss(model: &Blip2) -> Result<Tensor<1>, InputError> {
    let device = Device::flex();
    let frames = Tensor::<1, Int>::arange(0..3 * 2 * 3 * 8 * 8, &device).float().sin();
    let visual = Visual::Frames(frames.reshape([3, 2, 3, 8, 8]));
    let prompt = PromptTokens {
        ids: Tensor::from_ints([[5, 6], [7, 8], [9, 10]], &device),
        mask: Some(Tensor::from_floats([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0]], &device)),
    };
    let instruction = PromptTokens {
        ids: Tensor::from_ints([[3, 4, 5], [6, 7, 0], [8, 0, 0]], &device),
        mask: Some(Tensor::from_floats([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]], &device)),
    };
    let prompt = Prompt { text: Some(prompt), instruction: Some(instruction), streams: None };
    let captions = Targets {
        ids: Tensor::from_ints([[4, 5, 6, 1], [6, 1, 0, 0], [9, 12, 1, 0]], &device),
        mask: Tensor::from_floats(
            [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]],
            &device,
        ),
    };
    model.caption_loss(visual, &prompt, &captions)
}

type Named = BTreeMap<String, Vec<f32>>;

/// Gradients by their parameters' names.
fn named<M: Module>(model: &M, gradients: &GradientsParams) -> Named {
    struct Reader<'a> {
        path: FieldPath,
        gradients: &'a GradientsParams,
        named: Named,
    }
    impl ModuleVisitor for Reader<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }

        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            if let Some(gradient) = self.gradients.get::<D>(parameter.id) {
                assert_eq!(gradient.dims(), parameter.val().dims());
                assert!(!gradient.is_autodiff(), "an optimiser takes plain gradients");
                let values = gradient.cast(FloatDType::F32).into_data().try_to_vec().unwrap();
                assert!(self.named.insert(self.path.name(), values).is_none());
            }
        }
    }
    let mut reader = Reader { path: FieldPath::default(), gradients, named: Named::new() };
    model.visit(&mut reader);
    assert_eq!(reader.named.len(), gradients.len(), "gradients of parameters that the model lacks");
    reader.named
}

fn step<M: Module, E: std::fmt::Debug>(
    model: &M,
    recompute: Recompute,
    seed: u64,
    loss: impl Fn(&M) -> Result<Tensor<1>, E>,
) -> (f32, Named) {
    let (loss, gradients) = backward(model, recompute, Draws::of_batch(seed, 3), || loss(model)).unwrap();
    assert!(!loss.is_autodiff());
    (loss.into_scalar(), named(model, &gradients))
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, value| value.abs().max(largest))
}

/// Gradients that are zero but for rounding (a bias of attention's keys has one) are compared with the
/// largest of all.
fn assert_same(case: &str, got: &(f32, Named), expected: &(f32, Named), tolerance: f32) {
    assert_eq!(got.0.to_bits(), expected.0.to_bits(), "{case}: loss {} and {}", got.0, expected.0);
    assert!(got.1.keys().eq(expected.1.keys()), "{case}: other parameters have gradients");
    let noise = 1e-7 * expected.1.values().map(|values| largest(values)).fold(0.0, f32::max);
    for (name, expected) in &expected.1 {
        let differences: Vec<f32> = got.1[name].iter().zip(expected).map(|(got, want)| got - want).collect();
        let (difference, size) = (largest(&differences), largest(expected));
        assert!(
            difference <= tolerance * size + noise,
            "{case}: {name} differs by {difference:e} of {size:e}"
        );
    }
}

const PARTS: [(&str, Recompute); 4] = [
    ("all parts", Recompute::ALL),
    ("vision model", Recompute { vision_model: true, qformer: false, language_model: false }),
    ("Q-Former", Recompute { vision_model: false, qformer: true, language_model: false }),
    ("language model", Recompute { vision_model: false, qformer: false, language_model: true }),
];

fn assert_recomputing_changes_nothing(case: &str, model: &Blip2, trained: usize) {
    let expected = step(model, Recompute::default(), 5, caption_loss);
    assert_eq!(expected.1.len(), trained, "{case}: parameters with a gradient");
    for (name, values) in &expected.1 {
        // of the Q-Former's last layer only the queries are read
        let is_read = !["intermediate.", "output."]
            .iter()
            .any(|field| name.strip_prefix("qformer.layers.2.").is_some_and(|rest| rest.starts_with(field)));
        assert_eq!(largest(values) > 0.0, is_read, "{case}: the gradient of {name} shows nothing");
    }
    for (parts, recompute) in PARTS {
        let got = step(model, recompute, 5, caption_loss);
        assert_same(&format!("{case}, {parts}"), &got, &expected, 1e-5);
    }
}

fn count_trained<M: Module>(model: &M) -> usize {
    struct Counter(usize);
    impl ModuleVisitor for Counter {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            self.0 += usize::from(parameter.is_require_grad());
        }
    }
    let mut counter = Counter(0);
    model.visit(&mut counter);
    counter.0
}

#[test]
fn without_a_part_the_gradients_are_those_of_burn() {
    for text_config in language_models() {
        let model = model(&captioner(text_config), |_| true);
        let loss = caption_loss(&model).unwrap();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let expected = (loss.into_scalar::<f32>(), named(&model, &gradients));
        assert_eq!(step(&model, Recompute::default(), 5, caption_loss), expected);
    }
}

#[test]
fn every_gradient_is_the_same_where_all_is_trained() {
    for text_config in language_models() {
        let case = format!("{text_config:?}");
        let model = model(&captioner(text_config), |_| true);
        assert_recomputing_changes_nothing(&case, &model, count_trained(&model));
    }
}

#[test]
fn gradients_flow_through_frozen_blocks_to_what_is_trained_before_and_inside_them() {
    for text_config in language_models() {
        let case = format!("{text_config:?}");
        let config = with_lora(captioner(text_config));
        let chosen = |name: &str| {
            let is_frozen = name.starts_with("vision_model.") || name.starts_with("language_model.");
            name.contains(".lora.") || name == "query_tokens" || (!is_frozen && !name.starts_with("qformer."))
        };
        let lora = model(&config, chosen);
        assert_recomputing_changes_nothing(&case, &lora, count_trained(&lora));
        let queries = model(&config, |name| name == "query_tokens");
        assert_recomputing_changes_nothing(&case, &queries, 1);
        let factors = model(&config, |name| name.contains(".lora."));
        assert_recomputing_changes_nothing(&case, &factors, count_trained(&factors));
        let vit = model(&config, |name| name.starts_with("vision_model."));
        assert_recomputing_changes_nothing(&case, &vit, count_trained(&vit));
    }
}

#[test]
fn a_single_trained_parameter_anywhere_gets_its_gradient() {
    let config = captioner(language_models().remove(0));
    for name in [
        "vision_model.patch_embedding.weight",
        "vision_model.layers.2.mlp.fc1.weight",
        "qformer.layers.1.attention.value.weight",
        "language_model.shared",
        "language_model.encoder.relative_attention_bias.weight",
        "language_model.encoder.block.0.self_attention.v.weight",
        "language_model.decoder.relative_attention_bias.weight",
        "language_model.decoder.block.2.cross_attention.k.weight",
        "language_model.lm_head.weight",
    ] {
        let model = model(&config, |other| other == name);
        assert_recomputing_changes_nothing(name, &model, 1);
    }
}

#[test]
fn frames_that_are_fused_after_the_qformer_are_too() {
    for fusion in [Fusion::Average, Fusion::ConcatQueries, Fusion::AverageQueries] {
        let config = Blip2Config { fusion, ..captioner(language_models().remove(2)) };
        let model = model(&config, |name| !name.starts_with("qformer."));
        assert_recomputing_changes_nothing(&format!("{fusion:?}"), &model, count_trained(&model));
    }
}

/// The random numbers of a block's second pass are those of its first, and those of a step that keeps all.
#[test]
fn with_dropout_the_same_values_are_dropped() {
    for text_config in language_models() {
        let case = format!("{text_config:?}");
        let mut config = with_lora(captioner(text_config));
        let without = step(&model(&config, |_| true), Recompute::default(), 5, caption_loss);
        config.set_dropout(0.1);
        config.vision_config.attention_dropout = 0.1;
        let model = model(&config, |_| true);
        let expected = step(&model, Recompute::default(), 5, caption_loss);
        assert_ne!(expected.0, without.0, "{case}: nothing was dropped");
        for (parts, recompute) in PARTS {
            let got = step(&model, recompute, 5, caption_loss);
            assert_same(&format!("{case}, {parts}"), &got, &expected, 1e-5);
        }
        assert_ne!(
            step(&model, Recompute::ALL, 6, caption_loss).0,
            expected.0,
            "{case}: the seed says nothing"
        );
    }
}

/// As the trainer runs micro-batches: each on a fork with separate leaves.
#[test]
fn steps_side_by_side_do_not_disturb_each_other() {
    let mut config = with_lora(captioner(language_models().remove(0)));
    config.set_dropout(0.1);
    let model = model(&config, |_| true);
    let device = model.query_tokens.val().device();
    let alone: Vec<_> = (0..4).map(|seed| step(&model, Recompute::ALL, seed, caption_loss)).collect();
    let together: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..4)
            .map(|seed| {
                let fork = model.clone().fork(&device);
                scope.spawn(move || step(&fork, Recompute::ALL, seed, caption_loss))
            })
            .collect();
        running.into_iter().map(|step| step.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
}

/// A frozen language model in half precision with f32 factors in it. The gradients that several blocks hand
/// to one tensor are rounded to bf16 at each addition, in another order: 2 % where that happens.
#[test]
fn a_language_model_in_half_precision_keeps_its_type() {
    struct ToHalf(FieldPath);
    impl ModuleMapper for ToHalf {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.exit();
        }

        fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let name = self.0.name();
            if name.starts_with("language_model.") && !name.contains(".lora.") {
                parameter.map(|x| x.without_autodiff().cast(FloatDType::BF16).autodiff())
            } else {
                parameter
            }
        }
    }
    let chosen = |name: &str| name.contains(".lora.") || name == "query_tokens";
    // the gradients that T5's decoder blocks pass to its encoder are summed in another order, in bf16, whose
    // roundings are 4e-3 each; the encoder's softmax takes differences of them
    for (text_config, tolerance) in language_models().into_iter().zip([5e-2, 5e-2, 1e-5, 1e-5]) {
        let model = model(&with_lora(captioner(text_config.clone())), chosen);
        let model = set_trainable(model.map(&mut ToHalf(FieldPath::default())), chosen);
        let expected = step(&model, Recompute::default(), 5, caption_loss);
        let got = step(&model, Recompute::ALL, 5, caption_loss);
        assert_same(&format!("{text_config:?}"), &got, &expected, tolerance);
    }
}

/// Text alone: nothing before the language model has a gradient, and its first block reads no graph.
#[test]
fn a_language_model_that_reads_text_only_is_too() {
    for text_config in language_models() {
        let case = format!("{text_config:?}");
        let model = model(&with_lora(captioner(text_config)), |name| name.contains(".lora."));
        let loss = |model: &Blip2| -> Result<Tensor<1>, Infallible> {
            let device = Device::flex();
            let ids = Tensor::from_ints([[4, 5, 6, 1], [6, 7, 8, 1]], &device);
            let embedded = model.language_model.embed(Tensor::from_ints([[2, 3], [4, 5]], &device));
            let logits = model.language_model.score(Prefix { embedded, mask: None }, ids).unwrap();
            Ok(logits.square().mean())
        };
        let expected = step(&model, Recompute::default(), 5, loss);
        assert_same(&case, &step(&model, Recompute::ALL, 5, loss), &expected, 1e-5);
    }
}

#[test]
fn the_first_stage_of_pretraining_is_too_where_its_image_is_shared() {
    let config = PretrainingConfig {
        vision_config: vision(),
        qformer_config: QFormerConfig {
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            ..qformer()
        },
        num_query_tokens: 3,
        embed_dim: 8,
        ..PretrainingConfig::default()
    };
    let device = Device::flex();
    let guard = drawing();
    device.seed(72);
    let model = config.init(&device);
    draw(&model);
    drop(guard);
    let model = model.train();
    let loss = |model: &model::pretraining::Pretraining| -> Result<Tensor<1>, InputError> {
        let images = Tensor::<1, Int>::arange(0..3 * 3 * 8 * 8, &device).float().sin().reshape([3, 3, 8, 8]);
        let image = share(model.ln_vision.forward(model.vision_model.forward(images)));
        let pairs = Pairs {
            image,
            ids: Tensor::from_ints([[2, 5, 6, 3], [2, 7, 3, 0], [2, 9, 11, 3]], &device),
            mask: Tensor::from_floats(
                [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]],
                &device,
            ),
        };
        let contrast = model.itc_features(&pairs)?;
        let negatives = HardNegatives { images: vec![1, 2, 0], texts: vec![2, 0, 1] };
        Ok(model.itc(&contrast, &contrast, 0).loss
            + model.itm_loss(&pairs, 0, &pairs.texts(), &negatives)?
            + model.itg_loss(&pairs, 4)?)
    };
    let expected = step(&model, Recompute::default(), 5, loss);
    assert_eq!(expected.1.len(), count_trained(&model));
    for (parts, recompute) in PARTS {
        assert_same(parts, &step(&model, recompute, 5, loss), &expected, 1e-5);
    }
}

#[test]
fn a_forward_pass_that_fails_leaves_nothing_behind() {
    let model = model(&captioner(language_models().remove(0)), |_| true);
    let failed = backward(&model, Recompute::ALL, Draws::of_batch(5, 3), || {
        caption_loss(&model).unwrap();
        Err::<Tensor<1>, _>("no such clip")
    });
    assert_eq!(failed.unwrap_err(), "no such clip");
    let loss = caption_loss(&model).unwrap();
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    let expected = (loss.into_scalar::<f32>(), named(&model, &gradients));
    assert_eq!(step(&model, Recompute::default(), 5, caption_loss), expected);
}

/// As a step does that first writes captions to be rewarded.
#[test]
fn evaluation_in_the_midst_of_a_step_is_as_outside_of_one() {
    let mut config = captioner(language_models().remove(0));
    config.set_dropout(0.1);
    let model = model(&config, |_| true);
    let evaluate = || caption_loss(&model.valid()).unwrap();
    let outside = evaluate().into_data();
    let expected = step(&model, Recompute::ALL, 5, caption_loss);
    let got = step(&model, Recompute::ALL, 5, |model| {
        let loss = caption_loss(model);
        let inside = evaluate();
        assert!(!inside.is_autodiff());
        assert_eq!(inside.into_data(), outside);
        loss
    });
    assert_eq!(got, expected);
}
