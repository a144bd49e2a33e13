//! "Did you mean".

/// The candidate nearest to a misspelt word, if any is near.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let rated = candidates.into_iter().map(|other| (strsim::jaro_winkler(word, other), other));
    rated.filter(|(likeness, _)| *likeness > 0.75).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, other)| other)
}

/// Adds a suggestion to serde's "unknown field `x`, expected one of `a`, `b`" and "unknown variant ...".
pub(super) fn with_suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let is_unknown = message.contains("unknown field") || message.contains("unknown variant");
    match quoted.next().filter(|_| is_unknown).and_then(|word| nearest(word, quoted)) {
        Some(other) => format!("{}; did you mean \"{other}\"?", message.trim_end()),
        None => message.trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_suggested_and_a_far_one_is_not() {
        assert_eq!(nearest("freeze_vti", ["fusion", "freeze_vit"]), Some("freeze_vit"));
        assert_eq!(nearest("xyz", ["fusion", "freeze_vit"]), None);
    }

    #[test]
    fn serdes_list_of_fields_is_where_suggestions_come_from() {
        let message = "unknown field `epoch`, expected one of `epochs`, `batch_size`";
        assert!(with_suggestion(message).ends_with("did you mean \"epochs\"?"));
        assert_eq!(with_suggestion("invalid type: string"), "invalid type: string");
    }
}
