//! Words, n-grams and means, as computed by the reference's Python.

/// The longest n-gram any of the metrics counts.
pub(crate) const MAX_N: usize = 4;

/// Splits as Python 3's `str.split()` does: on Unicode white space and on U+001C to U+001F, which
/// [`char::is_whitespace`] leaves out. A no-break space inside a token (`1 1/2`) therefore splits it in two
/// for BLEU and CIDEr, but not for ROUGE-L, which splits on the plain space.
pub fn python_split(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
        .filter(|word| !word.is_empty())
}

/// A map with a faster hash than the standard map, without its protection against collisions. No result
/// depends on the order of its entries.
pub(crate) type FastMap<K, V> = rustc_hash::FxHashMap<K, V>;

/// Numbers for words, so that an n-gram of up to four words fits one integer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vocabulary {
    numbers: FastMap<String, u32>,
}

impl Vocabulary {
    pub(crate) fn len(&self) -> u32 {
        // memory does not suffice for 2^32 distinct words
        u32::try_from(self.numbers.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn get(&self, word: &str) -> Option<u32> {
        self.numbers.get(word).copied()
    }

    pub(crate) fn intern(&mut self, word: &str) -> u32 {
        if let Some(number) = self.get(word) {
            return number;
        }
        let number = self.len();
        self.numbers.insert(word.to_owned(), number);
        number
    }

    /// The words in the order of their numbers.
    pub(crate) fn words(&self) -> Vec<&str> {
        let mut words: Vec<_> = self.numbers.iter().map(|(word, &number)| (number, word.as_str())).collect();
        words.sort_unstable();
        words.into_iter().map(|(_, word)| word).collect()
    }
}

/// An n-gram of one to four word numbers in one integer: 32 bits per word, the last word lowest, each number
/// plus one so that "a" and "<nothing> a" differ.
pub(crate) type Gram = u128;

pub(crate) fn gram(words: &[u32]) -> Gram {
    words.iter().fold(0, |gram, &word| (gram << 32) | (Gram::from(word) + 1))
}

/// The n-grams of one length with their counts, in the order of first appearance. The reference sums floats
/// in this order (the insertion order of its dictionaries).
pub(crate) fn count(words: &[u32], n: usize) -> Vec<(Gram, u32)> {
    let mut counts = Vec::with_capacity(words.len());
    count_into(words.windows(n).map(gram), &mut counts);
    counts
}

/// Replaces `counts` by the distinct items with their counts, in the order of first appearance.
pub(crate) fn count_into<T: Copy + Ord>(items: impl ExactSizeIterator<Item = T>, counts: &mut Vec<(T, u32)>) {
    counts.clear();
    if items.len() <= FEW {
        for item in items {
            match counts.iter_mut().find(|(known, _)| *known == item) {
                Some((_, count)) => *count += 1,
                None => counts.push((item, 1)),
            }
        }
        return;
    }
    // sorting groups equal items without hashing; sorting by first index restores the order
    let mut places: Vec<(T, u32)> = items.zip(0..).collect();
    places.sort_unstable();
    let groups = places.chunk_by(|a, b| a.0 == b.0);
    let mut groups: Vec<(u32, T, u32)> =
        groups.map(|group| (group[0].1, group[0].0, group.len() as u32)).collect();
    groups.sort_unstable();
    counts.extend(groups.into_iter().map(|(_, item, count)| (item, count)));
}

/// Up to this many items, pairwise comparison is faster than sorting.
pub(crate) const FEW: usize = 32;

/// The mean as computed by NumPy: pairwise summation in blocks of 128 with eight running sums. Equal to the
/// reference to the last digit, unlike a sum from left to right.
pub(crate) fn numpy_mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { pairwise_sum(values) / values.len() as f64 }
}

fn pairwise_sum(values: &[f64]) -> f64 {
    if values.len() < 8 {
        // NumPy starts from -0.0 here; the sign of zero is all that changes.
        return values.iter().fold(0.0, |sum, value| sum + value);
    }
    if values.len() <= 128 {
        let mut sums: [f64; 8] = std::array::from_fn(|lane| values[lane]);
        let blocks = values[8..].chunks_exact(8);
        let rest = blocks.remainder();
        for block in blocks {
            for (sum, value) in sums.iter_mut().zip(block) {
                *sum += value;
            }
        }
        let [a, b, c, d, e, f, g, h] = sums;
        return rest.iter().fold(((a + b) + (c + d)) + ((e + f) + (g + h)), |sum, value| sum + value);
    }
    let half = values.len() / 2;
    let (left, right) = values.split_at(half - half % 8);
    pairwise_sum(left) + pairwise_sum(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gram_of_one(word: u32) -> Gram {
        gram(&[word])
    }

    #[test]
    fn python_split_knows_the_separators_rust_lacks() {
        let words: Vec<_> = python_split(" a\u{a0}b\u{1c}c\u{85}d\u{3000}e\t\nf\u{200b}g ").collect();
        assert_eq!(words, ["a", "b", "c", "d", "e", "f\u{200b}g"]);
    }

    #[test]
    fn different_grams_differ() {
        let grams =
            [&[0u32][..], &[0, 0], &[1], &[0, 1], &[1, 0], &[7, 0], &[0, 0, 3], &[1, 2, 3, u32::MAX - 1]];
        let packed: std::collections::HashSet<Gram> = grams.into_iter().map(gram).collect();
        assert_eq!(packed.len(), grams.len());
    }

    #[test]
    fn counts_keep_the_order_of_first_appearance() {
        let of = |n| count(&[5, 1, 5, 1], n);
        assert_eq!(of(1), [(gram(&[5]), 2), (gram(&[1]), 2)]);
        assert_eq!(of(2), [(gram(&[5, 1]), 2), (gram(&[1, 5]), 1)]);
        assert_eq!(of(4), [(gram(&[5, 1, 5, 1]), 1)]);
        assert!((1..=MAX_N).all(|n| count(&[], n).is_empty()));
        let long: Vec<u32> = (0..100).map(|i| i * i % 7).collect();
        let expected: Vec<_> = [0, 1, 4, 2].map(gram_of_one).into_iter().zip([15, 29, 28, 28]).collect();
        assert_eq!(count(&long, 1), expected);
    }

    #[test]
    fn means_are_numpys() {
        // NumPy 2.4: np.mean(np.arange(1, 1001) / 3) and np.mean(np.full(1000, 0.1)).
        let values: Vec<f64> = (1..=1000).map(|i| f64::from(i) / 3.0).collect();
        assert_eq!(numpy_mean(&values), 166.833_333_333_333_34);
        assert_eq!(numpy_mean(&[0.1; 1000]), 0.100_000_000_000_000_02);
        // Summed from left to right it is another number.
        assert_ne!([0.1; 1000].iter().sum::<f64>() / 1000.0, 0.100_000_000_000_000_02);
    }
}
