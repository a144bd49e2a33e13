//! The learning rate, step by step.

use serde::{Deserialize, Serialize};

/// Linear warm-up, then half a cosine down to a smallest rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cosine {
    /// Highest rate, reached at the end of the warm-up.
    pub peak: f64,
    /// Rate of the last step.
    pub last: f64,
    /// Steps of the warm-up.
    pub warmup: usize,
    /// Steps of the whole run.
    pub total: usize,
}

impl Cosine {
    /// The rate of a step, counted from 0.
    pub fn at(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let length = self.total.saturating_sub(self.warmup + 1).max(1);
        let progress = ((step - self.warmup) as f64 / length as f64).min(1.0);
        self.last + (self.peak - self.last) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_to_the_peak_and_falls_to_the_last_rate() {
        let cosine = Cosine { peak: 1.0, last: 0.1, warmup: 4, total: 15 };
        assert_eq!((0..4).map(|step| cosine.at(step)).collect::<Vec<_>>(), [0.25, 0.5, 0.75, 1.0]);
        assert!((cosine.at(4) - 1.0).abs() < 1e-12);
        assert!((cosine.at(9) - 0.55).abs() < 1e-12, "half way");
        assert!((cosine.at(14) - 0.1).abs() < 1e-12);
        assert!((cosine.at(100) - 0.1).abs() < 1e-12, "stays there");
    }

    #[test]
    fn works_without_a_warm_up_and_for_a_single_step() {
        assert_eq!(Cosine { peak: 2.0, last: 0.0, warmup: 0, total: 1 }.at(0), 2.0);
    }
}
