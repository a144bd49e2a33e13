//! The stages in their order, each a run in its own folder that can be resumed. A saved state is compared
//! with the settings that its stage depends on, so that other settings of a later stage do not invalidate an
//! earlier one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use captioner::checkpoint::{end_tokens, open_tokenizer};
use captioner::{Context, PromptIds, Videos};
use data::datasets::Split;
use data::text::Tokenizer;
use data::tiny_world::{question_corpus, text_corpus, vocabulary};
use model::checkpoint::{Constraints, init_from_bert};
use model::pretraining::{Pretraining, PretrainingConfig};
use model::qformer::QFormerConfig;
use model::{Blip2, Blip2Config};
use serde::Serialize;
use serde_json::{Value, json};
use train::pretraining::FirstStage;
use train::{CrossEntropy, Examples, Fit, Metrics, Objective, Scorer, TrainConfig, Validation, fit};

use super::examples::{CLASS, PairCaptions, PairTexts, Sentences};
use super::pairs::{Pairs, captions};
use crate::config::{FirstStageConfig, PretrainConfig, find_checkpoint};
use crate::records::provenance::Identity;
use crate::runtime::{ProgressBars, Session};
use crate::tasks::PictureScorer;

/// Sentences, and exercises, on which the language model is evaluated.
const HELD_OUT_SENTENCES: usize = 256;

/// The folders of the stages.
pub(super) struct Folders {
    pub text: PathBuf,
    pub first_stage: PathBuf,
    pub second_stage: PathBuf,
}

/// A pretrained model.
pub(super) struct Pretrained {
    pub model: Blip2,
    pub config: Blip2Config,
    pub tokenizer: Arc<Tokenizer>,
    pub metrics: StageMetrics,
}

/// Metrics of the best evaluation of each stage.
#[derive(Debug, Clone, Serialize)]
pub(super) struct StageMetrics {
    pub text: Metrics,
    pub first_stage: Metrics,
    pub second_stage: Metrics,
}

/// The stages of a pretraining.
pub(super) struct Stages<'a> {
    config: &'a PretrainConfig,
    session: &'a Session,
    pairs: &'a Pairs,
    identity: &'a Identity,
    folders: &'a Folders,
    model_config: Blip2Config,
    tokenizer: Arc<Tokenizer>,
    /// Every word, without the special tokens.
    words: Vec<String>,
    /// A model whose ViT and language model are used.
    start: Option<Blip2>,
    /// Tokens that end a caption.
    ends: Vec<u32>,
}

/// The settings that decide the weights of the language model.
pub(super) fn text_settings(config: &PretrainConfig, pairs: &Pairs) -> Value {
    // the language model reads no pairs of the tiny world
    let own = (!pairs.sentences.is_empty()).then_some(&pairs.hash);
    json!({
        "seed": config.seed,
        "model": config.model,
        "world": config.world,
        "sentences": config.sentences,
        "own": own,
        "text": config.text,
    })
}

/// The settings that decide the weights of the first stage. The language model is not among them.
pub(super) fn first_settings(config: &PretrainConfig, pairs: &Pairs, identity: &Identity) -> Value {
    json!({
        "seed": config.seed,
        "start": identity.weights_hash,
        "vision": config.model.vision_config,
        "qformer": config.model.qformer_config,
        "queries": config.model.num_query_tokens,
        "pairs": pair_settings(pairs),
        "first_stage": config.first_stage,
    })
}

/// The pairs that decide the weights of a stage, and their number, which decides its learning rates.
fn pair_settings(pairs: &Pairs) -> Value {
    json!({ "data": pairs.hash, "count": pairs.train.pairs.len() })
}

impl<'a> Stages<'a> {
    pub(super) fn new(
        config: &'a PretrainConfig,
        session: &'a Session,
        pairs: &'a Pairs,
        identity: &'a Identity,
        folders: &'a Folders,
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
        Ok(Self { config, session, pairs, identity, folders, model_config, tokenizer, words, start, ends })
    }

    /// All stages; none where they were interrupted.
    pub(super) fn run(&self) -> anyhow::Result<Option<Pretrained>> {
        self.session.device.seed(self.config.seed);
        let mut model = self.model_config.init(&self.session.device);
        model::parameters::draw(&model);
        let text = match &self.start {
            Some(start) => {
                model.vision_model = start.vision_model.clone();
                model.language_model = start.language_model.clone();
                Some((model, Metrics::default()))
            }
            None => self.text(model)?,
        };
        let Some((model, text)) = text else { return Ok(None) };
        let Some((reader, first_stage)) = self.first(&model)? else { return Ok(None) };
        let model = reader.into_captioner(model);
        let Some((model, second_stage)) = self.second(model)? else { return Ok(None) };
        let metrics = StageMetrics { text, first_stage, second_stage };
        let (config, tokenizer) = (self.model_config.clone(), self.tokenizer.clone());
        Ok(Some(Pretrained { model, config, tokenizer, metrics }))
    }

