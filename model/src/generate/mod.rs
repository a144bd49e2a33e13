//! Text generation, token for token as Hugging Face's `generate`: greedy and beam search as in `transformers`
//! 5, diverse beam search as in `transformers` 4, sampling with the same filters. The searches run on the
//! host and use the model through [`NextToken`].
//!
//! Scores are f32 where theirs are. Of equal scores the lower beam, then the lower token comes first. Greedy
//! search there does the same; their beam search orders equal scores by an unstable selection. Where a beam
//! search has fewer possible sequences than beams, theirs adds sequences that score -1e9 and less; here they
//! do not exist.

mod beam;
mod config;
mod exclusions;
mod penalties;
mod sample;
mod scores;
mod single;
mod steps;

pub use config::{ConfigError, DiverseBeam, EarlyStopping, GenerateConfig, Sample, Search};
pub use scores::Fault;

use beam::BeamSearch;
use single::Sequences;

/// A language model during generation: it scores the next token of each of its rows.
///
/// The rows of one prompt are adjacent, in the order of the prompts, and all prompts have equally many: one
/// after [`start`](Self::start), then as many as beams or samples. Prompts whose sequences are all finished
/// are dropped in groups; the implementation then keeps the state of the rows that `parents` name.
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

    /// Appends one token: the new row `i` is the old row `parents[i]` followed by `tokens[i]`. Called at most
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

/// What to tell who sets [`GenerateConfig::encoder_no_repeat_ngram_size`] for a BLIP-2.
pub const NO_ENCODER_IDS: &str = "encoder_no_repeat_ngram_size has no effect: a BLIP-2's language model reads \
     embedded tokens, which have no ids; transformers ignores it with the same warning";

/// What a search needs of a prompt besides the model's scores.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PromptInfo {
    /// Tokens before the new ones, which the repetition penalty and the excluded n-grams count: the start
    /// token of an encoder-decoder model's decoder; the prompt's tokens without padding for a decoder-only
    /// model. (Hugging Face counts padding too, so that there an answer depends on the batch.)
    pub history: Vec<u32>,
    /// Tokens whose n-grams `encoder_no_repeat_ngram_size` excludes: what the encoder reads, or a
    /// decoder-only model's prompt. Empty where the model reads embedded tokens without ids.
    pub encoder: Vec<u32>,
    /// Selects the prompt's stream of random numbers, for example its index in the data set. Samples depend
    /// on this, the seed and the sample's number, and not on the other prompts of the batch.
    pub stream: u64,
}

/// The arguments of [`generate`].
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The prompts, in the model's order.
    pub prompts: &'a [PromptInfo],
    /// Number of logits of a row.
    pub vocabulary: usize,
    /// Search, limits and penalties.
    pub config: &'a GenerateConfig,
}

/// One generated sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// The new tokens, with the end of sequence if there is one.
    pub ids: Vec<u32>,
    /// Sum over the new tokens, the end included, of the model's own log-probabilities: the log-softmax of
    /// its logits before any penalty, temperature or filter.
    pub log_probability: f32,
    /// The sequences of a prompt are sorted by this. Beam searches: `sequences_scores` of Hugging Face, the
    /// sum of the log-probabilities with all penalties, over `length^length_penalty`. Greedy search and
    /// sampling, where Hugging Face has no score: `log_probability / length^length_penalty`.
    pub score: f32,
}

/// Why generation failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GenerateError<E: std::fmt::Debug> {
    /// The settings do not fit each other or the model.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model failed.
    #[error("the language model failed at new token {step}: {error:?}")]
    Model {
        /// Number of the new token, from 1.
        step: usize,
        /// The model's error.
        error: E,
    },
    /// The model returned a wrong number of logits.
    #[error("the language model gave {got} logits at new token {step}, expected {rows} rows of {vocabulary}")]
    Size {
        /// Number of the new token, from 1.
        step: usize,
        /// Expected rows.
        rows: usize,
        /// Logits of a row.
        vocabulary: usize,
        /// Returned logits.
        got: usize,
    },
    /// The model returned unusable logits.
    #[error("the logits for new token {step} of prompt {prompt} (its row {row}) are unusable: {fault}")]
    Logits {
        /// Number of the new token, from 1.
        step: usize,
        /// The prompt, from 0.
        prompt: usize,
        /// Beam or sample of the prompt, from 0.
        row: usize,
        /// What is wrong with them.
        fault: Fault,
    },
    /// Penalties and limits exclude every token.
    #[error(
        "nothing can be new token {step} of prompt {prompt}: every token has probability 0, is an end before \
         min_new_tokens, or is excluded by no_repeat_ngram_size, encoder_no_repeat_ngram_size or bad_words_ids"
    )]
    NothingLeft {
        /// Number of the new token, from 1.
        step: usize,
        /// The prompt, from 0.
        prompt: usize,
    },
}

/// Generates `num_return_sequences` sequences for each prompt, best first, or fewer (at least one) if a beam
/// search finds fewer possible sequences.
///
/// # Errors
/// If the settings are invalid, the model fails or returns logits that are not numbers, or no token is
/// possible.
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
    config.fits(request.vocabulary)?;
    if request.prompts.is_empty() {
        return Ok(Vec::new());
    }
    let prompts = request.prompts.iter();
    match config.search {
        Search::Beam | Search::DiverseBeam(_) if config.num_beams > 1 => {
            let searches = prompts.map(|prompt| BeamSearch::new(prompt, config)).collect();
            steps::run(model, request, searches, config.num_beams)
        }
        Search::Beam | Search::DiverseBeam(_) | Search::Sample(_) => {
            let searches = prompts.map(|prompt| Sequences::new(prompt, config)).collect();
            steps::run(model, request, searches, config.num_return_sequences)
        }
    }
}
