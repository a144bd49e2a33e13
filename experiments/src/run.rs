//! One run: a variant with a seed, from the pretrained checkpoint to its test score.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context as _, bail};
use burn::tensor::Device;
use data::datasets::Split;
use data::text::Tokenizer;
use model::generate::GenerateConfig;
use model::{Blip2, Blip2Config};
use serde::{Deserialize, Serialize};
use train::captioner::{Captioner, Context, Written};
use train::checkpoint::EpochRecord;
use train::dashboard::{Dashboard, Figures};
use train::strategy::{Fit, Judge, Validation, write_predictions};
use train::{Examples, files, fit};

use crate::config::RunConfig;
use crate::examples::{Videos, captions, share};
use crate::judge::WorldJudge;
use crate::provenance::Provenance;
use crate::world::LoadedWorld;

/// What a finished run leaves in its folder as `result.json`. No time is in it: the same command gives the same file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Hash of configuration and seed.
    pub config_hash: String,
    /// The run's seed.
    pub seed: u64,
    /// Values that training changed.
    pub trainable: usize,
    /// Values in all.
    pub parameters: usize,
    /// The epoch that validation chose.
    pub best_epoch: usize,
    /// Every epoch.
    pub history: Vec<EpochRecord>,
    /// Scores of the chosen epoch on the test split.
    pub test: Figures,
}

/// How long a run took, in `timing.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Seconds of training steps an epoch, on average.
    pub seconds_per_epoch: f64,
    /// Seconds of the whole run in this session: features, training, validation, test.
    pub seconds: f64,
}

/// What runs of one command share.
pub struct Session {
    /// Where to compute.
    pub device: Device,
    /// The word that chose it.
    pub device_word: String,
    /// Set by Ctrl-C.
    pub stop: Arc<AtomicBool>,
    /// What to show.
    pub dashboard: Dashboard,
}

/// A pretrained model, loaded.
pub struct Pretrained {
    /// Sizes, with the configuration's changes.
    pub config: Blip2Config,
    /// Weights, on a plain device.
    pub model: Blip2,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
}

/// File of a tokenizer in a checkpoint.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

impl Pretrained {
    /// Reads the checkpoint that a configuration names.
    ///
    /// # Errors
    /// When it is not there or not whole.
    pub fn load(config: &RunConfig, device: &Device) -> anyhow::Result<Self> {
        let directory = find_checkpoint(&config.checkpoint)?;
        let adapt = |blip2: &mut Blip2Config| {
            blip2.fusion = config.model.fusion;
            blip2.temporal = config.model.temporal;
            blip2.max_frames = blip2.max_frames.max(config.frames.count);
            if let Some(dropout) = config.model.dropout {
                blip2.set_dropout(dropout);
            }
        };
        let (blip2_config, model) = model::checkpoint::load(&directory, adapt, device)?;
        let tokenizer = Arc::new(Tokenizer::from_file(&directory.join(TOKENIZER_FILE))?);
        check_tokenizer(&tokenizer, &blip2_config, &directory)?;
        Ok(Self { config: blip2_config, model, tokenizer })
    }

    /// Side of the images that the model takes.
    pub fn image_size(&self) -> usize {
        self.config.vision_config.image_size
    }

    /// What a captioner of this model needs besides weights.
    pub fn context(&self, config: &RunConfig) -> Context {
        Context {
            tokenizer: self.tokenizer.clone(),
            prompt: Vec::new(),
            generate: GenerateConfig {
                max_new_tokens: config.evaluate.max_new_tokens,
                end_tokens: vec![self.tokenizer.end()],
                ..GenerateConfig::default()
            },
            label_smoothing: config.train.label_smoothing,
        }
    }
}

/// Refuses a tokenizer that has tokens the language model has no embedding for.
///
/// # Errors
/// With both numbers.
pub fn check_tokenizer(tokenizer: &Tokenizer, config: &Blip2Config, directory: &Path) -> anyhow::Result<()> {
    let (tokens, rows) = (tokenizer.vocabulary_size(), config.text_config.vocabulary_size());
    if tokens > rows {
        bail!(
            "the tokenizer in {} has {tokens} tokens, the language model {rows}: it is another model's; put the right \
             tokenizer there",
            directory.display()
        );
    }
    Ok(())
}

/// A path as it is, or inside the project's own folder.
fn find_checkpoint(path: &Path) -> anyhow::Result<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let places = [path.to_owned(), project.join(path)];
    match places.iter().find(|place| place.is_dir()) {
        Some(place) => Ok(place.clone()),
        None => bail!(
            "there is no checkpoint {}; make the tiny one with `experiments pretrain tiny --out {}`",
            path.display(),
            path.display()
        ),
    }
}

/// One cell of an ablation's grid.
pub struct Run<'a> {
    /// The variant's name.
    pub variant: &'a str,
    /// Everything that decides the outcome, the seed aside.
    pub config: &'a RunConfig,
    /// The seed.
    pub seed: u64,
    /// The run's own folder.
    pub directory: PathBuf,
}

/// What came of a run.
pub enum Done {
    /// It ended.
    Finished(Box<RunResult>, Timing),
    /// It was stopped and can be resumed.
    Interrupted,
}

