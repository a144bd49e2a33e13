//! Tokens that must not be next, as `NoRepeatNGramLogitsProcessor`, `EncoderNoRepeatNGramLogitsProcessor` and
//! `NoBadWordsLogitsProcessor` of transformers 5 decide it.

use super::config::GenerateConfig;

/// Whether the exclusions depend on the text so far.
pub(super) fn read_text(config: &GenerateConfig) -> bool {
    config.no_repeat_ngram_size > 0
        || config.encoder_no_repeat_ngram_size > 0
        || config.bad_words_ids.iter().any(|word| word.len() > 1)
}

/// Calls `exclude` with every token that must not follow `text`, some of them several times. `encoder` is
/// [`PromptInfo::encoder`](super::PromptInfo::encoder).
pub(super) fn for_each(config: &GenerateConfig, text: &[u32], encoder: &[u32], mut exclude: impl FnMut(u32)) {
    ngrams(config.no_repeat_ngram_size, text, text, &mut exclude);
    ngrams(config.encoder_no_repeat_ngram_size, encoder, text, &mut exclude);
    for word in &config.bad_words_ids {
        let Some((last, before)) = word.split_last() else { continue };
        let is_end = before.is_empty() && config.end_tokens.contains(last);
        if text.ends_with(before) && !is_end {
            exclude(*last);
        }
    }
}

/// The last tokens of the n-grams of `source` whose first n - 1 tokens end `text`.
fn ngrams(n: usize, source: &[u32], text: &[u32], exclude: &mut impl FnMut(u32)) {
    let Some(start) = n.checked_sub(1).and_then(|before| text.len().checked_sub(before)) else { return };
    let before = &text[start..];
    for window in source.windows(n) {
        if window.starts_with(before) {
            exclude(window[n - 1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(config: &GenerateConfig, text: &[u32], encoder: &[u32]) -> Vec<u32> {
        let mut tokens = Vec::new();
        for_each(config, text, encoder, |token| tokens.push(token));
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    #[test]
    fn an_ngram_of_the_text_is_not_completed_again() {
        let of = |n, text: &[u32]| {
            let config = GenerateConfig { no_repeat_ngram_size: n, ..GenerateConfig::default() };
            excluded(&config, text, &[])
        };
        let none: [u32; 0] = [];
        assert_eq!(of(0, &[1, 2, 1]), none);
        assert_eq!(of(1, &[1, 2, 1]), [1, 2]);
        assert_eq!(of(2, &[1, 2, 1, 3, 1]), [2, 3]);
        assert_eq!(of(3, &[1, 2, 1, 3, 1]), none);
        assert_eq!(of(3, &[1, 2, 4, 1, 2]), [4]);
        assert_eq!(of(3, &[1]), none);
        assert_eq!(of(1, &[]), none);
        assert_eq!(of(2, &[7, 7]), [7]);
    }

    #[test]
    fn an_ngram_of_the_encoder_is_not_completed() {
        let of = |n, text: &[u32]| {
            let config = GenerateConfig { encoder_no_repeat_ngram_size: n, ..GenerateConfig::default() };
            excluded(&config, text, &[5, 6, 7, 5, 8])
        };
        let none: [u32; 0] = [];
        assert_eq!(of(1, &[]), [5, 6, 7, 8]);
        assert_eq!(of(2, &[]), none);
        assert_eq!(of(2, &[1, 5]), [6, 8]);
        assert_eq!(of(3, &[5, 6]), [7]);
        assert_eq!(of(3, &[6]), none);
    }

    #[test]
    fn a_word_is_not_completed_and_an_end_is_no_word() {
        let config = GenerateConfig {
            bad_words_ids: vec![vec![3], vec![9], vec![1, 2], vec![4, 5, 6], vec![7, 9]],
            end_tokens: vec![9],
            ..GenerateConfig::default()
        };
        assert_eq!(excluded(&config, &[], &[]), [3]);
        assert_eq!(excluded(&config, &[1], &[]), [2, 3]);
        assert_eq!(excluded(&config, &[4, 5], &[]), [3, 6]);
        assert_eq!(excluded(&config, &[5], &[]), [3]);
        assert_eq!(excluded(&config, &[7], &[]), [3, 9], "the end completes a longer word");
    }
}
