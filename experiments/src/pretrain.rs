//! Making the tiny BLIP-2: the language model learns the world's sentences, then the ViT and the Q-Former learn to
//! tell it what is in an image.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use data::datasets::Split;
use data::datasets::pairs::PairSet;
use data::datasets::synthetic::{World, WorldConfig, judge_picture, read, text_corpus, vocabulary};
use data::loader::FrameStore;
use data::text::Tokenizer;
use model::generate::GenerateConfig;
use model::{Blip2, Blip2Config};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use train::dashboard::Figures;
use train::processes::Alone;
use train::{
    Captioner, Context, Examples, Fit, Judge, TrainConfig, TrainError, Validation, Written, files, fit,
};

use crate::ablation::Ended;
use crate::cli::PretrainArguments;
use crate::config::{CaptionUse, EvaluateConfig, choices, hex, merge_sets};
use crate::examples::{Captioned, Sentences, Videos, share};
use crate::judge::{COLOUR, SHAPE};
use crate::pretrained::TOKENIZER_FILE;
use crate::provenance::Provenance;
use crate::run::{Session, measure};
use crate::world::{self, Shown};

const PRETRAININGS: &[(&str, &str)] = &[
    ("tiny", include_str!("../configs/pretrain/tiny.toml")),
    ("smoke", include_str!("../configs/pretrain/smoke.toml")),
];

/// Everything that decides what a pretraining computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// Decides initial weights, order and draws.
    pub seed: u64,
    /// Sizes of the model; the size of the vocabulary is the world's.
    pub model: Blip2Config,
    /// The tiny world.
    pub world: WorldConfig,
    /// Sentences for the language model.
    pub sentences: usize,
    /// Probability that a word of a sentence is shown to the encoder.
    pub keep: f64,
    /// First stage: the language model on sentences.
    pub text: TrainConfig,
    /// Second stage: ViT and Q-Former on image-text pairs.
    pub images: TrainConfig,
    /// Writing captions of held-out images.
    pub evaluate: EvaluateConfig,
}

/// A pretraining by its name, or by the path of a TOML file of one's own, with settings changed.
///
/// # Errors
/// When there is none of that name, or a key or value is not known.
pub fn find(name: &str, sets: &[String]) -> anyhow::Result<PretrainConfig> {
    let built_in = PRETRAININGS.iter().find(|(known, _)| *known == name);
    let text = match built_in {
        Some((_, text)) => (*text).to_owned(),
        None if name.ends_with(".toml") => {
            std::fs::read_to_string(name).with_context(|| format!("cannot read the pretraining {name}"))?
        }
        None => {
            let known: Vec<&str> = PRETRAININGS.iter().map(|(known, _)| *known).collect();
            bail!(
                "there is no pretraining \"{name}\"{}",
                choices(name, &known, "experiments pretrain --help")
            )
        }
    };
    merge_sets(&text, sets, name)
}

/// Runs both stages and writes the checkpoint.
///
/// # Errors
/// When anything fails; what was saved stays.
pub fn run(
    name: &str,
    config: &PretrainConfig,
    arguments: &PretrainArguments,
    session: &Session,
) -> anyhow::Result<Ended> {
    let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or("own");
    let folder = arguments.folders.runs.join(format!("pretrain-{stem}"));
    if folder.exists() && !arguments.resume {
        bail!("{} holds an earlier pretraining; --resume goes on with it, or move it away", folder.display());
    }
    let written = toml::to_string_pretty(config)?;
    let config_hash = hex(&Sha256::digest(&written));
    files::replace(&folder.join("config.toml"), written.as_bytes())?;

    let world = world::make(&config.world, &arguments.folders.cache)?;
    let tokenizer = Arc::new(Tokenizer::word_level(&vocabulary())?);
    let mut model_config = config.model.clone();
    model_config.text_config.set_vocabulary_size(tokenizer.vocabulary_size());
    session.device.seed(config.seed);
    let model = model_config.init(&session.device);
    model::parameters::draw(&model);
    let stages =
        Stages { config, config_hash: &config_hash, model_config, tokenizer, session, folder: &folder };

    let Some(model) = stages.text(model)? else { return Ok(Ended::Interrupted) };
    let Some((model, figures)) = stages.images(model, &world, &arguments.folders.cache)? else {
        return Ok(Ended::Interrupted);
    };

    let provenance =
        Provenance::gather(&session.device_word, config_hash.clone(), world.hash().to_owned(), config.seed);
    model::checkpoint::save(&model, &stages.model_config, &arguments.out)?;
    stages.tokenizer.save(&arguments.out.join(TOKENIZER_FILE))?;
    files::replace_json(&arguments.out.join("provenance.json"), &provenance)?;
    files::replace_json(&arguments.out.join("held-out-images.json"), &figures)?;
    println!("\nheld-out images of one object:");
    for (name, value) in figures.iter() {
        println!("  {name:<10} {value:.3}");
    }
    println!("checkpoint: {}", arguments.out.display());
    Ok(Ended::Finished)
}

