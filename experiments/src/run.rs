//! One run: a variant with a seed, from the pretrained checkpoint to its test score.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context as _, bail};
use burn::tensor::Device;
use captioner::{Checkpoint, Context as Captioning, TOKENIZER_FILE, Videos, weights_hash};
use data::datasets::Split;
use model::Blip2;
use serde::{Deserialize, Serialize};
use serde_json::json;
use train::checkpoint::{EpochRecord, Seconds};
use train::dashboard::Dashboard;
use train::evaluation::evaluate_captions;
use train::processes::SingleProcess;
use train::scst::{Rewards, Scst};
use train::{
    BEST, Captioned, CrossEntropy, Examples, Fit, Metrics, Objective, Outcome, TrainConfig, Validation, files,
};

use crate::answering::{self, Reader};
use crate::clips::Clips;
use crate::config::{RunConfig, ScstStage};
use crate::memory::{self, PeakMemory};
use crate::pretrained::{self, find_checkpoint};
use crate::provenance::{self, Named, Provenance};
use crate::world::Shown;

/// What a finished run leaves in its folder as `result.json`. No time is in it: the same command gives the
/// same file.
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
    pub test: Metrics,
}

/// How long a run took, in `timing.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Seconds of training steps an epoch, on average.
    pub seconds_per_epoch: f64,
    /// Seconds of the whole run in this session: features, training, validation, test.
    pub seconds: f64,
    /// Where the steps' time went, over all sessions.
    pub training: Seconds,
    /// The most physical memory of the process in this session of the run, bytes; where the system tells.
    #[serde(default)]
    pub peak_memory: Option<u64>,
    /// What the program held of the device's own memory at the end, bytes; where the device has some.
    #[serde(default)]
    pub device_memory: Option<u64>,
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
    /// Folder of decoded frames and of what a frozen ViT made of them.
    pub cache: &'a Path,
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

    /// Where the run's numbers will come from.
    ///
    /// # Errors
    /// When the checkpoint cannot be read.
    pub fn provenance(&self, session: &Session, clips: &Clips) -> anyhow::Result<Provenance> {
        let named = Named {
            config_hash: self.config.hash(self.seed),
            data_hash: clips.hash().to_owned(),
            weights_hash: Some(weights_hash(&find_checkpoint(&self.config.checkpoint)?)?),
            seed: self.seed,
        };
        Ok(Provenance::gather(&session.device_word, named))
    }

    /// Trains, selects on validation, and scores the selected model on test, once. `start` is what an equal
    /// run has learned by cross-entropy, where self-critical training follows on that and there is such a
    /// run. `provenance` is what [`provenance`](Self::provenance) tells.
    ///
    /// # Errors
    /// When anything fails; what was saved stays.
    pub fn run(
        &self,
        session: &Session,
        clips: &Clips,
        provenance: &Provenance,
        start: Option<&Path>,
    ) -> anyhow::Result<Done> {
        let started = Instant::now();
        let memory = PeakMemory::watch();
        let config = self.config;
        files::replace(&self.directory.join("config.toml"), config.to_toml()?.as_bytes())?;
        files::replace_json(&self.directory.join(provenance::FILE), provenance)?;

        let pretrained = pretrained::load(config, &session.device)?;
        let tokenizer = pretrained.tokenizer.clone();
        let stages = Stages { run: self, session, clips };
        let (learned, captioning) = match &config.scst {
            None => stages.cross_entropy(pretrained, &self.directory)?,
            Some(scst) => {
                let start = match start {
                    Some(start) => start.to_owned(),
                    None => {
                        let directory = self.directory.join("cross_entropy");
                        if stages.cross_entropy(pretrained, &directory)?.0.interrupted {
                            return Ok(Done::Interrupted);
                        }
                        directory.join(BEST)
                    }
                };
                stages.self_critical(scst, &start)?
            }
        };
        if learned.interrupted {
            return Ok(Done::Interrupted);
        }
        tokenizer.save(&self.directory.join(BEST).join(TOKENIZER_FILE))?;

        let predictions = self.directory.join(TEST_PREDICTIONS);
        let test = stages.validation(Split::Test, &learned.best, &captioning, self.trained())?;
        let test = evaluate_captions(&captioning, &learned.best, &test, Some(&predictions))?;
        let count = |choose: &dyn Fn(&str) -> bool| model::parameters::count(&learned.best, choose);
        let result = RunResult {
            config_hash: provenance.config_hash.clone(),
            seed: self.seed,
            trainable: count(&|name| self.trained().parameters.trains(name)),
            parameters: count(&|_| true),
            best_epoch: learned.best_epoch(),
            test: test.metrics,
            history: learned.history,
        };
        let timing = Timing {
            seconds_per_epoch: learned.seconds.steps / result.history.len().max(1) as f64,
            seconds: started.elapsed().as_secs_f64(),
            training: learned.seconds,
            peak_memory: memory.bytes(),
            device_memory: memory::of_device(&session.device),
        };
        files::replace_json(&self.directory.join(TIMING), &timing)?;
        files::replace_json(&self.directory.join(RESULT), &result)?;
        Ok(Done::Finished(Box::new(result), timing))
    }

    /// How the last stage is trained.
    fn trained(&self) -> &TrainConfig {
        self.config.scst.as_ref().map_or(&self.config.train, |scst| &scst.train)
    }
}

/// What the stages of a run share.
struct Stages<'a> {
    run: &'a Run<'a>,
    session: &'a Session,
    clips: &'a Clips,
}

