//! Plots as SVG: bars with error bars, and curves over epochs.
//!
//! A panel is SVG text, which a page embeds and a file contains. In a page the colours follow the light or
//! dark setting. They can be distinguished by the colour-blind (after Okabe and Ito) on both backgrounds, and
//! a screen reader reads the numbers.

use std::fmt::Write as _;

use super::statistics::Spread;
use crate::text::escape::html;

/// Colours and weights, for pages and files alike.
pub(super) const STYLE: &str = include_str!("page/plots.css");

/// A panel's width; its height follows from what is in it.
const WIDTH: f64 = 340.0;
/// Colours there are; more series than that are dashed.
const COLOURS: usize = 6;

/// One drawing.
#[derive(Debug, Clone)]
pub(super) struct Panel {
    /// Its title and its content in words, for screen readers.
    words: String,
    height: f64,
    body: String,
}

/// One bar.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    pub label: String,
    /// Mean and spread, or why there is none.
    pub value: Result<Spread, String>,
    /// The number of our variant; none for the paper's number, which is hatched.
    pub series: Option<usize>,
}

/// Curves over epochs.
#[derive(Debug, Clone)]
pub(super) struct Curves {
    pub title: String,
    /// Label of the left axis.
    pub left: String,
    /// Label of the right axis, where there is one.
    pub right: Option<String>,
    /// Values that the left and the right axis contain in any case, so that panels can be compared.
    pub reach: [Option<(f64, f64)>; 2],
    pub lines: Vec<Line>,
}

/// One line.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// Its name in the legend; none for a line without an entry.
    pub name: Option<String>,
    pub series: usize,
    /// Points, from left to right.
    pub points: Vec<(f64, f64)>,
    /// A point to be marked: the chosen epoch.
    pub mark: Option<(f64, f64)>,
    pub is_thin: bool,
    /// Whether it belongs to the right axis.
    pub is_right: bool,
}

impl Panel {
    /// For a page, which has [`STYLE`] and [`HATCH`] once.
    pub(super) fn inline(&self) -> String {
        format!(
            "<svg class=\"plot\" role=\"img\" viewBox=\"0 0 {WIDTH} {}\" aria-label=\"{}\">{}</svg>",
            self.height,
            html(&self.words),
            self.body
        )
    }
}

/// The paper's hatching, which a page or file defines once.
pub(super) const HATCH: &str = "<defs><pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
                         patternTransform=\"rotate(45)\"><path class=\"hatch\" d=\"M0 0V6\"/></pattern></defs>";

/// A file with panels in two columns.
pub(super) fn file(title: &str, panels: &[Panel]) -> String {
    const GAP: f64 = 20.0;
    let columns = panels.len().clamp(1, 2);
    let (mut body, mut top) = (String::new(), GAP);
    for row in panels.chunks(columns) {
        for (column, panel) in row.iter().enumerate() {
            let left = GAP + column as f64 * (WIDTH + GAP);
            let _ = writeln!(
                body,
                "<g transform=\"translate({left} {top})\"><title>{}</title>{}</g>",
                html(&panel.words),
                panel.body
            );
        }
        top += row.iter().map(|panel| panel.height).fold(0.0, f64::max) + GAP;
    }
    let width = GAP + columns as f64 * (WIDTH + GAP);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" viewBox=\"0 0 {width} {top}\" width=\"{width}\" \
         height=\"{top}\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n{HATCH}\n<rect class=\"backdrop\" width=\"100%\" \
         height=\"100%\"/>\n{body}</svg>\n",
        html(title)
    )
}

