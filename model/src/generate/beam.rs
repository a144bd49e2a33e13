//! Beam search, in one group (as in `transformers` 5) and in diverse groups (as in `transformers` 4).
//!
//! Each prompt has a search that is independent of the others.

use rayon::prelude::*;

use super::config::{DiverseBeam, EarlyStopping, GenerateConfig, Search, length_divisor};
use super::penalties::{Change, Context, Penalties};
use super::scores::{Candidate, Row};
use super::steps::{Obstacle, PromptSearch, first_obstacle};
use super::{Generated, PromptInfo};

/// The score of a beam that does not exist. Continuations that score no better are dropped.
const IMPOSSIBLE: f32 = -1e9;

/// A token and its predecessor.
#[derive(Debug, Clone, Copy)]
struct Node {
    token: u32,
    /// Index of the previous node; `None` for the first token.
    parent: Option<u32>,
}

/// An unfinished sequence.
#[derive(Debug, Clone, Copy)]
struct Beam {
    /// Its last token; `None` before the first.
    node: Option<u32>,
    /// The row of the prompt that it continues.
    row: usize,
    /// Sum of the log-probabilities with penalties, in f32 as in transformers.
    score: f32,
    log_probability: f64,
}

/// A finished sequence.
#[derive(Debug, Clone, Copy)]
struct Finished {
    node: Option<u32>,
    score: f64,
    log_probability: f64,
}

/// A beam followed by one more token.
#[derive(Debug, Clone, Copy)]
struct Continuation {
    beam: usize,
    candidate: Candidate,
    /// Sum of the beam's score and the candidate's.
    score: f32,
}

/// Beams that compete with each other. Their rows are adjacent.
#[derive(Debug)]
struct Group {
    running: Vec<Beam>,
    finished: Vec<Finished>,
    done: bool,
}

/// The search for one prompt.
#[derive(Debug)]
pub(super) struct BeamSearch<'a> {
    prompt: &'a PromptInfo,
    /// Maximum number of beams of a group.
    size: usize,
    groups: Vec<Group>,
    nodes: Vec<Node>,
    // buffers that are reused at every step
    rows: Vec<Row>,
    best: Vec<Candidate>,
    changed: Vec<Candidate>,
    changes: Vec<Change>,
    continuations: Vec<Continuation>,
    text: Vec<u32>,
}

impl<'a> BeamSearch<'a> {
    pub(super) fn new(prompt: &'a PromptInfo, config: &GenerateConfig) -> Self {
        let groups = match config.search {
            Search::DiverseBeam(DiverseBeam { groups, .. }) => groups,
            Search::Beam | Search::Sample(_) => 1,
        };
        let first = Beam { node: None, row: 0, score: 0.0, log_probability: 0.0 };
        let group = || Group { running: vec![first], finished: Vec::new(), done: false };
        Self {
            prompt,
            size: config.num_beams / groups,
            groups: (0..groups).map(|_| group()).collect(),
            nodes: Vec::new(),
            rows: Vec::new(),
            best: Vec::new(),
            changed: Vec::new(),
            changes: Vec::new(),
            continuations: Vec::new(),
            text: Vec::new(),
        }
    }

    /// Reads the rows that running beams continue.
    fn read(&mut self, logits: &[f32], vocabulary: usize) -> Result<(), Obstacle> {
        let rows = logits.len() / vocabulary;
        self.rows.resize_with(rows, Row::default);
        let groups = &self.groups;
        let live = |row: usize| {
            groups.iter().any(|group| !group.done && group.running.iter().any(|beam| beam.row == row))
        };
        let read = self.rows.par_iter_mut().zip(logits.par_chunks(vocabulary)).enumerate();
        first_obstacle(read.map(|(index, (row, logits))| {
            let fault = if live(index) { row.read(logits).err() } else { None };
            fault.map(|fault| Obstacle::Fault(index, fault))
        }))
    }

    /// Finds the best continuations of a group's beams, sorted by score.
    fn find(
        &mut self,
        group: usize,
        logits: &mut [f32],
        vocabulary: usize,
        penalties: &Penalties<'_>,
        chosen: &[u32],
        config: &GenerateConfig,
    ) {
        let Self { prompt, rows, best, changed, changes, continuations, nodes, text, .. } = self;
        let PromptInfo { history, encoder, .. } = prompt;
        let forced = penalties.forced(history.len());
        // enough that `size` beams can continue even if all end tokens are among the best
        let count = self.size * (config.end_tokens.len() + 1).max(2);
        continuations.clear();
        for (index, beam) in self.groups[group].running.iter().enumerate() {
            let row = &rows[beam.row];
            let logits = &mut logits[beam.row * vocabulary..(beam.row + 1) * vocabulary];
            if let Some(token) = forced {
                let log_probability = row.log_probability(logits[token as usize]);
                best.clear();
                best.push(Candidate { token, score: 0.0, log_probability });
            } else {
                text.clear();
                if penalties.read_text() {
                    text.extend(backwards(nodes, beam.node).chain(history.iter().rev().copied()));
                    text.reverse();
                }
                penalties.changes(Context { text, encoder, chosen }, vocabulary, changes);
                changed.clear();
                changed.extend(changes.iter().map(|change| {
                    let log_probability = row.log_probability(logits[change.token as usize]);
                    let score = penalties.apply(change, log_probability);
                    Candidate { token: change.token, score, log_probability }
                }));
                row.best(logits, changed, count, best);
            }
            continuations.extend(best.iter().map(|&candidate| Continuation {
                beam: index,
                candidate,
                score: candidate.score + beam.score,
            }));
        }
        continuations.retain(|continuation| continuation.score > IMPOSSIBLE);
        continuations.sort_unstable_by(|a, b| {
            let by_place = || (a.beam, a.candidate.token).cmp(&(b.beam, b.candidate.token));
            b.score.total_cmp(&a.score).then_with(by_place)
        });
        continuations.truncate(count);
    }

