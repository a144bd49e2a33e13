//! Named numbers: losses of training steps, scores of evaluations.

use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::processes::{ProcessGroup, gather_json};

/// Loss.
pub const LOSS: &str = "Loss";
/// Learning rate.
pub const LEARNING_RATE: &str = "Learning rate";
/// CIDEr.
pub const CIDER: &str = "CIDEr";
/// BLEU-4.
pub const BLEU_4: &str = "BLEU-4";
/// Norm of all gradients together, before clipping.
pub const GRADIENT_NORM: &str = "Gradient norm";

/// A metric that the dashboard shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricSpec {
    /// Its name.
    pub name: String,
    /// Whether a higher value is better.
    pub higher_is_better: bool,
}

impl MetricSpec {
    /// A metric of that name.
    pub fn new(name: &str, higher_is_better: bool) -> Self {
        Self { name: name.to_owned(), higher_is_better }
    }
}

/// Named numbers, in the order in which they were added.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metrics(serde_json::Map<String, serde_json::Value>);

impl Metrics {
    /// A single metric.
    pub fn one(name: &str, value: f64) -> Self {
        Self::default().with(name, value)
    }

    /// Adds a metric.
    #[must_use]
    pub fn with(mut self, name: &str, value: f64) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// The metric of that name; `None` for NaN too, which JSON cannot express.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).and_then(serde_json::Value::as_f64)
    }

    /// All metrics except one.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.0.shift_remove(name);
        self
    }

    /// All metrics.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?)))
    }

    /// Adds all metrics of another set.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Every metric times a number.
    #[must_use]
    pub fn times(mut self, factor: f64) -> Self {
        for value in self.0.values_mut() {
            *value = (value.as_f64().unwrap_or(f64::NAN) * factor).into();
        }
        self
    }

    /// Adds the values of another set to those of the same names; NaN stays NaN.
    pub fn add(&mut self, other: &Self) {
        for (name, value) in &other.0 {
            let sum = match self.0.get(name) {
                None => value.clone(),
                Some(own) => (own.as_f64().unwrap_or(f64::NAN) + value.as_f64().unwrap_or(f64::NAN)).into(),
            };
            self.0.insert(name.clone(), sum);
        }
    }

    /// Sums the metrics of all processes; a process without rows may have none.
    pub(crate) fn sum_over(&mut self, processes: &dyn ProcessGroup) -> Result<(), TrainError> {
        let parts = gather_json(processes, std::mem::take(self), "metrics")?;
        parts.iter().for_each(|part| self.add(part));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_survive_json_bit_for_bit_and_in_order() {
        let metrics = Metrics::one("b", 0.1 + 0.2).with("a", 1.0 / 3.0);
        let text = serde_json::to_string(&metrics).unwrap();
        assert!(text.starts_with(r#"{"b""#));
        assert_eq!(serde_json::from_str::<Metrics>(&text).unwrap(), metrics);
    }
}