impl Run<'_> {
    /// The result of an earlier session, if the run is finished and of the same configuration.
    ///
    /// # Errors
    /// When there is a result of another configuration, or a damaged one.
    pub fn finished(&self) -> anyhow::Result<Option<(RunResult, Timing)>> {
        let path = self.directory.join(RESULT);
        if !path.is_file() {
            return Ok(None);
        }
        let result: RunResult = read_json(&path)?;
        if result.config_hash != self.config.hash(self.seed) {
            bail!(
                "{} was made with other settings (hash {}, now {}); move it away, or run without --resume to start anew",
                self.directory.display(),
                result.config_hash,
                self.config.hash(self.seed)
            );
        }
        Ok(Some((result, read_json(&self.directory.join(TIMING))?)))
    }

    /// Trains, selects on validation, and scores the selected model on test, once.
    ///
    /// # Errors
    /// When anything fails; what was saved stays.
    pub fn run(&self, session: &Session, world: &LoadedWorld) -> anyhow::Result<Done> {
        let started = Instant::now();
        let config = self.config;
        let config_hash = config.hash(self.seed);
        let provenance = Provenance::gather(
            &session.device_word,
            config_hash.clone(),
            world.world.hash().to_owned(),
            self.seed,
        );
        files::replace(&self.directory.join("config.toml"), config.to_toml()?.as_bytes())?;
        files::replace_json(&self.directory.join("provenance.json"), &provenance)?;

        let pretrained = Pretrained::load(config, &session.device)?;
        let context = pretrained.context(config);
        let parameters = model::parameters::list(&pretrained.model);
        let count = |choose: &dyn Fn(&str) -> bool| model::parameters::count(&pretrained.model, choose);
        let (trainable, all) = (count(&|name| config.train.parameters.trains(name)), count(&|_| true));
        config.train.parameters.check(&parameters)?;

        let captioner = Captioner::new(pretrained.model.clone(), context.clone());
        let is_vit_frozen = !parameters
            .iter()
            .any(|p| p.name.starts_with("vision_model.") && config.train.parameters.trains(&p.name));
        let videos = |split| {
            let videos = Videos::new(world.frames(split).clone());
            if is_vit_frozen {
                videos.with_features(&captioner, config.evaluate.batch_size)
            } else {
                Ok(videos)
            }
        };
        let train = videos(Split::Train)?.with_captions(
            captions(&world.clips(Split::Train)),
            &pretrained.tokenizer,
            config.evaluate.max_new_tokens,
            self.seed,
        )?;
        let validate = videos(Split::Validate)?;
        let judge = |split| WorldJudge::new(&world.world, &world.clips(split));
        let outcome = fit(Fit {
            config: config.train.clone(),
            model: pretrained.model,
            model_config: pretrained.config,
            context: context.clone(),
            train: share(train),
            validation: Some(Validation {
                ids: validate.ids().to_vec(),
                examples: share(validate),
                judge: Some(Arc::new(judge(Split::Validate))),
                batch_size: config.evaluate.batch_size,
            }),
            directory: self.directory.clone(),
            device: session.device.clone(),
            seed: self.seed,
            label: format!("{} seed {}", self.variant, self.seed),
            fingerprint: config_hash.clone(),
            stop: session.stop.clone(),
            dashboard: session.dashboard,
        })?;
        if outcome.interrupted {
            return Ok(Done::Interrupted);
        }

        let best = Captioner::new(outcome.best.clone(), context);
        let test = videos(Split::Test)?;
        let written = write_captions(&best, &test, config.evaluate.batch_size)?;
        write_predictions(&self.directory.join(TEST_PREDICTIONS), &written, test.ids())?;
        let result = RunResult {
            config_hash,
            seed: self.seed,
            trainable,
            parameters: all,
            best_epoch: outcome.best_epoch(),
            test: judge(Split::Test).judge(&written)?,
            history: outcome.history,
        };
        let timing = Timing {
            seconds_per_epoch: outcome.seconds / result.history.len().max(1) as f64,
            seconds: started.elapsed().as_secs_f64(),
        };
        files::replace_json(&self.directory.join(TIMING), &timing)?;
        files::replace_json(&self.directory.join(RESULT), &result)?;
        Ok(Done::Finished(Box::new(result), timing))
    }
}

/// Captions of the test split, as COCO results, in a run's folder.
pub const TEST_PREDICTIONS: &str = "predictions/test.json";
const RESULT: &str = "result.json";
const TIMING: &str = "timing.json";

/// Writes a caption for every video, in order.
///
/// # Errors
/// When the device fails.
pub fn write_captions(
    captioner: &Captioner,
    videos: &Videos,
    batch_size: usize,
) -> anyhow::Result<Vec<Written>> {
    let items: Vec<usize> = (0..videos.len()).collect();
    let mut written = Vec::with_capacity(items.len());
    for items in items.chunks(batch_size.max(1)) {
        written.extend(captioner.write(videos.visual(items), items)?);
    }
    Ok(written)
}

/// Reads a JSON file of ours.
///
/// # Errors
/// When it cannot be read or is damaged.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("damaged, remove it to make it anew: {}", path.display()))
}