/// The outcome of a stage, and what captioning with its weights needs.
type Learned = (Outcome<Blip2>, Captioning);

impl Stages<'_> {
    /// Trains by cross-entropy.
    fn cross_entropy(&self, pretrained: Checkpoint, directory: &Path) -> anyhow::Result<Learned> {
        let (config, run) = (self.run.config, self.run);
        let captioning = pretrained::context(&pretrained, config)?;
        let Checkpoint { model, .. } = pretrained;
        let train = self.examples(&model, &captioning, &config.train)?;
        let validation = self.validation(Split::Validate, &model, &captioning, &config.train)?;
        let label = format!("{} seed {}", run.variant, run.seed);
        let objective = CrossEntropy::new(captioning.clone(), config.train.label_smoothing);
        let fit = self.fit(objective, &config.train, train, validation, directory, label);
        Ok((train::fit(model, fit)?, captioning))
    }

    /// Continues self-critically from the weights of cross-entropy.
    fn self_critical(&self, scst: &ScstStage, start: &Path) -> anyhow::Result<Learned> {
        let (config, run) = (self.run.config, self.run);
        let dropout = if scst.reward.settings().dropout { config.model.dropout } else { Some(0.0) };
        let started = pretrained::load_from(start, config, dropout, &self.session.device)?;
        let captioning = pretrained::context(&started, config)?;
        let Checkpoint { model, .. } = started;
        let train = self.examples(&model, &captioning, &scst.train)?;
        let validation = self.validation(Split::Validate, &model, &captioning, &scst.train)?;
        let references: Vec<Vec<String>> =
            self.clips.clips(Split::Train).into_iter().map(|clip| clip.captions.clone()).collect();
        let rewards = Arc::new(Rewards::new(scst.reward.clone(), &references)?);
        let label = format!("{} seed {}, self-critical", run.variant, run.seed);
        let objective = Scst::new(captioning.clone(), rewards);
        let fit = self.fit(objective, &scst.train, train, validation, &run.directory, label);
        Ok((train::fit(model, fit)?, captioning))
    }

    fn fit<O: Objective>(
        &self,
        objective: O,
        config: &TrainConfig,
        train: Arc<dyn Examples>,
        validation: Validation,
        directory: &Path,
        label: String,
    ) -> Fit<O> {
        let (run, session) = (self.run, self.session);
        Fit {
            config: config.clone(),
            objective,
            train,
            validation: Some(validation),
            directory: directory.to_owned(),
            device: session.device.clone(),
            seed: run.config.drawn_seed(run.seed),
            label,
            settings: json!({ "config": run.config, "seed": run.seed, "data": self.clips.hash() }),
            stop: session.stop.clone(),
            dashboard: session.dashboard,
            processes: Arc::new(SingleProcess),
        }
    }

    /// Training examples: captions, or answers to questions.
    fn examples(
        &self,
        model: &Blip2,
        captioning: &Captioning,
        train: &TrainConfig,
    ) -> anyhow::Result<Arc<dyn Examples>> {
        let config = self.run.config;
        let (videos, clips) = (self.videos(Split::Train, model, train)?, self.clips.clips(Split::Train));
        if config.answering.is_some() {
            return Ok(Arc::new(answering::examples(videos, &clips, self.reader(captioning)?)?));
        }
        Ok(Arc::new(Captioned::new(
            videos,
            clips.iter().map(|clip| clip.captions.as_slice()),
            config.captions,
            captioning.tokenizer.clone(),
            config.evaluate.max_new_tokens,
            config.drawn_seed(self.run.seed),
        )?))
    }

    fn validation(
        &self,
        split: Split,
        model: &Blip2,
        captioning: &Captioning,
        train: &TrainConfig,
    ) -> anyhow::Result<Validation> {
        let (videos, batch_size) = (self.videos(split, model, train)?, self.run.config.evaluate.batch_size);
        if self.run.config.answering.is_some() {
            let judge = Arc::new(self.clips.answer_scorer(split)?);
            let questions = answering::examples(videos, &self.clips.clips(split), self.reader(captioning)?)?;
            return Ok(questions.validation(split, judge, batch_size));
        }
        Ok(Validation::of_videos(videos, split, Arc::new(self.clips.judge(split)?), batch_size))
    }

    fn reader(&self, captioning: &Captioning) -> anyhow::Result<Reader> {
        let config = self.run.config.answering.clone();
        Ok(Reader::new(config.unwrap_or_default(), &captioning.config, captioning.tokenizer.clone())?)
    }

    /// What a model sees of the clips: frames, or features of its frozen ViT.
    fn videos(&self, split: Split, model: &Blip2, train: &TrainConfig) -> anyhow::Result<Videos> {
        let shown = Shown::default();
        let videos = self.clips.videos(split)?.with_frozen_vit(
            model,
            |name| train.parameters.trains(name),
            self.run.config.evaluate.batch_size,
            self.run.cache,
            &|progress| shown.update(progress),
        )?;
        shown.finish();
        Ok(videos)
    }
}

/// Captions of the test split, as COCO results, in a run's folder.
pub const TEST_PREDICTIONS: &str = "predictions/test.json";
/// What came of a run; written last.
pub const RESULT: &str = "result.json";
/// How long it took and what it needed.
pub const TIMING: &str = "timing.json";

/// Reads a JSON file of ours.
///
/// # Errors
/// When it cannot be read or is damaged.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("damaged, remove it to make it anew: {}", path.display()))
}