/// Draws bars from 0, each below its label and number, or below the reason why there is none.
pub(super) fn bars(title: &str, bars: &[Bar], digits: usize) -> Panel {
    const ROW: f64 = 36.0;
    const TOP: f64 = 28.0;
    let ends = bars.iter().filter_map(|bar| bar.value.as_ref().ok());
    let highest = ends.map(|spread| spread.mean + spread.deviation.unwrap_or(0.0)).fold(0.0, f64::max);
    let ticks = ticks(0.0, highest, 4);
    let end = ticks.last().copied().unwrap_or(1.0).max(highest).max(f64::MIN_POSITIVE);
    let x = |value: f64| 1.0 + value.clamp(0.0, end) / end * (WIDTH - 2.0);
    let bottom = TOP + ROW * bars.len() as f64;

    let mut body = text(0.0, 14.0, "title", "start", title);
    for &tick in &ticks {
        let _ = write!(body, "<path class=\"grid\" d=\"M{:.1} {TOP}V{bottom:.1}\"/>", x(tick));
        let anchor = match x(tick) {
            _ if tick == 0.0 => "start",
            x if x > WIDTH - 12.0 => "end",
            _ => "middle",
        };
        body.push_str(&text(x(tick), bottom + 14.0, "soft", anchor, &short(tick)));
    }
    let mut words = Vec::new();
    for (row, bar) in bars.iter().enumerate() {
        let top = TOP + ROW * row as f64;
        let number = match &bar.value {
            Ok(spread) => spread.text(digits),
            Err(why) => cut(why, 44usize.saturating_sub(bar.label.chars().count())),
        };
        words.push(format!("{}: {number}", bar.label));
        body.push_str(&text(0.0, top + 13.0, "", "start", &cut(&bar.label, 34)));
        body.push_str(&text(WIDTH, top + 13.0, if bar.value.is_ok() { "" } else { "soft" }, "end", &number));
        let Ok(spread) = &bar.value else {
            let _ = write!(
                body,
                "<rect class=\"track dashed\" x=\"1\" y=\"{:.1}\" width=\"{:.1}\" height=\"11\"/>",
                top + 18.0,
                WIDTH - 2.0
            );
            continue;
        };
        let class = bar.series.map_or("paper".to_owned(), |series| format!("s{}", series % COLOURS));
        let _ = write!(
            body,
            "<rect class=\"{class}\" x=\"1\" y=\"{:.1}\" width=\"{:.1}\" height=\"11\"><title>{}: {number}</title></rect>",
            top + 18.0,
            x(spread.mean) - 1.0,
            html(&bar.label)
        );
        let length = |deviation: &f64| x(spread.mean + deviation) - x(spread.mean - deviation);
        if let Some(deviation) = spread.deviation.filter(|deviation| length(deviation) > 0.5) {
            let (low, high, middle) = (x(spread.mean - deviation), x(spread.mean + deviation), top + 23.5);
            let _ = write!(
                body,
                "<path class=\"error\" d=\"M{low:.1} {middle}H{high:.1}M{low:.1} {:.1}v8M{high:.1} {:.1}v8\"/>",
                middle - 4.0,
                middle - 4.0
            );
        }
    }
    Panel { words: format!("{title}. {}", words.join("; ")), height: bottom + 20.0, body }
}

