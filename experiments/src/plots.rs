//! Training curves as SVG: one line a variant.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;

/// One line of a plot.
pub struct Curve {
    /// What the legend says.
    pub name: String,
    /// Points, from left to right.
    pub points: Vec<(f64, f64)>,
    /// A point to be marked: the chosen epoch.
    pub mark: Option<(f64, f64)>,
}

/// Colours that can be told apart in print and by the colour-blind (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// Draws curves over epochs.
///
/// # Errors
/// When the file cannot be written.
pub fn draw(path: &Path, title: &str, value: &str, curves: &[Curve]) -> anyhow::Result<()> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let right = points().map(|point| point.0).fold(1.0, f64::max);
    let low = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let high = points().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = if low.is_finite() && high > low { (low, high) } else { (0.0, 1.0) };
    let room = (high - low) * 0.06;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (720, 420)).into_drawing_area();
        let drawn = || -> Result<(), Box<dyn std::error::Error>> {
            root.fill(&WHITE)?;
            let mut chart = ChartBuilder::on(&root)
                .caption(title, ("sans-serif", 20))
                .margin(14)
                .x_label_area_size(40)
                .y_label_area_size(56)
                .build_cartesian_2d(1.0..right, low - room..high + room)?;
            chart.configure_mesh().x_desc("epoch").y_desc(value).light_line_style(WHITE).draw()?;
            for (curve, colour) in curves.iter().zip(COLOURS.into_iter().cycle()) {
                chart
                    .draw_series(LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2)))?
                    .label(&curve.name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
                chart.draw_series(curve.mark.iter().map(|&point| Circle::new(point, 4, colour.filled())))?;
            }
            chart
                .configure_series_labels()
                .border_style(BLACK.mix(0.2))
                .background_style(WHITE.mix(0.8))
                .position(SeriesLabelPosition::LowerRight)
                .draw()?;
            root.present()?;
            Ok(())
        };
        drawn().map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))?;
    }
    Ok(train::files::replace(path, svg.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_names_its_curves_and_survives_a_single_point() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.svg");
        let curve = |name: &str, points: &[(f64, f64)]| Curve {
            name: name.to_owned(),
            points: points.to_vec(),
            mark: points.first().copied(),
        };
        draw(
            &path,
            "Training loss",
            "loss",
            &[curve("a", &[(1.0, 2.0), (2.0, 1.0)]), curve("b", &[(1.0, 1.5)])],
        )
        .unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.contains("<svg") && svg.contains("Training loss") && svg.contains("<polyline"));
        draw(&path, "One", "loss", &[curve("a", &[(1.0, 2.0)])]).unwrap();
        draw(&path, "None", "loss", &[]).unwrap();
    }
}
