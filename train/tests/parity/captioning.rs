//! The captioner, by cross-entropy and by self-critical training as released.

use std::path::Path;
use std::sync::Arc;

use captioner::{Context, HostPrompts, HostTokens, PromptIds};
use data::text::Tokenizer;
use model::Blip2;
use model::generate::GenerateConfig;
use model::lm::LanguageModelConfig;
use serde::Deserialize;
use train::scst::{Released, Rewards, Scored, Scst, ScstConfig};
use train::{BEST, Batch, CrossEntropy, Objective, Outcome};

use crate::compare::{Weights, check, weights};
use crate::fixture::{Case, fixtures, models, open, pixels};
use crate::trained;
use crate::watched::Watched;

const FRAMES: usize = 2;

#[derive(Debug, Deserialize)]
struct Captions {
    clips: Vec<usize>,
    prompts: Vec<Vec<u32>>,
    captions: Vec<Vec<u32>>,
}

#[derive(Debug, Deserialize)]
struct Rewarded {
    clips: Vec<usize>,
    sequences: Vec<Vec<Vec<u32>>>,
    rewards: Vec<Vec<f64>>,
}

impl Rewarded {
    /// What [`Scst::generate`] would return with these captions and rewards.
    fn scored(&self) -> Scored {
        let candidates = self.rewards[0].len();
        let mean = |rewards: &[f64]| rewards.iter().sum::<f64>() / candidates as f64;
        Scored {
            candidates,
            sequences: self.sequences.concat(),
            log_probabilities: Vec::new(),
            rewards: self.rewards.concat(),
            baselines: self.rewards.iter().flat_map(|rewards| vec![mean(rewards); candidates]).collect(),
        }
    }
}

/// A tokenizer of so many words: what is compared knows no text.
fn tokenizer(vocabulary: usize) -> Arc<Tokenizer> {
    let words: Vec<String> = (3..vocabulary).map(|id| format!("w{id}")).collect();
    Arc::new(Tokenizer::word_level(&words).unwrap())
}

fn captioner<B>(case: &Case<B>) -> (Blip2, Context) {
    let (config, model) = case.initial();
    let context = Context {
        tokenizer: tokenizer(config.text_config.vocabulary_size()),
        config,
        qformer_tokenizer: None,
        prompt: PromptIds::default(),
        generate: GenerateConfig::default(),
    };
    (model, context)
}

/// The weights in a captioner's folder, with those of an adapter; their names tell whether peft wrapped the
/// language model or all of BLIP-2, which makes no difference here.
fn captioner_weights(folder: &Path, adapter: Option<&Path>) -> Weights {
    let mut all = weights(&folder.join("model.safetensors"));
    if let Some(adapter) = adapter {
        let updates = weights(&adapter.join("adapter_model.safetensors")).into_iter();
        all.extend(updates.map(|(name, values)| (name.replace(".language_model.", "."), values)));
    }
    all
}

/// Compares what a captioner's run wrote, which is what others read.
fn check_captioner<B>(
    name: &str,
    case: &Case<B>,
    losses: &[f64],
    outcome: &Outcome<Blip2>,
    directory: &Path,
) {
    let best = directory.join(BEST);
    let adapter = case.adapter.as_ref().map(|adapter| models().join(adapter));
    let got = captioner_weights(&best, adapter.as_ref().map(|_| best.as_path()));
    let initial = captioner_weights(&models().join(&case.model), adapter.as_deref());
    let expected = weights(&fixtures().join(format!("{name}.safetensors")));
    check(name, case, losses, &outcome.history, &got, &expected, &initial);
}

fn check_cross_entropy(name: &str) {
    let case: Arc<Case<Captions>> = Arc::new(open(name));
    let (model, context) = captioner(&case);
    let has_encoder = matches!(context.config.text_config, LanguageModelConfig::T5(_));
    let given = case.clone();
    let batch = move |step: usize, items| {
        let batch = &given.batches[step];
        let pad = if has_encoder { HostTokens::pad } else { HostTokens::pad_start };
        Batch::Caption {
            visual: pixels(&batch.clips, FRAMES),
            prompts: Some(HostPrompts { text: Some(pad(&batch.prompts)), instruction: None }),
            captions: Some(HostTokens::pad(&batch.captions)),
            texts: Vec::new(),
            clips: batch.clips.clone(),
            items,
        }
    };
    let cross_entropy = CrossEntropy::new(context, case.train.label_smoothing);
    let watched = cross_entropy.clone();
    let (objective, seen) =
        Watched::new(cross_entropy, case.train.batch_size, move |model: &Blip2, _, batch, context| {
            watched.loss(model, batch, context).map(|loss| loss.value)
        });
    let directory = tempfile::tempdir().unwrap();
    let outcome = trained(model, objective, &case.train, batch, directory.path());
    check_captioner(name, &case, &seen.losses(), &outcome, directory.path());
}

#[test]
fn cross_entropy_through_lora_in_two_parts_with_clipped_gradients() {
    check_cross_entropy("xe-t5-lora");
}

#[test]
fn cross_entropy_of_a_whole_opt_with_a_slower_vit_by_laviss_schedule() {
    check_cross_entropy("xe-opt-whole");
}

#[test]
fn cross_entropy_of_a_whole_t5() {
    check_cross_entropy("xe-t5-whole");
}

#[test]
fn released_self_critical_training_on_given_captions_and_rewards() {
    let name = "scst-t5-lora";
    let case: Arc<Case<Rewarded>> = Arc::new(open(name));
    let config = ScstConfig::Released(Released { dropout: false, ..Released::default() });
    let no_captions: [Vec<&str>; 0] = [];
    let (model, context) = captioner(&case);
    let scst = Scst::new(context, Arc::new(Rewards::new(config, &no_captions).unwrap()));
    let scored: Vec<Scored> = case.batches.iter().map(Rewarded::scored).collect();
    let given = case.clone();
    let batch = move |step: usize, items| Batch::Caption {
        visual: pixels(&given.batches[step].clips, FRAMES),
        prompts: None,
        captions: None,
        texts: Vec::new(),
        clips: given.batches[step].clips.clone(),
        items,
    };
    let watched = scst.clone();
    let (objective, seen) =
        Watched::new(scst, case.train.batch_size, move |model: &Blip2, step, batch, _| {
            watched.policy_loss(model, &watched.encode(model, batch)?, &scored[step])
        });
    let directory = tempfile::tempdir().unwrap();
    let outcome = trained(model, objective, &case.train, batch, directory.path());
    check_captioner(name, &case, &seen.losses(), &outcome, directory.path());
}