    /// Trains the language model to order words, to continue sentences and to answer questions.
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
            Sentences::new(sentences, exercises, &self.tokenizer, wanted, *seed)
                .map(|read| Arc::new(read) as Arc<dyn Examples>)
        };
        let validation = validation(read(&unseen, &unseen_exercises)?, None, evaluate.batch_size);
        let objective = CrossEntropy::new(self.context(), text.label_smoothing);
        let settings = text_settings(self.config, self.pairs);
        let train = read(&sentences, &exercises)?;
        self.fit("text", &self.folders.text, text, (model, objective), (train, validation), settings)
    }

    /// Trains the Q-Former on image-text pairs, and the ViT where it is not frozen; the ViT of a checkpoint
    /// is used where there is one.
    fn first(&self, from: &Blip2) -> anyhow::Result<Option<(Pretraining, Metrics)>> {
        let stage = &self.config.first_stage;
        let (tokenizer, start) = self.reader_tokenizer(stage)?;
        let config = self.reader_config(stage, tokenizer.vocabulary_size());
        self.session.device.seed(self.config.seed);
        let mut model = config.init(&self.session.device);
        model::parameters::draw(&model);
        if let Some(bert) = &stage.bert {
            model = init_from_bert(model, bert).context("first_stage.bert")?;
        }
        if self.start.is_some() {
            model.vision_model = from.vision_model.clone();
        }
        let read = |split, pairs| -> anyhow::Result<Arc<dyn Examples>> {
            let images = match &self.start {
                Some(_) => self.seen(split, from, &stage.train)?,
                None => self.images(split)?,
            };
            Ok(Arc::new(PairTexts::new(images, captions(pairs), tokenizer.clone(), stage.max_tokens)?))
        };
        let train = read(Split::Train, &self.pairs.train)?;
        let held_out = read(Split::Validate, &self.pairs.held_out)?;
        let validation = validation(held_out, None, self.config.evaluate.batch_size);
        let settings = first_settings(self.config, self.pairs, self.identity);
        let objective = FirstStage { start_token: start };
        let folder = &self.folders.first_stage;
        self.fit("first stage", folder, &stage.train, (model, objective), (train, validation), settings)
    }

    /// Trains the Q-Former through the frozen language model.
    fn second(&self, model: Blip2) -> anyhow::Result<Option<(Blip2, Metrics)>> {
        let stage = &self.config.second_stage;
        let read = |split, pairs, part: f64| -> anyhow::Result<(Arc<dyn Examples>, Vec<String>)> {
            let images = self.seen(split, &model, &stage.train)?;
            let (ids, seed) = (images.ids().to_vec(), self.config.seed);
            let (captions, tokenizer) = (captions(pairs), self.tokenizer.clone());
            let examples = PairCaptions::new(images, captions, tokenizer, stage.max_tokens, part, seed)?;
            Ok((Arc::new(examples), ids))
        };
        let part = if stage.prefix { 1.0 - stage.whole } else { 0.0 };
        let (train, _) = read(Split::Train, &self.pairs.train, part)?;
        let (held_out, ids) = read(Split::Validate, &self.pairs.held_out, 0.0)?;
        let scorer =
            self.pairs.world.clone().map(|world| Arc::new(PictureScorer { world }) as Arc<dyn Scorer>);
        let validation = Validation { ids, ..validation(held_out, scorer, self.config.evaluate.batch_size) };
        let settings = json!({
            "text": text_settings(self.config, self.pairs),
            "first": first_settings(self.config, self.pairs, self.identity),
            "second_stage": stage,
        });
        let folder = &self.folders.second_stage;
        let objective = CrossEntropy::new(self.context(), stage.train.label_smoothing);
        let objective = CrossEntropy { evaluates_loss: true, ..objective };
        self.fit("second stage", folder, &stage.train, (model, objective), (train, validation), settings)
    }

    /// Trains a stage; the best model and its metrics, where the stage is complete.
    fn fit<O: Objective>(
        &self,
        name: &str,
        folder: &Path,
        config: &TrainConfig,
        (model, objective): (O::Model, O),
        (train, validation): (Arc<dyn Examples>, Validation),
        settings: Value,
    ) -> anyhow::Result<Option<(O::Model, Metrics)>> {
        let run = Fit {
            config: config.clone(),
            objective,
            train,
            validation: Some(validation),
            directory: folder.to_owned(),
            device: self.session.device.clone(),
            seed: self.config.seed,
            label: format!("pretraining, {name}"),
            settings,
            stop: self.session.stop.clone(),
            dashboard: self.session.dashboard,
            processes: self.session.processes.clone(),
        };
        let outcome = fit(model, run).with_context(|| format!("pretraining, {name}"))?;
        if outcome.interrupted {
            return Ok(None);
        }
        let best = outcome.history.into_iter().rev().find(|record| record.is_best);
        Ok(Some((outcome.best, best.map(|record| record.validation).unwrap_or_default())))
    }

    /// The tokenizer of the Q-Former's texts, and the first token of generated texts.
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
        self.pairs.images(split, self.model_config.vision_config.image_size, self.session.caches.folder())
    }

    /// Images, or the features of a frozen ViT.
    fn seen(&self, split: Split, model: &Blip2, train: &TrainConfig) -> anyhow::Result<Videos> {
        let bars = ProgressBars::default();
        let (batch_size, cache) = (self.config.evaluate.batch_size, self.session.caches.folder());
        let trains = |name: &str| train.parameters.trains(name);
        let images = self.images(split)?;
        Ok(images.with_frozen_vit(model, trains, batch_size, cache, &|progress| bars.update(progress))?)
    }

    fn context(&self) -> Context {
        Context {
            config: self.model_config.clone(),
            tokenizer: self.tokenizer.clone(),
            qformer_tokenizer: None,
            prompt: PromptIds::default(),
            generate: self.config.generate.for_model(self.ends.clone(), &Constraints::default()),
        }
    }
}

fn validation(examples: Arc<dyn Examples>, scorer: Option<Arc<dyn Scorer>>, batch_size: usize) -> Validation {
    Validation { split: Split::Validate, ids: Vec::new(), examples, scorer, batch_size }
}
