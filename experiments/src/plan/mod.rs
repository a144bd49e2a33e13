//! Estimates of a run without its data or weights: parameters, memory, steps, work and time.

mod disk;
mod fit;
mod parts;
mod step;
mod views;

pub(crate) use disk::{Cached, Disk};
pub(crate) use fit::{Machine, shortage};
pub(crate) use step::Memory;
pub(crate) use views::StoredViews;

use step::Step;

use burn::tensor::Device;
use data::datasets::splits;
use model::parameters::Parameter;
use model::recompute::Recompute;

use crate::config::{RunConfig, sizes};
use crate::tasks;

/// Operations a second of the tiny BLIP-2's training on two CPU cores, as counted here. It predicts the
/// measured 3.4 s, 1.1 s and 0.9 s of an epoch of `freeze_vit`'s three variants on a quiet machine
/// (2026-11-22) within 20 %.
const TINY_CPU_RATE: f64 = 5.5e10;
/// Weights of the largest model for which this rate is used.
const TINY: usize = 10_000_000;

/// Estimates of a run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Numbers of weights, by module.
    pub modules: Vec<Module>,
    /// Training examples of an epoch.
    pub examples: usize,
    /// The stages: cross-entropy, then self-critical training where it is configured.
    pub stages: Vec<Stage>,
    /// Stored views of the training clips, where the configuration asks for them.
    pub views: Option<StoredViews>,
    /// Files that a run writes.
    pub disk: Disk,
}

/// A module's parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    pub name: String,
    pub values: usize,
    /// Weights that any stage trains.
    pub trained: usize,
}

/// One stage of training.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub name: &'static str,
    pub steps: usize,
    /// Memory, recomputing as configured.
    pub memory: Memory,
    /// Bytes of activations without recomputing, and with all blocks recomputed.
    pub activations: [usize; 2],
    /// Floating-point operations of a step.
    pub step_work: f64,
    /// Operations that are done once: those of a frozen ViT on stored frames.
    pub work_once: f64,
}

impl Stage {
    /// Operations of all steps.
    pub(crate) fn work(&self) -> f64 {
        self.step_work * self.steps as f64 + self.work_once
    }
}

impl Plan {
    /// The plan of a configuration on a machine that computes `parallel` micro-batches at once; its
    /// checkpoint and data need not exist.
    pub(crate) fn of(config: &RunConfig, parallel: usize) -> anyhow::Result<Self> {
        let sizes = sizes(config)?;
        let parameters = model::parameters::list(&sizes.init(&Device::flex()));
        let steps = Step::all(config, &sizes, &parameters, parallel)?;
        let examples = examples(config)?;
        let stage = |step: &Step<'_>| Stage {
            name: step.name,
            steps: step.train.total_steps(examples.div_ceil(step.train.batch_size.max(1))),
            memory: step.memory(),
            activations: [Recompute::default(), Recompute::ALL].map(|recompute| step.activations(recompute)),
            step_work: step.work(),
            work_once: step.work_once(clips(config)),
        };
        let stages: Vec<Stage> = steps.iter().map(stage).collect();
        let views = StoredViews::of(config, clips(config)[0], steps.iter().zip(&stages));
        let disk = Disk::of(config, &sizes, &parameters, clips(config), &steps);
        Ok(Self { modules: modules(config, &parameters), examples, stages, views, disk })
    }

    /// Number of weights.
    pub(crate) fn values(&self) -> usize {
        self.modules.iter().map(|module| module.values).sum()
    }

    /// Number of trained weights.
    pub(crate) fn trained(&self) -> usize {
        self.modules.iter().map(|module| module.trained).sum()
    }

    /// Seconds of all training steps on two CPU cores, where a rate was measured for models of this size.
    pub(crate) fn seconds(&self) -> Option<f64> {
        let work: f64 = self.stages.iter().map(Stage::work).sum();
        (self.values() <= TINY).then_some(work / TINY_CPU_RATE)
    }
}

/// Clips of train, validate and test.
fn clips(config: &RunConfig) -> [usize; 3] {
    let world = &config.world.clips;
    match &config.dataset {
        Some(dataset) => splits::sizes(dataset.name).map_or([0; 3], |sizes| sizes.clips),
        None => [world.train, world.validate, world.test],
    }
}

/// Training examples of an epoch: clips, captions, or questions.
fn examples(config: &RunConfig) -> anyhow::Result<usize> {
    let per_clip = tasks::of(config).examples_per_clip(&config.world);
    let Some(dataset) = &config.dataset else {
        return Ok(config.world.clips.train * per_clip.unwrap_or(1));
    };
    match splits::sizes(dataset.name) {
        Some(sizes) if per_clip.is_some() => Ok(sizes.learned),
        Some(sizes) => Ok(sizes.clips[0]),
        None => anyhow::bail!(
            "the size of the data set \"{}\" is known only from its files; `experiments data check` counts them",
            dataset.name.name()
        ),
    }
}

