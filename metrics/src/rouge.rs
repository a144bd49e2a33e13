//! ROUGE-L, the F-measure of the longest common subsequence, with coco-caption's beta of 1.2.
//!
//! Kept from the reference: precision and recall are each the best over the references, so they may come from two
//! different ones; words are split on the single space, so an empty caption has one word, the empty one.

const BETA: f64 = 1.2;

/// ROUGE-L of one tokenised hypothesis, 0 to 1. Without references it is 0.
pub fn rouge_l<S: AsRef<str>>(hypothesis: &str, references: &[S]) -> f64 {
    let words: Vec<&str> = hypothesis.split(' ').collect();
    let mut precision: f64 = 0.0;
    let mut recall: f64 = 0.0;
    for reference in references {
        let reference: Vec<&str> = reference.as_ref().split(' ').collect();
        let common = longest_common_subsequence(&words, &reference) as f64;
        precision = precision.max(common / words.len() as f64);
        recall = recall.max(common / reference.len() as f64);
    }
    if precision == 0.0 || recall == 0.0 {
        return 0.0;
    }
    ((1.0 + BETA * BETA) * precision * recall) / (recall + BETA * BETA * precision)
}

fn longest_common_subsequence(left: &[&str], right: &[&str]) -> usize {
    // One row of the table: `lengths[j]` is the answer for the words of `left` so far and `right[..j]`.
    let mut lengths = vec![0; right.len() + 1];
    for word in left {
        let mut diagonal = 0;
        for (j, other) in right.iter().enumerate() {
            let above = lengths[j + 1];
            lengths[j + 1] = if word == other { diagonal + 1 } else { above.max(lengths[j]) };
            diagonal = above;
        }
    }
    lengths[right.len()]
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
    fn the_order_of_words_counts() {
        assert_eq!(longest_common_subsequence(&["a", "b", "c", "d"], &["b", "a", "d", "c"]), 2);
    }
}
