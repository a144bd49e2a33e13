//! Self-critical training: rewards as the authors', log-probabilities, baselines, settings.

use super::*;
use crate::cross_entropy::mean_by_row;
use crate::freezing::Freezing;
use crate::optimizer::ParameterGroups;
use crate::testing::{batch, blip2, language_models};
use burn::optim::GradientsParams;
use burn::tensor::Device;

fn captions() -> Vec<Vec<String>> {
    (0..6)
        .map(|clip| match batch(&[clip]) {
            Batch::Caption { texts, .. } => vec![texts[0].clone(), "the cat runs".to_owned()],
            _ => Vec::new(),
        })
        .collect()
}

fn rewards(config: ScstConfig) -> Arc<Rewards> {
    Arc::new(Rewards::new(config, &captions()).unwrap())
}

fn standard(change: impl FnOnce(&mut Standard)) -> ScstConfig {
    let mut standard = Standard::default();
    change(&mut standard);
    ScstConfig::Standard(standard)
}

/// Rewards that the authors' own scorer gives in their training step, made by running it on these texts (its
/// `Cider` with document frequencies of the ten beams it is handed, roles as they pass them).
#[test]
fn released_rewards_are_the_authors() {
    let texts = ["a man is playing a guitar on stage", "a woman is slicing an onion"].map(str::to_owned);
    let written = [
        "a man is playing a guitar",
        "a man plays guitar on a stage",
        "a man is singing on stage",
        "a woman is cutting an onion",
        "a woman is slicing onions",
        "a person is cooking",
    ]
    .map(str::to_owned);
    let released = rewards(ScstConfig::Released(Released::default()));
    let found = released.rewards(&written, &[0, 0, 0, 1, 1, 1], &[], &texts).unwrap();
    let expected = [7.532638, 1.911202, 2.057257, 3.207476, 4.750983, 0.009385];
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}

/// The cache of generation and the one pass over all captions are other code, whose sums run in another
/// order: 1e-5 relative of log-probabilities of size 10 to 30.
#[test]
fn one_pass_gives_the_log_probabilities_of_generation() {
    let mut lengths = std::collections::BTreeSet::new();
    for language_model in language_models(0.0) {
        for decoding in [Decoding::Sample, Decoding::Beams] {
            let config = standard(|settings| {
                (settings.decoding, settings.normalize_length) = (decoding, false);
            });
            let (model, context) = blip2(language_model.clone(), 5);
            let scst = Scst::new(context, rewards(config));
            let scored = scst.generate(&model, &scst.encode(&model, batch(&[0, 3, 4])).unwrap(), 77).unwrap();
            assert_eq!(scored.sequences.len(), 15);
            lengths.extend(scored.sequences.iter().map(Vec::len));
            let again = scst
                .log_probabilities(&model, &scst.encode(&model, batch(&[0, 3, 4])).unwrap(), &scored)
                .unwrap();
            let again = again.into_data().try_to_vec::<f32>().unwrap();
            for (one, other) in again.iter().zip(&scored.log_probabilities) {
                assert!((one - other).abs() <= 1e-5 * other.abs().max(1.0), "{one} {other}");
            }
        }
    }
    assert!(lengths.len() > 2, "some end early and are padded: {lengths:?}");
}

#[test]
fn what_is_drawn_follows_from_the_seed_and_the_clip_alone() {
    let (model, context) = blip2(language_models(0.0)[0].clone(), 6);
    let scst = Scst::new(context, rewards(standard(|_| ())));
    let whole = scst.generate(&model, &scst.encode(&model, batch(&[0, 1, 2, 3])).unwrap(), 9).unwrap();
    let part = scst.generate(&model, &scst.encode(&model, batch(&[2, 3])).unwrap(), 9).unwrap();
    assert_eq!(whole.sequences[10..], part.sequences[..]);
    assert_ne!(
        whole.sequences,
        scst.generate(&model, &scst.encode(&model, batch(&[0, 1, 2, 3])).unwrap(), 10).unwrap().sequences
    );
}

