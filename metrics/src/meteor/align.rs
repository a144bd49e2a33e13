//! The aligner: which words of the hypothesis are matched to which of the reference.
//!
//! A beam search over the words of the reference. Two mistakes of the reference implementation change scores
//! and are therefore kept: a one-word match by stem, synonym or paraphrase adds nothing to a path's count of
//! matches, because 0.5 is cut to an integer at each step; and the distance of a new match is added to the
//! path it was branched from, so that later branches of that path carry the distances of earlier ones.

use std::cmp::Reverse;

use super::MODULES;

/// What a match of each module weighs in the search, other than in the score.
const SEARCH_WEIGHTS: [f64; MODULES] = [1.0, 0.5, 0.5, 0.5];

/// Maximum number of paths.
const BEAM: usize = 40;

/// A run of words of the reference matched to a run of words of the hypothesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) module: usize,
    pub(super) reference_start: usize,
    pub(super) reference_length: usize,
    pub(super) hypothesis_start: usize,
    pub(super) hypothesis_length: usize,
}

impl Match {
    /// The distance between the starts of the two runs.
    fn distance(&self) -> usize {
        self.reference_start.abs_diff(self.hypothesis_start)
    }
}

/// All candidate matches of a pair of captions.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// By the word of the reference they begin at, in the order found.
    by_start: Vec<Vec<Match>>,
    /// How many candidates cover each word.
    reference_cover: Vec<u32>,
    hypothesis_cover: Vec<u32>,
}

impl Candidates {
    pub(super) fn reset(&mut self, hypothesis_length: usize, reference_length: usize) {
        for list in &mut self.by_start {
            list.clear();
        }
        self.by_start.resize_with(reference_length, Vec::new);
        self.reference_cover.clear();
        self.reference_cover.resize(reference_length, 0);
        self.hypothesis_cover.clear();
        self.hypothesis_cover.resize(hypothesis_length, 0);
    }

    pub(super) fn push(&mut self, candidate: Match) {
        let Match { reference_start, reference_length, hypothesis_start, hypothesis_length, .. } = candidate;
        self.by_start[reference_start].push(candidate);
        for cover in &mut self.reference_cover[reference_start..reference_start + reference_length] {
            *cover += 1;
        }
        for cover in &mut self.hypothesis_cover[hypothesis_start..hypothesis_start + hypothesis_length] {
            *cover += 1;
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.by_start.iter().map(Vec::len).sum()
    }

    /// The match at a word that competes with no other, if there is one.
    fn settled(&self, start: usize) -> Option<Match> {
        let [only] = self.by_start[start][..] else { return None };
        let reference = start..start + only.reference_length;
        let hypothesis = only.hypothesis_start..only.hypothesis_start + only.hypothesis_length;
        let alone = self.reference_cover[reference].iter().all(|&cover| cover == 1)
            && self.hypothesis_cover[hypothesis].iter().all(|&cover| cover == 1);
        alone.then_some(only)
    }

    /// The chosen matches in the order of the reference, and the number of chunks they form.
    pub(super) fn align(&self) -> (Vec<Match>, u64) {
        // long texts use the slower flags
        let mut chosen = if self.by_start.len() <= 128 && self.hypothesis_cover.len() <= 128 {
            self.search::<u128>(BEAM)
        } else {
            self.search::<Vec<bool>>(BEAM)
        };
        chosen.sort_unstable_by_key(|found| found.reference_start);
        let mut chunks = 0;
        let mut ends = None;
        for found in &chosen {
            if ends != Some((found.reference_start, found.hypothesis_start)) {
                chunks += 1;
            }
            ends = Some((
                found.reference_start + found.reference_length,
                found.hypothesis_start + found.hypothesis_length,
            ));
        }
        (chosen, chunks)
    }

    fn search<F: Flags>(&self, beam: usize) -> Vec<Match> {
        let words = self.by_start.len();
        let mut start = Path::<F>::new(words, self.hypothesis_cover.len());
        let settled: Vec<Option<Match>> = (0..words).map(|word| self.settled(word)).collect();
        for found in settled.iter().flatten() {
            start.take(found);
        }
        // Every match a path took, with the one it took before: paths share their history.
        let mut history: Vec<(Match, Option<usize>)> = Vec::new();
        let mut paths = vec![start];
        let mut next = Vec::new();
        let mut proposals = Vec::new();
        for current in 0..words {
            proposals.clear();
            for (parent, path) in paths.iter().enumerate() {
                self.propose(current, parent, path, &settled, &mut proposals);
            }
            if proposals.is_empty() {
                paths.truncate(1);
                continue;
            }
            // the order of proposals decides ties, so this is a stable sort that stops at the beam's width
            if proposals.len() > beam {
                proposals.select_nth_unstable_by_key(beam, Proposal::place);
                proposals.truncate(beam);
            }
            proposals.sort_unstable_by_key(Proposal::place);
            next.clear();
            next.extend(proposals.iter().map(|proposal| proposal.carry_out(&paths, &mut history)));
            std::mem::swap(&mut paths, &mut next);
        }
        for path in &mut paths {
            path.chunks += u32::from(path.last_end.is_some());
        }

        let mut chosen: Vec<Match> = settled.into_iter().flatten().collect();
        let mut taken = paths.iter().min_by_key(|path| path.rank()).and_then(|path| path.taken);
        while let Some(place) = taken {
            chosen.push(history[place].0);
            taken = history[place].1;
        }
        chosen
    }

    /// Proposes the steps of a path at a word of the reference. Few proposals are carried out.
    fn propose<F: Flags>(
        &self,
        current: usize,
        parent: usize,
        path: &Path<F>,
        settled: &[Option<Match>],
        proposals: &mut Vec<Proposal>,
    ) {
        let mut push = |step, rank: Rank| {
            proposals.push(Proposal { rank, order: proposals.len(), parent, step });
        };
        if path.reference_used.get(current) {
            if current < path.position {
                push(Step::Stay, path.rank());
            } else if let Some(found) = settled[path.position] {
                let distance = path.distance + found.distance();
                push(Step::Follow(found), path.rank_after(&found, distance));
            }
            return;
        }
        let mut distance = path.distance;
        for &found in &self.by_start[current] {
            if path.is_free(&found) {
                push(Step::Take(found), path.rank_after(&found, distance));
                // Given to the path it branches from, and so to the branches after it.
                distance += found.distance();
            }
        }
        let chunks = path.chunks + u32::from(path.last_end.is_some());
        push(Step::Skip, Rank { distance, chunks, ..path.rank() });
    }
}

/// More matches first, then fewer chunks, then less distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    matches: Reverse<u32>,
    chunks: u32,
    distance: usize,
}

