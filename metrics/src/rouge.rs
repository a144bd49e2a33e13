//! ROUGE-L, the F-measure of the longest common subsequence, with coco-caption's beta of 1.2.
//!
//! Kept from the reference: precision and recall are each the best over the references, so they may come from
//! two different ones; words are split on the single space, so an empty caption has one word, the empty one.

use crate::ngram::FastMap;

const BETA: f64 = 1.2;

/// ROUGE-L of one tokenised hypothesis, 0 to 1. Without references it is 0.
pub fn rouge_l<S: AsRef<str>>(hypothesis: &str, references: &[S]) -> f64 {
    let words = WordPlaces::of(hypothesis);
    let mut precision: f64 = 0.0;
    let mut recall: f64 = 0.0;
    for reference in references {
        let (common, length) = words.longest_common_subsequence(reference.as_ref());
        precision = precision.max(common as f64 / words.length as f64);
        recall = recall.max(common as f64 / length as f64);
    }
    if precision == 0.0 || recall == 0.0 {
        return 0.0;
    }
    ((1.0 + BETA * BETA) * precision * recall) / (recall + BETA * BETA * precision)
}

/// The positions of each word of the hypothesis, as bits.
struct WordPlaces<'a> {
    places: FastMap<&'a str, Vec<u64>>,
    length: usize,
}

impl<'a> WordPlaces<'a> {
    fn of(hypothesis: &'a str) -> Self {
        let mut places: FastMap<&str, Vec<u64>> = FastMap::default();
        let length = hypothesis.split(' ').count();
        for (place, word) in hypothesis.split(' ').enumerate() {
            let bits = places.entry(word).or_insert_with(|| vec![0; length.div_ceil(64)]);
            bits[place / 64] |= 1 << (place % 64);
        }
        Self { places, length }
    }

    /// Lengths of the longest common subsequence with a reference and of the reference.
    ///
    /// Rows of the dynamic-programming table are stored as differences of neighbours, which are 0 or 1 (a
    /// zero bit where the length grows), and the next row follows by one addition (Hyyrö 2004).
    fn longest_common_subsequence(&self, reference: &str) -> (usize, usize) {
        let mut row = vec![u64::MAX; self.length.div_ceil(64)];
        let mut words = 0;
        for word in reference.split(' ') {
            words += 1;
            let Some(places) = self.places.get(word) else { continue };
            let mut carry = false;
            for (bits, &places) in row.iter_mut().zip(places) {
                let matched = *bits & places;
                let (sum, first) = bits.overflowing_add(matched);
                let (sum, second) = sum.overflowing_add(u64::from(carry));
                carry = first || second;
                *bits = sum | (*bits & !places);
            }
        }
        let ones: usize = row.iter().map(|bits| bits.count_ones() as usize).sum();
        (64 * row.len() - ones, words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_and_recall_may_come_from_different_references() {
        // Precision 1 from the long reference, recall 1 from the short one.
        assert_eq!(rouge_l("a b", &["a x b y z", "a"]), 1.0);
    }

    #[test]
    fn two_empty_captions_agree() {
        assert_eq!(rouge_l("", &[""]), 1.0);
        assert_eq!(rouge_l("", &["a cat"]), 0.0);
    }

    #[test]
    fn words_are_split_on_the_plain_space_only() {
        // the tokeniser joins "1 1/2" with a no-break space
        assert_eq!(WordPlaces::of("1\u{a0}1/2 cups").longest_common_subsequence("1\u{a0}1/2 cups"), (2, 2));
        assert_eq!(WordPlaces::of("1 1/2 cups").longest_common_subsequence("1\u{a0}1/2 cups"), (1, 2));
    }

    #[test]
    fn the_order_of_words_counts() {
        assert_eq!(WordPlaces::of("a b c d").longest_common_subsequence("b a d c"), (2, 4));
    }

    /// The plain dynamic-programming table.
    fn by_table(left: &[&str], right: &[&str]) -> usize {
        let mut lengths = vec![vec![0; right.len() + 1]; left.len() + 1];
        for i in 0..left.len() {
            for j in 0..right.len() {
                lengths[i + 1][j + 1] = if left[i] == right[j] {
                    lengths[i][j] + 1
                } else {
                    lengths[i][j + 1].max(lengths[i + 1][j])
                };
            }
        }
        lengths[left.len()][right.len()]
    }

    proptest::proptest! {
        #[test]
        fn bits_and_table_find_the_same_length(left in "[abc]( [abcd]){0,150}", right in "[abc]( [abcde]){0,80}") {
            let (length, words) = WordPlaces::of(&left).longest_common_subsequence(&right);
            let (left, right): (Vec<&str>, Vec<&str>) = (left.split(' ').collect(), right.split(' ').collect());
            proptest::prop_assert_eq!((length, words), (by_table(&left, &right), right.len()));
        }
    }
}