fn modules(config: &RunConfig, parameters: &[Parameter]) -> Vec<Module> {
    let mut modules: Vec<Module> = Vec::new();
    for parameter in parameters {
        let start = parameter.name.split('.').next().unwrap_or_default();
        let lora = if parameter.name.contains(".lora.") { ", LoRA" } else { "" };
        let name = format!("{start}{lora}");
        let trained = if config.trains(&parameter.name) { parameter.len() } else { 0 };
        match modules.iter_mut().find(|module| module.name == name) {
            Some(module) => {
                module.values += parameter.len();
                module.trained += trained;
            }
            None => modules.push(Module { name, values: parameter.len(), trained }),
        }
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve_plain;

    fn plan(profile: &str, sets: &[&str]) -> Plan {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Plan::of(&resolve_plain(profile, &sets).unwrap(), 1).unwrap()
    }

    const LORA: &str =
        "model.lora={ r = 8, lora_alpha = 16.0, lora_dropout = 0.05, target_modules = [\"q\", \"v\"] }";

    /// The reference's counts: the second stage's trainables with FLAN-T5-XL, and 144 updates of rank 8.
    #[test]
    fn the_papers_model_has_the_published_numbers_of_parameters_without_its_weights() {
        let plain = plan("paper", &[]);
        assert_eq!(plain.trained(), 106_739_968);
        assert_eq!(plain.values(), 985_894_528 + 106_739_968 + 2_849_757_184);
        let patterns = "train.parameters={ \"vision_model.*\" = \"frozen\", \"language_model.*\" = \"frozen\", \"*.lora.*\" = 1.0 }";
        let lora = plan("paper", &[LORA, patterns]);
        assert_eq!(lora.trained(), 106_739_968 + 4_718_592);
        let module = lora.modules.iter().find(|module| module.name == "language_model, LoRA").unwrap();
        assert_eq!((module.values, module.trained), (4_718_592, 4_718_592));
    }

    #[test]
    fn steps_come_from_the_official_numbers_of_captions_or_clips() {
        let steps = |sets: &[&str]| plan("paper", sets).stages[0].steps;
        assert_eq!(steps(&[]), 32 * 130_260_usize.div_ceil(32));
        assert_eq!(steps(&["dataset.name=msvd"]), 32 * 48_774_usize.div_ceil(32));
        assert_eq!(steps(&["dataset.name=vatex"]), 32 * 259_910_usize.div_ceil(32));
        assert_eq!(steps(&["captions=one"]), 32 * 6513_usize.div_ceil(32));
        assert_eq!(steps(&["recipe=released"]), 15_000);
        assert_eq!(plan("tiny", &[]).stages[0].steps, 30 * 32);
    }

    #[test]
    fn frozen_weights_take_two_bytes_and_trained_ones_twenty() {
        let memory = plan("paper", &[]).stages[0].memory;
        let (trained, frozen) = (106_739_968, 985_894_528 + 2_849_757_184);
        assert_eq!(memory.weights, 4 * trained + 2 * frozen);
        // the sum of four micro-batches, and those of one
        assert_eq!((memory.gradients, memory.optimizer), (8 * trained, 8 * trained));
        let once = plan("paper", &["train.micro_batches=1"]).stages[0].memory;
        assert_eq!(once.gradients, 4 * trained);
        let all = plan("paper", &["train.parameters={}"]).stages[0].memory;
        assert_eq!(all.weights, 4 * (trained + frozen));
        assert!(all.activations > memory.activations, "a trained ViT keeps what it computes");
    }

    #[test]
    fn recomputing_takes_less_memory_and_more_work() {
        let plain = &plan("paper", &["train.parameters={}"]).stages[0];
        let sets = [
            "train.parameters={}",
            "train.recompute={ vision_model = true, qformer = true, language_model = true }",
        ];
        let recomputed = &plan("paper", &sets).stages[0];
        assert_eq!(plain.memory.activations, plain.activations[0]);
        assert_eq!(recomputed.memory.activations, plain.activations[1]);
        assert!(recomputed.memory.activations * 5 < plain.memory.activations);
        assert!(recomputed.step_work > 1.2 * plain.step_work && recomputed.step_work < 1.4 * plain.step_work);
    }

    /// The peaks that `cargo bench --bench recompute` of the model crate measured, in MB (docs/models.md): a
    /// mid-size BLIP-2, all weights trained on two clips; and low-rank updates of T5 on eight clips, the
    /// ViT's output given. A peak also has what the loss takes and the first gradients, which are not
    /// estimated here: hence 15 %.
    #[test]
    fn activations_are_near_those_that_were_measured() {
        let all = "train.parameters={}";
        let updates = "train.parameters={ \"vision_model.*\" = \"frozen\", \"language_model.*\" = \"frozen\", \"*.lora.*\" = 1.0 }";
        let cases = [
            (vec![all, "train.batch_size=2"], 509e6),
            (vec![updates, LORA, "train.batch_size=8", "model.fusion=concat_queries"], 774e6),
        ];
        for (sets, measured) in cases {
            let shared = ["train.micro_batches=1", "frames.count=8", "generate.max_new_tokens=12"];
            let sets: Vec<String> = sets.into_iter().chain(shared).map(str::to_owned).collect();
            let config = resolve_plain("tiny", &sets).unwrap();
            let mut sizes = mid_size();
            (sizes.fusion, sizes.lora) = (config.model.fusion.unwrap_or_default(), config.model.lora.clone());
            let parameters = model::parameters::list(&sizes.init(&Device::flex()));
            let (config, sizes, parameters) = (&config, &sizes, parameters.as_slice());
            let step = Step::all(config, sizes, parameters, 1).unwrap().remove(0);
            let estimated = step.activations(Recompute::default()) as f64;
            assert!((estimated / measured - 1.0).abs() < 0.15, "{estimated} for {measured}");
        }
    }

    /// The sizes of that benchmark's model.
    fn mid_size() -> model::Blip2Config {
        let sizes = serde_json::json!({
            "vision_config": {
                "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 6, "image_size": 112,
            },
            "qformer_config": {
                "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 1024,
                "encoder_hidden_size": 384,
            },
            "text_config": {
                "model_type": "t5", "vocab_size": 8000, "d_model": 256, "d_kv": 64, "d_ff": 1024, "num_layers": 6,
                "num_decoder_layers": 6, "num_heads": 4,
            },
        });
        serde_json::from_value(sizes).unwrap()
    }

    #[test]
    fn work_is_two_operations_a_weight_and_token_and_four_a_key_and_value_of_the_width() {
        let config = resolve_plain("paper", &["frames.count=1".to_owned()]).unwrap();
        let sizes = sizes(&config).unwrap();
        let parameters = model::parameters::list(&sizes.init(&Device::flex()));
        let texts = tasks::of(&config).text_lengths();
        let vit =
            parts::parts(&config, &sizes, &parameters, texts, |_| false, Recompute::default()).remove(0);
        let expected = 2.0 * 985_894_528.0 * 257.0 + 4.0 * 257.0 * 257.0 * 1408.0 * 39.0;
        assert!((vit.forward() / expected - 1.0).abs() < 1e-9);
    }

    /// Everything that a step of self-critical training runs, in operations of one forward pass of each part.
    #[test]
    fn self_critical_training_encodes_a_clip_once_and_decodes_for_sampling_baseline_and_loss() {
        let work = |sets: &[&str]| {
            let frozen =
                ["train.parameters={ \"vision_model.*\" = \"frozen\", \"language_model.*\" = \"frozen\" }"];
            let sets: Vec<String> = frozen.iter().chain(sets).map(|&set| set.to_owned()).collect();
            let config = resolve_plain("paper", &sets).unwrap();
            let sizes = sizes(&config).unwrap();
            let parameters = model::parameters::list(&sizes.init(&Device::flex()));
            let step = Step::all(&config, &sizes, &parameters, 1).unwrap().pop().unwrap();
            let parts = step.parts(Recompute::default());
            let forward: Vec<f64> = parts.iter().map(parts::Part::forward).collect();
            (step.work() / step.train.batch_size as f64, forward)
        };
        let (plain, parts) = work(&[]);
        let [vit, qformer, encoder, decoder] = parts[..] else { panic!("four parts") };
        // a graph through the frozen language model costs its inputs' gradients
        let head = 2.0 * (2048 * 32_128 * 32) as f64;
        let expected = vit + 3.0 * qformer + 2.0 * encoder + 2.0 * decoder + 2.0 * head;
        assert!((plain / expected - 1.0).abs() < 0.01, "{plain} for {expected}");
        let reward = "scst.reward={ mode = \"standard\", candidates = 5, baseline = \"greedy\" }";
        let (scst, _) = work(&[reward]);
        let generated = 2.0 * encoder + 6.0 * (decoder + head);
        let expected = vit + 3.0 * qformer + 2.0 * encoder + 5.0 * 2.0 * (decoder + head) + generated;
        assert!((scst / expected - 1.0).abs() < 0.01, "{scst} for {expected}");
    }

    #[test]
    fn time_is_estimated_only_where_a_rate_was_measured() {
        assert_eq!(plan("paper", &[]).seconds(), None);
        let frozen = |parts: &str| format!("train.parameters={{ {parts} }}");
        let vit = "\"vision_model.*\" = \"frozen\"";
        let qformer_only = format!("{vit}, \"language_model.*\" = \"frozen\"");
        for (parts, measured) in [("", 3.4), (vit, 1.1), (qformer_only.as_str(), 0.9)] {
            let seconds = plan("tiny", &[&frozen(parts)]).seconds().unwrap() / 30.0;
            assert!((seconds / measured - 1.0).abs() < 0.2, "{seconds} s an epoch for {measured} s");
        }
    }

    #[test]
    fn an_unknown_checkpoint_or_a_users_own_data_set_is_refused_with_what_to_do() {
        let message = |sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
            format!("{:#}", Plan::of(&resolve_plain("paper", &sets).unwrap(), 1).unwrap_err())
        };
        assert!(message(&["checkpoint=nowhere"]).contains("nowhere"));
        assert!(message(&["dataset.name=own"]).contains("data check"));
        assert!(message(&["train.parameters={ \"qfromer.*\" = \"frozen\" }"]).contains("qfromer"));
    }
}
