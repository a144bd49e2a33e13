//! Learning-rate schedules.

use serde::{Deserialize, Serialize};

/// Shape of the learning-rate schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Linear warm-up, then half a cosine, step by step.
    #[default]
    Cosine,
    /// LAVIS's, see [`Schedule::at`].
    Lavis,
    /// Constant, after a linear warm-up.
    Constant,
}

/// The learning rate of every step of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The shape.
    pub shape: Shape,
    /// Rate at the start of the warm-up.
    pub first: f64,
    /// Peak rate.
    pub peak: f64,
    /// Rate at the end.
    pub last: f64,
    /// Steps of the warm-up.
    pub warmup: usize,
    /// Steps of the whole run.
    pub total: usize,
    /// Steps of an epoch of [`Shape::Lavis`].
    pub epoch: usize,
}

impl Schedule {
    /// The rate of a step, counted from 0.
    ///
    /// `lavis` (`common/optims.py`, `LinearWarmupCosineLRScheduler`) warms up in the first epoch only, by the
    /// step in it; from the second epoch on the rate changes once per epoch, by the cosine of the epoch's
    /// number. A warm-up longer than the first epoch ends there and the rate jumps; a shorter one is followed
    /// by the peak rate.
    pub fn at(&self, step: usize) -> f64 {
        match self.shape {
            Shape::Cosine => self.warmed(step, |step| {
                let length = self.total.saturating_sub(self.warmup + 1).max(1);
                self.cosine((step - self.warmup) as f64 / length as f64)
            }),
            Shape::Constant => self.warmed(step, |_| self.peak),
            Shape::Lavis => {
                let length = self.epoch.max(1);
                match step / length {
                    0 => {
                        let share = step as f64 / self.warmup.max(1) as f64;
                        (self.first + (self.peak - self.first) * share).min(self.peak)
                    }
                    epoch => self.cosine(epoch as f64 / (self.total / length).max(1) as f64),
                }
            }
        }
    }

    fn warmed(&self, step: usize, after: impl Fn(usize) -> f64) -> f64 {
        if step < self.warmup {
            return self.first + (self.peak - self.first) * (step + 1) as f64 / self.warmup as f64;
        }
        after(step)
    }

    fn cosine(&self, progress: f64) -> f64 {
        self.last + (self.peak - self.last) * 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSINE: Schedule =
        Schedule { shape: Shape::Cosine, first: 0.0, peak: 1.0, last: 0.1, warmup: 4, total: 15, epoch: 5 };

    #[test]
    fn rises_to_the_peak_and_falls_to_the_last_rate() {
        assert_eq!((0..4).map(|step| COSINE.at(step)).collect::<Vec<_>>(), [0.25, 0.5, 0.75, 1.0]);
        assert!((COSINE.at(4) - 1.0).abs() < 1e-12);
        assert!((COSINE.at(9) - 0.55).abs() < 1e-12, "half way");
        assert!((COSINE.at(14) - 0.1).abs() < 1e-12);
        assert!((COSINE.at(100) - 0.1).abs() < 1e-12, "stays there");
    }

    #[test]
    fn works_without_a_warm_up_and_for_a_single_step() {
        assert_eq!(Schedule { warmup: 0, total: 1, ..COSINE }.at(0), 1.0);
        assert_eq!(Schedule { shape: Shape::Constant, warmup: 0, ..COSINE }.at(13), 1.0);
    }

    /// Values by LAVIS's formulas for MSR-VTT: 254 steps an epoch, 1e-8 to 5e-5 to 1e-5, warm-up of 1,000
    /// steps.
    #[test]
    fn lavis_cuts_a_long_warm_up_and_then_falls_epoch_by_epoch() {
        let lavis = Schedule {
            shape: Shape::Lavis,
            first: 1e-8,
            peak: 5e-5,
            last: 1e-5,
            warmup: 1000,
            total: 254 * 20,
            epoch: 254,
        };
        let close = |rate: f64, expected: f64| assert!((rate - expected).abs() < 1e-15, "{rate} {expected}");
        close(lavis.at(0), 1e-8);
        close(lavis.at(253), 1e-8 + (5e-5 - 1e-8) * 0.253);
        let second = 1e-5 + 4e-5 * 0.5 * (1.0 + (std::f64::consts::PI / 20.0).cos());
        close(lavis.at(254), second);
        close(lavis.at(507), second);
        assert!(lavis.at(254) > 3.0 * lavis.at(253), "the jump");
        close(Schedule { warmup: 10, ..lavis }.at(200), 5e-5);
    }
}