/// Draws curves over epochs, with a legend below.
pub(super) fn curves(curves: &Curves) -> Panel {
    const TOP: f64 = 42.0;
    const BOTTOM: f64 = 208.0;
    const LEFT: f64 = 44.0;
    let edge = if curves.right.is_some() { WIDTH - 44.0 } else { WIDTH - 10.0 };
    let epochs = curves.lines.iter().flat_map(|line| &line.points).map(|point| point.0);
    let (first, last) = (epochs.clone().fold(f64::INFINITY, f64::min), epochs.fold(0.0, f64::max));
    let mut body = text(0.0, 14.0, "title", "start", &curves.title);
    if !first.is_finite() {
        body.push_str(&text(LEFT, 60.0, "soft", "start", "not run"));
        return Panel { words: format!("{}. not run", curves.title), height: 80.0, body };
    }
    let x = |epoch: f64| LEFT + (epoch - first) / (last - first).max(1.0) * (edge - LEFT);
    let is_epoch = |tick: &f64| (first..=last).contains(tick) && tick.fract() == 0.0;
    for tick in ticks(first, last, 6).into_iter().filter(is_epoch) {
        body.push_str(&text(x(tick), BOTTOM + 15.0, "soft", "middle", &short(tick)));
    }
    body.push_str(&text((LEFT + edge) / 2.0, BOTTOM + 30.0, "soft", "middle", "epoch"));
    let _ = write!(body, "<path class=\"axis\" d=\"M{LEFT} {BOTTOM}H{edge}\"/>");

    let mut words = Vec::new();
    for is_right in [false, true] {
        let lines = || curves.lines.iter().filter(move |line| line.is_right == is_right);
        let values = lines().flat_map(|line| &line.points).map(|point| point.1);
        let Some(own) = range(values) else { continue };
        let reach = curves.reach[usize::from(is_right)].unwrap_or(own);
        let (low, high) = (own.0.min(reach.0), own.1.max(reach.1));
        let steps = ticks(low, high, 4);
        let (low, high) = match (steps.first(), steps.last()) {
            (Some(&first), Some(&last)) => (first.min(low), last.max(high)),
            _ => (low, high),
        };
        let y = |value: f64| BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP);
        for &step in &steps {
            let (at, anchor) = if is_right { (edge + 6.0, "start") } else { (LEFT - 6.0, "end") };
            if !is_right {
                let _ = write!(body, "<path class=\"grid\" d=\"M{LEFT} {:.1}H{edge}\"/>", y(step));
            }
            body.push_str(&text(at, y(step) + 4.0, "soft", anchor, &short(step)));
        }
        let label = if is_right { curves.right.as_deref().unwrap_or_default() } else { &curves.left };
        let (at, anchor) = if is_right { (WIDTH, "end") } else { (0.0, "start") };
        body.push_str(&text(at, 32.0, "soft", anchor, label));
        for line in lines() {
            draw(&mut body, line, &x, &y);
            words.extend(line.name.as_ref().map(|name| in_words(name, label, line)));
        }
    }
    let mut height = BOTTOM + 38.0;
    for (line, name) in curves.lines.iter().filter_map(|line| Some((line, line.name.as_ref()?))) {
        let _ = write!(body, "<path class=\"{}\" d=\"M{LEFT} {:.1}h22\"/>", class(line), height + 4.0);
        body.push_str(&text(LEFT + 30.0, height + 8.0, "", "start", &cut(name, 40)));
        height += 18.0;
    }
    Panel { words: format!("{}. {}", curves.title, words.join("; ")), height: height + 4.0, body }
}

/// The lowest and the highest value; a range around it where there is only one.
pub(super) fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) = values
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    match (low.is_finite(), high > low) {
        (false, _) => None,
        (true, true) => Some((low, high)),
        (true, false) if low == 0.0 => Some((0.0, 1.0)),
        (true, false) => Some((low - 0.5, high + 0.5)),
    }
}

fn class(line: &Line) -> String {
    let dashed = if line.series >= COLOURS { " dashed" } else { "" };
    let thin = if line.is_thin { " thin" } else { "" };
    format!("line s{}{dashed}{thin}", line.series % COLOURS)
}

fn draw(body: &mut String, line: &Line, x: &dyn Fn(f64) -> f64, y: &dyn Fn(f64) -> f64) {
    let points: Vec<String> =
        line.points.iter().map(|&(epoch, value)| format!("{:.1},{:.1}", x(epoch), y(value))).collect();
    if let [_, _, ..] = line.points[..] {
        let _ = write!(body, "<polyline class=\"{}\" points=\"{}\"/>", class(line), points.join(" "));
    }
    let alone = line.points.first().filter(|_| line.points.len() == 1);
    for &(epoch, value) in line.mark.iter().chain(alone) {
        let radius = if line.is_thin { 2.5 } else { 4.0 };
        let _ = write!(
            body,
            "<circle class=\"s{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\"><title>epoch {epoch}: {value:.3}</title></circle>",
            line.series % COLOURS,
            x(epoch),
            y(value)
        );
    }
}

