//! All captions of a corpus as numbered n-grams, counted once for BLEU and for CIDEr.

use rayon::prelude::*;

use crate::frequencies::idf;
use crate::ngram::{FastMap, Gram, MAX_N, Vocabulary, count_into, gram, python_split};

/// The numbered n-grams of a corpus: of every video the hypothesis, then its references.
pub(crate) struct Grams {
    /// The index of each video's first caption, and one past the last caption.
    videos: Vec<usize>,
    by_length: [GramsOfLength; MAX_N],
}

/// The n-grams of one length.
#[derive(Default)]
struct GramsOfLength {
    /// The n-grams of all captions, concatenated. Equal n-grams have equal numbers.
    numbers: Vec<u32>,
    /// The start of each caption, and the end of the last.
    starts: Vec<usize>,
    /// For each n-gram, the number of videos with it in a reference.
    documents: Vec<u32>,
}

/// The n-grams of one video.
#[derive(Clone, Copy)]
pub(crate) struct VideoGrams<'a> {
    grams: &'a Grams,
    video: usize,
}

impl Grams {
    pub(crate) fn new<C, R, S>(hypotheses: &[C], references: &[R]) -> Self
    where
        C: AsRef<str>,
        R: AsRef<[S]>,
        S: AsRef<str>,
    {
        let mut vocabulary = Vocabulary::default();
        let mut words: Vec<u32> = Vec::new();
        let mut starts = vec![0];
        let mut videos = vec![0];
        for (hypothesis, references) in hypotheses.iter().zip(references) {
            let references = references.as_ref().iter().map(AsRef::as_ref);
            for caption in std::iter::once(hypothesis.as_ref()).chain(references) {
                words.extend(python_split(caption).map(|word| vocabulary.intern(word)));
                starts.push(words.len());
            }
            videos.push(starts.len() - 1);
        }
        // lengths are counted in parallel; the longest takes the most time
        let mut by_length: [GramsOfLength; MAX_N] = Default::default();
        by_length
            .par_iter_mut()
            .enumerate()
            .rev()
            .with_max_len(1)
            .for_each(|(n, grams)| *grams = GramsOfLength::new(n + 1, &words, &starts, &videos));
        Self { videos, by_length }
    }

    /// The videos in their order.
    pub(crate) fn videos(&self) -> impl IndexedParallelIterator<Item = VideoGrams<'_>> {
        (0..self.videos.len() - 1).into_par_iter().map(|video| VideoGrams { grams: self, video })
    }

    /// The weight in CIDEr of one occurrence of each n-gram, by length and number.
    pub(crate) fn weights(&self) -> [Vec<f64>; MAX_N] {
        let videos = (self.videos.len() - 1) as f64;
        let weights = |grams: &GramsOfLength| {
            grams.documents.iter().map(|&count| idf(videos, f64::from(count))).collect()
        };
        self.by_length.each_ref().map(weights)
    }
}

impl GramsOfLength {
    fn new(n: usize, words: &[u32], starts: &[usize], videos: &[usize]) -> Self {
        let mut known: FastMap<Gram, u32> = FastMap::default();
        let mut grams =
            Self { numbers: Vec::with_capacity(words.len()), starts: vec![0], documents: Vec::new() };
        // The last video that counted for each n-gram.
        let mut counted: Vec<usize> = Vec::new();
        for (video, captions) in videos.windows(2).enumerate() {
            for caption in captions[0]..captions[1] {
                let is_reference = caption > captions[0];
                for window in words[starts[caption]..starts[caption + 1]].windows(n) {
                    let number = *known.entry(gram(window)).or_insert_with(|| {
                        grams.documents.push(0);
                        counted.push(usize::MAX);
                        grams.documents.len() as u32 - 1
                    });
                    grams.numbers.push(number);
                    if is_reference && counted[number as usize] != video {
                        counted[number as usize] = video;
                        grams.documents[number as usize] += 1;
                    }
                }
                grams.starts.push(grams.numbers.len());
            }
        }
        grams
    }

    fn caption(&self, caption: usize) -> &[u32] {
        &self.numbers[self.starts[caption]..self.starts[caption + 1]]
    }
}

impl<'a> VideoGrams<'a> {
    /// The n-grams of the hypothesis in order; `n` counts from 0.
    pub(crate) fn hypothesis(self, n: usize) -> &'a [u32] {
        self.grams.by_length[n].caption(self.grams.videos[self.video])
    }

    /// Those of each reference.
    pub(crate) fn references(self, n: usize) -> impl Iterator<Item = &'a [u32]> {
        let captions = self.grams.videos[self.video] + 1..self.grams.videos[self.video + 1];
        captions.map(move |caption| self.grams.by_length[n].caption(caption))
    }
}

/// The distinct n-grams of a caption with their counts.
#[derive(Debug, Default)]
pub(crate) struct NumberCounts {
    /// In the order of first appearance, in which the reference sums floats (the insertion order of its
    /// dictionaries).
    pub(crate) in_order: Vec<(u32, u32)>,
    /// Sorted by number, with the index in `in_order`.
    sorted: Vec<(u32, u32)>,
}

impl NumberCounts {
    /// Counts the n-grams of another caption.
    pub(crate) fn set(&mut self, numbers: &[u32]) {
        count_into(numbers.iter().copied(), &mut self.in_order);
    }

    /// As [`NumberCounts::set`]; [`NumberCounts::place`] then finds its n-grams.
    pub(crate) fn set_to_find(&mut self, numbers: &[u32]) {
        self.set(numbers);
        self.sorted.clear();
        self.sorted.extend(self.in_order.iter().map(|&(number, _)| number).zip(0..));
        self.sorted.sort_unstable();
    }

    /// The place of an n-gram in the order of first appearance.
    pub(crate) fn place(&self, number: u32) -> Option<usize> {
        let found = self.sorted.binary_search_by_key(&number, |&(known, _)| known).ok()?;
        Some(self.sorted[found].1 as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ngram::FEW;

    #[test]
    fn few_and_many_numbers_are_counted_alike() {
        let numbers: Vec<u32> = (0..200).map(|i| i * i % 23).collect();
        for length in [0, 1, FEW, FEW + 1, 200] {
            let mut counts = NumberCounts::default();
            counts.set_to_find(&numbers[..length]);
            let mut distinct = Vec::new();
            for number in &numbers[..length] {
                if !distinct.contains(number) {
                    distinct.push(*number);
                }
            }
            assert_eq!(counts.in_order.iter().map(|entry| entry.0).collect::<Vec<_>>(), distinct);
            assert_eq!(counts.in_order.iter().map(|entry| entry.1 as usize).sum::<usize>(), length);
            for (place, number) in distinct.into_iter().enumerate() {
                assert_eq!(counts.place(number), Some(place));
            }
            assert_eq!(counts.place(999), None);
        }
    }

    #[test]
    fn an_ngram_counts_once_for_a_video_and_not_for_a_hypothesis() {
        let grams = Grams::new(&["a cow", "a"], &[vec!["a man", "a man a"], vec!["the"]]);
        let weights = grams.weights();
        // "a" and "man" occur in one video of two, "cow" in none: both weigh ln(2).
        let video = grams.videos().collect::<Vec<_>>()[0];
        assert_eq!(video.hypothesis(0).len(), 2);
        assert_eq!(video.references(1).map(<[u32]>::len).collect::<Vec<_>>(), [1, 2]);
        assert!(weights[0].iter().all(|&weight| weight == 2.0_f64.ln()));
    }
}
