//! What can be said from a few seeds and some hundred test clips: mean and spread, how sure a difference is, and how
//! far training went past its best epoch.
//!
//! Two variants are compared on the same clips, so the clips are resampled in pairs (Koehn 2004): each resample draws as
//! many clips as there are, with replacement, and computes the figures of all runs on it. Every figure here is a
//! function of sums over clips (a mean, a ratio of two counts, BLEU's and METEOR's counts), so a run is one row of
//! numbers a clip, and a resample is a weighted sum of rows.
//!
//! CIDEr keeps the document frequencies of the whole split in every resample: they belong to the measure, not to the
//! sample, and a clip drawn twice would otherwise change what its own words weigh.

use data::random::RandomStream;
use rayon::prelude::*;

/// A figure over seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The standard deviation of a sample (divided by n - 1); none of a single value.
    pub deviation: Option<f64>,
    /// How many values.
    pub count: usize,
}

impl Spread {
    /// Of some values; none of no value.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares = || values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        match values.len() {
            0 => None,
            1 => Some(Self { mean, deviation: None, count: 1 }),
            count => Some(Self { mean, deviation: Some((squares() / (n - 1.0)).sqrt()), count }),
        }
    }
}

/// How a bootstrap draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resampling {
    /// How many times as many clips as there are are drawn.
    pub resamples: usize,
    /// Names the draws: the same seed gives the same resamples on every machine and with any number of threads.
    pub seed: u64,
}

impl Default for Resampling {
    fn default() -> Self {
        Self { resamples: 10_000, seed: 0 }
    }
}

/// The figures of each resample.
///
/// `clips` has one row a clip, all of one length; `figures` is given the columns' sums over a resample, in which a clip
/// that was drawn twice counts twice.
///
/// # Shapes
/// `clips`: `[clips, columns]`; `figures`: `[columns] -> [figures]`; result: `[resamples, figures]`
pub fn resample<F>(clips: &[Vec<f64>], resampling: Resampling, metrics: F) -> Vec<Vec<f64>>
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

/// How much two variants differ, and how sure that is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// On the clips as they are.
    pub difference: f64,
    /// Lower end of the 95 % interval: the resamples' percentile 2.5.
    pub low: f64,
    /// Upper end: percentile 97.5.
    pub high: f64,
    /// Two-sided: twice the share of resamples in which the sign is the rarer one or there is no difference, the clips
    /// as they are counted as one more of them. It is under 0.05 where 0 lies outside the interval.
    pub p: f64,
}

impl Difference {
    /// From the difference on the clips as they are and on each resample. None where it has no value, on the clips or on
    /// a single resample: too few clips have what the figure counts.
    pub fn of(difference: f64, mut resampled: Vec<f64>) -> Option<Self> {
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

/// How validation went over the epochs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Course {
    /// The epoch that was chosen.
    pub best_epoch: usize,
    /// Its figure.
    pub best: f64,
    /// The last epoch.
    pub last_epoch: usize,
    /// Its figure.
    pub last: f64,
}

impl Course {
    /// From the epochs with their figure, in order; none where the chosen one is not among them.
    pub fn of(epochs: &[(usize, f64)], best_epoch: usize) -> Option<Self> {
        let &(_, best) = epochs.iter().find(|(epoch, _)| *epoch == best_epoch)?;
        let &(last_epoch, last) = epochs.last()?;
        Some(Self { best_epoch, best, last_epoch, last })
    }