fn in_words(name: &str, label: &str, line: &Line) -> String {
    let (Some(first), Some(last)) = (line.points.first(), line.points.last()) else {
        return format!("{name}: no {label}");
    };
    format!("{name}: {label} {:.3} at epoch {}, {:.3} at epoch {}", first.1, first.0, last.1, last.0)
}

fn text(x: f64, y: f64, class: &str, anchor: &str, text: &str) -> String {
    format!(
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
        html(text)
    )
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    kept + "…"
}

/// About as many round numbers as asked, which cover the range.
fn ticks(low: f64, high: f64, about: usize) -> Vec<f64> {
    let span = if high > low { high - low } else { 1.0 };
    let rough = span / about as f64;
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|factor| factor * power);
    let step = steps.into_iter().find(|step| *step >= rough * 0.999).unwrap_or(10.0 * power);
    let (from, to) = ((low / step + 1e-9).floor() as i64, (high / step - 1e-9).ceil() as i64);
    (from..=to.max(from + 1)).map(|at| at as f64 * step).collect()
}

/// A tick's number without trailing zeros.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, points: &[(f64, f64)]) -> Line {
        Line {
            name: Some(name.to_owned()),
            series: 0,
            points: points.to_vec(),
            mark: points.first().copied(),
            is_thin: false,
            is_right: false,
        }
    }

    fn drawn(lines: Vec<Line>) -> Panel {
        curves(&Curves {
            title: "Training loss".to_owned(),
            left: "loss".to_owned(),
            right: None,
            reach: [None; 2],
            lines,
        })
    }

    #[test]
    fn curves_are_named_marked_and_described_in_words() {
        let svg = drawn(vec![line("a <b>", &[(1.0, 2.0), (2.0, 1.0)]), line("c", &[(1.0, 1.5)])]).inline();
        for part in [
            "<polyline",
            "<circle",
            "Training loss",
            "a &lt;b&gt;",
            "loss 2.000 at epoch 1, 1.000 at epoch 2",
        ] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn nothing_to_draw_says_so() {
        assert!(drawn(Vec::new()).inline().contains("not run"));
        assert!(!drawn(vec![line("a", &[(1.0, 2.0)])]).inline().contains("NaN"));
    }

    #[test]
    fn bars_start_at_zero_and_a_missing_one_says_why() {
        let bar = |label: &str, value| Bar { label: label.to_owned(), value, series: Some(0) };
        let spread = |mean, deviation| Ok(Spread { mean, deviation, count: 2 });
        let four = [
            bar("a", spread(50.0, Some(5.0))),
            bar("b", spread(100.0, None)),
            bar("c", Err("not run".to_owned())),
            Bar { series: None, ..bar("d", spread(25.0, None)) },
        ];
        let panel = bars("CIDEr", &four, 1);
        let svg = panel.inline();
        for part in [
            "50.0 ± 5.0",
            "not run",
            "class=\"paper\"",
            "class=\"error\"",
            "width=\"169.0\"",
            "width=\"338.0\"",
        ] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        let file = file("All", &[panel.clone(), panel]);
        assert!(
            file.starts_with("<svg xmlns")
                && file.contains("prefers-color-scheme")
                && file.contains("</svg>")
        );
    }

    #[test]
    fn ticks_are_round_and_cover_the_range() {
        assert_eq!(ticks(0.0, 243.6, 4), [0.0, 100.0, 200.0, 300.0]);
        assert_eq!(ticks(1.0, 30.0, 6), [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0]);
        assert_eq!(ticks(0.0, 0.0, 4).len(), 2);
        assert_eq!([0.0, 0.25, 2.0, 1500.0].map(short), ["0", "0.25", "2", "1500"]);
    }
}
