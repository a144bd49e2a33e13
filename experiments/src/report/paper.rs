//! The section of the paper: its numbers and statements beside our runs, on the same data.
//!
//! Scores on different data sets are not comparable, so a study on MSVD has only what the paper says of MSVD.
//! The tiny world is no data set of the paper: its runs stand beside MSR-VTT, and the section says so.

use std::iter::once;

use super::contents::{Block, course, models};
use super::folder::{NOT_RUN, Run, Study, Variant};
use super::statistics::{After, print_all};
use crate::config::Published;
use crate::text::numbers::NumberFormat;
use crate::text::{Table, distinct};

/// The text in place of what a table of the paper leaves open.
const DASH: &str = "-";

/// Names of the tiny world's data sets of captions and of questions.
const TINY: &str = "tiny";
const TINY_QUESTIONS: &str = "tiny-qa";

/// The blocks of the section; none where the study has nothing of the paper.
pub(super) fn blocks(study: &Study) -> Vec<Block> {
    if study.summary.published.is_empty() {
        return Vec::new();
    }
    let mut blocks = Vec::new();
    blocks.extend(elsewhere(study).map(Block::Text));
    blocks.extend(numbers(study));
    blocks.extend(compared(study));
    blocks.extend(methods(study));
    blocks.extend(statements(study));
    blocks.extend(contradictions(study));
    blocks
}

/// What the paper says of the study's data, or of no data set.
pub(super) fn of_the_same_data(study: &Study) -> impl Iterator<Item = &Published> {
    let ours = counterpart(study.summary.data_set.as_deref());
    study.summary.published.iter().filter(move |row| match &row.data_set {
        None => true,
        Some(data_set) => is_named(data_set, &ours),
    })
}

/// The data sets of the paper that a study's own stands beside. Summaries of older programs do not name the
/// tiny world.
fn counterpart(ours: Option<&str>) -> Vec<&str> {
    match ours {
        None => vec!["MSR-VTT", "MSRVTT-QA"],
        Some(TINY) => vec!["MSR-VTT"],
        Some(TINY_QUESTIONS) => vec!["MSRVTT-QA"],
        Some(own) => vec![own],
    }
}

fn is_of_the_tiny_world(study: &Study) -> bool {
    matches!(study.summary.data_set.as_deref(), None | Some(TINY | TINY_QUESTIONS))
}

/// Whether one of the names is that of the data set, in any spelling: `msrvtt-qa` is MSRVTT-QA.
fn is_named(data_set: &str, names: &[&str]) -> bool {
    let plain = |name: &str| -> String {
        name.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
    };
    names.iter().any(|name| plain(name) == plain(data_set))
}

/// A sentence about the data sets whose numbers are left out.
fn elsewhere(study: &Study) -> Option<String> {
    let ours = counterpart(study.summary.data_set.as_deref());
    let known = study.summary.published.iter().filter_map(|row| row.data_set.clone());
    let others: Vec<String> = distinct(known.filter(|data_set| !is_named(data_set, &ours)));
    if others.is_empty() {
        return None;
    }
    let others = others.join(", ");
    if is_of_the_tiny_world(study) {
        return Some(format!(
            "The tiny world is no data set of the paper. Its runs stand beside what the paper says of {}; what it says of {others} \
             is left out.",
            ours.join(" and ")
        ));
    }
    let has_numbers = of_the_same_data(study).any(|row| row.value.is_some());
    let none =
        if has_numbers { "" } else { "The paper prints no number of this study on the data named above. " };
    Some(format!(
        "{none}What the paper says of {others} is left out: scores on other data are not comparable."
    ))
}

/// The numbers that have a counterpart among our variants, or stand for themselves.
fn numbers(study: &Study) -> Vec<Block> {
    let mut table =
        Table::new(["in the paper", "setting", "metric", "paper", "source", "ours", "our variant"]);
    for published in of_the_same_data(study).filter(|row| is_paired(row)) {
        let Some(value) = published.value else { continue };
        let ours = published.variant.as_ref().map(|name| ours(study, name, &published.metric));
        table.push(vec![
            published.figure.clone(),
            published.label.clone(),
            published.metric.clone(),
            as_printed(value),
            published.source(),
            ours.unwrap_or_else(|| NOT_RUN.to_owned()),
            published.variant.clone().unwrap_or_else(|| "none".to_owned()),
        ]);
    }
    if table.is_empty() {
        return Vec::new();
    }
    let ours = models(study).unwrap_or_else(|| "our model".to_owned());
    let note = format!(
        "The paper's numbers are from one run each, on the data and with the model beside them. Ours are from {ours} on the data named \
         above. Where data or model differ, compare the order of settings, not the numbers."
    );
    vec![Block::Table("The paper's numbers beside ours".to_owned(), table), Block::Text(note)]
}