/// A path as it would be after one more word of the reference.
struct Proposal {
    rank: Rank,
    /// How many were proposed before it.
    order: usize,
    /// The place of the path it continues.
    parent: usize,
    step: Step,
}

#[derive(Clone, Copy)]
enum Step {
    /// The word is inside the last match.
    Stay,
    /// The match at the word was settled before the search.
    Follow(Match),
    /// One of the word's candidates.
    Take(Match),
    /// The word stays unmatched.
    Skip,
}

impl Proposal {
    fn place(&self) -> (Rank, usize) {
        (self.rank, self.order)
    }

    fn carry_out<F: Flags>(&self, paths: &[Path<F>], history: &mut Vec<(Match, Option<usize>)>) -> Path<F> {
        let mut path = paths[self.parent].clone();
        match self.step {
            Step::Stay => {}
            Step::Follow(found) => path.follow(&found),
            Step::Take(found) => {
                path.take(&found);
                path.follow(&found);
                history.push((found, path.taken));
                path.taken = Some(history.len() - 1);
            }
            Step::Skip => {
                path.last_end = None;
                path.position += 1;
            }
        }
        let Rank { matches: Reverse(matches), chunks, distance } = self.rank;
        Path { matches, chunks, distance, ..path }
    }
}

/// One way to align the words of the reference so far.
#[derive(Clone)]
struct Path<F> {
    matches: u32,
    chunks: u32,
    distance: usize,
    /// The next word of the reference to decide on.
    position: usize,
    /// Where the last match ends in the hypothesis, while no word was skipped since.
    last_end: Option<usize>,
    reference_used: F,
    hypothesis_used: F,
    /// The last match taken, a place in the history.
    taken: Option<usize>,
}

impl<F: Flags> Path<F> {
    fn new(reference_length: usize, hypothesis_length: usize) -> Self {
        Self {
            matches: 0,
            chunks: 0,
            distance: 0,
            position: 0,
            last_end: None,
            reference_used: F::none(reference_length),
            hypothesis_used: F::none(hypothesis_length),
            taken: None,
        }
    }

    fn rank(&self) -> Rank {
        Rank { matches: Reverse(self.matches), chunks: self.chunks, distance: self.distance }
    }

    /// The rank with one more match.
    fn rank_after(&self, found: &Match, distance: usize) -> Rank {
        let weight = SEARCH_WEIGHTS[found.module];
        // Cut to an integer for each side, so that one word at weight 0.5 adds nothing.
        let matches = self.matches
            + (found.hypothesis_length as f64 * weight) as u32
            + (found.reference_length as f64 * weight) as u32;
        let chunks = self.chunks + u32::from(self.last_end.is_some_and(|end| end != found.hypothesis_start));
        Rank { matches: Reverse(matches), chunks, distance }
    }

    fn is_free(&self, found: &Match) -> bool {
        (0..found.reference_length).all(|i| !self.reference_used.get(found.reference_start + i))
            && (0..found.hypothesis_length).all(|i| !self.hypothesis_used.get(found.hypothesis_start + i))
    }

    fn take(&mut self, found: &Match) {
        for i in 0..found.reference_length {
            self.reference_used.set(found.reference_start + i);
        }
        for i in 0..found.hypothesis_length {
            self.hypothesis_used.set(found.hypothesis_start + i);
        }
    }

