//! The stages in their order, each a run of its own in a folder of its own that can be resumed. What a saved state is
//! checked against is what the stage computes from, so that other settings of a later stage leave an earlier one as it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use data::datasets::Split;
use data::datasets::synthetic::{World, judge_picture, question_corpus, read, text_corpus, vocabulary};
use data::preprocess::Resizing;
use data::sampling::Sampling;
use data::text::Tokenizer;
use model::generate::GenerateConfig;
use model::pretraining::{Pretraining, PretrainingConfig};
use model::qformer::QFormerConfig;
use model::{Blip2, Blip2Config};
use serde::Serialize;
use serde_json::{Value, json};
use train::dashboard::{LOSS, Metrics};
use train::pretraining::{FirstStage, FirstStageContext, SecondStage};
use train::processes::SingleProcess;
use train::{
    Captioner, Context, Examples, Fit, Outcome, Prediction, Scorer, Task, TrainConfig, TrainError,
    Validation, fit,
};

use super::examples::{CLASS, PairCaptions, PairTexts, Sentences};
use super::pairs::{Pairs, captions};
use super::{FirstStageConfig, PretrainConfig};
use crate::config::{FrameConfig, Keep};
use crate::examples::{Videos, share};
use crate::frames::FeatureStore;
use crate::judge::{COLOUR, SHAPE};
use crate::pretrained::{end_tokens, find_checkpoint, open_tokenizer};
use crate::provenance::Named;
use crate::run::Session;
use crate::world::Shown;

/// Sentences, and exercises, that the language model is measured on.
const HELD_OUT_SENTENCES: usize = 256;

/// Where the stages keep their states.
pub(super) struct Folders {
    /// The language model's.
    pub text: PathBuf,
    /// The first stage's.
    pub first_stage: PathBuf,
    /// The second stage's.
    pub second_stage: PathBuf,
}

/// What came of a pretraining.
pub(super) struct Pretrained {
    pub model: Blip2,
    pub config: Blip2Config,
    pub tokenizer: Arc<Tokenizer>,
    pub metrics: StageMetrics,
}

/// What the best evaluation of each stage measured, in `pretraining.json` beside the weights.
#[derive(Debug, Clone, Serialize)]
pub(super) struct StageMetrics {
    pub text: Metrics,
    pub first_stage: Metrics,
    pub second_stage: Metrics,
}

/// What the stages share.
pub(super) struct Stages<'a> {
    config: &'a PretrainConfig,
    session: &'a Session,
    pairs: &'a Pairs,
    named: &'a Named,
    folders: &'a Folders,
    cache: &'a Path,
    model_config: Blip2Config,
    tokenizer: Arc<Tokenizer>,
    /// Every word, without the special tokens.
    words: Vec<String>,
    /// A model whose ViT and language model are taken over.
    start: Option<Blip2>,
    /// Tokens that end a caption.
    ends: Vec<u32>,
}

/// What the language model's weights follow from.
pub(super) fn text_settings(config: &PretrainConfig, pairs: &Pairs) -> Value {
    // pairs of the world are not read here, however many there are
    let own = (!pairs.sentences.is_empty()).then_some(&pairs.hash);
    json!({
        "seed": config.seed,
        "model": config.model,
        "world": config.world,
        "sentences": config.sentences,
        "max_tokens": config.evaluate.max_new_tokens,
        "own": own,
        "text": config.text,
    })
}

/// What the first stage's weights follow from, which no language model is part of, if not by the words that it adds.
pub(super) fn first_settings(config: &PretrainConfig, pairs: &Pairs, named: &Named) -> Value {
    json!({
        "seed": config.seed,
        "start": named.weights_hash,
        "vision": config.model.vision_config,
        "qformer": config.model.qformer_config,
        "queries": config.model.num_query_tokens,
        "pairs": pair_settings(pairs),
        "max_tokens": config.evaluate.max_new_tokens,
        "first_stage": config.first_stage,
    })
}

/// What the learning rates and weights of a stage that sees pairs follow from.
fn pair_settings(pairs: &Pairs) -> Value {
    json!({ "data": pairs.hash, "count": pairs.train.pairs.len() })
}

