//! One token after the other, no beams: greedy search and sampling.

use rayon::prelude::*;

use super::config::{GenerateConfig, Sample, length_divisor};
use super::penalties::{Change, Penalties};
use super::sample::{Distribution, RandomStream};
use super::scores::{Fault, Row};
use super::{GenerateError, Generated, NextToken, Obstacle, Request, logits, worth_dropping};

/// Writes one sequence for each prompt, or `num_return_sequences` samples.
pub(super) fn write<M>(
    model: &mut M,
    request: Request<'_>,
    sample: Option<Sample>,
) -> Result<Vec<Vec<Generated>>, GenerateError<M::Error>>
where
    M: NextToken,
    M::Error: std::fmt::Debug,
{
    let Request { prompts, vocabulary, config } = request;
    let mut results = vec![Vec::new(); prompts.len()];
    let mut writers: Vec<PromptWriter<'_>> = prompts
        .iter()
        .enumerate()
        .map(|(index, prompt)| {
            let draws = |number| sample.map(|sample| RandomStream::new(sample.seed, prompt.stream, number));
            let sequences = (0..config.num_return_sequences as u64).map(|n| Sequence::new(draws(n)));
            PromptWriter { index, history: &prompt.history, sequences: sequences.collect() }
        })
        .collect();
    let mut scores = logits(model, vocabulary, 1, writers.len(), M::start)?;
    let mut rows = 1;
    for step in 1..=config.max_new_tokens {
        let obstacles: Vec<Option<(usize, Obstacle)>> = writers
            .par_iter_mut()
            .zip(scores.par_chunks_mut(rows * vocabulary))
            .map(|(writer, logits)| {
                let obstacle = writer.step(logits, vocabulary, step, config, sample.as_ref()).err();
                obstacle.map(|obstacle| (writer.index, obstacle))
            })
            .collect();
        if let Some((prompt, obstacle)) = obstacles.into_iter().flatten().next() {
            return Err(obstacle.at(step, prompt));
        }
        let finished = writers.iter().filter(|writer| writer.done()).count();
        if finished == writers.len() || step == config.max_new_tokens {
            break;
        }
        let drop = finished > 0 && worth_dropping(finished, writers.len());
        let (mut tokens, mut parents) = (Vec::new(), Vec::new());
        let kept = writers.iter().enumerate().filter(|(_, writer)| !(drop && writer.done()));
        for (position, writer) in kept {
            tokens.extend(writer.sequences.iter().map(|sequence| sequence.ids.last().copied().unwrap_or(0)));
            parents.extend((0..writer.sequences.len()).map(|row| position * rows + row.min(rows - 1)));
        }
        if drop {
            for writer in writers.extract_if(.., |writer| writer.done()) {
                results[writer.index] = writer.generated(config);
            }
        }
        rows = config.num_return_sequences;
        scores = logits(model, vocabulary, step + 1, tokens.len(), |model| model.advance(&tokens, &parents))?;
    }
    for writer in writers {
        results[writer.index] = writer.generated(config);
    }
    Ok(results)
}

/// A sequence being written.
#[derive(Debug)]
struct Sequence {
    ids: Vec<u32>,
    log_probability: f64,
    done: bool,
    draws: Option<RandomStream>,
    // buffers that live on from step to step
    row: Row,
    changes: Vec<Change>,
    distribution: Distribution,
}

/// The sequences of one prompt.
#[derive(Debug)]
struct PromptWriter<'a> {
    /// Which prompt of the request.
    index: usize,
    history: &'a [u32],
    sequences: Vec<Sequence>,
}

impl PromptWriter<'_> {
    fn done(&self) -> bool {
        self.sequences.iter().all(|sequence| sequence.done)
    }

    /// Chooses the next token of each sequence. The first time all of them go on from one row.
    ///
    /// # Shapes
    /// - logits: `[rows, v]`
    fn step(
        &mut self,
        logits: &mut [f32],
        vocabulary: usize,
        step: usize,
        config: &GenerateConfig,
        sample: Option<&Sample>,
    ) -> Result<(), Obstacle> {
        let penalties = Penalties::new(config, step - 1);
        let history = self.history;
        if logits.len() == vocabulary && self.sequences.len() > 1 {
            for (number, sequence) in self.sequences.iter_mut().enumerate() {
                sequence
                    .step(&mut logits.to_vec(), history, &penalties, config, sample)
                    .map_err(|o| o.of(number))?;
            }
            return Ok(());
        }
        let steps = self.sequences.par_iter_mut().zip(logits.par_chunks_mut(vocabulary)).enumerate();
        let obstacles: Vec<Option<Obstacle>> = steps
            .map(|(number, (sequence, logits))| {
                sequence.step(logits, history, &penalties, config, sample).err().map(|o| o.of(number))
            })
            .collect();
        obstacles.into_iter().flatten().next().map_or(Ok(()), Err)
    }

    /// The sequences, best first.
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
    fn new(draws: Option<RandomStream>) -> Self {
        Self {
            ids: Vec::new(),
            log_probability: 0.0,
            done: false,
            draws,
            row: Row::default(),
            changes: Vec::new(),
            distribution: Distribution::default(),
        }
    }

    fn step(
        &mut self,
        logits: &mut [f32],
        history: &[u32],
        penalties: &Penalties<'_>,
        config: &GenerateConfig,
        sample: Option<&Sample>,
    ) -> Result<(), Obstacle> {
        if self.done {
            return Ok(());
        }
        self.row.read(logits).map_err(|fault| Obstacle::Fault(0, fault))?;
        let earlier = history.iter().chain(&self.ids).copied();
        penalties.changes(earlier, &[], logits.len(), &mut self.changes);
        let mut own = Vec::with_capacity(self.changes.len());
        for change in &self.changes {
            let logit = &mut logits[change.token as usize];
            own.push(*logit);
            *logit = penalties.apply(change, *logit);
            if *logit == f32::INFINITY {
                return Err(Obstacle::Fault(0, Fault::Infinite(change.token as usize)));
            }
        }
        let token = match (sample, &mut self.draws) {
            (Some(sample), Some(draws)) => {
                if !self.distribution.filter(logits, sample) {
                    return Err(Obstacle::NothingLeft);
                }
                draws.token(&self.distribution)
            }
            _ => greatest(logits).ok_or(Obstacle::NothingLeft)?,
        };
        let place = self.changes.binary_search_by_key(&token, |change| change.token);
        let logit = place.map_or(logits[token as usize], |place| own[place]);
        self.log_probability += f64::from(self.row.log_probability(logit));
        self.ids.push(token);
        self.done = config.end_tokens.contains(&token);
        Ok(())
    }
}

/// The first of the greatest scores; none where all are -∞.
fn greatest(scores: &[f32]) -> Option<u32> {
    let mut best = None;
    let mut max = f32::NEG_INFINITY;
    for (block, values) in scores.chunks(64).enumerate() {
        // the compiler makes vector instructions of this maximum, but not of one that keeps its place
        let greatest = values.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
        if greatest > max {
            max = greatest;
            best = Some((block, values));
        }
    }
    let (block, values) = best?;
    values.iter().position(|&value| value == max).map(|place| (block * 64 + place) as u32)
}
