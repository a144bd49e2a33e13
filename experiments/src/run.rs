//! One run: a variant with a seed, from the pretrained checkpoint to its test score.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context as _, bail};
use burn::tensor::Device;
use data::datasets::Split;
use data::text::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::json;
use train::checkpoint::{EpochRecord, Seconds};
use train::dashboard::{Dashboard, Metrics};
use train::evaluation::{Measured, evaluate};
use train::processes::{ProcessGroup, SingleProcess};
use train::scst::{Rewards, Scst};
use train::{BEST, Captioner, Examples, Fit, Outcome, Task, TrainConfig, Validation, files, fit};

use crate::answering::{self, Reader};
use crate::clips::Clips;
use crate::config::{RunConfig, ScstStage};
use crate::examples::{Captioned, Videos, captions, share};
use crate::frames::FeatureStore;
use crate::memory::{self, PeakMemory};
use crate::pretrained::{Pretrained, TOKENIZER_FILE, find_checkpoint, weights_hash};
use crate::provenance::{self, Named, Provenance};
use crate::world::Shown;

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

    /// Trains, selects on validation, and scores the selected model on test, once. `start` is what an equal run has
    /// learned by cross-entropy, where self-critical training follows on that and there is such a run. `provenance` is what
    /// [`provenance`](Self::provenance) tells.
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

        let pretrained = Pretrained::load(config, &session.device)?;
        let stages = Stages { run: self, session, clips, size: pretrained.image_size() };
        let learned = match &config.scst {
            None => stages.cross_entropy(&pretrained, &self.directory)?,
            Some(scst) => {
                let start = match start {
                    Some(start) => start.to_owned(),
                    None => {
                        let directory = self.directory.join("cross_entropy");
                        if stages.cross_entropy(&pretrained, &directory)?.interrupted {
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
        pretrained.tokenizer.save(&self.directory.join(BEST).join(TOKENIZER_FILE))?;

        let predictions = self.directory.join(TEST_PREDICTIONS);
        let test = stages.validation(Split::Test, &learned.best, self.trained())?;
        let test = measure(&learned.best, &test, Some(&predictions))?;
        let count = |choose: &dyn Fn(&str) -> bool| model::parameters::count(&learned.best.blip2, choose);
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
    size: usize,
}

impl Stages<'_> {
    /// Learns the captions word by word.
    fn cross_entropy(&self, pretrained: &Pretrained, directory: &Path) -> anyhow::Result<Outcome<Captioner>> {
        let (config, run) = (self.run.config, self.run);
        let captioner = Captioner::new(pretrained.model.clone(), pretrained.context(config)?);
        let train = self.examples(&captioner, &config.train, &pretrained.tokenizer)?;
        let validation = self.validation(Split::Validate, &captioner, &config.train)?;
        let label = format!("{} seed {}", run.variant, run.seed);
        self.fit(captioner, &config.train, train, validation, directory, label)
    }

    /// Goes on from what cross-entropy gave, by reward.
    fn self_critical(&self, scst: &ScstStage, start: &Path) -> anyhow::Result<Outcome<Captioner>> {
        let (config, run) = (self.run.config, self.run);
        let dropout = if scst.reward.settings().dropout { config.model.dropout } else { Some(0.0) };
        let started = Pretrained::load_from(start, config, dropout, &self.session.device)?;
        let captioner = Captioner::new(started.model.clone(), started.context(config)?);
        let train = self.examples(&captioner, &scst.train, &started.tokenizer)?;
        let validation = self.validation(Split::Validate, &captioner, &scst.train)?;
        let references: Vec<Vec<String>> =
            self.clips.clips(Split::Train).into_iter().map(|clip| clip.captions.clone()).collect();
        let rewards = Arc::new(Rewards::new(scst.reward.clone(), &references)?);
        let label = format!("{} seed {}, self-critical", run.variant, run.seed);
        let task = Scst::new(captioner, rewards);
        let outcome = self.fit(task, &scst.train, train, validation, &run.directory, label)?;
        Ok(outcome.map(Scst::into_captioner))
    }

    fn fit<T: Task>(
        &self,
        task: T,
        config: &TrainConfig,
        train: Arc<dyn Examples>,
        validation: Validation,
        directory: &Path,
        label: String,
    ) -> anyhow::Result<Outcome<T>> {
        let (run, session) = (self.run, self.session);
        Ok(fit(Fit {
            config: config.clone(),
            task,
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
        })?)
    }

    /// What is learned from: captions, or answers to questions.
    fn examples(
        &self,
        captioner: &Captioner,
        train: &TrainConfig,
        tokenizer: &Arc<Tokenizer>,
    ) -> anyhow::Result<Arc<dyn Examples>> {
        let config = self.run.config;
        let (videos, clips) = (self.videos(Split::Train, captioner, train)?, self.clips.clips(Split::Train));
        if config.answering.is_some() {
            return Ok(share(answering::examples(videos, &clips, self.reader(captioner)?)?));
        }
        Ok(share(Captioned::new(
            videos,
            captions(&clips),
            config.captions,
            tokenizer.clone(),
            config.evaluate.max_new_tokens,
            config.drawn_seed(self.run.seed),
        )?))
    }

    fn validation(
        &self,
        split: Split,
        captioner: &Captioner,
        train: &TrainConfig,
    ) -> anyhow::Result<Validation> {
        let (videos, batch_size) =
            (self.videos(split, captioner, train)?, self.run.config.evaluate.batch_size);
        if self.run.config.answering.is_some() {
            let judge = Arc::new(self.clips.answer_scorer(split)?);
            let questions = answering::examples(videos, &self.clips.clips(split), self.reader(captioner)?)?;
            return Ok(questions.validation(split, judge, batch_size));
        }
        Ok(videos.validation(split, Arc::new(self.clips.judge(split)?), batch_size))
    }

    fn reader(&self, captioner: &Captioner) -> anyhow::Result<Reader> {
        let (config, context) = (self.run.config.answering.clone(), captioner.context());
        Ok(Reader::new(config.unwrap_or_default(), &context.config, context.tokenizer.clone())?)
    }

    /// What a model sees of the clips: frames, or what its frozen ViT makes of them.
    fn videos(&self, split: Split, captioner: &Captioner, train: &TrainConfig) -> anyhow::Result<Videos> {
        let config = self.run.config;
        let (frames, videos) = (self.clips.frames(split)?, self.clips.videos(split)?);
        let is_vit_trained = model::parameters::names(&captioner.blip2)
            .iter()
            .any(|name| name.starts_with("vision_model.") && train.parameters.trains(name));
        if is_vit_trained || frames.varies() {
            return Ok(videos);
        }
        let (shown, batch_size) = (Shown::default(), config.evaluate.batch_size);
        let features = FeatureStore::of(
            frames,
            captioner,
            &config.frames,
            self.size,
            batch_size,
            self.run.cache,
            &|progress| shown.update(progress),
        )?;
        shown.finish();
        Ok(videos.with_features(Arc::new(features)))
    }
}

/// Captions of the test split, as COCO results, in a run's folder.
pub const TEST_PREDICTIONS: &str = "predictions/test.json";
/// What came of a run; written last.
pub const RESULT: &str = "result.json";
/// How long it took and what it needed.
pub const TIMING: &str = "timing.json";

/// Captions a whole split, writes the captions down where a file is named, and scores them.
///
/// # Errors
/// When an example cannot be had, the device fails, or the captions cannot be written or scored.
pub fn measure(
    captioner: &Captioner,
    split: &Validation,
    predictions: Option<&Path>,
) -> anyhow::Result<Measured> {
    let alone: Arc<dyn ProcessGroup> = Arc::new(SingleProcess);
    let measured = evaluate(captioner, split, &alone, predictions, |_| Ok(true))?;
    measured.context("an evaluation that nobody stopped ended early")
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
