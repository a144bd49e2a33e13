//! The loop over new tokens that all searches share.

use rayon::prelude::*;

use super::config::GenerateConfig;
use super::scores::Fault;
use super::{GenerateError, Generated, NextToken, Request};

/// The search for one prompt.
pub(super) trait PromptSearch: Send {
    /// Chooses the next token of every sequence; `step` counts from 1. At the first step there is one row,
    /// later as many as [`next`](Self::next) named.
    ///
    /// # Shapes
    /// - logits: `[rows, v]`
    fn step(
        &mut self,
        logits: &mut [f32],
        vocabulary: usize,
        step: usize,
        config: &GenerateConfig,
    ) -> Result<(), Obstacle>;

    /// Whether every sequence is finished.
    fn done(&self) -> bool;

    /// Calls `push` for every row of the next step with its new token and the row that it continues.
    fn next(&mut self, push: impl FnMut(u32, usize));

    /// The sequences, best first.
    fn generated(&self, config: &GenerateConfig) -> Vec<Generated>;
}

/// Runs the searches, one a prompt, each with `width` rows from the second step on.
pub(super) fn run<M, S>(
    model: &mut M,
    request: Request<'_>,
    searches: Vec<S>,
    width: usize,
) -> Result<Vec<Vec<Generated>>, GenerateError<M::Error>>
where
    M: NextToken,
    M::Error: std::fmt::Debug,
    S: PromptSearch,
{
    let Request { prompts, vocabulary, config } = request;
    let mut results = vec![Vec::new(); prompts.len()];
    let mut searches: Vec<(usize, S)> = searches.into_iter().enumerate().collect();
    let mut scores = logits(model, vocabulary, 1, searches.len(), M::start)?;
    let mut rows = 1;
    for step in 1..=config.max_new_tokens {
        let steps = searches.par_iter_mut().zip(scores.par_chunks_mut(rows * vocabulary));
        let obstacles = steps.map(|((prompt, search), logits)| {
            search.step(logits, vocabulary, step, config).err().map(|obstacle| (*prompt, obstacle))
        });
        first_obstacle(obstacles).map_err(|(prompt, obstacle)| obstacle.at(step, prompt))?;
        let finished = searches.iter().filter(|(_, search)| search.done()).count();
        if finished == searches.len() || step == config.max_new_tokens {
            break;
        }
        // dropping fewer than a quarter of the prompts costs more than it saves
        let drop = finished > 0 && finished * 4 >= searches.len();
        let (mut tokens, mut parents) = (Vec::new(), Vec::new());
        let kept = searches.iter_mut().enumerate().filter(|(_, (_, search))| !(drop && search.done()));
        for (position, (_, search)) in kept {
            search.next(|token, parent| {
                tokens.push(token);
                parents.push(position * rows + parent.min(rows - 1));
            });
        }
        if drop {
            for (prompt, search) in searches.extract_if(.., |(_, search)| search.done()) {
                results[prompt] = search.generated(config);
            }
        }
        rows = width;
        scores = logits(model, vocabulary, step + 1, tokens.len(), |model| model.advance(&tokens, &parents))?;
    }
    for (prompt, search) in searches {
        results[prompt] = search.generated(config);
    }
    Ok(results)
}

/// Calls the model and checks the number of its logits.
fn logits<M>(
    model: &mut M,
    vocabulary: usize,
    step: usize,
    rows: usize,
    call: impl FnOnce(&mut M) -> Result<Vec<f32>, M::Error>,
) -> Result<Vec<f32>, GenerateError<M::Error>>
where
    M: NextToken,
    M::Error: std::fmt::Debug,
{
    let logits = call(model).map_err(|error| GenerateError::Model { step, error })?;
    if vocabulary == 0 || rows.checked_mul(vocabulary) != Some(logits.len()) {
        return Err(GenerateError::Size { step, rows, vocabulary, got: logits.len() });
    }
    Ok(logits)
}

/// Why a prompt cannot be continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// The row of this number holds unusable logits.
    Fault(usize, Fault),
    NothingLeft,
}

impl Obstacle {
    /// The same in another row.
    pub(super) fn of(self, row: usize) -> Self {
        match self {
            Self::Fault(_, fault) => Self::Fault(row, fault),
            Self::NothingLeft => Self::NothingLeft,
        }
    }

    fn at<E: std::fmt::Debug>(self, step: usize, prompt: usize) -> GenerateError<E> {
        match self {
            Self::Fault(row, fault) => GenerateError::Logits { step, prompt, row, fault },
            Self::NothingLeft => GenerateError::NothingLeft { step, prompt },
        }
    }
}

/// Runs all work and returns the obstacle of the first item that has one.
pub(super) fn first_obstacle<O: Send>(work: impl IndexedParallelIterator<Item = Option<O>>) -> Result<(), O> {
    let obstacles: Vec<Option<O>> = work.collect();
    obstacles.into_iter().flatten().next().map_or(Ok(()), Err)
}