impl<'a> Stages<'a> {
    pub(super) fn new(
        config: &'a PretrainConfig,
        session: &'a Session,
        pairs: &'a Pairs,
        named: &'a Named,
        folders: &'a Folders,
        cache: &'a Path,
    ) -> anyhow::Result<Self> {
        let mut words = vocabulary();
        words.extend(pairs.new_words(&words));
        let mut model_config = config.model.clone();
        let (start, tokenizer, ends) = match &config.start {
            Some(path) => {
                let directory = find_checkpoint(path)?;
                let (sizes, model) = model::checkpoint::load(&directory, |_| {}, &session.device)?;
                let tokenizer = open_tokenizer(&directory, &sizes)?;
                let ends = end_tokens(&directory, &sizes, &tokenizer)?;
                (Some(model), tokenizer, ends)
            }
            None => {
                let tokenizer = Tokenizer::word_level(&words)?;
                model_config.text_config.set_vocabulary_size(tokenizer.vocabulary_size());
                let ends = vec![tokenizer.end()];
                (None, tokenizer, ends)
            }
        };
        let tokenizer = Arc::new(tokenizer);
        Ok(Self {
            config,
            session,
            pairs,
            named,
            folders,
            cache,
            model_config,
            tokenizer,
            words,
            start,
            ends,
        })
    }

    /// All stages; nothing when they were interrupted.
    pub(super) fn run(&self) -> anyhow::Result<Option<Pretrained>> {
        self.session.device.seed(self.config.seed);
        let model = self.model_config.init(&self.session.device);
        model::parameters::draw(&model);
        let (model, text) = match &self.start {
            Some(start) => {
                let mut model = model;
                model.vision_model = start.vision_model.clone();
                model.language_model = start.language_model.clone();
                (model, Metrics::default())
            }
            None => match self.text(model)? {
                Some(read) => read,
                None => return Ok(None),
            },
        };
        let Some((reader, first_stage)) = self.first(&model)? else { return Ok(None) };
        let model = reader.into_captioner(model);
        let Some((model, second_stage)) = self.second(model)? else { return Ok(None) };
        let metrics = StageMetrics { text, first_stage, second_stage };
        let (config, tokenizer) = (self.model_config.clone(), self.tokenizer.clone());
        Ok(Some(Pretrained { model, config, tokenizer, metrics }))
    }

    /// The language model learns to say in order what it is told, to go on, and to answer.
    fn text(&self, model: Blip2) -> anyhow::Result<Option<(Blip2, Metrics)>> {
        let PretrainConfig { sentences: wanted, world, seed, text, evaluate, .. } = self.config;
        let held_out = |all: usize| HELD_OUT_SENTENCES.min(all);
        let mut sentences = text_corpus(world, wanted.count + held_out(wanted.count));
        let mut exercises = question_corpus(world, wanted.questions + held_out(wanted.questions));
        let unseen = sentences.split_off(wanted.count);
        let unseen_exercises =
            exercises.split_off(exercises.len() - held_out(wanted.questions).min(exercises.len()));
        sentences.extend(self.pairs.sentences.iter().cloned());
        let read = |sentences: &[String], exercises: &[_]| {
            let (most, shares) = (evaluate.max_new_tokens, (wanted.keep, wanted.prefix_probability));
            Sentences::new(sentences, exercises, &self.tokenizer, most, shares, *seed).map(share)
        };
        let validation = validation(read(&unseen, &unseen_exercises)?, None, evaluate.batch_size);
        let task = Captioner::new(model, self.context(text));
        let settings = text_settings(self.config, self.pairs);
        let train = read(&sentences, &exercises)?;
        let outcome = self.fit("text", &self.folders.text, text, task, (train, validation), settings)?;
        Ok(ended(outcome).map(|(task, metrics)| (task.blip2, metrics)))
    }

