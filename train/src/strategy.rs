//! The loop: epochs of steps, an evaluation after each, the best model kept, everything saved.
//!
//! It is a learning strategy of burn-train, so that burn-train's dashboard, metrics and event stream are the run's.
//! What burn-train's own strategy lacks is why there is one here: a stop in mid-epoch loses nothing, the gradient norm
//! is clipped globally, only what is trained is saved, and validation writes and scores captions.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use burn::data::dataloader::DataLoader;
use burn::module::Module;
use burn::optim::{AdamWConfig, ModuleOptimizer};
use burn::tensor::Device;
use burn::train::{
    EventProcessorTraining, InferenceStep, Interrupter, Learner, LearnerEvent, SupervisedLearningStrategy,
    SupervisedTraining, SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents, TrainingItem,
    TrainingStrategy, ValidLoader,
};
use model::{Blip2, Blip2Config};
use serde::{Deserialize, Serialize};

use crate::captioner::{Captioner, Context, Written};
use crate::checkpoint::{self, EpochRecord, State};
use crate::dashboard::{
    CIDER, Dashboard, FigureMetric, Figures, LEARNING_RATE, LOSS, StepOutput, keep_ctrl_c,
};
use crate::freezing::Freezing;
use crate::loader::{Examples, Loader};
use crate::optimizer::{Groups, clip_global_norm};
use crate::schedule::Cosine;
use crate::{TrainError, files};

/// How a model is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the training examples.
    pub epochs: usize,
    /// Examples a step.
    pub batch_size: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Learning rate of the last step.
    pub last_learning_rate: f64,
    /// Steps in which the rate rises from 0.
    pub warmup_steps: usize,
    /// Parts that a batch is split into, whose gradients are added up. On the CPU they run side by side.
    pub micro_batches: usize,
    /// Decay of matrices; nothing else decays.
    pub weight_decay: f64,
    /// AdamW's first moment.
    pub beta_1: f64,
    /// AdamW's second moment.
    pub beta_2: f64,
    /// AdamW's epsilon.
    pub epsilon: f64,
    /// Largest joint norm of the gradients.
    pub clip_norm: f64,
    /// Share of the target's probability spread over all tokens.
    pub label_smoothing: f64,
    /// Steps between saved states inside an epoch; one is saved after every epoch in any case.
    pub save_every: usize,
    /// Figure of the validation that chooses the best epoch.
    pub select: String,
    /// What is trained, and how fast.
    pub parameters: Freezing,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 10,
            batch_size: 32,
            learning_rate: 1e-3,
            last_learning_rate: 1e-4,
            warmup_steps: 30,
            micro_batches: 1,
            weight_decay: 0.05,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            clip_norm: 1.0,
            label_smoothing: 0.0,
            save_every: 500,
            select: CIDER.to_owned(),
            parameters: Freezing::default(),
        }
    }
}

/// Scores what a model wrote.
pub trait Judge: Send + Sync {
    /// Names of the figures that [`judge`](Self::judge) gives; the dashboard shows them in this order.
    fn names(&self) -> Vec<String>;

    /// Scores a whole split.
    ///
    /// # Errors
    /// When the captions cannot be scored.
    fn judge(&self, written: &[Written]) -> Result<Figures, TrainError>;
}

/// A split that a model is measured on after each epoch.
pub struct Validation {
    /// The examples.
    pub examples: Arc<dyn Examples>,
    /// Name of each example, for the predictions' file.
    pub ids: Vec<String>,
    /// Scores captions; without it the mean loss is the only figure.
    pub judge: Option<Arc<dyn Judge>>,
    /// Examples at a time.
    pub batch_size: usize,
}

/// One run.
pub struct Fit {
    /// How to train.
    pub config: TrainConfig,
    /// What to train, on a plain device.
    pub model: Blip2,
    /// Its sizes, written beside the best weights.
    pub model_config: Blip2Config,
    /// Tokenizer, prompt, generation.
    pub context: Context,
    /// What to learn from.
    pub train: Arc<dyn Examples>,
    /// What to choose the best epoch by; without it the last is the best.
    pub validation: Option<Validation>,
    /// The run's own folder.
    pub directory: PathBuf,
    /// Where to compute.
    pub device: Device,
    /// Decides order, dropout and everything else that is drawn.
    pub seed: u64,
    /// Name on the dashboard.
    pub label: String,
    /// Hash of all that decides the outcome.
    pub fingerprint: String,
    /// Set from outside to stop after the current step.
    pub stop: Arc<AtomicBool>,
    /// What to show.
    pub dashboard: Dashboard,
}