#[test]
fn baselines_are_what_they_are_called() {
    let rewards = [1.0, 2.0, 6.0, 0.0, 3.0, 3.0];
    assert_eq!(compare(&rewards, 3, |sum, _| sum / 3.0), [3.0, 3.0, 3.0, 2.0, 2.0, 2.0]);
    assert_eq!(compare(&rewards, 3, |sum, own| (sum - own) / 2.0), [4.0, 3.5, 1.5, 3.0, 1.5, 1.5]);
    let greedy = standard(|settings| (settings.baseline, settings.candidates) = (Baseline::Greedy, 2));
    let (model, context) = blip2(language_models(0.0)[0].clone(), 7);
    let scst = Scst::new(context, self::rewards(greedy));
    let scored = scst.generate(&model, &scst.encode(&model, batch(&[1, 2])).unwrap(), 3).unwrap();
    let predictions = scst.evaluate(&model, batch(&[1, 2])).unwrap().predictions;
    let captions: Vec<String> = predictions.into_iter().map(|one| one.caption).collect();
    let greedy = scst.rewards.rewards(&captions, &[0, 1], &[1, 2], &[]).unwrap();
    assert_eq!(scored.baselines, [greedy[0], greedy[0], greedy[1], greedy[1]]);
}

#[test]
fn answers_are_rewarded_where_they_equal_the_published_one_as_the_vqa_challenge_compares_them() {
    let config = standard(|settings| settings.metric = RewardMetric::ExactMatch);
    let nothing: [Vec<String>; 0] = [];
    let rewards = Rewards::new(config, &nothing).unwrap();
    let texts = ["playing guitar", "two"].map(str::to_owned);
    let answers = ["Playing guitar.", "guitar", "2", "three"].map(str::to_owned);
    assert_eq!(rewards.rewards(&answers, &[0, 0, 1, 1], &[], &texts).unwrap(), [1.0, 0.0, 1.0, 0.0]);
    let error = rewards.rewards(&answers, &[0, 0, 1, 2], &[], &texts).unwrap_err().to_string();
    assert!(error.contains("row 2"), "{error}");
    let both = standard(|settings| (settings.metric, settings.bleu_4) = (RewardMetric::ExactMatch, 0.5));
    assert!(both.check().unwrap_err().contains("exact_match"));
    // the default is not written, so that the hash of a configuration stays
    let text = serde_json::to_string(&Standard::default()).unwrap();
    assert!(!text.contains("metric"), "{text}");
}

/// A step against the gradient must make what is worth more than its baseline likelier, and the rest less
/// likely.
#[test]
fn a_step_favours_what_is_rewarded() {
    let device = Device::flex().autodiff();
    for language_model in language_models(0.0) {
        let (model, context) = blip2(language_model, 8);
        let scst = Scst::new(context, rewards(standard(|settings| settings.candidates = 2)));
        let model = model.fork(&device).train();
        let scored = Scored {
            candidates: 2,
            sequences: vec![vec![3, 4, 6, 1], vec![3, 5, 6, 7, 1]],
            log_probabilities: vec![0.0; 2],
            rewards: vec![2.0, 1.0],
            baselines: vec![1.5, 1.5],
        };
        let before =
            scst.log_probabilities(&model, &scst.encode(&model, batch(&[0])).unwrap(), &scored).unwrap();
        let before = before.into_data().try_to_vec::<f32>().unwrap();
        let loss = scst.policy_loss(&model, &scst.encode(&model, batch(&[0])).unwrap(), &scored).unwrap();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let everything = ParameterGroups::new(&model, &Freezing::default());
        let mut optimizer = burn::optim::SgdConfig::new().init();
        let model = optimizer.step(everything.learning_rates(0.01), model, gradients);
        let after =
            scst.log_probabilities(&model, &scst.encode(&model, batch(&[0])).unwrap(), &scored).unwrap();
        let after = after.into_data().try_to_vec::<f32>().unwrap();
        assert!(after[0] > before[0] && after[1] < before[1], "{before:?} {after:?}");
    }
}