    /// Moves to the end of a match.
    fn follow(&mut self, found: &Match) {
        self.position = found.reference_start + found.reference_length;
        self.last_end = Some(found.hypothesis_start + found.hypothesis_length);
    }
}

/// One flag for each word.
trait Flags: Clone {
    fn none(length: usize) -> Self;
    fn get(&self, place: usize) -> bool;
    fn set(&mut self, place: usize);
}

impl Flags for u128 {
    fn none(_: usize) -> Self {
        0
    }

    fn get(&self, place: usize) -> bool {
        self >> place & 1 == 1
    }

    fn set(&mut self, place: usize) {
        *self |= 1 << place;
    }
}

impl Flags for Vec<bool> {
    fn none(length: usize) -> Self {
        vec![false; length]
    }

    fn get(&self, place: usize) -> bool {
        self[place]
    }

    fn set(&mut self, place: usize) {
        self[place] = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(
        hypothesis: usize,
        reference: usize,
        matches: &[(usize, usize, usize, usize, usize)],
    ) -> Candidates {
        let mut candidates = Candidates::default();
        candidates.reset(hypothesis, reference);
        for &(module, reference_start, reference_length, hypothesis_start, hypothesis_length) in matches {
            candidates.push(Match {
                module,
                reference_start,
                reference_length,
                hypothesis_start,
                hypothesis_length,
            });
        }
        candidates
    }

    #[test]
    fn a_half_weight_is_cut_to_an_integer() {
        let path = Path::<u128>::new(4, 4);
        let one = |module, length| Match {
            module,
            reference_start: 0,
            reference_length: length,
            hypothesis_start: 0,
            hypothesis_length: length,
        };
        for (found, matches) in
            [(one(1, 1), 0), (one(2, 1), 0), (one(3, 1), 0), (one(3, 2), 2), (one(0, 1), 2)]
        {
            assert_eq!(path.rank_after(&found, 0).matches, Reverse(matches), "{found:?}");
        }
    }

    #[test]
    fn the_distance_goes_to_the_parent() {
        // Reference word 0 matches hypothesis words 3 and 0, the far one found first. Its branch starts from
        // the parent's distance, 0, and the 3 goes to the parent, from which the near one's branch starts. So
        // the far one wins.
        let found = candidates(4, 1, &[(0, 0, 1, 3, 1), (0, 0, 1, 0, 1)]).align().0;
        assert_eq!(found[0].hypothesis_start, 3);
    }

    #[test]
    fn the_search_uses_other_weights_than_the_score() {
        // Half of five words is two; with the score's weight of 0.6 it would be three.
        let five = Match {
            module: 3,
            reference_start: 0,
            reference_length: 5,
            hypothesis_start: 0,
            hypothesis_length: 5,
        };
        assert_eq!(Path::<u128>::new(5, 5).rank_after(&five, 0).matches, Reverse(4));
    }

    #[test]
    fn forty_paths_are_followed() {
        // Made-up words, one for each number, through the jar: 5 chunks each time. Twenty paths find 6, all
        // paths find 4.
        for (hypothesis, reference) in [
            (&[0, 2, 0, 2, 2, 0, 2, 2, 2][..], &[2, 1, 0, 1, 1, 1, 0, 0, 0, 2, 1, 1, 2, 0, 1][..]),
            (&[1, 0, 1, 0, 2, 2, 1, 2, 3, 3, 0, 1], &[3, 1, 1, 1, 0, 2, 2, 2, 3, 3, 2]),
            (&[4, 2, 4, 0, 2, 3, 3, 2, 2], &[2, 1, 2, 2, 2, 0, 2, 0, 1, 2, 2, 4, 4]),
        ] {
            let mut matches = Vec::new();
            for (theirs, word) in reference.iter().enumerate() {
                let ours = hypothesis.iter().enumerate().filter(|(_, other)| *other == word);
                matches.extend(ours.map(|(ours, _)| (0, theirs, 1, ours, 1)));
            }
            assert_eq!(candidates(hypothesis.len(), reference.len(), &matches).align().1, 5);
        }
    }

    #[test]
    fn long_and_short_flags_agree() {
        let matches: Vec<_> = (0..12)
            .flat_map(|i| [(0, i, 1, (i * 5) % 12, 1), (1, i, 1, (i * 7 + 1) % 12, 1)])
            .chain([(3, 2, 2, 4, 3)])
            .collect();
        let candidates = candidates(12, 12, &matches);
        assert_eq!(candidates.search::<u128>(BEAM), candidates.search::<Vec<bool>>(BEAM));
    }

    #[test]
    fn chunks_are_runs_in_the_same_order() {
        let (found, chunks) = candidates(4, 4, &[(0, 0, 1, 0, 1), (0, 1, 1, 1, 1), (0, 3, 1, 2, 1)]).align();
        assert_eq!((found.len(), chunks), (3, 2));
    }
}
