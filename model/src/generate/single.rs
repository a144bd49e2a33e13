//! One token after the other, without beams: greedy search and sampling.

use rayon::prelude::*;

use super::config::{GenerateConfig, Search, length_divisor};
use super::penalties::{Change, Context, Penalties};
use super::sample::{Distribution, RandomStream};
use super::scores::{Fault, Row};
use super::steps::{Obstacle, PromptSearch, first_obstacle};
use super::{Generated, PromptInfo};

/// A sequence being generated.
#[derive(Debug)]
struct Sequence {
    ids: Vec<u32>,
    log_probability: f64,
    done: bool,
    random: Option<RandomStream>,
    // buffers that are reused at every step
    row: Row,
    changes: Vec<Change>,
    distribution: Distribution,
    text: Vec<u32>,
}

/// The sequences of one prompt.
#[derive(Debug)]
pub(super) struct Sequences<'a> {
    prompt: &'a PromptInfo,
    sequences: Vec<Sequence>,
}

impl<'a> Sequences<'a> {
    pub(super) fn new(prompt: &'a PromptInfo, config: &GenerateConfig) -> Self {
        let random = |number| match config.search {
            Search::Sample(sample) => Some(RandomStream::new(sample.seed, prompt.stream, number)),
            Search::Beam | Search::DiverseBeam(_) => None,
        };
        let sequences = (0..config.num_return_sequences as u64).map(|number| Sequence::new(random(number)));
        Self { prompt, sequences: sequences.collect() }
    }
}

impl PromptSearch for Sequences<'_> {
    fn done(&self) -> bool {
        self.sequences.iter().all(|sequence| sequence.done)
    }

    fn step(
        &mut self,
        logits: &mut [f32],
        vocabulary: usize,
        step: usize,
        config: &GenerateConfig,
    ) -> Result<(), Obstacle> {
        let penalties = Penalties::new(config, step - 1);
        let prompt = self.prompt;
        if logits.len() == vocabulary && self.sequences.len() > 1 {
            for (number, sequence) in self.sequences.iter_mut().enumerate() {
                sequence.step(&mut logits.to_vec(), prompt, &penalties, config).map_err(|o| o.of(number))?;
            }
            return Ok(());
        }
        let steps = self.sequences.par_iter_mut().zip(logits.par_chunks_mut(vocabulary)).enumerate();
        first_obstacle(steps.map(|(number, (sequence, logits))| {
            sequence.step(logits, prompt, &penalties, config).err().map(|o| o.of(number))
        }))
    }

    fn next(&mut self, mut push: impl FnMut(u32, usize)) {
        for (row, sequence) in self.sequences.iter().enumerate() {
            push(sequence.ids.last().copied().unwrap_or(0), row);
        }
    }

    fn generated(&self, config: &GenerateConfig) -> Vec<Generated> {
        let finish = |Sequence { ids, log_probability, .. }: &Sequence| {
            let score = log_probability / length_divisor(ids.len(), config.length_penalty);
            Generated { ids: ids.clone(), log_probability: *log_probability as f32, score: score as f32 }
        };
        let mut generated: Vec<Generated> = self.sequences.iter().map(finish).collect();
        generated.sort_by(|a, b| b.score.total_cmp(&a.score));
        generated
    }
}

impl Sequence {
    fn new(random: Option<RandomStream>) -> Self {
        Self {
            ids: Vec::new(),
            log_probability: 0.0,
            done: false,
            random,
            row: Row::default(),
            changes: Vec::new(),
            distribution: Distribution::default(),
            text: Vec::new(),
        }
    }

    fn step(
        &mut self,
        logits: &mut [f32],
        prompt: &PromptInfo,
        penalties: &Penalties<'_>,
        config: &GenerateConfig,
    ) -> Result<(), Obstacle> {
        if self.done {
            return Ok(());
        }
        self.row.read(logits).map_err(|fault| Obstacle::Fault(0, fault))?;
        if let Some(token) = penalties.forced(prompt.history.len()) {
            self.append(token, logits[token as usize], config);
            return Ok(());
        }
        self.text.clear();
        if penalties.read_text() {
            self.text.extend_from_slice(&prompt.history);
            self.text.extend_from_slice(&self.ids);
        }
        let context = Context { text: &self.text, encoder: &prompt.encoder, chosen: &[] };
        penalties.changes(context, logits.len(), &mut self.changes);
        let mut unchanged = Vec::with_capacity(self.changes.len());
        for change in &self.changes {
            let logit = &mut logits[change.token as usize];
            unchanged.push(*logit);
            *logit = penalties.apply(change, *logit);
            if *logit == f32::INFINITY {
                return Err(Obstacle::Fault(0, Fault::Infinite(change.token as usize)));
            }
        }
        let token = match (&config.search, &mut self.random) {
            (Search::Sample(sample), Some(random)) => {
                if !self.distribution.filter(logits, sample) {
                    return Err(Obstacle::NothingLeft);
                }
                random.token(&self.distribution)
            }
            _ => greatest(logits).ok_or(Obstacle::NothingLeft)?,
        };
        let place = self.changes.binary_search_by_key(&token, |change| change.token);
        let logit = place.map_or(logits[token as usize], |place| unchanged[place]);
        self.append(token, logit, config);
        Ok(())
    }

    /// Appends a token with the model's logit.
    fn append(&mut self, token: u32, logit: f32, config: &GenerateConfig) {
        self.log_probability += f64::from(self.row.log_probability(logit));
        self.ids.push(token);
        self.done = config.end_tokens.contains(&token);
    }
}

/// The first of the greatest scores; `None` if all are -∞.
fn greatest(scores: &[f32]) -> Option<u32> {
    let mut best = None;
    let mut max = f32::NEG_INFINITY;
    for (block, values) in scores.chunks(64).enumerate() {
        // the compiler vectorises this maximum, but not one that keeps its index
        let greatest = values.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
        if greatest > max {
            max = greatest;
            best = Some((block, values));
        }
    }
    let (block, values) = best?;
    values.iter().position(|&value| value == max).map(|place| (block * 64 + place) as u32)
}
