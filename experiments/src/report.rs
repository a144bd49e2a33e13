//! What a finished ablation shows: the table, `report.md`, and the training curves.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use data::datasets::Clip;
use serde::Deserialize;
use train::dashboard::{BLEU_4, CIDER, Figures};
use train::files;

use crate::ablation::{Cell, Summary, VariantSummary};
use crate::judge::{COLOUR, DIRECTION, DISTINCT, EVENT, ORDER, ROUGE_L, SHAPE};
use crate::plots::{Curve, draw};
use crate::run::{RunResult, TEST_PREDICTIONS, read_json};
use crate::table::Table;

/// Test clips shown with their captions.
const EXAMPLES: usize = 5;
/// References shown of each.
const REFERENCES: usize = 3;

/// Prints the table, and writes `report.md` and the plots into the ablation's folder.
///
/// # Errors
/// When a file cannot be written.
pub fn write(summary: &Summary, cells: &[Cell], test: &[&Clip], folder: &Path) -> anyhow::Result<()> {
    let table = table(summary, cells);
    println!("\n{}\n\n{}", table.to_text(), legend(summary));
    for (file, title, value, figure) in PLOTS {
        draw(&folder.join(file), title, value, &curves(summary, *figure))?;
    }
    let mut text = format!(
        "# {}: {}\n\nThe paper's {}. Profile `{}`, data set {} `{}` ({} training, {} validation and {} test clips).\n\n{}\n{}\n",
        summary.ablation,
        summary.question,
        summary.paper,
        summary.profile,
        summary.data,
        summary.data_hash,
        summary.clips[0],
        summary.clips[1],
        summary.clips[2],
        table.to_markdown(),
        legend(summary),
    );
    for variant in &summary.variants {
        write!(text, "\n- `{}`: {}", variant.name, variant.description)?;
    }
    text.push_str("\n\n## Curves\n");
    for (file, title, _, _) in PLOTS {
        write!(text, "\n![{title}]({file})\n")?;
    }
    text.push_str("\n## Test clips\n\nUnedited; every so many-th clip of the test split, the first seed of each variant.\n");
    text.push_str(&examples(summary, test, folder)?);
    files::replace(&folder.join("report.md"), text.as_bytes())?;
    println!("\nreport: {}", folder.join("report.md").display());
    Ok(())
}

const PLOTS: &[(&str, &str, &str, Option<&str>)] = &[
    ("loss.svg", "Training loss", "loss", None),
    ("cider.svg", "Validation CIDEr", "CIDEr x 100", Some(CIDER)),
    ("event.svg", "Validation: kind of event right", "share of clips", Some(EVENT)),
];

const COLUMNS: &[(&str, &str)] = &[
    ("BLEU-4", BLEU_4),
    ("ROUGE-L", ROUGE_L),
    ("shape", SHAPE),
    ("colour", COLOUR),
    ("event", EVENT),
    ("direction", DIRECTION),
    ("order", ORDER),
    ("different", DISTINCT),
];

fn table(summary: &Summary, cells: &[Cell]) -> Table {
    let mut heading = vec!["variant", "trainable", "best epoch", "val CIDEr", "test CIDEr"];
    heading.extend(COLUMNS.iter().map(|(title, _)| *title));
    heading.push("s/epoch");
    let mut table = Table::new(&heading);
    for variant in &summary.variants {
        let runs = &variant.runs;
        let times = cells.iter().filter(|cell| cell.variant == variant.name);
        let mut row = vec![
            variant.name.clone(),
            runs.first().map_or(String::new(), |run| thousands(run.trainable)),
            spread(runs.iter().map(|run| run.best_epoch as f64), 0),
            spread(runs.iter().filter_map(best_validation), 1),
            spread(runs.iter().filter_map(|run| run.test.get(CIDER).map(|value| value * 100.0)), 1),
        ];
        row.extend(
            COLUMNS
                .iter()
                .map(|(_, figure)| cell(figure, runs.iter().filter_map(|run| run.test.get(figure)))),
        );
        row.push(spread(times.map(|cell| cell.timing.seconds_per_epoch), 1));
        table.push(row);
    }
    let baselines = &summary.baselines;
    table.push(baseline("pretrained, not trained", &baselines.pretrained));
    table.push(baseline("best constant caption", &baselines.constant));
    table.push(baseline("chance", &baselines.chance));
    table
}

