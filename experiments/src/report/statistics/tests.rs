//! Statistics against SciPy and by hand.

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

/// Counts of two systems whose metric is not a mean over clips.
#[derive(Deserialize)]
struct Corpus {
    first: Vec<[f64; 2]>,
    second: Vec<[f64; 2]>,
    expected: Expected,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../../../tests/data/bootstrap.json")).unwrap()
}

fn difference_of_means(first: &[f64], second: &[f64], resampling: Resampling) -> Difference {
    let rows: Vec<Vec<f64>> = first.iter().zip(second).map(|(a, b)| vec![*a, *b]).collect();
    let n = rows.len() as f64;
    let resampled = resample(&rows, resampling, |sums| vec![(sums[0] - sums[1]) / n]);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / n;
    Difference::of(mean(first) - mean(second), resampled.concat()).unwrap()
}

/// Both sides draw at random. A percentile 2.5 of N draws from a normal distribution of deviation s has the
/// error s * sqrt(0.025 * 0.975 / N) / 0.0584; the tolerance is four times that, for two sides of N draws
/// each. A p is a share of N draws, twice.
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
fn a_metric_of_summed_counts_is_resampled_as_such() {
    let Fixture { resamples, corpus, .. } = fixture();
    let rows: Vec<Vec<f64>> =
        corpus.first.iter().zip(&corpus.second).map(|(a, b)| [*a, *b].concat()).collect();
    let metric = |sums: &[f64]| sums[0] / sums[1] - sums[2] / sums[3];
    let resampled = resample(&rows, Resampling { resamples, seed: 2 }, |sums| vec![metric(sums)]);
    let whole: Vec<f64> = (0..4).map(|column| rows.iter().map(|row| row[column]).sum()).collect();
    let ours = Difference::of(metric(&whole), resampled.concat()).unwrap();
    assert!((ours.difference - corpus.expected.difference).abs() < 1e-12);
    assert_near("counts", &ours, &corpus.expected, resamples);
}

#[test]
fn the_same_seed_gives_the_same_draws_with_any_number_of_threads() {
    let case = &fixture().cases[0];
    let ours = |seed, threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| difference_of_means(&case.first, &case.second, Resampling { resamples: 500, seed }))
    };
    assert_eq!(ours(3, 1), ours(3, 4));
    assert_ne!(ours(3, 1), ours(4, 1));
}

#[test]
fn equal_variants_have_no_difference() {
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
fn several_values_are_printed_with_their_spread() {
    let format = NumberFormat { scale: 100.0, digits: 1 };
    assert_eq!(print_all([], &format), "");
    assert_eq!(print_all([0.0125], &format), "1.2");
    assert_eq!(print_all([0.01, 0.03], &format), "2.0 ± 1.4");
    assert_eq!(print_all([1.0, 2.0], &NumberFormat::WHOLE), "1.5 ± 0.7");
    assert_eq!(print_all([2.0, 2.0], &NumberFormat::WHOLE), "2 ± 0");
}

#[test]
fn spread_is_that_of_a_sample() {
    assert_eq!(Spread::of(&[]), None);
    assert_eq!(Spread::of(&[1.5]), Some(Spread { mean: 1.5, deviation: None, count: 1 }));
    assert_eq!(Spread::of(&[1.0, 3.0]), Some(Spread { mean: 2.0, deviation: Some(2f64.sqrt()), count: 2 }));
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

#[test]
fn training_after_the_best_epoch_is_that_of_the_later_ones() {
    // by hand: losses 2 and 1 after epoch 2, scores .6 and .8, their deviation .2 / sqrt 2
    let epochs = [
        (1, Some(4.0), Some(0.5)),
        (2, Some(3.0), Some(0.9)),
        (3, Some(2.0), Some(0.6)),
        (4, Some(1.0), Some(0.8)),
    ];
    let after = After::of(&epochs, 2).unwrap();
    assert_eq!(after.loss, Some(1.5));
    assert!((after.deviation.unwrap() - 0.2 / 2f64.sqrt()).abs() < 1e-12);
    // products -.3, squares 5 and .1
    assert!((after.correlation.unwrap() + 0.3 / 0.5f64.sqrt()).abs() < 1e-12, "{after:?}");

    let last = After::of(&epochs, 4).unwrap();
    assert_eq!((last.loss, last.deviation), (None, None));
    let one_later = After::of(&epochs, 3).unwrap();
    assert_eq!((one_later.loss, one_later.deviation), (Some(1.0), None));
    assert_eq!(After::of(&epochs, 5), None);
}

#[test]
fn a_loss_that_is_no_number_is_left_out() {
    let epochs = [(1, Some(1.0), Some(0.5)), (2, None, Some(0.4)), (3, Some(2.0), None)];
    let after = After::of(&epochs, 1).unwrap();
    assert_eq!(after, After { loss: Some(2.0), deviation: None, correlation: None });
}

#[test]
fn what_is_constant_is_correlated_with_nothing() {
    let constant = [1.0, 2.0, 3.0].map(|loss| (loss, 0.5));
    assert_eq!(correlation(&constant), None);
    assert_eq!(correlation(&[(1.0, 2.0), (2.0, 1.0), (3.0, 0.0)]), Some(-1.0));
}
