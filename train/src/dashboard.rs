//! What a person sees of a run: burn-train's terminal dashboard, or one line an epoch where there is no terminal.

use std::io::IsTerminal;
use std::sync::Arc;

use burn::tensor::{ExecutionError, TensorReadError};
use burn::train::ItemLazy;
use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{
    Adaptor, Metric, MetricAttributes, MetricDefinition, MetricMetadata, MetricName, Numeric,
    NumericAttributes, NumericEntry, SerializedEntry,
};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation, MetricsRendererTraining,
};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::processes::ProcessGroup;

/// Name of the training loss among the figures.
pub const LOSS: &str = "Loss";
/// Name of the learning rate among the figures.
pub const LEARNING_RATE: &str = "Learning rate";
/// Name of CIDEr among the figures.
pub const CIDER: &str = "CIDEr";
/// Name of BLEU-4 among the figures.
pub const BLEU_4: &str = "BLEU-4";
/// Name of the gradients' joint norm among the figures.
pub const GRADIENT_NORM: &str = "Gradient norm";

/// A figure to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricSpec {
    /// Its name.
    pub name: String,
    /// Whether more of it is better.
    pub higher_is_better: bool,
}

impl MetricSpec {
    /// Names a figure.
    pub fn new(name: &str, higher_is_better: bool) -> Self {
        Self { name: name.to_owned(), higher_is_better }
    }
}

/// Named numbers, in the order in which they were given.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metrics(serde_json::Map<String, serde_json::Value>);

impl Metrics {
    /// A single figure.
    pub fn one(name: &str, value: f64) -> Self {
        Self::default().with(name, value)
    }

    /// Adds a figure.
    #[must_use]
    pub fn with(mut self, name: &str, value: f64) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// The figure of that name; JSON has no number for NaN, so such a figure reads as absent.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).and_then(serde_json::Value::as_f64)
    }

    /// The figures but one.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.0.shift_remove(name);
        self
    }

    /// All figures.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?)))
    }

    /// Takes over all figures of another set.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Every figure times a number.
    #[must_use]
    pub fn times(mut self, factor: f64) -> Self {
        for value in self.0.values_mut() {
            *value = (value.as_f64().unwrap_or(f64::NAN) * factor).into();
        }
        self
    }

    /// Adds the figures of another set to those of the same names; a figure that is no number stays none.
    pub fn add(&mut self, other: &Self) {
        for (name, value) in &other.0 {
            let sum = match self.0.get(name) {
                None => value.clone(),
                Some(own) => (own.as_f64().unwrap_or(f64::NAN) + value.as_f64().unwrap_or(f64::NAN)).into(),
            };
            self.0.insert(name.clone(), sum);
        }
    }

    /// Adds up the figures of all processes; one that had no rows may have none.
    pub(crate) fn sum_over(&mut self, processes: &dyn ProcessGroup) -> Result<(), TrainError> {
        if processes.world_size() == 1 {
            return Ok(());
        }
        let unreadable =
            |error: serde_json::Error| TrainError::Data(format!("metrics of a process: {error}"));
        let parts = processes.gather(serde_json::to_vec(self).map_err(unreadable)?)?;
        *self = Self::default();
        for part in parts {
            self.add(&serde_json::from_slice(&part).map_err(unreadable)?);
        }
        Ok(())
    }
}

/// What one step tells the dashboard.
#[derive(Debug)]
pub struct StepOutput {
    metrics: Metrics,
    items: usize,
}

impl StepOutput {
    /// Figures over a number of examples.
    pub fn new(metrics: Metrics, items: usize) -> Self {
        Self { metrics, items }
    }
}

impl ItemLazy for StepOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

/// One figure out of a step's output, with the number of examples that it stands for.
#[derive(Debug, Clone)]
pub struct AdapterInput {
    metrics: Metrics,
    items: usize,
}

impl Adaptor<AdapterInput> for StepOutput {
    fn adapt(&self) -> AdapterInput {
        AdapterInput { metrics: self.metrics.clone(), items: self.items }
    }
}

/// A figure on the dashboard: the last value and the mean over the epoch.
#[derive(Debug, Clone)]
pub struct MetricAdapter {
    name: MetricName,
    higher_is_better: bool,
    last: f64,
    sum: f64,
    items: usize,
}

impl MetricAdapter {
    /// Shows the figure of that name.
    pub fn new(name: &str, higher_is_better: bool) -> Self {
        Self { name: Arc::new(name.to_owned()), higher_is_better, last: f64::NAN, sum: 0.0, items: 0 }
    }

    fn mean(&self) -> f64 {
        self.sum / self.items.max(1) as f64
    }
}

fn short(value: f64) -> String {
    if value != 0.0 && value.abs() < 0.01 { format!("{value:.2e}") } else { format!("{value:.3}") }
}

