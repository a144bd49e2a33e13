//! One run of a study: from the pretrained checkpoint through its stages to its test score.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use captioner::{Context, QFORMER_TOKENIZER, SETTINGS_FILE, TOKENIZER_FILE};
use data::datasets::Split;
use model::Blip2;
use model::checkpoint::{self, Constraints};
use serde_json::json;
use train::evaluation::evaluate_captions;
use train::scst::{Rewards, Scst};
use train::{BEST, CrossEntropy, Fit, Metrics, Objective, Outcome, TrainConfig, files, fit};

use crate::config::{RunConfig, ScstStage, find_checkpoint, open_checkpoint};
use crate::records::provenance::Identity;
use crate::records::{
    CONFIG, CROSS_ENTROPY, Epoch, PROVENANCE, Provenance, RESULT, RunResult, TEST_PREDICTIONS, TIMING,
    Timing, read_json,
};
use crate::runtime::Session;
use crate::runtime::memory::{self, PeakMemory};
use crate::tasks::{self, Clips, Inputs, Task};

/// One run of a study.
pub(super) struct Run<'a> {
    pub(super) variant: &'a str,
    /// Everything that decides the result except the seed.
    pub(super) config: &'a RunConfig,
    pub(super) seed: u64,
    pub(super) directory: PathBuf,
    task: Arc<dyn Task>,
}

impl<'a> Run<'a> {
    pub(super) fn new(variant: &'a str, config: &'a RunConfig, seed: u64, directory: PathBuf) -> Self {
        Self { variant, config, seed, directory, task: tasks::of(config) }
    }

    /// The result of an earlier session, where the run is finished.
    pub(super) fn finished(&self) -> anyhow::Result<Option<RunResult>> {
        let Some(result) = read_json::<RunResult>(&self.directory.join(RESULT))? else { return Ok(None) };
        let (hash, place) = (self.config.hash(self.seed)?, self.directory.display());
        ensure!(
            result.config_hash == hash,
            "{place} was made with other settings (hash {}, now {hash}); move it away, or run without --resume to start again",
            result.config_hash,
        );
        Ok(Some(result))
    }

    /// Program, machine and inputs of the run.
    pub(super) fn provenance(
        &self,
        session: &Session,
        clips: &Clips,
        weights_hash: String,
    ) -> anyhow::Result<Provenance> {
        let identity = Identity {
            config_hash: self.config.hash(self.seed)?,
            data_hash: clips.hash().to_owned(),
            weights_hash: Some(weights_hash),
            seed: self.seed,
        };
        Ok(Provenance::of(&session.device_word, identity))
    }

    /// Hash of the configuration of the first stage, where self-critical training follows it.
    pub(super) fn first_stage_hash(&self) -> anyhow::Result<Option<String>> {
        let hash = || self.first_stage().hash(self.seed);
        Ok(self.config.scst.is_some().then(hash).transpose()?)
    }

    fn first_stage(&self) -> RunConfig {
        RunConfig { scst: None, ..self.config.clone() }
    }