/// What a run gave.
#[derive(Debug)]
pub struct Outcome {
    /// The best epoch's model, on a plain device.
    pub best: Blip2,
    /// Every epoch.
    pub history: Vec<EpochRecord>,
    /// Whether it was stopped before its end; its state is saved.
    pub interrupted: bool,
    /// Steps taken.
    pub steps: usize,
    /// Seconds spent in training steps.
    pub seconds: f64,
}

impl Outcome {
    /// The chosen epoch, from 1.
    pub fn best_epoch(&self) -> usize {
        self.history.iter().rev().find(|record| record.is_best).map_or(0, |record| record.epoch)
    }
}

/// Folder of the best epoch's weights, in Hugging Face's layout, inside a run's folder.
pub const BEST: &str = "best";
const STATES: &str = "checkpoints";
const METRICS: &str = "metrics.jsonl";

/// Trains, from the newest saved state in the run's folder where there is one.
///
/// # Errors
/// When data, the device or the file system fail, when the loss is not a number any more, or when a saved state is of
/// another configuration. The newest saved state stays intact.
pub fn fit(fit: Fit) -> Result<Outcome, TrainError> {
    let Fit { config, model, directory, device, dashboard, label, stop, .. } = &fit;
    config.parameters.check(&model::parameters::list(model))?;
    let (epochs, dashboard, directory) = (config.epochs, *dashboard, directory.clone());
    let train = Loader::shuffled(fit.train.clone(), config.batch_size, fit.seed);
    let validation = fit.validation.as_ref().map(|v| Loader::in_order(v.examples.clone(), v.batch_size));
    let figures = fit.validation.as_ref().map_or(Vec::new(), |validation| match &validation.judge {
        Some(judge) => judge.names(),
        None => vec![LOSS.to_owned()],
    });
    let captioner = Captioner::new(model.clone(), fit.context.clone());
    let (label, stop, autodiff) = (label.clone(), stop.clone(), device.clone().autodiff());
    let work = Work::prepare(fit, captioner.clone(), autodiff, train.clone(), validation.clone())?;
    let strategy = Arc::new(Loop { work: Mutex::new(Some(work)), outcome: Mutex::new(None) });
    let interrupter = Interrupter::new();
    let shown = directory.join("dashboard");
    let mut training =
        SupervisedTraining::new(&shown, Arc::new(train.clone()), Arc::new(validation.unwrap_or(train)))
            .with_application_logger(None)
            .with_interrupter(interrupter.clone())
            .num_epochs(epochs)
            .label(&label)
            .metric_train_numeric(FigureMetric::new(LOSS, false))
            .metric_train_numeric(FigureMetric::new(LEARNING_RATE, false));
    for name in figures {
        training = training.metric_valid_numeric(FigureMetric::new(&name, name != LOSS));
    }
    if let Some(renderer) = dashboard.renderer() {
        training = training.renderer(renderer);
    }
    // the loop owns the real optimiser; burn-train's learner wants one to be constructed
    let learner = Learner::new(captioner, AdamWConfig::new().init(), 1.0);
    let result = training.with_training_strategy(TrainingStrategy::Custom(strategy.clone())).launch(learner);
    drop(result.renderer);
    if let Some(error) = result.error {
        return Err(TrainError::Dashboard(error.to_string()));
    }
    drop(stop);
    let outcome = strategy.outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    outcome.unwrap_or_else(|| Err(TrainError::Dashboard("it ended without a result".to_owned())))
}

/// Whether a run is under way in this process, so that a stop is better left to it, which saves its state.
pub fn is_running() -> bool {
    RUNNING.load(Ordering::Relaxed) > 0
}

static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Counts a run for as long as it lives.
struct Running;

