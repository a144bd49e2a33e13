//! Memory and work of one training step of a stage.

use model::Blip2Config;
use model::parameters::Parameter;
use model::recompute::Recompute;
use train::TrainConfig;
use train::scst::{Baseline, Standard};

use super::parts::{Kind, Part, parts};
use crate::config::{FrozenType, RunConfig};
use crate::tasks::{self, TextLengths};

/// Bytes of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Weights: 4 bytes each, or 2 where they are frozen and `frozen_type` is `bf16`.
    pub weights: usize,
    /// Gradients: 4 bytes a trained weight; with several micro-batches their sum, and those of each
    /// micro-batch that is computed at the same time.
    pub gradients: usize,
    /// AdamW's two moments: 8 bytes a trained weight.
    pub optimizer: usize,
    /// Activations kept for the backward pass, of the micro-batches that are computed at the same time.
    pub activations: usize,
}

impl Memory {
    /// The sum, which is an upper bound: activations are freed before the last gradients are computed.
    pub(crate) fn total(self) -> usize {
        self.weights + self.gradients + self.optimizer + self.activations
    }
}

/// A training step of a stage.
pub(super) struct Step<'a> {
    pub(super) name: &'static str,
    pub(super) train: &'a TrainConfig,
    config: &'a RunConfig,
    sizes: &'a Blip2Config,
    parameters: &'a [Parameter],
    texts: TextLengths,
    /// Self-critical training, with its reward.
    reward: Option<Standard>,
    /// Micro-batches that the machine computes at the same time.
    parallel: usize,
}

/// How often a part of the model runs for each clip.
#[derive(Debug, Clone, Copy)]
struct Runs {
    /// With a backward pass, where the part has one.
    trained: usize,
    /// In generation.
    generated: usize,
}

impl<'a> Step<'a> {
    /// The steps of a configuration's stages: cross-entropy, then self-critical training where it is
    /// configured.
    pub(super) fn all(
        config: &'a RunConfig,
        sizes: &'a Blip2Config,
        parameters: &'a [Parameter],
        parallel: usize,
    ) -> anyhow::Result<Vec<Self>> {
        let texts = tasks::of(config).text_lengths();
        let step =
            |name, train, reward| Self { name, train, config, sizes, parameters, texts, reward, parallel };
        let scst = config.scst.iter();
        let scst = scst.map(|scst| step("self-critical", &scst.train, Some(scst.reward.settings())));
        let steps: Vec<Self> =
            std::iter::once(step("cross-entropy", &config.train, None)).chain(scst).collect();
        steps.iter().try_for_each(|step| step.train.parameters.check(parameters))?;
        Ok(steps)
    }

    pub(super) fn is_trained(&self, name: &str) -> bool {
        self.train.parameters.trains(name)
    }

    /// Whether a step gives a parameter a gradient, and the optimizer moments: the text path of a Q-Former
    /// that is trained, and reads no instruction, has none.
    pub(super) fn has_gradient(&self, name: &str) -> bool {
        let block = name.strip_prefix("qformer.layers.").and_then(|rest| rest.split_once('.'));
        let is_text = name.starts_with("qformer.text.")
            || block
                .is_some_and(|(_, rest)| rest.starts_with("intermediate.") || rest.starts_with("output."));
        let reads = match &self.config.answering {
            Some(answering) => answering.instruction.as_deref() != Some(""),
            None => !self.config.text.prompt.trim().is_empty(),
        };
        self.is_trained(name) && (reads || !is_text)
    }

    pub(super) fn parts(&self, recompute: Recompute) -> Vec<Part> {
        parts(self.config, self.sizes, self.parameters, self.texts, |name| self.is_trained(name), recompute)
    }

    /// How often a part runs for each clip. Self-critical training generates its captions and scores them,
    /// one pass each; ViT and Q-Former run once for both (`train::scst`), and the language model's encoder
    /// once for all captions of a clip.
    fn runs(&self, part: &Part) -> Runs {
        let Some(reward) = &self.reward else { return Runs { trained: 1, generated: 0 } };
        let mixed = usize::from(reward.cross_entropy > 0.0);
        let greedy = usize::from(reward.baseline == Baseline::Greedy);
        match part.kind {
            Kind::Vit => Runs { trained: 1, generated: 0 },
            Kind::QFormer => {
                let dropped = reward.dropout && self.sizes.has_qformer_dropout();
                Runs { trained: 1, generated: usize::from(dropped) }
            }
            Kind::Encoder => Runs { trained: 1 + mixed, generated: 1 + greedy },
            Kind::Decoder => {
                Runs { trained: reward.candidates + mixed, generated: reward.candidates + greedy }
            }
        }
    }

