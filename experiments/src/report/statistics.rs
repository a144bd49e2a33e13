//! Statistics of a few seeds and some hundred test clips: mean and spread, confidence of a difference, and
//! overfitting after the best epoch.
//!
//! Two variants are compared on the same clips, so the clips are resampled in pairs (Koehn 2004): each
//! resample draws as many clips as there are, with replacement, and computes the metrics of all runs on it.
//! Every metric here is a function of sums over clips (a mean, a ratio of two counts, BLEU's and METEOR's
//! counts), so a run is one row of numbers a clip, and a resample is a weighted sum of rows.
//!
//! CIDEr keeps the document frequencies of the whole split in every resample: they are part of the metric,
//! not of the sample, and a clip drawn twice would otherwise change the weights of the words in its captions.

use data::random::RandomStream;
use rayon::prelude::*;

use crate::text::numbers::NumberFormat;

/// A metric over seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub mean: f64,
    /// The standard deviation of a sample (divided by n - 1); none of a single value.
    pub deviation: Option<f64>,
    pub count: usize,
}

impl Spread {
    /// Of some values; none of no value.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares = || values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        match values.len() {
            0 => None,
            1 => Some(Self { mean, deviation: None, count: 1 }),
            count => Some(Self { mean, deviation: Some((squares() / (n - 1.0)).sqrt()), count }),
        }
    }

    /// Of values in the units of a format; none of no value.
    pub(crate) fn scaled(values: impl IntoIterator<Item = f64>, format: &NumberFormat) -> Option<Self> {
        Self::of(&values.into_iter().map(|value| value * format.scale).collect::<Vec<_>>())
    }

    /// The mean, and after "±" the standard deviation where there is one.
    pub(crate) fn text(&self, digits: usize) -> String {
        match self.deviation {
            None => format!("{:.digits$}", self.mean),
            Some(deviation) => format!("{:.digits$} ± {deviation:.digits$}", self.mean),
        }
    }
}

/// Mean and spread of values in a format; empty for no value.
pub(crate) fn print_all(values: impl IntoIterator<Item = f64>, format: &NumberFormat) -> String {
    let Some(spread) = Spread::scaled(values, format) else { return String::new() };
    // the mean of whole numbers has a digit, unless they are all the same
    let is_split = format.digits == 0 && spread.deviation.is_some_and(|deviation| deviation > 0.0);
    spread.text(if is_split { 1 } else { format.digits })
}

/// How a bootstrap draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resampling {
    pub resamples: usize,
    /// Random seed: the same seed gives the same resamples on every machine and with any number of threads.
    pub seed: u64,
}

impl Default for Resampling {
    fn default() -> Self {
        Self { resamples: 10_000, seed: 0 }
    }
}

/// The metrics of each resample.
///
/// `clips` has one row a clip, all of one length; `metrics` reads the columns' sums over a resample, in which
/// a clip that was drawn twice counts twice.
///
/// # Shapes
/// `clips`: `[clips, columns]`; `metrics`: `[columns] -> [metrics]`; result: `[resamples, metrics]`
pub(crate) fn resample<F>(clips: &[Vec<f64>], resampling: Resampling, metrics: F) -> Vec<Vec<f64>>
where
    F: Fn(&[f64]) -> Vec<f64> + Sync,
{
    let columns = clips.first().map_or(0, Vec::len);
    let room = || (vec![0u32; clips.len()], vec![0.0; columns]);
    let draw = |(times, sums): &mut (Vec<u32>, Vec<f64>), resample: usize| {
        let mut random = RandomStream::new(resampling.seed, "bootstrap", resample as u64);
        times.fill(0);
        for _ in 0..clips.len() {
            times[random.below(clips.len())] += 1;
        }
        sums.fill(0.0);
        for (row, &times) in clips.iter().zip(&*times) {
            if times > 0 {
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(times) * value);
            }
        }
        metrics(sums)
    };
    (0..resampling.resamples).into_par_iter().map_init(room, draw).collect()
}