    /// The Q-Former, and the ViT where it is not frozen, learn to read images; from the model's ViT where that was trained
    /// elsewhere.
    fn first(&self, from: &Blip2) -> anyhow::Result<Option<(Pretraining, Metrics)>> {
        let stage = &self.config.first_stage;
        let (tokenizer, start) = self.reader_tokenizer(stage)?;
        let config = self.reader_config(stage, tokenizer.vocabulary_size());
        self.session.device.seed(self.config.seed);
        let mut model = config.init(&self.session.device);
        model::parameters::draw(&model);
        if self.start.is_some() {
            model.vision_model = from.vision_model.clone();
        }
        let read = |split, pairs| -> anyhow::Result<Arc<dyn Examples>> {
            let images = match &self.start {
                Some(_) => {
                    let captioner = Captioner::new(from.clone(), self.context(&stage.train));
                    self.seen(split, &captioner, &stage.train)?
                }
                None => self.images(split)?,
            };
            Ok(share(PairTexts::new(images, captions(pairs), tokenizer.clone(), stage.max_tokens)?))
        };
        let train = read(Split::Train, &self.pairs.train)?;
        let held_out = read(Split::Validate, &self.pairs.held_out)?;
        let validation = validation(held_out, None, self.config.evaluate.batch_size);
        let settings = first_settings(self.config, self.pairs, self.named);
        let task = FirstStage::new(model, FirstStageContext { config, start });
        let folder = &self.folders.first_stage;
        let outcome = self.fit("first stage", folder, &stage.train, task, (train, validation), settings)?;
        Ok(ended(outcome).map(|(task, metrics)| (task.model, metrics)))
    }

    /// The Q-Former learns to tell the frozen language model what it reads.
    fn second(&self, model: Blip2) -> anyhow::Result<Option<(Blip2, Metrics)>> {
        let (stage, most) = (&self.config.second_stage, self.config.evaluate.max_new_tokens);
        let captioner = Captioner::new(model, self.context(&stage.train));
        let read = |split, pairs, part: f64| -> anyhow::Result<(Arc<dyn Examples>, Vec<String>)> {
            let images = self.seen(split, &captioner, &stage.train)?;
            let (ids, seed) = (images.ids().to_vec(), self.config.seed);
            let examples =
                PairCaptions::new(images, captions(pairs), self.tokenizer.clone(), most, part, seed)?;
            Ok((share(examples), ids))
        };
        let part = if stage.prefix { 1.0 - stage.whole } else { 0.0 };
        let (train, _) = read(Split::Train, &self.pairs.train, part)?;
        let (held_out, ids) = read(Split::Validate, &self.pairs.held_out, 0.0)?;
        let judge = self.pairs.world.clone().map(|world| Arc::new(PictureJudge { world }) as Arc<dyn Scorer>);
        let validation = Validation { ids, ..validation(held_out, judge, self.config.evaluate.batch_size) };
        let settings = json!({
            "text": text_settings(self.config, self.pairs),
            "first": first_settings(self.config, self.pairs, self.named),
            "second_stage": stage,
        });
        let folder = &self.folders.second_stage;
        let task = SecondStage(captioner);
        let outcome = self.fit("second stage", folder, &stage.train, task, (train, validation), settings)?;
        Ok(ended(outcome).map(|(task, metrics)| (task.0.blip2, metrics)))
    }

    fn fit<T: Task>(
        &self,
        name: &str,
        folder: &Path,
        config: &TrainConfig,
        task: T,
        (train, validation): (Arc<dyn Examples>, Validation),
        settings: Value,
    ) -> anyhow::Result<Outcome<T>> {
        let run = Fit {
            config: config.clone(),
            task,
            train,
            validation: Some(validation),
            directory: folder.to_owned(),
            device: self.session.device.clone(),
            seed: self.config.seed,
            label: format!("pretraining, {name}"),
            settings,
            stop: self.session.stop.clone(),
            dashboard: self.session.dashboard,
            processes: Arc::new(SingleProcess),
        };
        fit(run).with_context(|| format!("pretraining, {name}"))
    }

    /// The tokenizer of the Q-Former's texts, with the token that starts those it writes.
    fn reader_tokenizer(&self, stage: &FirstStageConfig) -> anyhow::Result<(Arc<Tokenizer>, u32)> {
        let mut tokenizer = match &stage.tokenizer {
            Some(path) => Tokenizer::open(path)?,
            None => Tokenizer::word_level(&[self.words.as_slice(), &[CLASS.to_owned()]].concat())?,
        };
        let start = tokenizer.add_decoder_start()?;
        Ok((Arc::new(tokenizer), start))
    }