    /// Finishes the continuations that end, keeps the best others running, and decides whether the group is
    /// done. The tokens of the running ones are added to `chosen`.
    fn choose(&mut self, group: usize, step: usize, config: &GenerateConfig, chosen: &mut Vec<u32>) {
        let Group { running, finished, done } = &mut self.groups[group];
        let last = step == config.max_new_tokens;
        let diverse = matches!(config.search, Search::DiverseBeam(_));
        let normalise = |score: f32, length: usize| {
            let divisor = length_divisor(length, config.length_penalty);
            if diverse { f64::from(score) / divisor } else { f64::from(score / divisor as f32) }
        };
        let mut next = Vec::with_capacity(self.size);
        for (rank, continuation) in self.continuations.iter().enumerate() {
            let Candidate { token, log_probability, .. } = continuation.candidate;
            let before = running[continuation.beam];
            let ends = config.end_tokens.contains(&token);
            let finishes = ends || (last && !diverse);
            // an end that is not among the best is dropped
            if if finishes { rank >= self.size } else { next.len() == self.size } {
                continue;
            }
            self.nodes.push(Node { token, parent: before.node });
            let beam = Beam {
                node: Some((self.nodes.len() - 1) as u32),
                row: before.row,
                score: continuation.score,
                log_probability: before.log_probability + f64::from(log_probability),
            };
            if finishes {
                finish(finished, beam, normalise(beam.score, step), self.size, diverse);
            } else {
                next.push(beam);
                chosen.push(token);
            }
        }
        *running = next;
        let best = match diverse {
            true => self.continuations.first().map(|continuation| continuation.score),
            false => running.first().map(|beam| beam.score),
        };
        let at_best = match config.early_stopping {
            EarlyStopping::Never if config.length_penalty > 0.0 => config.max_new_tokens,
            _ => step,
        };
        let worst = finished.last().filter(|_| finished.len() == self.size).map(|worst| worst.score);
        *done = match (worst, best) {
            (_, None) => true,
            (None, _) => false,
            (Some(_), _) if config.early_stopping == EarlyStopping::Yes => true,
            (Some(worst), Some(best)) => normalise(best, at_best) <= worst,
        };
        if last && !*done {
            for beam in running.drain(..) {
                finish(finished, beam, normalise(beam.score, step), self.size, diverse);
            }
        }
        *done |= last || running.is_empty();
    }
}

impl PromptSearch for BeamSearch<'_> {
    fn done(&self) -> bool {
        self.groups.iter().all(|group| group.done)
    }

    fn step(
        &mut self,
        logits: &mut [f32],
        vocabulary: usize,
        step: usize,
        config: &GenerateConfig,
    ) -> Result<(), Obstacle> {
        self.read(logits, vocabulary)?;
        let penalties = Penalties::new(config, step - 1);
        let mut chosen = Vec::new();
        for group in (0..self.groups.len()).filter(|&group| !self.groups[group].done).collect::<Vec<_>>() {
            self.find(group, logits, vocabulary, &penalties, &chosen, config);
            self.choose(group, step, config, &mut chosen);
        }
        let nothing = |group: &Group| group.running.is_empty() && group.finished.is_empty();
        if self.groups.iter().all(nothing) { Err(Obstacle::NothingLeft) } else { Ok(()) }
    }

    fn next(&mut self, mut push: impl FnMut(u32, usize)) {
        for (group, Group { running, done, .. }) in self.groups.iter_mut().enumerate() {
            for place in 0..self.size {
                let own = group * self.size + place;
                match running.get_mut(place).filter(|_| !*done) {
                    Some(beam) => {
                        push(beam.node.map_or(0, |node| self.nodes[node as usize].token), beam.row);
                        beam.row = own;
                    }
                    // the scores of a row without a beam are ignored
                    None => push(0, own),
                }
            }
        }
    }

    /// The best finished sequences of all groups.
    fn generated(&self, config: &GenerateConfig) -> Vec<Generated> {
        let mut finished: Vec<&Finished> =
            self.groups.iter().rev().flat_map(|group| &group.finished).collect();
        finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        let best = finished.into_iter().take(config.num_return_sequences);
        best.map(|finished| {
            let mut ids: Vec<u32> = backwards(&self.nodes, finished.node).collect();
            ids.reverse();
            Generated { ids, log_probability: finished.log_probability as f32, score: finished.score as f32 }
        })
        .collect()
    }
}

/// Adds a beam to the finished ones if it is one of the best `size`. Of equal scores, the first stays ahead
/// in beam search and the last in diverse beam search.
fn finish(finished: &mut Vec<Finished>, beam: Beam, score: f64, size: usize, diverse: bool) {
    let place = finished.partition_point(|other| other.score >= score);
    if place == size {
        return;
    }
    let place = if diverse { finished.partition_point(|other| other.score > score) } else { place };
    finished.insert(place, Finished { node: beam.node, score, log_probability: beam.log_probability });
    finished.truncate(size);
}

/// The tokens of a sequence, last first.
fn backwards(nodes: &[Node], last: Option<u32>) -> impl Iterator<Item = u32> {
    let mut next = last;
    std::iter::from_fn(move || {
        let Node { token, parent } = nodes[next? as usize];
        next = parent;
        Some(token)
    })
}
