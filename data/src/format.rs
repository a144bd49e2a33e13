//! Numbers as text.

/// A number with thousands separators: `6,513`.
#[must_use]
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

/// The first `max` items as a list: `a, b, …`.
pub(crate) fn listed<S: AsRef<str>>(items: &[S], max: usize) -> String {
    let more = (items.len() > max).then_some("…");
    items.iter().take(max).map(S::as_ref).chain(more).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