    /// What was lost after the best epoch: the overfitting that the paper's Fig. 4 and 5 show.
    pub fn lost(&self) -> f64 {
        self.best - self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    /// Made by `scripts/reference/bootstrap.py`, which names its versions and the command.
    #[derive(Deserialize)]
    struct Fixture {
        resamples: usize,
        cases: Vec<Case>,
        corpus: Corpus,
    }

    #[derive(Deserialize)]
    struct Case {
        name: String,
        first: Vec<f64>,
        second: Vec<f64>,
        expected: Expected,
        permutation_p: f64,
    }

    #[derive(Deserialize)]
    struct Expected {
        difference: f64,
        interval: [f64; 2],
        standard_error: f64,
        p: f64,
        /// The smallest amount by which a resampled difference can change: percentiles jump by it.
        step: f64,
    }

    /// Counts of two systems whose figure is no mean of the clips' figures.
    #[derive(Deserialize)]
    struct Corpus {
        first: Vec<[f64; 2]>,
        second: Vec<[f64; 2]>,
        expected: Expected,
    }

    fn fixture() -> Fixture {
        serde_json::from_str(include_str!("../tests/data/bootstrap.json")).unwrap()
    }

    fn difference_of_means(first: &[f64], second: &[f64], resampling: Resampling) -> Difference {
        let rows: Vec<Vec<f64>> = first.iter().zip(second).map(|(a, b)| vec![*a, *b]).collect();
        let n = rows.len() as f64;
        let resampled = resample(&rows, resampling, |sums| vec![(sums[0] - sums[1]) / n]);
        let mean = |values: &[f64]| values.iter().sum::<f64>() / n;
        Difference::of(mean(first) - mean(second), resampled.concat()).unwrap()
    }

    /// Both sides draw at random. A percentile 2.5 of N draws from a normal distribution of deviation s has the error
    /// s * sqrt(0.025 * 0.975 / N) / 0.0584; the tolerance is four times that, for two sides of N draws each. A p is a
    /// share of N draws, twice.
    fn assert_near(name: &str, ours: &Difference, theirs: &Expected, random: usize) {
        let both = (2.0 / random as f64).sqrt();
        let tolerance =
            4.0 * theirs.standard_error * (0.025f64 * 0.975).sqrt() / 0.0584 * both + theirs.step * 1.001;
        for (ours, theirs) in [(ours.low, theirs.interval[0]), (ours.high, theirs.interval[1])] {
            assert!((ours - theirs).abs() < tolerance, "{name}: {ours} against {theirs} +- {tolerance}");
        }
        let p = theirs.p;
        let tolerance = 4.0 * 2.0 * (p / 2.0 * (1.0 - p / 2.0)).sqrt() * both + 2.0 / random as f64;
        assert!((ours.p - p).abs() < tolerance, "{name}: p {} against {p} +- {tolerance}", ours.p);
    }

    #[test]
    fn intervals_and_p_of_means_equal_scipys() {
        let fixture = fixture();
        assert_eq!(fixture.cases.len(), 4);
        for case in &fixture.cases {
            let resampling = Resampling { resamples: fixture.resamples, seed: 1 };
            let ours = difference_of_means(&case.first, &case.second, resampling);
            assert!((ours.difference - case.expected.difference).abs() < 1e-12, "{}", case.name);
            assert_near(&case.name, &ours, &case.expected, fixture.resamples);
            // another test of the same question; they meet as the number of clips grows, and not before
            assert!(
                (ours.p - case.permutation_p).abs() < 0.04,
                "{}: {} against {}",
                case.name,
                ours.p,
                case.permutation_p
            );
        }
    }

    #[test]
    fn a_figure_of_summed_counts_is_resampled_as_such() {
        let Fixture { resamples, corpus, .. } = fixture();
        let rows: Vec<Vec<f64>> =
            corpus.first.iter().zip(&corpus.second).map(|(a, b)| [*a, *b].concat()).collect();
        let figure = |sums: &[f64]| sums[0] / sums[1] - sums[2] / sums[3];
        let resampled = resample(&rows, Resampling { resamples, seed: 2 }, |sums| vec![figure(sums)]);
        let whole: Vec<f64> = (0..4).map(|column| rows.iter().map(|row| row[column]).sum()).collect();
        let ours = Difference::of(figure(&whole), resampled.concat()).unwrap();
        assert!((ours.difference - corpus.expected.difference).abs() < 1e-12);
        assert_near("counts", &ours, &corpus.expected, resamples);
    }

    #[test]
    fn the_same_seed_gives_the_same_draws_with_any_number_of_threads() {
        let case = &fixture().cases[0];
        let ours = |seed, threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                difference_of_means(&case.first, &case.second, Resampling { resamples: 500, seed })
            })
        };
        assert_eq!(ours(3, 1), ours(3, 4));
        assert_ne!(ours(3, 1), ours(4, 1));
    }

    #[test]
    fn equal_variants_differ_by_nothing_for_sure() {
        let values: Vec<f64> = (0..20).map(f64::from).collect();
        let ours = difference_of_means(&values, &values, Resampling::default());
        assert_eq!(ours, Difference { difference: 0.0, low: 0.0, high: 0.0, p: 1.0 });
    }

    #[test]
    fn p_is_never_zero_and_agrees_with_the_interval() {
        let better: Vec<f64> = (0..30).map(|clip| 1.0 + f64::from(clip) * 0.01).collect();
        let ours = difference_of_means(&better, &vec![0.0; 30], Resampling { resamples: 999, seed: 0 });
        assert!(ours.low > 0.0);
        assert_eq!(ours.p, 2.0 / 1000.0);
    }

    #[test]
    fn a_difference_without_a_value_somewhere_is_none() {
        assert_eq!(Difference::of(f64::NAN, vec![1.0]), None);
        assert_eq!(Difference::of(1.0, vec![1.0, f64::NAN]), None);
        assert_eq!(Difference::of(1.0, Vec::new()), None);
    }

    #[test]
    fn no_clip_has_no_columns() {
        assert_eq!(
            resample(&[], Resampling { resamples: 2, seed: 0 }, <[f64]>::to_vec),
            [Vec::new(), Vec::<f64>::new()]
        );
    }

    #[test]
    fn spread_is_that_of_a_sample() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[1.5]), Some(Spread { mean: 1.5, deviation: None, count: 1 }));
        assert_eq!(
            Spread::of(&[1.0, 3.0]),
            Some(Spread { mean: 2.0, deviation: Some(2f64.sqrt()), count: 2 })
        );
    }

    #[test]
    fn overfitting_is_counted_from_the_chosen_epoch_to_the_last() {
        let epochs = [(1, 0.5), (2, 0.9), (3, 0.7)];
        let course = Course::of(&epochs, 2).unwrap();
        assert_eq!((course.best, course.last_epoch), (0.9, 3));
        assert!((course.lost() - 0.2).abs() < 1e-12);
        assert_eq!(Course::of(&epochs, 3).unwrap().lost(), 0.0);
        assert_eq!(Course::of(&epochs, 4), None);
    }
}
