//! Beam search, whole (as `transformers` 5 does it) and in diverse groups (as `transformers` 4 did).
//!
//! Each prompt is searched on its own: none of the others changes what is found for it.

use rayon::prelude::*;

use super::config::{DiverseBeam, EarlyStopping, GenerateConfig, Search, length_divisor};
use super::penalties::{Change, Penalties};
use super::scores::{Candidate, Row};
use super::{GenerateError, Generated, NextToken, Obstacle, Request, logits, worth_dropping};

/// Scores of beams are compared with this where there is no beam. What scores no better does not exist.
const IMPOSSIBLE: f32 = -1e9;

/// Runs the search.
pub(super) fn write<M>(
    model: &mut M,
    request: Request<'_>,
) -> Result<Vec<Vec<Generated>>, GenerateError<M::Error>>
where
    M: NextToken,
    M::Error: std::fmt::Debug,
{
    let Request { prompts, vocabulary, config } = request;
    let mut results = vec![Vec::new(); prompts.len()];
    let mut searches: Vec<PromptSearch<'_>> = prompts
        .iter()
        .enumerate()
        .map(|(index, prompt)| PromptSearch::new(index, &prompt.history, config))
        .collect();
    let mut scores = logits(model, vocabulary, 1, searches.len(), M::start)?;
    let mut rows = 1;
    for step in 1..=config.max_new_tokens {
        let obstacles: Vec<Option<(usize, Obstacle)>> = searches
            .par_iter_mut()
            .zip(scores.par_chunks_mut(rows * vocabulary))
            .map(|(search, logits)| {
                let obstacle = search.step(logits, vocabulary, step, config).err();
                obstacle.map(|obstacle| (search.index, obstacle))
            })
            .collect();
        if let Some((prompt, obstacle)) = obstacles.into_iter().flatten().next() {
            return Err(obstacle.at(step, prompt));
        }
        let finished = searches.iter().filter(|search| search.done()).count();
        if finished == searches.len() {
            break;
        }
        let drop = finished > 0 && worth_dropping(finished, searches.len());
        let (mut tokens, mut parents) = (Vec::new(), Vec::new());
        let kept = searches.iter_mut().enumerate().filter(|(_, search)| !(drop && search.done()));
        for (position, search) in kept {
            search.next(|token, parent| {
                tokens.push(token);
                parents.push(position * rows + parent.min(rows - 1));
            });
        }
        if drop {
            for search in searches.extract_if(.., |search| search.done()) {
                results[search.index] = search.sequences(config);
            }
        }
        rows = config.num_beams;
        scores = logits(model, vocabulary, step + 1, tokens.len(), |model| model.advance(&tokens, &parents))?;
    }
    for search in searches {
        results[search.index] = search.sequences(config);
    }
    Ok(results)
}

/// A token and what it follows.
#[derive(Debug, Clone, Copy)]
struct Node {
    token: u32,
    /// Index of the node before; none for the first token.
    parent: Option<u32>,
}

/// A sequence that may go on.
#[derive(Debug, Clone, Copy)]
struct Beam {
    /// Its last token; none before the first.
    node: Option<u32>,
    /// The row of the prompt that it continues.
    row: usize,
    /// Sum of the changed log-probabilities, in f32 as there.
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

/// A way for a beam to go on.
#[derive(Debug, Clone, Copy)]
struct Continuation {
    beam: usize,
    candidate: Candidate,
    /// The beam's score and the candidate's.
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
struct PromptSearch<'a> {
    /// Which prompt of the request.
    index: usize,
    history: &'a [u32],
    /// Most beams of a group.
    size: usize,
    groups: Vec<Group>,
    nodes: Vec<Node>,
    // buffers that live on from step to step
    rows: Vec<Row>,
    best: Vec<Candidate>,
    changed: Vec<Candidate>,
    changes: Vec<Change>,
    continuations: Vec<Continuation>,
}

impl<'a> PromptSearch<'a> {
    fn new(index: usize, history: &'a [u32], config: &GenerateConfig) -> Self {
        let groups = match config.search {
            Search::DiverseBeam(DiverseBeam { groups, .. }) => groups,
            Search::Beam | Search::Sample(_) => 1,
        };
        let first = Beam { node: None, row: 0, score: 0.0, log_probability: 0.0 };
        let group = || Group { running: vec![first], finished: Vec::new(), done: false };
        Self {
            index,
            history,
            size: config.num_beams / groups,
            groups: (0..groups).map(|_| group()).collect(),
            nodes: Vec::new(),
            rows: Vec::new(),
            best: Vec::new(),
            changed: Vec::new(),
            changes: Vec::new(),
            continuations: Vec::new(),
        }
    }

