//! How numbers are printed.

use crate::judge::{ORDERED_CIDER, UNORDERED_CIDER};
use crate::plots::spread_text;
use crate::statistics::Spread;

/// How a figure is printed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shown {
    /// What it is multiplied by.
    pub scale: f64,
    /// Digits behind the point.
    pub digits: usize,
}

impl Shown {
    /// A count.
    pub(super) const WHOLE: Self = Self { scale: 1.0, digits: 0 };

    /// By its name: the metrics of papers times 100, as papers print them; shares as they are.
    pub(crate) fn of(name: &str) -> Self {
        match name {
            ORDERED_CIDER | UNORDERED_CIDER | "CIDEr" | "METEOR" | "ROUGE-L" | "accuracy" => {
                Self { scale: 100.0, digits: 1 }
            }
            name if name.starts_with("BLEU-") => Self { scale: 100.0, digits: 1 },
            "different" => Self::WHOLE,
            _ => Self { scale: 1.0, digits: 3 },
        }
    }
}

/// One number.
pub(crate) fn number(value: f64, shown: &Shown) -> String {
    format!("{:.*}", shown.digits, value * shown.scale)
}

/// The mean, and after "±" the standard deviation where there are several; nothing of nothing.
pub(super) fn numbers(values: &[f64], shown: &Shown) -> String {
    let Some(spread) = scaled(values, shown) else { return String::new() };
    // a mean of whole numbers is none, unless they are all the same
    let is_split = shown.digits == 0 && spread.deviation.is_some_and(|deviation| deviation > 0.0);
    spread_text(&spread, if is_split { 1 } else { shown.digits })
}

/// Mean and spread in the units that are printed.
pub(super) fn scaled(values: &[f64], shown: &Shown) -> Option<Spread> {
    Spread::of(&values.iter().map(|value| value * shown.scale).collect::<Vec<_>>())
}

/// A length of time in the unit that suits it.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.0995 => format!("{:.0} ms", s * 1000.0),
        s if s < 99.5 => format!("{s:.1} s"),
        s if s < 5970.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
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
        let shown = Shown { scale: 100.0, digits: 1 };
        assert_eq!(numbers(&[], &shown), "");
        assert_eq!(numbers(&[0.0125], &shown), "1.2");
        assert_eq!(numbers(&[0.01, 0.03], &shown), "2.0 ± 1.4");
        assert_eq!(numbers(&[1.0, 2.0], &Shown::WHOLE), "1.5 ± 0.7");
        assert_eq!(numbers(&[2.0, 2.0], &Shown::WHOLE), "2 ± 0");
    }

    #[test]
    fn times_have_the_unit_that_suits_them() {
        let texts = [0.004, 0.1, 99.4, 99.6, 5969.0, 7200.0].map(seconds);
        assert_eq!(texts, ["4 ms", "0.1 s", "99.4 s", "1.7 min", "99.5 min", "2.0 h"]);
    }
}
