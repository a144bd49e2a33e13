//! From a language model's scores to sequences of tokens, token for token as Hugging Face's `generate` chooses them:
//! greedy and beam search as in `transformers` 5, diverse beam search as in `transformers` 4, sampling with the same
//! filters. The searches run on the host and know the model only as [`NextToken`].
//!
//! The arithmetic that decides is in f32 where theirs is. Of equal scores the lower beam, then the lower token comes
//! first; so does greedy search there, while the order of equal scores in their beam search is that of an unstable
//! selection. Where a beam search has fewer possible sequences than beams, theirs fills up with sequences that score
//! -1e9 and less; here they do not exist.

mod beam;
mod config;
mod penalties;
mod sample;
mod scores;
mod single;

pub use config::{ConfigError, DiverseBeam, EarlyStopping, GenerateConfig, Sample, Search};
pub use scores::Fault;

/// A language model in the middle of writing: it scores the token that comes next in each of its rows.
///
/// The rows of one prompt stay together and in the order of the prompts, and all prompts have equally many: one after
/// [`start`](Self::start), later as many as beams or samples. Prompts whose sequences are all finished are dropped
/// when enough of them have gathered; of what is kept for each row, the implementation then keeps what `parents` name.
pub trait NextToken {
    /// What can go wrong on the model's side.
    type Error;

    /// Reads the prompts.
    ///
    /// # Shapes
    /// - output: `[prompts, v]` logits
    ///
    /// # Errors
    /// When the device fails.
    fn start(&mut self) -> Result<Vec<f32>, Self::Error>;

    /// Goes on by one token: the new row `i` is the old row `parents[i]` followed by `tokens[i]`. Called at most
    /// `max_new_tokens - 1` times.
    ///
    /// # Shapes
    /// - tokens, parents: `[rows]`
    /// - output: `[rows, v]` logits
    ///
    /// # Errors
    /// When the device fails.
    fn advance(&mut self, tokens: &[u32], parents: &[usize]) -> Result<Vec<f32>, Self::Error>;
}

/// What is known of a prompt besides what the model has read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Tokens before the new ones that the repetition penalty counts: the start token of an encoder-decoder model's
    /// decoder; the prompt's tokens without padding for a decoder-only model.
    pub history: Vec<u32>,
    /// Names the prompt's stream of random numbers, say by its place in the data set: what is drawn for it depends on
    /// this, the seed and the sample's number, and not on the other prompts of the batch.
    pub stream: u64,
}

/// What is to be written.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The prompts, in the model's order.
    pub prompts: &'a [Prompt],
    /// Logits of a row.
    pub vocabulary: usize,
    /// How.
    pub config: &'a GenerateConfig,
}

/// One written sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// The new tokens, the end of sequence included where one was written.
    pub ids: Vec<u32>,
    /// Sum over the new tokens, the end included, of the model's own log-probabilities: the log-softmax of its logits
    /// before any penalty, temperature or filter.
    pub log_probability: f32,
    /// What the sequences of a prompt are ordered by. Beam searches: `sequences_scores` of Hugging Face, the sum of
    /// the log-probabilities with all penalties, over `length^length_penalty`. Greedy search and sampling, where
    /// Hugging Face has no score: `log_probability / length^length_penalty`.
    pub score: f32,
}

/// Why nothing was written.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GenerateError<E: std::fmt::Debug> {
    /// The settings do not fit each other or the model.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model failed.
    #[error("the language model failed at new token {step}: {error:?}")]
    Model {
        /// Which new token was to be written, from 1.
        step: usize,
        /// What the model says.
        error: E,
    },
    /// The model gave more or fewer logits than asked for.
    #[error("the language model gave {got} logits at new token {step}, expected {rows} rows of {vocabulary}")]
    Size {
        /// Which new token was to be written, from 1.
        step: usize,
        /// Rows asked for.
        rows: usize,
        /// Logits of a row.
        vocabulary: usize,
        /// Logits given.
        got: usize,
    },
    /// The model gave logits that mean nothing.
    #[error("the logits for new token {step} of prompt {prompt} (its row {row}) are unusable: {fault}")]
    Logits {
        /// Which new token was to be written, from 1.
        step: usize,
        /// The prompt, from 0.
        prompt: usize,
        /// The row of the prompt: its beam or sample, from 0.
        row: usize,
        /// What is wrong with them.
        fault: Fault,
    },
    /// Penalties and limits leave no token.
    #[error(
        "nothing can be new token {step} of prompt {prompt}: every token has probability 0 or is an end before \
         min_new_tokens"
    )]
    NothingLeft {
        /// Which new token was to be written, from 1.
        step: usize,
        /// The prompt, from 0.
        prompt: usize,
    },
}

/// Writes sequences: for each prompt `num_return_sequences` of them, best first, or fewer where a beam search finds
/// fewer that are possible at all (one at least).
///
/// # Errors
/// When the settings do not fit, the model fails or gives logits that are no numbers, or nothing can be written.
pub fn generate<M>(
    model: &mut M,
    request: Request<'_>,
) -> Result<Vec<Vec<Generated>>, GenerateError<M::Error>>
where
    M: NextToken,
    M::Error: std::fmt::Debug,
{
    let config = request.config;
    config.validate()?;
    let outside = config.end_tokens.iter().find(|&&token| token as usize >= request.vocabulary);
    if let Some(&token) = outside {
        return Err(ConfigError::EndOutsideVocabulary { token, vocabulary: request.vocabulary }.into());
    }
    if request.prompts.is_empty() {
        return Ok(Vec::new());
    }
    match config.search {
        Search::Beam if config.num_beams == 1 => single::write(model, request, None),
        Search::Sample(sample) => single::write(model, request, Some(sample)),
        Search::Beam | Search::DiverseBeam(_) => beam::write(model, request),
    }
}

/// Calls the model and checks how much it gives.
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

/// Why a prompt cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    /// Its row holds unusable logits.
    Fault(usize, Fault),
    NothingLeft,
}

impl Obstacle {
    /// The same in another row.
    fn of(self, row: usize) -> Self {
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

/// Whether so many prompts are finished that dropping them saves more than moving the others costs.
fn worth_dropping(finished: usize, prompts: usize) -> bool {
    finished * 4 >= prompts
}