/// The difference of two variants, and its confidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Difference {
    pub difference: f64,
    /// Lower end of the 95 % interval: the resamples' percentile 2.5.
    pub low: f64,
    /// Upper end: percentile 97.5.
    pub high: f64,
    /// Two-sided: twice the share of resamples with the rarer sign or no difference, the test clips counted
    /// as one more resample. It is below 0.05 where the interval does not contain 0.
    pub p: f64,
}

impl Difference {
    /// From the difference on the test clips and on each resample. None where one of them has no value: too
    /// few clips have what the metric counts.
    pub(crate) fn of(difference: f64, mut resampled: Vec<f64>) -> Option<Self> {
        if resampled.is_empty() || !difference.is_finite() || resampled.iter().any(|value| !value.is_finite())
        {
            return None;
        }
        resampled.sort_unstable_by(f64::total_cmp);
        let share = |is_counted: &dyn Fn(f64) -> bool| {
            let counted = resampled.iter().filter(|&&value| is_counted(value)).count();
            (counted + 1) as f64 / (resampled.len() + 1) as f64
        };
        let p = 2.0 * share(&|value| value <= 0.0).min(share(&|value| value >= 0.0));
        Some(Self {
            difference,
            low: percentile(&resampled, 0.025),
            high: percentile(&resampled, 0.975),
            p: p.min(1.0),
        })
    }
}

/// Between the two nearest of the sorted values, as NumPy does it.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// A validation metric over the epochs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Course {
    /// The epoch that was chosen.
    pub best_epoch: usize,
    pub best: f64,
    pub last_epoch: usize,
    pub last: f64,
}

impl Course {
    /// From the epochs with their metric, in order; none where the chosen one is not among them.
    pub(crate) fn of(epochs: &[(usize, f64)], best_epoch: usize) -> Option<Self> {
        let &(_, best) = epochs.iter().find(|(epoch, _)| *epoch == best_epoch)?;
        let &(last_epoch, last) = epochs.last()?;
        Some(Self { best_epoch, best, last_epoch, last })
    }

    /// The loss after the best epoch: overfitting, as in the paper's Fig. 4 and 5.
    pub(crate) fn lost(&self) -> f64 {
        self.best - self.last
    }
}

/// Training after the best epoch: overfitting, oscillation, and whether loss and score go together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct After {
    /// Mean training loss of the later epochs; none where there is no later epoch.
    pub loss: Option<f64>,
    /// Standard deviation (divided by n - 1) of the validation scores of the later epochs; none of less than
    /// two.
    pub deviation: Option<f64>,
    /// Pearson's correlation of training loss and validation score over all epochs; none of less than three,
    /// and where one of them is constant.
    pub correlation: Option<f64>,
}

impl After {
    /// From the epochs with their training loss and validation score, in order; none where the best one is
    /// not among them.
    pub(crate) fn of(epochs: &[(usize, Option<f64>, Option<f64>)], best_epoch: usize) -> Option<Self> {
        let best = epochs.iter().position(|(epoch, ..)| *epoch == best_epoch)?;
        let later = &epochs[best + 1..];
        let losses: Vec<f64> = later.iter().filter_map(|(_, loss, _)| *loss).collect();
        let scores: Vec<f64> = later.iter().filter_map(|(.., score)| *score).collect();
        let pairs: Vec<(f64, f64)> =
            epochs.iter().filter_map(|(_, loss, score)| Some(((*loss)?, (*score)?))).collect();
        Some(Self {
            loss: Spread::of(&losses).map(|spread| spread.mean),
            deviation: Spread::of(&scores).and_then(|spread| spread.deviation),
            correlation: correlation(&pairs),
        })
    }
}

/// Pearson's correlation.
fn correlation(pairs: &[(f64, f64)]) -> Option<f64> {
    let (first, second): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let (first_mean, second_mean) = (Spread::of(&first)?.mean, Spread::of(&second)?.mean);
    let products = pairs.iter().map(|(a, b)| (a - first_mean) * (b - second_mean)).sum::<f64>();
    let squares = |values: &[f64], mean: f64| values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    let scale = (squares(&first, first_mean) * squares(&second, second_mean)).sqrt();
    (pairs.len() >= 3 && scale > 0.0).then(|| products / scale)
}

#[cfg(test)]
mod tests;