/// Whether a number has its row in the table beside our variants: all but those of other methods.
fn is_paired(row: &Published) -> bool {
    row.variant.is_some() || !row.is_of_a_comparison()
}

/// Our result of a variant, or why there is none.
fn ours(study: &Study, variant: &str, metric: &str) -> String {
    let Some(variant) = study.variants.iter().find(|known| known.name == variant) else {
        return NOT_RUN.to_owned();
    };
    let values = variant.finished().filter_map(|run| study.test(run, metric));
    match print_all(values, &NumberFormat::of(metric)) {
        empty if empty.is_empty() => variant.absence(),
        text => text,
    }
}

/// As the paper prints it: at least one digit.
fn as_printed(value: f64) -> String {
    if (value * 10.0 - (value * 10.0).round()).abs() < 1e-9 {
        format!("{value:.1}")
    } else {
        value.to_string()
    }
}

/// The paper's comparison with other methods, a row a method, and a row for each of our variants in it.
fn compared(study: &Study) -> Vec<Block> {
    let rows: Vec<&Published> =
        of_the_same_data(study).filter(|row| row.is_of_a_comparison() && row.value.is_some()).collect();
    let mut blocks = Vec::new();
    for figure in distinct(rows.iter().map(|row| row.figure.clone())) {
        let rows: Vec<&Published> = rows.iter().copied().filter(|row| row.figure == figure).collect();
        let metrics = distinct(rows.iter().map(|row| row.metric.clone()));
        let heading = once("model").chain(metrics.iter().map(String::as_str));
        let mut table = Table::new(heading.chain(["video-text pairs", "code"]));
        for label in distinct(rows.iter().map(|row| row.label.clone())) {
            let own: Vec<&Published> = rows.iter().copied().filter(|row| row.label == label).collect();
            let value = |metric: &String| {
                let found = own.iter().find(|row| row.metric == *metric).and_then(|row| row.value);
                found.map_or_else(|| DASH.to_owned(), as_printed)
            };
            let code = if own[0].code == Some(true) { "yes" } else { "no" };
            let cells = once(format!("{label} (paper)")).chain(metrics.iter().map(value));
            table.push(cells.chain([or_dash(own[0].pairs.as_ref()), code.to_owned()]));
        }
        for variant in distinct(rows.iter().filter_map(|row| row.variant.clone())) {
            let cells = metrics.iter().map(|metric| ours(study, &variant, metric));
            let name =
                format!("{variant} (this study, {})", study.summary.data_set.as_deref().unwrap_or(TINY));
            table.push(once(name).chain(cells).chain([DASH.to_owned(), "yes".to_owned()]));
        }
        let data_sets = distinct(rows.iter().filter_map(|row| row.data_set.clone()));
        blocks.push(Block::Table(format!("{figure} of the paper, {}", data_sets.join(", ")), table));
    }
    blocks
}

fn or_dash(text: Option<&String>) -> String {
    text.cloned().unwrap_or_else(|| DASH.to_owned())
}

/// What the compared methods are built of.
fn methods(study: &Study) -> Vec<Block> {
    let rows = || of_the_same_data(study).filter_map(|row| Some((row, row.method.as_ref()?)));
    let mut blocks = Vec::new();
    for figure in distinct(rows().map(|(row, _)| row.figure.clone())) {
        let mut table = Table::new([
            "model",
            "reference",
            "image-text pairs",
            "video-text pairs",
            "vision backbone",
            "language backbone",
        ]);
        for (row, method) in rows().filter(|(row, _)| row.figure == figure) {
            table.push([
                row.label.clone(),
                or_dash(method.reference.as_ref()),
                or_dash(method.image_pairs.as_ref()),
                or_dash(row.pairs.as_ref()),
                method.vision.clone(),
                method.language.clone(),
            ]);
        }
        blocks.push(Block::Table(format!("{figure} of the paper"), table));
    }
    blocks
}