    /// Trains, selects the best epoch on validation, and scores it once on test; none where it was
    /// interrupted. Self-critical training starts from `start`, the checkpoint of an equal first stage, where
    /// there is one.
    pub(super) fn run(
        &self,
        session: &Session,
        clips: &Clips,
        provenance: &Provenance,
        start: Option<&Path>,
    ) -> anyhow::Result<Option<RunResult>> {
        let (started, memory) = (Instant::now(), PeakMemory::watch());
        session.once(|| {
            files::replace(&self.directory.join(CONFIG), self.config.to_toml()?.as_bytes())?;
            Ok(files::replace_json(&self.directory.join(PROVENANCE), provenance)?)
        })?;

        let weights_hash = provenance.weights_hash.clone().unwrap_or_default();
        let stages = Stages { run: self, session, clips, weights_hash };
        let (outcome, context) = match &self.config.scst {
            None => stages.cross_entropy(self.config, &self.directory)?,
            Some(scst) => {
                let own = self.directory.join(CROSS_ENTROPY);
                if start.is_none() && stages.cross_entropy(&self.first_stage(), &own)?.0.interrupted {
                    return Ok(None);
                }
                stages.self_critical(scst, start.unwrap_or(&own.join(BEST)))?
            }
        };
        if outcome.interrupted {
            return Ok(None);
        }
        let training = self.config.last_stage();
        let predictions = self.directory.join(TEST_PREDICTIONS);
        let (best, predictions) = (&outcome.best, Some(predictions.as_path()));
        let test = evaluate(self.config, clips, Split::Test, best, &context, predictions, session)?;
        let count = |choose: &dyn Fn(&str) -> bool| Some(model::parameters::count(&outcome.best, choose));
        let result = RunResult {
            config_hash: provenance.config_hash.clone(),
            seed: self.seed,
            trainable: count(&|name| training.parameters.trains(name)),
            parameters: count(&|_| true),
            best_epoch: outcome.best_epoch(),
            history: outcome.history.into_iter().map(Epoch::from).collect(),
            test,
        };
        let timing = Timing {
            seconds_per_epoch: Some(outcome.seconds.steps / result.history.len().max(1) as f64),
            seconds: Some(started.elapsed().as_secs_f64()),
            training: Some(outcome.seconds),
            peak_memory: memory.bytes(),
            device_memory: memory::of_device(&session.device),
        };
        session.once(|| {
            files::replace_json(&self.directory.join(TIMING), &timing)?;
            Ok(files::replace_json(&self.directory.join(RESULT), &result)?)
        })?;
        Ok(Some(result))
    }
}

/// The outcome of a stage, and how its model is used.
type Trained = (Outcome<Blip2>, Context);

/// The stages of a run.
struct Stages<'a> {
    run: &'a Run<'a>,
    session: &'a Session,
    clips: &'a Clips,
    /// Hash of the checkpoint that the first stage starts from.
    weights_hash: String,
}

