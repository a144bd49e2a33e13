//! Runs the training loop inside burn-train, which provides the dashboard, the metrics' means and the event
//! stream.
//!
//! burn-train asks for a model, an optimizer and data loaders, and this file gives it empty ones: its
//! `Learner` cannot hold ours (`docs/decisions/0004-training-loop.md` says why).

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder, Progress};
use burn::data::dataset::InMemDataset;
use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Initializer, Module, Param};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, ExecutionError, Tensor, TensorReadError};
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Adaptor, Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};
use burn::train::{
    EventProcessorTraining, InferenceStep, Interrupter, ItemLazy, Learner, LearnerEvent,
    SupervisedLearningStrategy, SupervisedTraining, SupervisedTrainingEventProcessor, TrainLoader,
    TrainOutput, TrainStep, TrainingComponents, TrainingItem, TrainingStrategy, ValidLoader,
};

use crate::TrainError;
use crate::dashboard::{Dashboard, keep_ctrl_c};
use crate::metrics::{LEARNING_RATE, MetricSpec, Metrics};

/// What the dashboard shows of a run.
pub(crate) struct Display<'a> {
    pub dashboard: Dashboard,
    /// Folder of burn-train's metric logs.
    pub directory: &'a Path,
    pub label: &'a str,
    pub training: Vec<MetricSpec>,
    pub validation: Vec<MetricSpec>,
    /// Evaluations of the whole run.
    pub evaluations: usize,
}