struct Stages<'a> {
    config: &'a PretrainConfig,
    config_hash: &'a str,
    model_config: Blip2Config,
    tokenizer: Arc<Tokenizer>,
    session: &'a Session,
    folder: &'a Path,
}

impl Stages<'_> {
    /// The language model learns to restore sentences. Nothing is given when it was interrupted.
    fn text(&self, model: Blip2) -> anyhow::Result<Option<Blip2>> {
        let most = self.config.evaluate.max_new_tokens;
        let sentences = text_corpus(&self.config.world, self.config.sentences);
        let examples = Sentences::new(&sentences, &self.tokenizer, most, self.config.keep, self.config.seed)?;
        let best = self.stage("text", &self.config.text, model, share(examples), None)?;
        Ok(best.map(|best| best.blip2))
    }

    /// ViT and Q-Former learn to feed the language model; measured on held-out images of one object.
    fn images(&self, model: Blip2, world: &World, cache: &Path) -> anyhow::Result<Option<(Blip2, Figures)>> {
        let most = self.config.evaluate.max_new_tokens;
        let size = self.model_config.vision_config.image_size as u32;
        let shown = Shown::default();
        let load = |split| -> anyhow::Result<(PairSet, FrameStore)> {
            let pairs = world.pairs(split)?;
            let frames = FrameStore::of_pairs(&pairs, size, Some(cache), &|progress| shown.update(progress))?;
            Ok((pairs, frames))
        };
        let ((train, train_frames), (_, held_out)) = (load(Split::Train)?, load(Split::Validate)?);
        shown.finish();
        let captions: Vec<[String; 1]> = train.pairs.iter().map(|pair| [pair.caption.clone()]).collect();
        let examples = Captioned::new(
            Videos::in_memory(train_frames),
            captions.iter().map(<[String; 1]>::as_slice),
            CaptionUse::One,
            self.tokenizer.clone(),
            most,
            self.config.seed,
        )?;
        let judge = Arc::new(PictureJudge { world: world.clone() });
        let held_out =
            Videos::in_memory(held_out).validation(Split::Validate, judge, self.config.evaluate.batch_size);
        let stage =
            self.stage("images", &self.config.images, model, share(examples), Some(held_out.clone()))?;
        let Some(best) = stage else { return Ok(None) };
        let measured = measure(&best, &held_out, None)?;
        Ok(Some((best.blip2, measured.figures)))
    }

    fn stage(
        &self,
        name: &str,
        train: &TrainConfig,
        model: Blip2,
        examples: Arc<dyn Examples>,
        validation: Option<Validation>,
    ) -> anyhow::Result<Option<Captioner>> {
        let outcome = fit(Fit {
            config: train.clone(),
            task: Captioner::new(model, self.context(train)),
            train: examples,
            validation,
            directory: self.folder.join(name),
            device: self.session.device.clone(),
            seed: self.config.seed,
            label: format!("pretraining, {name}"),
            settings: serde_json::json!({ "config": self.config, "config_hash": self.config_hash }),
            stop: self.session.stop.clone(),
            dashboard: self.session.dashboard,
            processes: Arc::new(Alone),
        })?;
        Ok((!outcome.interrupted).then_some(outcome.best))
    }

    fn context(&self, train: &TrainConfig) -> Context {
        Context {
            config: self.model_config.clone(),
            tokenizer: self.tokenizer.clone(),
            prompt: Vec::new(),
            generate: GenerateConfig {
                max_new_tokens: self.config.evaluate.max_new_tokens,
                end_tokens: vec![self.tokenizer.end()],
                ..GenerateConfig::default()
            },
            label_smoothing: train.label_smoothing,
        }
    }
}

/// Held-out images: does a caption name shape and colour of what is there? Only images of one object count.
struct PictureJudge {
    world: World,
}

impl Judge for PictureJudge {
    fn names(&self) -> Vec<String> {
        [SHAPE, COLOUR].map(str::to_owned).to_vec()
    }

    fn judge(&self, written: &[Written]) -> Result<Figures, TrainError> {
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
        Ok(Figures::one(SHAPE, share(&|judged| judged.0)).with(COLOUR, share(&|judged| judged.1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pretraining_is_valid_and_misspellings_are_answered() {
        for (name, _) in PRETRAININGS {
            find(name, &[]).unwrap();
        }
        assert!(find("tinny", &[]).unwrap_err().to_string().contains("tiny"));
        let error = find("tiny", &["images.epoch=1".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("did you mean \"epochs\"?"), "{error}");
    }
}