    /// Runs of the vocabulary's product, which are those of the decoder.
    fn head_runs(&self) -> Runs {
        self.parts(Recompute::default())
            .last()
            .map_or(Runs { trained: 1, generated: 0 }, |part| self.runs(part))
    }

    /// Whether the ViT's output is cached.
    fn has_cached_features(&self, part: &Part) -> bool {
        part.kind == Kind::Vit && !part.has_graph && self.config.frames.stored_views().is_some()
    }

    /// Clips of a micro-batch, and micro-batches at the same time.
    fn micro_batch(&self) -> (usize, usize) {
        let count = self.train.micro_batches.clamp(1, self.train.batch_size.max(1));
        (self.train.batch_size.div_ceil(count), count.min(self.parallel.max(1)))
    }

    pub(super) fn memory(&self) -> Memory {
        let count = |choose: &dyn Fn(&Parameter) -> bool| -> usize {
            self.parameters.iter().filter(|parameter| choose(parameter)).map(Parameter::len).sum()
        };
        let trained = count(&|parameter| self.has_gradient(&parameter.name));
        let is_asked = self.config.model.frozen_type == FrozenType::Bf16;
        let half = |start: &str| {
            let is_own = |own: &Parameter| own.name.starts_with(start) && !own.name.contains(".lora.");
            let is_trained = self.parameters.iter().any(|own| is_own(own) && self.config.trains(&own.name));
            if is_asked && !is_trained { count(&is_own) } else { 0 }
        };
        let halves = half("vision_model.") + half("language_model.");
        let (_, together) = self.micro_batch();
        let buffers = if self.train.micro_batches > 1 { 1 + together } else { 1 };
        Memory {
            weights: 4 * count(&|_| true) - 2 * halves,
            gradients: 4 * trained * buffers,
            optimizer: 8 * trained,
            activations: self.activations(self.train.recompute),
        }
    }

    pub(super) fn activations(&self, recompute: Recompute) -> usize {
        let (clips, together) = self.micro_batch();
        let (mut kept, mut again) = (self.logits() * clips, 0);
        for part in &self.parts(recompute) {
            let bytes = clips * self.runs(part).trained * part.bytes;
            let inside = part.inside() * bytes;
            kept += match (part.has_graph, part.recomputed) {
                (true, true) => part.blocks * part.input() * bytes,
                (true, false) => part.blocks * inside,
                (false, _) => 0, // a block without a graph frees its activations
            };
            if (part.recomputed || !part.has_graph) && !self.has_cached_features(part) {
                again = again.max(inside);
            }
        }
        (kept + again) * together
    }

    /// Bytes of the scores of all tokens, of their logarithmic softmax and of its gradient, of one clip.
    fn logits(&self) -> usize {
        let captions = self.head_runs().trained;
        3 * 4 * captions * self.texts.target * self.sizes.text_config.vocabulary_size()
    }

    /// Floating-point operations of a step.
    pub(super) fn work(&self) -> f64 {
        let of = |part: &Part| {
            if self.has_cached_features(part) {
                return 0.0;
            }
            let share = part.trained as f64 / part.weights.max(1) as f64;
            // gradients of the inputs cost a forward pass, those of the weights another
            let backward = if part.has_graph { 1.0 + share.min(1.0) } else { 0.0 };
            let again = if part.has_graph && part.recomputed { 1.0 } else { 0.0 };
            let runs = self.runs(part);
            part.forward() * (runs.trained as f64 * (1.0 + backward + again) + runs.generated as f64)
        };
        let text = &self.sizes.text_config;
        let head = 2.0 * (text.width() * text.vocabulary_size() * self.texts.target) as f64;
        let runs = self.head_runs();
        let heads = head * (2 * runs.trained + runs.generated) as f64;
        let parts = self.parts(self.train.recompute);
        (parts.iter().map(of).sum::<f64>() + heads) * self.train.batch_size as f64
    }

    /// Operations that are done once: those of a frozen ViT on the stored views of training clips, and on
    /// validation and test clips.
    pub(super) fn work_once(&self, [train, validate, test]: [usize; 3]) -> f64 {
        let vit = self.vit();
        let views = self.config.frames.stored_views().unwrap_or(0);
        if vit.has_graph { 0.0 } else { vit.forward() * (train * views + validate + test) as f64 }
    }

    pub(super) fn vit(&self) -> Part {
        self.parts(Recompute::default()).remove(0)
    }
}
