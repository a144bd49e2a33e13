//! Every pair of variants on the same test clips: how much they differ, and how sure that is.

use super::folder::Study;
use super::scores::{Measure, Scored, figures};
use crate::statistics::{Difference, Resampling, resample};

/// Two variants and one measure.
#[derive(Debug, Clone)]
pub(super) struct Comparison {
    /// The variant that is subtracted from, by its number.
    pub first: usize,
    /// The variant that is subtracted.
    pub second: usize,
    /// What is compared.
    pub measure: Measure,
    /// Seeds that both have and that were averaged; nothing ran where there is none.
    pub seeds: usize,
    /// First minus second. None where nothing ran, or where too few captions state what is asked.
    pub difference: Option<Difference>,
}

/// Compares every pair of variants by every measure, on resamples that all of them share.
pub(super) fn compare(study: &Study, resampling: Resampling) -> Vec<Comparison> {
    let measures = &study.measures;
    let captioned: Vec<Captioned<'_>> = study
        .variants
        .iter()
        .enumerate()
        .flat_map(|(number, variant)| variant.runs().map(move |run| (number, run)))
        .filter_map(|(variant, run)| {
            Some(Captioned { variant, seed: run.summary.seed, scored: run.scored.as_ref()? })
        })
        .collect();
    let clips = study.clips.as_ref().map_or(0, Vec::len);
    let row = |clip: usize| captioned.iter().flat_map(|run| run.scored.rows[clip].iter().copied()).collect();
    let rows: Vec<Vec<f64>> = (0..clips).map(row).collect();
    let resampled = match captioned.is_empty() {
        true => Vec::new(),
        false => resample(&rows, resampling, |sums| figures(measures, sums, clips)),
    };

    let mut comparisons = Vec::new();
    for first in 0..study.variants.len() {
        for second in first + 1..study.variants.len() {
            let pairs = pairs(&captioned, first, second);
            for (at, &measure) in measures.iter().enumerate() {
                let over_seeds = |figure: &dyn Fn(usize) -> f64| {
                    pairs.iter().map(|&(a, b)| figure(a) - figure(b)).sum::<f64>() / pairs.len() as f64
                };
                let observed = over_seeds(&|run| captioned[run].scored.figures[at]);
                let each = resampled.iter().map(|row| over_seeds(&|run| row[run * measures.len() + at]));
                let difference =
                    if pairs.is_empty() { None } else { Difference::of(observed, each.collect()) };
                comparisons.push(Comparison { first, second, measure, seeds: pairs.len(), difference });
            }
        }
    }
    comparisons
}

/// A run with captions.
struct Captioned<'a> {
    variant: usize,
    seed: u64,
    scored: &'a Scored,
}

/// The runs of two variants that have the same seed.
fn pairs(captioned: &[Captioned<'_>], first: usize, second: usize) -> Vec<(usize, usize)> {
    let of = |variant: usize| (0..captioned.len()).filter(move |&run| captioned[run].variant == variant);
    let partner = |left: usize| of(second).find(|&right| captioned[right].seed == captioned[left].seed);
    of(first).filter_map(|left| Some((left, partner(left)?))).collect()
}