    fn done(&self) -> bool {
        self.groups.iter().all(|group| group.done)
    }

    /// Chooses the next tokens of all groups.
    ///
    /// # Shapes
    /// - logits: `[rows, v]`
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

    /// Reads the rows that running beams go on from.
    fn read(&mut self, logits: &[f32], vocabulary: usize) -> Result<(), Obstacle> {
        let rows = logits.len() / vocabulary;
        self.rows.resize_with(rows, Row::default);
        let groups = &self.groups;
        let live = |row: usize| {
            groups.iter().any(|group| !group.done && group.running.iter().any(|beam| beam.row == row))
        };
        let faults: Vec<Option<Obstacle>> = self
            .rows
            .par_iter_mut()
            .zip(logits.par_chunks(vocabulary))
            .enumerate()
            .map(|(index, (row, logits))| {
                if !live(index) {
                    return None;
                }
                row.read(logits).err().map(|fault| Obstacle::Fault(index, fault))
            })
            .collect();
        faults.into_iter().flatten().next().map_or(Ok(()), Err)
    }

    /// Finds the best continuations of a group's beams, best first.
    fn find(
        &mut self,
        group: usize,
        logits: &mut [f32],
        vocabulary: usize,
        penalties: &Penalties<'_>,
        chosen: &[u32],
        config: &GenerateConfig,
    ) {
        let Self { rows, best, changed, changes, continuations, nodes, .. } = self;
        // however many of them end, as many beams as there are can go on
        let count = self.size * (config.end_tokens.len() + 1).max(2);
        continuations.clear();
        for (index, beam) in self.groups[group].running.iter().enumerate() {
            let row = &rows[beam.row];
            let logits = &mut logits[beam.row * vocabulary..(beam.row + 1) * vocabulary];
            let earlier = self.history.iter().copied().chain(backwards(nodes, beam.node));
            penalties.changes(earlier, chosen, vocabulary, changes);
            changed.clear();
            changed.extend(changes.iter().map(|change| {
                let log_probability = row.log_probability(logits[change.token as usize]);
                let score = penalties.apply(change, log_probability);
                Candidate { token: change.token, score, log_probability }
            }));
            row.best(logits, changed, count, best);
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

    /// Finishes the continuations that end, keeps the best others running, and sees whether the group is done. What the
    /// running ones go on with is added to `chosen`.
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
            // an end that is not among the best is no better finished than running
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

    /// Names the tokens of the next rows and the rows they continue, then counts the beams as these rows.
    fn next(&mut self, mut row: impl FnMut(u32, usize)) {
        for (group, Group { running, done, .. }) in self.groups.iter_mut().enumerate() {
            for place in 0..self.size {
                let own = group * self.size + place;
                match running.get_mut(place).filter(|_| !*done) {
                    Some(beam) => {
                        row(beam.node.map_or(0, |node| self.nodes[node as usize].token), beam.row);
                        beam.row = own;
                    }
                    // nobody reads what a row without a beam gives
                    None => row(0, own),
                }
            }
        }
    }

    /// The best finished sequences of all groups.
    fn sequences(&self, config: &GenerateConfig) -> Vec<Generated> {
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

/// Puts a beam among the finished ones if it is one of the best `size`. Of equal ones, the first stays ahead in whole
/// beam search and the last in diverse search.
fn finish(finished: &mut Vec<Finished>, beam: Beam, score: f64, size: usize, diverse: bool) {
    let place = finished.partition_point(|other| other.score >= score);
    if place == size {
        return;
    }
    let place = if diverse { finished.partition_point(|other| other.score > score) } else { place };
    finished.insert(place, Finished { node: beam.node, score, log_probability: beam.log_probability });
    finished.truncate(size);
}

/// The tokens of a sequence from its last to its first.
fn backwards(nodes: &[Node], last: Option<u32>) -> impl Iterator<Item = u32> {
    let mut next = last;
    std::iter::from_fn(move || {
        let Node { token, parent } = nodes[next? as usize];
        next = parent;
        Some(token)
    })
}