/// The paper's statements, and the statistics of our runs that speak for or against them.
fn statements(study: &Study) -> Vec<Block> {
    let mut table = Table::new([
        "in the paper",
        "our variant",
        "the paper's statement",
        "source",
        "paper's best epoch",
        "our best epoch",
    ]);
    for row in of_the_same_data(study) {
        let Some(claim) = &row.claim else { continue };
        let found =
            row.variant.as_ref().and_then(|name| study.variants.iter().find(|variant| variant.name == *name));
        let best = match (&row.variant, found) {
            (None, _) => DASH.to_owned(),
            (Some(_), None) => NOT_RUN.to_owned(),
            (Some(_), Some(variant)) => best_epoch(variant),
        };
        table.push([
            row.figure.clone(),
            row.label.clone(),
            claim.statement.clone(),
            row.source(),
            claim.best_epoch.map_or_else(|| DASH.to_owned(), |epoch| epoch.to_string()),
            best,
        ]);
    }
    if table.is_empty() {
        return Vec::new();
    }
    let mut blocks = vec![Block::Table("The paper's statements beside our runs".to_owned(), table)];
    blocks.extend(after(study));
    blocks
}

fn best_epoch(variant: &Variant) -> String {
    let epochs = variant.finished().map(|run| run.result.best_epoch as f64);
    match print_all(epochs, &NumberFormat::WHOLE) {
        empty if empty.is_empty() => variant.absence(),
        text => text,
    }
}

/// Each variant's training after its best epoch.
fn after(study: &Study) -> Vec<Block> {
    let Some(headline) = study.headline() else { return Vec::new() };
    let deviation = format!("deviation of val {headline} after it");
    let correlation = format!("correlation of loss and val {headline}");
    let mut table = Table::new([
        "variant",
        "best epoch",
        "of",
        "training loss after it",
        deviation.as_str(),
        correlation.as_str(),
    ]);
    for variant in &study.variants {
        let runs: Vec<(&Run, After)> =
            variant.finished().filter_map(|run| Some((run, after_the_best(run, &headline)?))).collect();
        if runs.is_empty() {
            let cells = once(variant.name.clone()).chain([variant.absence()]);
            table.push(cells.chain([NOT_RUN; 4].map(str::to_owned)));
            continue;
        }
        let over = |value: &dyn Fn(&After) -> Option<f64>, format: &NumberFormat| match print_all(
            runs.iter().filter_map(|(_, after)| value(after)),
            format,
        ) {
            empty if empty.is_empty() => "no value".to_owned(),
            text => text,
        };
        let last = runs.iter().filter_map(|(run, _)| Some(course(run, &headline)?.last_epoch as f64));
        table.push([
            variant.name.clone(),
            best_epoch(variant),
            print_all(last, &NumberFormat::WHOLE),
            over(&|after| after.loss, &SHARE),
            over(&|after| after.deviation, &NumberFormat::of(&headline)),
            over(&|after| after.correlation, &SHARE),
        ]);
    }
    let note = "An epoch is the training between two validations. Training loss after it: its mean over the later epochs; deviation: \
                the standard deviation of the validation scores of the later epochs, of which there must be two; correlation: \
                Pearson's, of training loss and validation score over all epochs. Each is computed for every seed; mean ± standard \
                deviation over seeds.";
    vec![Block::Table("Our runs after their best epoch".to_owned(), table), Block::Text(note.to_owned())]
}

/// Numbers without a metric's scale.
const SHARE: NumberFormat = NumberFormat { scale: 1.0, digits: 3 };

fn after_the_best(run: &Run, metric: &str) -> Option<After> {
    let history = run.result.history.iter();
    let epochs = history.map(|epoch| (epoch.epoch, epoch.loss, epoch.validation.get(metric)));
    After::of(&epochs.collect::<Vec<_>>(), run.result.best_epoch)
}

/// Statements of the paper against others of it.
fn contradictions(study: &Study) -> Vec<Block> {
    let mut table = Table::new(["in the paper", "our variant", "it says", "against"]);
    for row in of_the_same_data(study) {
        let Some(claim) = &row.claim else { continue };
        let Some(contradiction) = &claim.contradiction else { continue };
        table.push([row.figure.clone(), row.label.clone(), claim.statement.clone(), contradiction.clone()]);
    }
    if table.is_empty() {
        return Vec::new();
    }
    vec![Block::Table("Where the paper contradicts itself".to_owned(), table)]
}

#[cfg(test)]
mod tests;