#[test]
fn the_two_modes_share_no_setting() {
    let read = |text: &str| serde_json::from_str::<ScstConfig>(text);
    assert_eq!(read(r#"{"mode": "released"}"#).unwrap(), ScstConfig::Released(Released::default()));
    let set = read(r#"{"mode": "standard", "baseline": "greedy", "bleu_4": 0.5}"#).unwrap();
    assert_eq!((set.settings().baseline, set.settings().bleu_4), (Baseline::Greedy, 0.5));
    for mixed in [
        r#"{"mode": "released", "baseline": "greedy"}"#,
        r#"{"mode": "standard", "beams": 5}"#,
        r#"{"mode": "both"}"#,
        r#"{"baseline": "greedy"}"#,
    ] {
        assert!(read(mixed).is_err(), "{mixed}");
    }
    let released = ScstConfig::Released(Released::default()).settings();
    assert_eq!(
        (released.decoding, released.baseline, released.candidates),
        (Decoding::Beams, Baseline::Mean, 5)
    );
}

#[test]
fn invalid_settings_are_named() {
    for (config, word) in [
        (standard(|settings| settings.candidates = 0), "0 captions"),
        (standard(|settings| settings.candidates = 1), "greedy"),
        (standard(|settings| settings.temperature = 0.0), "temperature"),
        (standard(|settings| settings.bleu_4 = -1.0), "bleu_4"),
        (standard(|settings| settings.cross_entropy = 1.0), "cross_entropy"),
        (
            standard(|settings| (settings.decoding, settings.temperature) = (Decoding::Beams, 2.0)),
            "temperature",
        ),
    ] {
        assert!(config.check().unwrap_err().contains(word), "{word}");
        assert!(Rewards::new(config, &captions()).unwrap_err().to_string().contains(word));
    }
    let nothing: [Vec<String>; 0] = [];
    assert!(Rewards::new(standard(|_| ()), &nothing).is_err(), "no training captions");
    let scst = rewards(standard(|_| ()));
    assert!(scst.rewards(&["a".to_owned()], &[0], &[99], &[]).is_err(), "no such clip");
}

/// The graph of the prefix is shared by the policy and the cross-entropy of the captions, and recomputed
/// blocks enter it through one leaf: gradients as of a pass for each, up to the order of sums.
#[test]
fn one_encoding_a_step_gives_the_gradients_of_separate_passes_with_and_without_recomputing() {
    use model::recompute::{Draws, Recompute, backward};
    for language_model in language_models(0.0) {
        let (model, context) = blip2(language_model, 9);
        let scst = Scst::new(context, rewards(standard(|settings| settings.cross_entropy = 0.5)));
        let model = model.fork(&Device::flex().autodiff()).train();
        let scored = scst.generate(&model, &scst.encode(&model, batch(&[0, 1])).unwrap(), 4).unwrap();
        let separate = backward(&model, Recompute::default(), Draws::of_batch(0, 2), || {
            let encode = || scst.encode(&model, batch(&[0, 1])).unwrap();
            let policy = scst.policy_loss(&model, &encode(), &scored)?;
            let Clips { prefix, captions, .. } = encode();
            Ok::<_, TrainError>(policy * 0.5 + mean_by_row(&model, prefix, captions)? * 0.5)
        });
        let (loss, separate) = separate.unwrap();
        let expected = crate::testing::gradients_of(&model, separate);
        for recompute in [Recompute::default(), Recompute::ALL] {
            let context = StepContext { seed: 4, processes: &crate::processes::SingleProcess };
            let shared = backward(&model, recompute, Draws::of_batch(0, 2), || {
                scst.loss(&model, batch(&[0, 1]), &context).map(|loss| loss.value)
            });
            let (same, shared) = shared.unwrap();
            assert_eq!(same.into_data(), loss.clone().into_data());
            let found = crate::testing::gradients_of(&model, shared);
            assert!(!expected.is_empty() && found.len() == expected.len());
            for (name, expected) in &expected {
                let size = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
                for (one, other) in found[name].iter().zip(expected) {
                    // the gradient of a key's bias is zero, and what is there is rounding
                    assert!((one - other).abs() <= 1e-5 * size + 1e-7, "{name}: {one} {other}");
                }
            }
        }
    }
}

/// The clip is encoded once; the same values come out as from features.
#[test]
fn frames_and_features_of_a_frozen_vit_give_the_same_loss_bit_for_bit() {
    let (model, context) = blip2(language_models(0.0)[0].clone(), 9);
    let device = Device::flex().autodiff();
    let model = model::parameters::set_trainable(model.fork(&device).train(), |name| {
        !name.starts_with("vision_model.")
    });
    let scst = Scst::new(context, rewards(standard(|settings| settings.cross_entropy = 0.5)));
    let context = StepContext { seed: 4, processes: &crate::processes::SingleProcess };
    let frames = batch(&[0, 1]);
    let mut features = frames.clone();
    if let Batch::Caption { visual, .. } = &mut features {
        let Visual::Frames(pixels) = visual.clone().upload(&device) else { panic!("frames") };
        let encoded = model.vision_features(pixels);
        let shape = encoded.dims();
        let values = encoded.into_data().try_to_vec::<f32>().unwrap();
        *visual = captioner::HostVisual::Features { values, shape };
    }
    let [one, other] = [frames, features].map(|batch| {
        let loss = scst.loss(&model, batch, &context).unwrap();
        (loss.value.into_scalar::<f32>().to_bits(), loss.metrics)
    });
    assert_eq!(one, other);
}