impl Stages<'_> {
    /// Cross-entropy training of the pretrained model.
    fn cross_entropy(&self, config: &RunConfig, directory: &Path) -> anyhow::Result<Trained> {
        let prepare = || {
            let start = self.open(&find_checkpoint(&config.checkpoint)?, config.model.dropout)?;
            let objective = CrossEntropy::new(start.1.clone(), config.train.label_smoothing)
                .saving(self.trained(config, &start.0)?);
            Ok((start, objective))
        };
        let (start, objective) = self.session.agree(prepare())?;
        self.train(start, objective, config, &config.train, directory, "")
    }

    /// Self-critical training of the model that cross-entropy training gave.
    fn self_critical(&self, scst: &ScstStage, start: &Path) -> anyhow::Result<Trained> {
        let (run, config) = (self.run, self.run.config);
        let dropout = if scst.reward.settings().dropout { config.model.dropout } else { Some(0.0) };
        let prepare = || {
            let start = self.open(start, dropout)?;
            let training = self.clips.split(Split::Train);
            let references: Vec<Vec<String>> =
                training.into_iter().map(|clip| clip.captions.clone()).collect();
            let rewards = Arc::new(Rewards::new(scst.reward.clone(), &references)?);
            let objective = Scst::new(start.1.clone(), rewards).saving(self.trained(config, &start.0)?);
            Ok((start, objective))
        };
        let (start, objective) = self.session.agree(prepare())?;
        self.train(start, objective, config, &scst.train, &run.directory, ", self-critical")
    }

    /// What the stages of a configuration train, from the pretrained checkpoint.
    fn trained(&self, config: &RunConfig, model: &Blip2) -> anyhow::Result<Arc<checkpoint::Trained>> {
        let names = model::parameters::names(model).into_iter().filter(|name| config.trains(name));
        let (found, hash) = (find_checkpoint(&config.checkpoint)?, self.weights_hash.clone());
        Ok(Arc::new(checkpoint::Trained::new(&found, &config.checkpoint, hash, names.collect())?))
    }

    /// A checkpoint as the run trains it. What it lacks, such as low-rank updates, is drawn from the run's
    /// seed.
    fn open(&self, directory: &Path, dropout: Option<f64>) -> anyhow::Result<(Blip2, Context)> {
        self.session.device.seed(self.run.config.drawn_seed(self.run.seed));
        let checkpoint = open_checkpoint(directory, self.run.config, dropout, &self.session.device)?;
        // a parameter is drawn when it is read for the first time
        model::parameters::draw(&checkpoint.model);
        let context = self.run.task.context(&checkpoint)?;
        Ok((checkpoint.model, context))
    }

    /// Trains a stage and saves its tokenizer and settings beside its best weights, so that the checkpoint
    /// can be evaluated alone.
    fn train<O: Objective<Model = Blip2>>(
        &self,
        (model, context): (Blip2, Context),
        objective: O,
        config: &RunConfig,
        training: &TrainConfig,
        directory: &Path,
        stage: &str,
    ) -> anyhow::Result<Trained> {
        let (run, session, clips) = (self.run, self.session, self.clips);
        let seed = run.config.drawn_seed(run.seed);
        let inputs = |split| {
            let seed = (split == Split::Train).then_some(seed);
            let videos = clips.videos(split, &model, training, seed)?;
            anyhow::Ok(Inputs { clips, split, videos, context: &context })
        };
        // the processes share the features that the cache lacks
        let train = run.task.training(session.agree(inputs(Split::Train))?, seed);
        let train = session.agree(train)?;
        let validation = run.task.evaluation(session.agree(inputs(Split::Validate))?);
        let validation = session.agree(validation)?;
        let settings = Fit {
            config: training.clone(),
            objective,
            train,
            validation: Some(validation),
            directory: directory.to_owned(),
            device: session.device.clone(),
            seed,
            label: format!("{} seed {}{stage}", run.variant, run.seed),
            settings: json!({ "config": run.config, "seed": run.seed, "data": clips.hash() }),
            stop: session.stop.clone(),
            dashboard: session.dashboard,
            processes: session.processes.clone(),
        };
        let outcome = fit(model, settings)?;
        if outcome.interrupted {
            return Ok((outcome, context));
        }
        session.once(|| {
            let best = directory.join(BEST);
            context.tokenizer.save(&best.join(TOKENIZER_FILE))?;
            if let Some(tokenizer) = &context.qformer_tokenizer {
                let folder = best.join(QFORMER_TOKENIZER);
                std::fs::create_dir_all(&folder)
                    .with_context(|| format!("cannot create {}", folder.display()))?;
                tokenizer.save(&folder.join(TOKENIZER_FILE))?;
            }
            let mut saved = config.clone();
            if saved.answering.is_none() {
                // `best/` has no generation_config.json
                saved.generate =
                    saved.generate.with_constraints(&Constraints::of_settings(&context.generate));
            }
            Ok(files::replace(&best.join(SETTINGS_FILE), saved.to_toml()?.as_bytes())?)
        })?;
        Ok((outcome, context))
    }
}

/// The metrics of a model on a split, as a run with this configuration computes them, by all processes; the
/// predictions are saved where a file is named.
pub(crate) fn evaluate(
    config: &RunConfig,
    clips: &Clips,
    split: Split,
    model: &Blip2,
    context: &Context,
    predictions: Option<&Path>,
    session: &Session,
) -> anyhow::Result<Metrics> {
    let videos = session.agree(clips.videos(split, model, config.last_stage(), None))?;
    let examples = tasks::of(config).evaluation(Inputs { clips, split, videos, context });
    let examples = session.agree(examples)?;
    Ok(evaluate_captions(context, model, &examples, predictions, &session.processes)?.metrics)
}
