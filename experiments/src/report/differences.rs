//! The section of differences: every pair of variants on the same test clips, with the confidence of the
//! difference.

use std::iter::once;

use super::contents::Block;
use super::folder::{NOT_RUN, Study};
use super::scores::{Measure, Scored, metrics_of};
use super::statistics::{Difference, Resampling, resample};
use crate::text::numbers::NumberFormat;
use crate::text::{Table, thousands};

/// The blocks of the section.
pub(super) fn differences(study: &Study, resampling: Resampling) -> Vec<Block> {
    let comparisons = compare(study, resampling);
    let name = |variant: usize| study.variants[variant].name.as_str();
    let pair = |comparison: &Comparison| format!("{} − {}", name(comparison.first), name(comparison.second));
    let mut blocks = Vec::new();
    let Some(&headline) = study.measures.first().filter(|_| !comparisons.is_empty()) else {
        let why = match (study.variants.len(), &study.clips) {
            (1, _) => "There is one variant, so there is nothing to compare.",
            (_, None) => "Without the test clips nothing can be compared.",
            _ => "Nothing can be compared.",
        };
        return vec![Block::Text(why.to_owned())];
    };
    let mut table = Table::new(["pair", "difference", "95 % interval", "p", "seeds"]);
    for comparison in comparisons.iter().filter(|comparison| comparison.measure == headline) {
        let cells = printed(comparison).unwrap_or_else(|| [0; 3].map(|_| absence(study, comparison)));
        table.push(once(pair(comparison)).chain(cells).chain([comparison.seeds.to_string()]));
    }
    blocks.push(Block::Table(format!("Differences in test {}", headline.name()), table));
    let others = &study.measures[1..];
    if !others.is_empty() {
        let mut table = Table::new(once("pair").chain(others.iter().map(|measure| measure.name())));
        for whole in comparisons.chunks(study.measures.len()) {
            let cell = |comparison: &Comparison| match printed(comparison) {
                Some([difference, interval, p]) => format!("{difference} ({interval}), p {p}"),
                None => absence(study, comparison),
            };
            table.push(once(pair(&whole[0])).chain(whole[1..].iter().map(cell)));
        }
        let caption = "Differences in the other metrics: difference (95 % interval), p";
        blocks.push(Block::Table(caption.to_owned(), table));
    }
    let clips = study.clips.as_ref().map_or(0, Vec::len);
    let warning = " With so few clips the interval is too narrow and p too small.";
    let few = if clips < FEW_CLIPS { warning } else { "" };
    blocks.push(Block::Text(format!(
        "Paired bootstrap over the {} test clips: {} resamples with random seed {}, the same for all; metrics are averaged over the \
         seeds that both variants have. BLEU-4 and METEOR are those of each resample's summed counts; CIDEr keeps the document \
         frequencies of the whole split. Interval and p include the variance between test clips, not the variance between \
         training seeds: see the spread over seeds. p is two-sided and not corrected for the number of comparisons.{few}",
        thousands(clips),
        thousands(resampling.resamples),
        resampling.seed
    )));
    blocks
}

/// Difference, interval and p; none where two variants are not compared.
fn printed(comparison: &Comparison) -> Option<[String; 3]> {
    let (format, found) = (NumberFormat::of(comparison.measure.name()), comparison.difference?);
    let [difference, low, high] =
        [found.difference, found.low, found.high].map(|value| signed(value, &format));
    let p = if found.p < 0.001 { "< 0.001".to_owned() } else { format!("{:.3}", found.p) };
    Some([difference, format!("{low} to {high}"), p])
}

/// Why two variants are not compared.
fn absence(study: &Study, comparison: &Comparison) -> String {
    let ran = |variant: usize| study.variants[variant].finished().next().is_some();
    match (ran(comparison.first) && ran(comparison.second), comparison.seeds) {
        (false, _) => NOT_RUN.to_owned(),
        (true, 0) => "not compared: no captions of one seed".to_owned(),
        (true, _) => "not compared: too few captions state it".to_owned(),
    }
}

/// With fewer clips a bootstrap underestimates their variance.
const FEW_CLIPS: usize = 50;

fn signed(value: f64, format: &NumberFormat) -> String {
    let (scaled, digits) = (value * format.scale, format.digits);
    let text = format!("{scaled:+.digits$}");
    // a minus sign instead of a hyphen, and none before a rounded 0
    if text.trim_start_matches(['+', '-']).chars().all(|digit| matches!(digit, '0' | '.')) {
        return text.trim_start_matches(['+', '-']).to_owned();
    }
    text.replace('-', "−")
}

/// Two variants and one metric.
#[derive(Debug, Clone)]
struct Comparison {
    /// Index of the first variant.
    first: usize,
    /// Index of the variant that is subtracted from it.
    second: usize,
    measure: Measure,
    /// Number of seeds that both have.
    seeds: usize,
    /// First minus second. None where nothing ran, or too few captions state what is counted.
    difference: Option<Difference>,
}

/// Compares every pair of variants by every metric, on the same resamples.
fn compare(study: &Study, resampling: Resampling) -> Vec<Comparison> {
    let measures = &study.measures;
    let captioned: Vec<Captioned<'_>> = study
        .variants
        .iter()
        .enumerate()
        .flat_map(|(number, variant)| variant.finished().map(move |run| (number, run)))
        .filter_map(|(variant, run)| {
            Some(Captioned { variant, seed: run.result.seed, scored: run.scored.as_ref()? })
        })
        .collect();
    let clips = study.clips.as_ref().map_or(0, Vec::len);
    let row = |clip: usize| captioned.iter().flat_map(|run| run.scored.rows[clip].iter().copied()).collect();
    let rows: Vec<Vec<f64>> = (0..clips).map(row).collect();
    let resampled = match captioned.is_empty() {
        true => Vec::new(),
        false => resample(&rows, resampling, |sums| metrics_of(measures, sums, clips)),
    };

    let mut comparisons = Vec::new();
    for first in 0..study.variants.len() {
        for second in first + 1..study.variants.len() {
            let pairs = pairs(&captioned, first, second);
            for (at, &measure) in measures.iter().enumerate() {
                let over_seeds = |value: &dyn Fn(usize) -> f64| {
                    pairs.iter().map(|&(a, b)| value(a) - value(b)).sum::<f64>() / pairs.len() as f64
                };
                let observed = over_seeds(&|run| captioned[run].scored.metrics[at]);
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