impl Running {
    fn start() -> Self {
        RUNNING.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

type Events = SupervisedTrainingEventProcessor<Captioner>;

/// The strategy: hands the work to [`Work::run`] and keeps what came of it.
struct Loop {
    work: Mutex<Option<Work>>,
    outcome: Mutex<Option<Result<Outcome, TrainError>>>,
}

impl SupervisedLearningStrategy<Captioner> for Loop {
    fn fit(
        &self,
        components: TrainingComponents<Captioner>,
        learner: Learner<Captioner>,
        _train: TrainLoader<Captioner>,
        _valid: ValidLoader<Captioner>,
        _start: usize,
    ) -> (Captioner, Events) {
        let mut events = components.event_processor;
        let work = self.work.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        let Some(mut work) = work else { return (learner.model(), events) };
        drop(learner);
        let _running = Running::start();
        let done = work.run(&mut events, &components.interrupter);
        let captioner = work.captioner.clone();
        let outcome = done.and_then(|interrupted| work.finish(interrupted));
        *self.outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(outcome);
        (captioner, events)
    }
}

/// A run in progress.
struct Work {
    fit: Fit,
    device: Device,
    train: Loader,
    validation: Option<Loader>,
    captioner: Captioner,
    best: Option<Blip2>,
    groups: Groups,
    optimizer: ModuleOptimizer,
    schedule: Cosine,
    state: State,
    side_by_side: bool,
}

impl Work {
    fn prepare(
        fit: Fit,
        captioner: Captioner,
        device: Device,
        train: Loader,
        validation: Option<Loader>,
    ) -> Result<Self, TrainError> {
        let config = &fit.config;
        let blip2 = captioner.blip2.fork(&device).train();
        let blip2 = model::parameters::set_trainable(blip2, |name| config.parameters.trains(name));
        let captioner = Captioner::new(blip2, captioner.context);
        let saved = checkpoint::newest(&fit.directory.join(STATES), &fit.fingerprint)?;
        let (captioner, optimizer, state) = match saved {
            Some((path, state)) => {
                let fresh = |captioner: &Captioner| {
                    Groups::new(&captioner.blip2, &config.parameters).optimizer(config)
                };
                let (captioner, optimizer) = checkpoint::restore(&path, captioner, fresh)?;
                (captioner, optimizer, state)
            }
            None => {
                let groups = Groups::new(&captioner.blip2, &config.parameters);
                (captioner, groups.optimizer(config), State::new(&fit.fingerprint))
            }
        };
        let groups = Groups::new(&captioner.blip2, &config.parameters);
        let schedule = Cosine {
            peak: config.learning_rate,
            last: config.last_learning_rate,
            warmup: config.warmup_steps,
            total: config.epochs * train.batches(),
        };
        // dropout draws from one generator, whose order threads would decide
        let side_by_side = device.clone().inner() == Device::flex() && !fit.model_config.has_dropout();
        Ok(Self {
            fit,
            device,
            train,
            validation,
            captioner,
            best: None,
            groups,
            optimizer,
            schedule,
            state,
            side_by_side,
        })
    }

    /// Trains to the end or until stopped; says whether it was stopped.
    fn run(&mut self, events: &mut Events, interrupter: &Interrupter) -> Result<bool, TrainError> {
        while self.state.epoch <= self.fit.config.epochs {
            let epoch = self.state.epoch;
            let total_items = self.train.num_items();
            send(events.process_train(LearnerEvent::StartSplit { epoch_number: epoch, total_items }))?;
            if self.train_epoch(events, interrupter)? {
                return Ok(true);
            }
            send(events.process_train(LearnerEvent::EndSplit(epoch)))?;
            let Some((validation, written)) = self.validate(events, interrupter)? else { return Ok(true) };
            send(events.process_train(LearnerEvent::EndEpoch(epoch)))?;
            self.close_epoch(validation, &written)?;
            if self.must_stop(interrupter) {
                return Ok(self.state.epoch <= self.fit.config.epochs);
            }
        }
        Ok(false)
    }

    /// The steps of an epoch that are still to be taken; says whether it was stopped (and saved).
    fn train_epoch(&mut self, events: &mut Events, interrupter: &Interrupter) -> Result<bool, TrainError> {
        self.train.seek(self.state.epoch, self.state.batch);
        let loader = self.train.clone();
        let mut batches = loader.iter();
        while let Some(batch) = batches.next() {
            keep_ctrl_c();
            let started = Instant::now();
            let rate = self.step(batch.map_err(|error| TrainError::Data(error.to_string()))?)?;
            self.state.seconds += started.elapsed().as_secs_f64();
            let item = StepOutput::new(Figures::one(LOSS, self.state.last_loss), 1);
            let rate = Some(self.groups.rates(rate));
            let item = TrainingItem::new(item, batches.progress(), Some(self.state.step), rate);
            send(events.process_train(LearnerEvent::ProcessedItem(item)))?;
            let must_stop = self.must_stop(interrupter);
            if must_stop || self.state.step.is_multiple_of(self.fit.config.save_every) {
                self.save()?;
            }
            if must_stop {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// One update; gives its learning rate.
    fn step(&mut self, batch: crate::Batch) -> Result<f64, TrainError> {
        let items = batch.items().to_vec();
        let rate = self.schedule.at(self.state.step);
        // the generator's state cannot be saved, so it is set anew from the position
        self.device.seed(mix(self.fit.seed, self.state.step as u64));
        let (loss, mut gradients) = self
            .captioner
            .gradients(batch, self.fit.config.micro_batches, self.side_by_side)
            .map_err(|error| TrainError::Data(error.to_string()))?;
        let norm = clip_global_norm(&self.captioner.blip2, &mut gradients, self.fit.config.clip_norm);
        if !loss.is_finite() || !norm.is_finite() {
            let (step, last) = (self.state.step + 1, self.state.last_loss);
            return Err(TrainError::NotFinite { step, loss, last, learning_rate: rate, items });
        }
        let rates = self.groups.rates(rate);
        let blip2 = self.captioner.blip2.clone();
        self.captioner.blip2 = self.optimizer.step(rates, blip2, gradients);
        self.state.step += 1;
        self.state.batch += 1;
        self.state.loss_sum += loss * items.len() as f64;
        self.state.examples += items.len();
        self.state.last_loss = loss;
        Ok(rate)
    }

    /// Measures the model on the validation split; nothing when it was stopped (and saved) meanwhile.
    fn validate(
        &mut self,
        events: &mut Events,
        interrupter: &Interrupter,
    ) -> Result<Option<(Figures, Vec<Written>)>, TrainError> {
        let (Some(loader), Some(validation)) = (&self.validation, &self.fit.validation) else {
            return Ok(Some((Figures::default(), Vec::new())));
        };
        let epoch_number = self.state.epoch;
        let start = LearnerEvent::StartSplit { epoch_number, total_items: loader.num_items() };
        send(events.process_valid(start))?;
        let captioner = self.captioner.valid();
        let (mut written, mut loss_sum, mut items) = (Vec::new(), 0.0, 0);
        let mut batches = loader.iter();
        let mut figures = Figures::default();
        while let Some(batch) = batches.next() {
            keep_ctrl_c();
            let batch = batch.map_err(|error| TrainError::Data(error.to_string()))?;
            let mut output = InferenceStep::step(&captioner, batch);
            if let Some(failure) = output.failure {
                return Err(failure);
            }
            written.append(&mut output.written);
            items += output.items;
            loss_sum += output.figures.get(LOSS).unwrap_or(0.0) * output.items as f64;
            let progress = batches.progress();
            if progress.is_completed() {
                figures = match &validation.judge {
                    Some(judge) => judge.judge(&written)?,
                    None => Figures::one(LOSS, loss_sum / items.max(1) as f64),
                };
            }
            let item = StepOutput::new(figures.clone(), 1);
            let item = TrainingItem::new(item, progress, Some(self.state.step), None);
            send(events.process_valid(LearnerEvent::ProcessedItem(item)))?;
            if self.must_stop(interrupter) {
                self.save()?;
                return Ok(None);
            }
        }
        send(events.process_valid(LearnerEvent::EndSplit(epoch_number)))?;
        Ok(Some((figures, written)))
    }

    /// Writes what the epoch gave, keeps the model if it is the best, and saves the state.
    fn close_epoch(&mut self, validation: Figures, written: &[Written]) -> Result<(), TrainError> {
        let config = &self.fit.config;
        let is_best = match (&self.fit.validation, validation.get(&config.select)) {
            (None, _) => true,
            (Some(_), Some(value)) => {
                let before =
                    self.state.history.iter().filter_map(|record| record.validation.get(&config.select));
                // a loss is better when it is lower, every other figure when it is higher
                let sign = if config.select == LOSS { -1.0 } else { 1.0 };
                before.map(|other| other * sign).fold(f64::NEG_INFINITY, f64::max) < value * sign
            }
            (Some(_), None) => {
                let names: Vec<&str> = validation.iter().map(|(name, _)| name).collect();
                let message =
                    format!("cannot select by \"{}\": validation gives {}", config.select, names.join(", "));
                return Err(TrainError::Data(message));
            }
        };
        if is_best {
            let best = self.captioner.blip2.valid();
            model::checkpoint::save(&best, &self.fit.model_config, &self.fit.directory.join(BEST))?;
            self.best = Some(best);
        }
        let record = EpochRecord {
            epoch: self.state.epoch,
            step: self.state.step,
            learning_rate: self.schedule.at(self.state.step.saturating_sub(1)),
            loss: self.state.loss_sum / self.state.examples.max(1) as f64,
            validation,
            is_best,
        };
        if self.fit.dashboard == Dashboard::Lines {
            println!("{}", self.line(&record));
        }
        if let Some(validation) = self.fit.validation.as_ref().filter(|_| !written.is_empty()) {
            let path = format!("predictions/validate-epoch-{}.json", record.epoch);
            write_predictions(&self.fit.directory.join(path), written, &validation.ids)?;
        }
        self.state.history.push(record);
        self.state.epoch += 1;
        (self.state.batch, self.state.loss_sum, self.state.examples) = (0, 0.0, 0);
        self.save()?;
        let mut lines = Vec::new();
        for record in &self.state.history {
            let line = serde_json::to_string(record).map_err(|error| TrainError::Data(error.to_string()))?;
            lines.push(line + "\n");
        }
        files::replace(&self.fit.directory.join(METRICS), lines.concat().as_bytes())
    }

    fn line(&self, record: &EpochRecord) -> String {
        let epochs = self.fit.config.epochs;
        let figures: Vec<String> =
            record.validation.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
        format!(
            "{}  epoch {:>2}/{epochs}  step {:>4}  loss {:.3}  rate {:.1e}  {}{}",
            self.fit.label,
            record.epoch,
            record.step,
            record.loss,
            record.learning_rate,
            figures.join("  "),
            if record.is_best && self.fit.validation.is_some() { "  *" } else { "" },
        )
    }

    fn save(&self) -> Result<(), TrainError> {
        let directory = self.fit.directory.join(STATES);
        checkpoint::save(&directory, &self.state, &self.captioner, &self.groups, &self.optimizer)
    }

    /// Stopped from outside, or from the dashboard.
    fn must_stop(&self, interrupter: &Interrupter) -> bool {
        self.fit.stop.load(Ordering::Relaxed) || interrupter.should_stop()
    }

    fn finish(self, interrupted: bool) -> Result<Outcome, TrainError> {
        let best = match self.best {
            Some(best) => best,
            None if self.state.history.is_empty() => self.captioner.blip2.valid(),
            None => {
                let best = self.fit.directory.join(BEST);
                model::checkpoint::load(&best, |_| {}, &self.device.clone().inner())?.1
            }
        };
        Ok(Outcome {
            best: best.fork(&self.device.inner()).valid(),
            history: self.state.history,
            interrupted,
            steps: self.state.step,
            seconds: self.state.seconds,
        })
    }
}

/// Captions as COCO results.
///
/// # Errors
/// When the file cannot be written.
pub fn write_predictions(path: &Path, written: &[Written], ids: &[String]) -> Result<(), TrainError> {
    let results: Vec<_> = written
        .iter()
        .map(|written| serde_json::json!({ "image_id": ids.get(written.item), "caption": written.caption }))
        .collect();
    files::replace_json(path, &results)
}

fn send<E: std::fmt::Display>(result: Result<(), E>) -> Result<(), TrainError> {
    result.map_err(|error| TrainError::Dashboard(error.to_string()))
}

/// A seed that differs for every step of every run (the finaliser of SplitMix64).
fn mix(seed: u64, step: u64) -> u64 {
    let mut z =
        seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(step.wrapping_mul(0xd1b5_4a32_d192_ed03));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