/// Runs `work` as burn-train's strategy.
pub(crate) fn launch<T, F>(display: &Display<'_>, work: F) -> Result<T, TrainError>
where
    T: Send + 'static,
    F: FnOnce(&mut Events) -> Result<T, TrainError> + Send + 'static,
{
    let strategy = Arc::new(Strategy { work: Mutex::new(Some(work)), outcome: Mutex::new(None) });
    let mut training = SupervisedTraining::new(display.directory, NoBatches::loader(), NoBatches::loader())
        .with_application_logger(None)
        .with_interrupter(Interrupter::new())
        .num_epochs(display.evaluations)
        .label(display.label);
    for spec in &display.training {
        training = training.metric_train_numeric(MetricAdapter::new(spec));
    }
    for spec in &display.validation {
        training = training.metric_valid_numeric(MetricAdapter::new(spec));
    }
    if let Some(renderer) = display.dashboard.renderer() {
        training = training.renderer(renderer);
    }
    let model = NoModel { device: Initializer::Zeros.init([1], &Device::flex()) };
    let learner = Learner::new(model, AdamWConfig::new().init(), 1.0);
    let result = training.with_training_strategy(TrainingStrategy::Custom(strategy.clone())).launch(learner);
    drop(result.renderer);
    if let Some(error) = result.error {
        return Err(TrainError::Dashboard(error.to_string()));
    }
    let outcome = strategy.outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    outcome.unwrap_or_else(|| Err(TrainError::Dashboard("it ended without a result".to_owned())))
}

/// Whether a run is in progress in this process: a stop should then be left to the run, which saves its
/// state.
pub fn is_training() -> bool {
    RUNS.load(Ordering::Relaxed) > 0
}

static RUNS: AtomicUsize = AtomicUsize::new(0);

/// Ends the count of a run when it is dropped.
struct RunGuard;

impl Drop for RunGuard {
    fn drop(&mut self) {
        RUNS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Which split an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Training,
    Validation,
}

/// burn-train's event stream.
pub(crate) struct Events {
    processor: SupervisedTrainingEventProcessor<NoModel>,
    interrupter: Interrupter,
}

/// Progress within a split.
pub(crate) struct Progressed {
    pub metrics: Metrics,
    /// Items done, and items in all, in `unit`.
    pub done: usize,
    pub total: usize,
    pub unit: &'static str,
    /// Steps of the run.
    pub step: usize,
    pub learning_rate: Option<ModuleLearningRate>,
}

impl Events {
    /// A split begins, in the interval between two evaluations of that number.
    pub(crate) fn start(
        &mut self,
        phase: Phase,
        interval: usize,
        total_items: usize,
    ) -> Result<(), TrainError> {
        keep_ctrl_c();
        self.send(phase, LearnerEvent::StartSplit { epoch_number: interval, total_items })
    }

    /// Items were processed.
    pub(crate) fn progress(&mut self, phase: Phase, progress: Progressed) -> Result<(), TrainError> {
        keep_ctrl_c();
        let Progressed { metrics, done, total, unit, step, learning_rate } = progress;
        let progress = Progress::new(done, total, Some(unit.to_owned()));
        let item = TrainingItem::new(metrics, progress, Some(step), learning_rate);
        self.send(phase, LearnerEvent::ProcessedItem(item))
    }

    /// A split ends.
    pub(crate) fn end(&mut self, phase: Phase, interval: usize) -> Result<(), TrainError> {
        self.send(phase, LearnerEvent::EndSplit(interval))
    }

    /// An interval ends.
    pub(crate) fn end_interval(&mut self, interval: usize) -> Result<(), TrainError> {
        self.send(Phase::Training, LearnerEvent::EndEpoch(interval))
    }

    /// Whether the run was stopped from the dashboard.
    pub(crate) fn is_stopped(&self) -> bool {
        self.interrupter.should_stop()
    }

    fn send(&mut self, phase: Phase, event: LearnerEvent<Metrics>) -> Result<(), TrainError> {
        let sent = match phase {
            Phase::Training => self.processor.process_train(event),
            Phase::Validation => self.processor.process_valid(event),
        };
        sent.map_err(|error| TrainError::Dashboard(error.to_string()))
    }
}

/// The strategy: runs the work once and stores its outcome.
struct Strategy<T, F> {
    work: Mutex<Option<F>>,
    outcome: Mutex<Option<Result<T, TrainError>>>,
}

impl<T, F> SupervisedLearningStrategy<NoModel> for Strategy<T, F>
where
    F: FnOnce(&mut Events) -> Result<T, TrainError>,
{
    fn fit(
        &self,
        components: TrainingComponents<NoModel>,
        learner: Learner<NoModel>,
        _train: TrainLoader<NoModel>,
        _valid: ValidLoader<NoModel>,
        _start: usize,
    ) -> (NoModel, SupervisedTrainingEventProcessor<NoModel>) {
        let mut events =
            Events { processor: components.event_processor, interrupter: components.interrupter };
        let work = self.work.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(work) = work {
            RUNS.fetch_add(1, Ordering::Relaxed);
            let _guard = RunGuard;
            let outcome = work(&mut events);
            *self.outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(outcome);
        }
        (learner.model(), events.processor)
    }
}

/// Stands for the model in burn-train's `Learner`.
#[derive(Module, Debug)]
struct NoModel {
    /// burn-train asks for the model's device; nothing is computed there.
    device: Param<Tensor<1>>,
}

impl TrainStep for NoModel {
    type Input = ();
    type Output = Metrics;

    fn step(&self, (): ()) -> TrainOutput<Metrics> {
        TrainOutput { grads: GradientsParams::new(), item: Metrics::default() }
    }
}

impl InferenceStep for NoModel {
    type Input = ();
    type Output = Metrics;

    fn step(&self, (): ()) -> Metrics {
        Metrics::default()
    }
}

/// Stands for burn-train's data loaders: they have no batch.
struct NoBatches;

impl Batcher<(), ()> for NoBatches {
    fn batch(&self, _items: Vec<()>, _device: &Device) {}
}

impl NoBatches {
    fn loader() -> Arc<dyn DataLoader<()>> {
        DataLoaderBuilder::new(Self).build(InMemDataset::new(Vec::new()))
    }
}

impl ItemLazy for Metrics {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl Adaptor<Metrics> for Metrics {
    fn adapt(&self) -> Metrics {
        self.clone()
    }
}

/// A metric on the dashboard: the last value, and the mean since the last evaluation.
#[derive(Clone)]
struct MetricAdapter {
    name: MetricName,
    higher_is_better: bool,
    /// `None` before the first value.
    state: Option<NumericMetricState>,
}

impl MetricAdapter {
    fn new(spec: &MetricSpec) -> Self {
        let (name, higher_is_better) = (Arc::new(spec.name.clone()), spec.higher_is_better);
        Self { name, higher_is_better, state: None }
    }

    fn format(&self) -> FormatOptions {
        FormatOptions::new(self.name()).precision(3)
    }
}

impl Metric for MetricAdapter {
    type Input = Metrics;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes { unit: None, higher_is_better: self.higher_is_better }.into()
    }

    fn update(
        &mut self,
        metrics: &Metrics,
        metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let value = match self.name.as_str() {
            LEARNING_RATE => metadata.lr.as_ref().map(|rate| rate.base()),
            name => metrics.get(name),
        };
        let Some(value) = value else { return Ok(SerializedEntry::not_available(None)) };
        let format = self.format();
        let state = self.state.get_or_insert_with(NumericMetricState::new);
        state.update(value, 1);
        Ok(state.compute_update(format))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        let format = self.format();
        let state = self.state.as_mut();
        Ok(state.map_or_else(|| SerializedEntry::not_available(None), |state| state.compute_final(format)))
    }

    fn clear(&mut self) {
        self.state = None;
    }
}

impl Numeric for MetricAdapter {
    fn value(&self) -> Option<NumericEntry> {
        self.state.as_ref().map(NumericMetricState::current_value)
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.state.as_ref().map(NumericMetricState::running_value)
    }

    fn final_value(&self) -> NumericEntry {
        self.state.as_ref().map_or(NumericEntry::Value(f64::NAN), NumericMetricState::final_value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::LOSS;

    #[test]
    fn the_dashboard_shows_the_mean_since_the_last_evaluation() {
        let metadata = MetricMetadata { progress: Progress::new(1, 2, None), iteration: None, lr: None };
        let mut metric = MetricAdapter::new(&MetricSpec::new(LOSS, false));
        for value in [1.0, 3.0] {
            metric.update(&Metrics::one(LOSS, value), &metadata).unwrap();
        }
        assert_eq!(metric.final_value().current(), 2.0);
        metric.clear();
        assert!(metric.value().is_none());
    }
}