fn baseline(name: &str, figures: &Figures) -> Vec<String> {
    let cider = spread(figures.get(CIDER).map(|value| value * 100.0).into_iter(), 1);
    let mut row = vec![name.to_owned(), String::new(), String::new(), String::new(), cider];
    row.extend(COLUMNS.iter().map(|(_, figure)| cell(figure, figures.get(figure).into_iter())));
    row.push(String::new());
    row
}

fn cell(figure: &str, values: impl Iterator<Item = f64>) -> String {
    spread(values, if figure == DISTINCT { 0 } else { 3 })
}

fn best_validation(run: &RunResult) -> Option<f64> {
    let record = run.history.iter().find(|record| record.epoch == run.best_epoch)?;
    record.validation.get(CIDER).map(|value| value * 100.0)
}

/// The mean, and after "±" the standard deviation where there are several.
fn spread(values: impl Iterator<Item = f64>, digits: usize) -> String {
    let values: Vec<f64> = values.collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    match values.len() {
        0 => String::new(),
        1 => format!("{mean:.digits$}"),
        _ => {
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
            format!("{mean:.digits$} ± {:.digits$}", variance.sqrt())
        }
    }
}

/// `611712` as `611,712`.
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let head = digits.len() % 3;
    let mut parts = Vec::new();
    if head > 0 {
        parts.push(&digits[..head]);
    }
    parts.extend((head..digits.len()).step_by(3).map(|at| &digits[at..at + 3]));
    parts.join(",")
}

fn legend(summary: &Summary) -> String {
    format!(
        "CIDEr is multiplied by 100, as papers print it. shape, colour, event: share of the {} test clips whose caption \
         names the right shape, the right colour, all the right kinds of events and no others; left and right, up and \
         down, grow and shrink count as one kind each, as concat fusion cannot tell them apart. direction, order: share \
         of right ones among captions that state one. different: number of different captions. chance: the most \
         frequent answer. The best constant caption is \"{}\".",
        summary.clips[2], summary.baselines.constant_caption
    )
}

fn curves(summary: &Summary, figure: Option<&str>) -> Vec<Curve> {
    let scale = if figure == Some(CIDER) { 100.0 } else { 1.0 };
    let curve = |variant: &VariantSummary, run: &RunResult| {
        let value = |record: &train::checkpoint::EpochRecord| match figure {
            None => Some(record.loss),
            Some(figure) => record.validation.get(figure).map(|value| value * scale),
        };
        let points: Vec<(f64, f64)> =
            run.history.iter().filter_map(|record| Some((record.epoch as f64, value(record)?))).collect();
        let mark = points.iter().copied().find(|point| point.0 == run.best_epoch as f64);
        let name = match variant.runs.len() {
            1 => variant.name.clone(),
            _ => format!("{} seed {}", variant.name, run.seed),
        };
        Curve { name, points, mark }
    };
    summary
        .variants
        .iter()
        .flat_map(|variant| variant.runs.iter().map(move |run| curve(variant, run)))
        .collect()
}

#[derive(Deserialize)]
struct Prediction {
    image_id: String,
    caption: String,
}

fn examples(summary: &Summary, test: &[&Clip], folder: &Path) -> anyhow::Result<String> {
    let mut written: Vec<(&str, HashMap<String, String>)> = Vec::new();
    for variant in &summary.variants {
        let Some(run) = variant.runs.first() else { continue };
        let path = folder.join(&variant.name).join(format!("seed-{}", run.seed)).join(TEST_PREDICTIONS);
        let predictions: Vec<Prediction> = read_json(&path)?;
        let captions = predictions.into_iter().map(|prediction| (prediction.image_id, prediction.caption));
        written.push((&variant.name, captions.collect()));
    }
    let mut text = String::new();
    for clip in test.iter().step_by((test.len() / EXAMPLES).max(1)).take(EXAMPLES) {
        write!(text, "\n**{}**\n\n", clip.id)?;
        for reference in clip.captions.iter().take(REFERENCES) {
            writeln!(text, "- reference: {reference}")?;
        }
        for (variant, captions) in &written {
            writeln!(text, "- `{variant}`: {}", captions.get(&clip.id).map_or("", String::as_str))?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let texts = [0, 12, 999, 1_000, 611_712, 1_093_619_584].map(thousands);
        assert_eq!(texts, ["0", "12", "999", "1,000", "611,712", "1,093,619,584"]);
    }

    #[test]
    fn several_values_show_their_spread() {
        assert_eq!(spread([].into_iter(), 1), "");
        assert_eq!(spread([1.25].into_iter(), 1), "1.2");
        assert_eq!(spread([1.0, 3.0].into_iter(), 1), "2.0 ± 1.4");
    }
}
