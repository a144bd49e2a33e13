//! The plots of a study: bars as in the paper's Fig. 2, 3, 10 and 11, curves as in its Fig. 4 to 9.

use super::contents::Block;
use super::folder::{Run, Study, Variant};
use super::paper;
use super::plots::{self, Bar, Curves, Line, Panel};
use super::statistics::Spread;
use crate::config::Published;
use crate::text::distinct;
use crate::text::metrics::EVENT;
use crate::text::numbers::NumberFormat;

/// A panel of bars for each metric, and panels of the paper's numbers.
pub(super) fn bars(study: &Study) -> Vec<Block> {
    let mut panels: Vec<Panel> = study.metrics().iter().map(|name| ours(study, name)).collect();
    let numbers: Vec<(&Published, f64)> =
        paper::of_the_same_data(study).filter_map(|row| Some((row, row.value?))).collect();
    for title in distinct(numbers.iter().map(|(row, _)| title(row))) {
        let bar = |&(row, value): &(&Published, f64)| Bar {
            label: row.label.clone(),
            value: Ok(Spread { mean: value, deviation: None, count: 1 }),
            series: None,
        };
        let bars: Vec<Bar> = numbers.iter().filter(|(row, _)| self::title(row) == title).map(bar).collect();
        panels.push(plots::bars(&title, &bars, 1));
    }
    if panels.is_empty() {
        return vec![Block::Text("Nothing ran, so there is nothing to draw.".to_owned())];
    }
    let mut text = "Test split; error bars are the standard deviation over seeds.".to_owned();
    if !numbers.is_empty() {
        text.push_str(
            " Hatched bars are the paper's numbers, with other models or on other data, on separate axes.",
        );
    }
    vec![Block::Text(text), Block::Plots("bars.svg".to_owned(), "Metrics of the variants".to_owned(), panels)]
}

/// The title of a panel of the paper's numbers. The methods that a table compares share one.
fn title(row: &Published) -> String {
    let source = match (&row.data_set, row.is_of_a_comparison()) {
        (Some(data_set), true) => format!("paper, {data_set}"),
        _ => row.source(),
    };
    format!("{}, {} ({source})", row.figure, row.metric)
}

fn ours(study: &Study, name: &str) -> Panel {
    let format = NumberFormat::of(name);
    let bar = |(series, variant): (usize, &Variant)| {
        let values = variant.finished().filter_map(|run| study.test(run, name));
        Bar {
            label: variant.name.clone(),
            value: Spread::scaled(values, &format).ok_or_else(|| variant.absence()),
            series: Some(series),
        }
    };
    let bars: Vec<Bar> = study.variants.iter().enumerate().map(bar).collect();
    plots::bars(&label(name), &bars, format.digits)
}

/// Loss and validation of all variants, then both for each variant, as in the paper.
pub(super) fn curves(study: &Study) -> Vec<Block> {
    let mut blocks = Vec::new();
    let plots = |file: &str, title: &str, panels| Block::Plots(file.to_owned(), title.to_owned(), panels);
    let losses = together(study, "Training loss", "loss", &loss);
    blocks.push(plots("loss.svg", "Training loss", vec![losses]));
    let headline = study.headline();
    for (file, name) in [("cider.svg", headline.as_deref()), ("event.svg", Some(EVENT))] {
        let Some(name) = name.filter(|name| is_validated(study, name)) else { continue };
        let title = format!("Validation {name}");
        let panel = together(study, &title, &label(name), &|run| validation(run, name));
        blocks.push(plots(file, &title, vec![panel]));
    }
    if let Some(name) = headline.filter(|name| is_validated(study, name)) {
        let panels = study.variants.iter().filter(|variant| variant.finished().next().is_some());
        let runs = || study.variants.iter().flat_map(Variant::finished);
        let reach = [
            plots::range(runs().flat_map(loss).map(|point| point.1)),
            plots::range(runs().flat_map(|run| validation(run, &name)).map(|point| point.1)),
        ];
        let panels: Vec<Panel> = panels.map(|variant| alone(variant, &name, reach)).collect();
        blocks.push(Block::Text(
            "Training curves of each variant: loss on the left axis, validation on the right axis. A dot is the epoch that validation \
             chose; thin lines are single seeds, the thick one is their mean."
                .to_owned(),
        ));
        blocks.push(plots("curves.svg", "Training curves of each variant", panels));
    }
    blocks
}