    fn reader_config(&self, stage: &FirstStageConfig, vocab_size: usize) -> PretrainingConfig {
        let qformer = &self.model_config.qformer_config;
        PretrainingConfig {
            vision_config: self.model_config.vision_config.clone(),
            qformer_config: QFormerConfig { reads_text: true, vocab_size, ..qformer.clone() },
            num_query_tokens: self.model_config.num_query_tokens,
            embed_dim: stage.embed_dim,
            temperature: stage.temperature,
            label_smoothing: stage.label_smoothing,
        }
    }

    fn images(&self, split: Split) -> anyhow::Result<Videos> {
        self.pairs.images(split, self.model_config.vision_config.image_size, self.cache)
    }

    /// Images, or what a frozen ViT makes of them, computed once.
    fn seen(&self, split: Split, captioner: &Captioner, train: &TrainConfig) -> anyhow::Result<Videos> {
        let images = self.images(split)?;
        let is_vit_trained = model::parameters::names(&captioner.blip2)
            .iter()
            .any(|name| name.starts_with("vision_model.") && train.parameters.trains(name));
        if is_vit_trained {
            return Ok(images);
        }
        let one = FrameConfig {
            count: 1,
            sampling: Sampling::Uniform,
            train_sampling: None,
            augment: None,
            resizing: Resizing::default(),
            keep: Keep::Memory,
        };
        let (shown, size) = (Shown::default(), self.model_config.vision_config.image_size);
        let batch_size = self.config.evaluate.batch_size;
        let features =
            FeatureStore::of(images.frames(), captioner, &one, size, batch_size, self.cache, &|progress| {
                shown.update(progress);
            })?;
        shown.finish();
        Ok(images.with_features(Arc::new(features)))
    }

    fn context(&self, train: &TrainConfig) -> Context {
        Context {
            config: self.model_config.clone(),
            tokenizer: self.tokenizer.clone(),
            prompt: Vec::new(),
            generate: GenerateConfig {
                max_new_tokens: self.config.evaluate.max_new_tokens,
                end_tokens: self.ends.clone(),
                ..GenerateConfig::default()
            },
            label_smoothing: train.label_smoothing,
        }
    }
}

/// The best model with what was measured of it, once a stage is complete.
fn ended<T>(outcome: Outcome<T>) -> Option<(T, Metrics)> {
    if outcome.interrupted {
        return None;
    }
    let best = outcome.history.into_iter().rev().find(|record| record.is_best);
    Some((outcome.best, best.map(|record| record.validation).unwrap_or_default()))
}

fn validation(examples: Arc<dyn Examples>, judge: Option<Arc<dyn Scorer>>, batch_size: usize) -> Validation {
    Validation { split: Split::Validate, ids: Vec::new(), examples, scorer: judge, batch_size }
}

/// Held-out images: does a caption name shape and colour of what is there? Only images of one object count.
struct PictureJudge {
    world: World,
}

impl Scorer for PictureJudge {
    fn names(&self) -> Vec<String> {
        [LOSS, SHAPE, COLOUR].map(str::to_owned).to_vec()
    }

    fn score_predictions(&self, written: &[Prediction]) -> Result<Metrics, TrainError> {
        let pictures = self.world.held_out_pictures();
        let judged: Vec<(bool, bool)> = written
            .iter()
            .filter_map(|written| Some((pictures.get(written.item)?, &written.caption)))
            .filter(|(truth, _)| truth.picture.objects.len() == 1)
            .map(|(truth, caption)| judge_picture(&read(caption), &truth.picture))
            .collect();
        let share = |right: &dyn Fn(&(bool, bool)) -> bool| {
            judged.iter().filter(|judged| right(judged)).count() as f64 / judged.len().max(1) as f64
        };
        Ok(Metrics::one(SHAPE, share(&|judged| judged.0)).with(COLOUR, share(&|judged| judged.1)))
    }
}
