//! How numbers are printed.

use super::metrics::{ACCURACY, CIDER, DISTINCT, METEOR, ORDERED_CIDER, ROUGE_L, UNORDERED_CIDER};

/// How a metric is printed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct NumberFormat {
    pub scale: f64,
    pub digits: usize,
}

impl NumberFormat {
    /// A count.
    pub(crate) const WHOLE: Self = Self { scale: 1.0, digits: 0 };

    /// The format of a metric: the published metrics times 100, as papers print them; shares unscaled.
    pub(crate) fn of(metric: &str) -> Self {
        match metric {
            ORDERED_CIDER | UNORDERED_CIDER | CIDER | METEOR | ROUGE_L | ACCURACY => {
                Self { scale: 100.0, digits: 1 }
            }
            metric if metric.starts_with("BLEU-") => Self { scale: 100.0, digits: 1 },
            DISTINCT => Self::WHOLE,
            _ => Self { scale: 1.0, digits: 3 },
        }
    }

    /// A value in this format.
    pub(crate) fn print(&self, value: f64) -> String {
        format!("{:.*}", self.digits, value * self.scale)
    }
}

/// A duration in a fitting unit.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.0995 => format!("{:.0} ms", s * 1000.0),
        s if s < 99.5 => format!("{s:.1} s"),
        s if s < 5970.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// A number of bytes, as `3.2 GB`.
pub(crate) fn bytes(number: usize) -> String {
    let number = number as f64;
    if number >= 1e9 { format!("{:.1} GB", number / 1e9) } else { format!("{:.1} MB", number / 1e6) }
}

/// A number of floating-point operations, as `3.2 TFLOP`.
pub(crate) fn operations(number: f64) -> String {
    let units = [(1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")];
    let (size, unit) = units.into_iter().find(|(size, _)| number >= *size).unwrap_or((1e6, "MFLOP"));
    format!("{:.1} {unit}", number / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_fitting_unit() {
        let texts = [0.004, 0.1, 99.4, 99.6, 5969.0, 7200.0].map(seconds);
        assert_eq!(texts, ["4 ms", "0.1 s", "99.4 s", "1.7 min", "99.5 min", "2.0 h"]);
    }

    #[test]
    fn bytes_and_operations_have_a_fitting_unit() {
        assert_eq!((bytes(3_200_000_000), bytes(450_000)), ("3.2 GB".to_owned(), "0.5 MB".to_owned()));
        assert_eq!([2.5e6, 7e15].map(operations), ["2.5 MFLOP", "7.0 PFLOP"]);
    }
}
