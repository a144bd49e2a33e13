//! One run, as its caller sees it. The loop itself is in [`run`](crate::run); here it is put inside burn-train, whose
//! dashboard, metrics and event stream are the run's. What burn-train's own strategy lacks is why there is one of ours: a
//! stop in mid-epoch loses nothing, the gradient norm is clipped globally, only what is trained is saved, and validation
//! writes and scores captions.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::module::{Initializer, Module, Param};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Tensor};
use burn::train::{
    InferenceStep, Interrupter, Learner, SupervisedLearningStrategy, SupervisedTraining,
    SupervisedTrainingEventProcessor, TrainLoader, TrainOutput, TrainStep, TrainingComponents,
    TrainingStrategy, ValidLoader,
};
use data::datasets::Split;
use serde_json::Value;

use crate::TrainError;
use crate::checkpoint::{EpochRecord, Seconds};
use crate::config::TrainConfig;
use crate::dashboard::{
    Dashboard, GRADIENT_NORM, LEARNING_RATE, LOSS, MetricAdapter, MetricSpec, Metrics, StepOutput,
};
use crate::evaluation::Validation;
use crate::loader::Examples;
use crate::processes::ProcessGroup;
use crate::run::Run;
use crate::task::Task;

/// One run.
pub struct Fit<T: Task> {
    /// How to train.
    pub config: TrainConfig,
    /// What to train, on a plain device.
    pub task: T,
    /// What to learn from.
    pub train: Arc<dyn Examples>,
    /// What to choose the best evaluation by; without it the last is the best.
    pub validation: Option<Validation>,
    /// The run's own folder.
    pub directory: PathBuf,
    /// Where to compute.
    pub device: Device,
    /// Decides order, dropout and everything else that is drawn.
    pub seed: u64,
    /// Name on the dashboard.
    pub label: String,
    /// All that decides the outcome, by key: a saved state with other values is refused.
    pub settings: Value,
    /// Set from outside to stop after the current step.
    pub stop: Arc<AtomicBool>,
    /// What to show.
    pub dashboard: Dashboard,
    /// The processes that train together.
    pub processes: Arc<dyn ProcessGroup>,
}

/// What a run gave.
#[derive(Debug)]
pub struct Outcome<T> {
    /// The best evaluation's model, on a plain device.
    pub best: T,
    /// Every evaluation.
    pub history: Vec<EpochRecord>,
    /// Whether it was stopped before its end; its state is saved.
    pub interrupted: bool,
    /// Steps taken.
    pub steps: usize,
    /// How long they took.
    pub seconds: Seconds,
}

impl<T> Outcome<T> {
    /// The same with something else made of the best model.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Outcome<U> {
        let Self { best, history, interrupted, steps, seconds } = self;
        Outcome { best: change(best), history, interrupted, steps, seconds }
    }

    /// The chosen evaluation, from 1.
    pub fn best_epoch(&self) -> usize {
        self.history.iter().rev().find(|record| record.is_best).map_or(0, |record| record.epoch)
    }
}