impl Metric for MetricAdapter {
    type Input = AdapterInput;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes { unit: None, higher_is_better: self.higher_is_better }.into()
    }

    fn update(
        &mut self,
        input: &AdapterInput,
        metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let value = match self.name.as_str() {
            LEARNING_RATE => metadata.lr.as_ref().map(|rate| rate.base()),
            name => input.metrics.get(name),
        };
        let Some(value) = value else { return Ok(SerializedEntry::not_available(None)) };
        self.last = value;
        self.sum += value * input.items as f64;
        self.items += input.items;
        let formatted = format!("epoch {} - batch {}", short(self.mean()), short(value));
        Ok(SerializedEntry::new(formatted, self.final_value().serialize()))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        if self.items == 0 {
            return Ok(SerializedEntry::not_available(None));
        }
        Ok(SerializedEntry::new(format!("epoch {}", short(self.mean())), self.final_value().serialize()))
    }

    fn clear(&mut self) {
        *self = Self::new(&self.name, self.higher_is_better);
    }
}

impl Numeric for MetricAdapter {
    fn value(&self) -> Option<NumericEntry> {
        (self.items > 0).then_some(NumericEntry::Value(self.last))
    }

    fn running_value(&self) -> Option<NumericEntry> {
        (self.items > 0).then(|| self.final_value())
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Final(self.mean())
    }
}

/// How a run shows its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dashboard {
    /// burn-train's dashboard.
    Terminal,
    /// One line an epoch on standard output.
    Lines,
    /// Nothing.
    Silent,
}

impl Dashboard {
    /// The dashboard where standard output is a terminal and it was not declined, lines elsewhere.
    pub fn choose(declined: bool) -> Self {
        if !declined && std::io::stdout().is_terminal() { Self::Terminal } else { Self::Lines }
    }

    /// The renderer, or none for burn-train's own. Lines are printed by the loop itself, which knows the figures.
    pub(crate) fn renderer(self) -> Option<Box<dyn MetricsRenderer>> {
        match self {
            Self::Terminal => None,
            Self::Lines | Self::Silent => Some(Box::new(Quiet)),
        }
    }
}

/// burn-train's dashboard puts the terminal into raw mode, in which Ctrl-C is a key like any other that it ignores.
/// This makes it a signal again.
pub(crate) fn keep_ctrl_c() {
    #[cfg(unix)]
    {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let terminal = std::io::stdin();
        if let Ok(mut modes) = tcgetattr(&terminal)
            && !modes.local_modes.contains(LocalModes::ISIG)
        {
            modes.local_modes |= LocalModes::ISIG;
            // without it Ctrl-C is a key again: a nuisance, and no reason to stop a run
            let _ = tcsetattr(&terminal, OptionalActions::Now, &modes);
        }
    }
}

/// A renderer that shows nothing: burn-train's own prints a line for every batch where there is no terminal.
struct Quiet;

impl MetricsRendererTraining for Quiet {
    fn update_train(&mut self, _state: MetricState) {}
    fn update_valid(&mut self, _state: MetricState) {}
}

impl TrainingProgressLogger for Quiet {
    fn start(&mut self, _epochs: usize, _from: usize, _items: Option<usize>, _label: Option<&str>) {}
    fn update_epoch(&mut self, _epoch: usize) {}
    fn start_split(&mut self, _split: &str, _items: usize) {}
    fn update_split(&mut self, _items: usize) {}
    fn end_split(&mut self) {}
    fn end(&mut self) {}
    fn log_event_training(&mut self, _event: String) {}
}

impl MetricsRendererEvaluation for Quiet {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl EvaluationProgressLogger for Quiet {
    fn start_global_progress(&mut self, _tests: usize) {}
    fn start_test(&mut self, _name: &str, _items: usize) {}
    fn update_test_progress(&mut self, _items: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRenderer for Quiet {
    fn manual_close(&mut self) {}
    fn register_metric(&mut self, _definition: MetricDefinition) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::data::dataloader::Progress;

    #[test]
    fn a_figures_epoch_value_is_the_mean_over_examples() {
        let metadata = MetricMetadata { progress: Progress::new(1, 2, None), iteration: None, lr: None };
        let mut metric = MetricAdapter::new(LOSS, false);
        for (value, items) in [(1.0, 3), (5.0, 1)] {
            metric.update(&StepOutput::new(Metrics::one(LOSS, value), items).adapt(), &metadata).unwrap();
        }
        assert_eq!(metric.final_value().current(), 2.0);
        metric.clear();
        assert!(metric.value().is_none());
    }

    #[test]
    fn figures_survive_json_to_the_last_bit_and_in_order() {
        let metrics = Metrics::one("b", 0.1 + 0.2).with("a", 1.0 / 3.0);
        let text = serde_json::to_string(&metrics).unwrap();
        assert!(text.starts_with(r#"{"b""#));
        assert_eq!(serde_json::from_str::<Metrics>(&text).unwrap(), metrics);
    }
}