fn label(name: &str) -> String {
    if NumberFormat::of(name).scale == 100.0 { format!("{name} x 100") } else { name.to_owned() }
}

fn is_validated(study: &Study, name: &str) -> bool {
    study.variants.iter().flat_map(Variant::finished).any(|run| !validation(run, name).is_empty())
}

fn loss(run: &Run) -> Vec<(f64, f64)> {
    run.result.history.iter().filter_map(|epoch| Some((epoch.epoch as f64, epoch.loss?))).collect()
}

fn validation(run: &Run, name: &str) -> Vec<(f64, f64)> {
    let scale = NumberFormat::of(name).scale;
    let history = run.result.history.iter();
    history.filter_map(|epoch| Some((epoch.epoch as f64, epoch.validation.get(name)? * scale))).collect()
}

fn together(study: &Study, title: &str, left: &str, points: &dyn Fn(&Run) -> Vec<(f64, f64)>) -> Panel {
    let mut lines = Vec::new();
    for (series, variant) in study.variants.iter().enumerate() {
        lines.extend(of_variant(variant, &variant.name, series, false, points));
    }
    let (title, left) = (title.to_owned(), left.to_owned());
    plots::curves(&Curves { title, left, right: None, reach: [None; 2], lines })
}

fn alone(variant: &Variant, name: &str, reach: [Option<(f64, f64)>; 2]) -> Panel {
    let mut lines = of_variant(variant, "training loss", 1, false, &loss);
    lines.extend(of_variant(variant, &format!("validation {name}"), 0, true, &|run| validation(run, name)));
    plots::curves(&Curves {
        title: variant.name.clone(),
        left: "loss".to_owned(),
        right: Some(label(name)),
        reach,
        lines,
    })
}

/// The line of a variant's only seed, or thin lines of its seeds and a thick one of their mean.
fn of_variant(
    variant: &Variant,
    name: &str,
    series: usize,
    is_right: bool,
    points: &dyn Fn(&Run) -> Vec<(f64, f64)>,
) -> Vec<Line> {
    let each = variant.finished().map(|run| (points(run), run.result.best_epoch as f64));
    let line = |(points, best): (Vec<(f64, f64)>, f64)| Line {
        name: None,
        series,
        mark: points.iter().copied().find(|point| point.0 == best),
        points,
        is_thin: true,
        is_right,
    };
    let mut lines: Vec<Line> = each.filter(|(points, _)| !points.is_empty()).map(line).collect();
    let name = Some(name.to_owned());
    match &mut lines[..] {
        [] => {}
        [only] => (only.name, only.is_thin) = (name, false),
        several => {
            let points = mean(&several.iter().map(|line| line.points.clone()).collect::<Vec<_>>());
            lines.push(Line { name, series, points, mark: None, is_thin: false, is_right });
        }
    }
    lines
}

/// The mean of several lines at the epochs that all of them have.
fn mean(lines: &[Vec<(f64, f64)>]) -> Vec<(f64, f64)> {
    let Some((first, others)) = lines.split_first() else { return Vec::new() };
    let at =
        |line: &[(f64, f64)], epoch: f64| line.iter().find(|point| point.0 == epoch).map(|point| point.1);
    let mean = |&(epoch, value): &(f64, f64)| {
        let rest = others.iter().map(|line| at(line, epoch)).collect::<Option<Vec<f64>>>()?;
        Some((epoch, (value + rest.iter().sum::<f64>()) / (rest.len() + 1) as f64))
    };
    first.iter().filter_map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_line_ends_where_the_first_seed_does() {
        let lines = [vec![(1.0, 1.0), (2.0, 2.0), (3.0, 9.0)], vec![(1.0, 3.0), (2.0, 4.0)]];
        assert_eq!(mean(&lines), [(1.0, 2.0), (2.0, 3.0)]);
    }
}