/// Trains, from the newest saved state in the run's folder where there is one.
///
/// # Errors
/// When data, the device or the file system fail, when the loss is not a number any more, when the best model would be
/// selected on the test split, or when a saved state is of another configuration. The newest saved state stays intact.
pub fn fit<T: Task>(fit: Fit<T>) -> Result<Outcome<T>, TrainError> {
    if fit.validation.as_ref().is_some_and(|validation| validation.split == Split::Test) {
        return Err(TrainError::SelectsOnTest);
    }
    fit.config.parameters.check(&model::parameters::list(fit.task.model()))?;
    let (dashboard, shown, label) = (fit.dashboard, fit.directory.join("dashboard"), fit.label.clone());
    let is_first = fit.processes.rank() == 0;
    let mut train = fit.task.metrics();
    train.push(MetricSpec::new(GRADIENT_NORM, false));
    train.push(MetricSpec::new(LEARNING_RATE, false));
    let valid = fit.validation.as_ref().map_or(Vec::new(), Validation::names);
    let run = Run::prepare(fit)?;
    let strategy = Arc::new(Strategy { run: Mutex::new(Some(run)), outcome: Mutex::new(None) });
    let mut training = SupervisedTraining::new(&shown, Arc::new(NoBatches), Arc::new(NoBatches))
        .with_application_logger(None)
        .with_interrupter(Interrupter::new())
        .num_epochs(strategy.rounds())
        .label(&label);
    for figure in train {
        training = training.metric_train_numeric(MetricAdapter::new(&figure.name, figure.higher_is_better));
    }
    for name in valid {
        training = training.metric_valid_numeric(MetricAdapter::new(&name, name != LOSS));
    }
    let dashboard = if is_first { dashboard } else { Dashboard::Silent };
    if let Some(renderer) = dashboard.renderer() {
        training = training.renderer(renderer);
    }
    let learner = Learner::new(Onlooker::new(), AdamWConfig::new().init(), 1.0);
    let result = training.with_training_strategy(TrainingStrategy::Custom(strategy.clone())).launch(learner);
    drop(result.renderer);
    if let Some(error) = result.error {
        return Err(TrainError::Dashboard(error.to_string()));
    }
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

/// burn-train's event stream.
pub(crate) type Events = SupervisedTrainingEventProcessor<Onlooker>;

/// The strategy: hands the work to [`Run`] and keeps what came of it.
struct Strategy<T: Task> {
    run: Mutex<Option<Run<T>>>,
    outcome: Mutex<Option<Result<Outcome<T>, TrainError>>>,
}

impl<T: Task> Strategy<T> {
    fn rounds(&self) -> usize {
        let run = self.run.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        run.as_ref().map_or(0, Run::rounds)
    }
}

impl<T: Task> SupervisedLearningStrategy<Onlooker> for Strategy<T> {
    fn fit(
        &self,
        components: TrainingComponents<Onlooker>,
        learner: Learner<Onlooker>,
        _train: TrainLoader<Onlooker>,
        _valid: ValidLoader<Onlooker>,
        _start: usize,
    ) -> (Onlooker, Events) {
        let mut events = components.event_processor;
        let run = self.run.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(mut run) = run {
            let _running = Running::start();
            let outcome = run.go(&mut events, &components.interrupter).and_then(|done| run.finish(done));
            *self.outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(outcome);
        }
        (learner.model(), events)
    }
}

/// What burn-train's learner holds in the place of a model: the loop owns the real one, with its optimiser.
#[derive(Module, Debug)]
pub(crate) struct Onlooker {
    /// burn-train asks where its model lies; nothing is computed there.
    place: Param<Tensor<1>>,
}

impl Onlooker {
    fn new() -> Self {
        Self { place: Initializer::Zeros.init([1], &Device::flex()) }
    }
}

impl TrainStep for Onlooker {
    type Input = ();
    type Output = StepOutput;

    fn step(&self, (): ()) -> TrainOutput<StepOutput> {
        TrainOutput { grads: GradientsParams::new(), item: StepOutput::new(Metrics::default(), 0) }
    }
}

impl InferenceStep for Onlooker {
    type Input = ();
    type Output = StepOutput;

    fn step(&self, (): ()) -> StepOutput {
        StepOutput::new(Metrics::default(), 0)
    }
}

/// What burn-train is given to draw batches from: the loop draws its own.
struct NoBatches;

impl DataLoader<()> for NoBatches {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<()> + 'a> {
        Box::new(Self)
    }

    fn num_items(&self) -> usize {
        0
    }

    fn to_device(&self, _device: &Device) -> Arc<dyn DataLoader<()>> {
        Arc::new(Self)
    }

    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<()>> {
        Arc::new(Self)
    }
}

impl Iterator for NoBatches {
    type Item = Result<(), DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}

impl DataLoaderIterator<()> for NoBatches {
    fn progress(&self) -> Progress {
        Progress::new(0, 0, None)
    }
}
