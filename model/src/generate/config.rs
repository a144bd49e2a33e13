//! Settings of text generation: search, limits and penalties, under Hugging Face's names.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// Maximum number of beams or samples of a prompt.
const MAX_ROWS: usize = 1024;

/// Settings of text generation. The default is greedy search: one beam, no penalties.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerateConfig {
    /// Maximum number of new tokens, with the end of sequence; 32 by default.
    pub max_new_tokens: usize,
    /// Minimum number of new tokens before an end of sequence; 0 by default.
    pub min_new_tokens: usize,
    /// Tokens that end a sequence; none by default: all sequences then have `max_new_tokens` tokens.
    pub end_tokens: Vec<u32>,
    /// Number of beams of each prompt; 1 by default, which is greedy search.
    pub num_beams: usize,
    /// Sequences returned for each prompt: the best beams, or the number of samples; 1 by default.
    pub num_return_sequences: usize,
    /// Length penalty: the score of a sequence is its log-probability divided by length^length_penalty; 1 by
    /// default. Above 0 favours long sequences, below 0 short ones.
    pub length_penalty: f64,
    /// When a beam search with enough finished sequences stops; `false` by default.
    pub early_stopping: EarlyStopping,
    /// Divides the positive and multiplies the negative scores of tokens that the text contains; 1 by
    /// default.
    pub repetition_penalty: f64,
    /// No sequence of this many tokens is written twice, the text before the new tokens counted; 0, the
    /// default: any may be.
    #[serde(deserialize_with = "or_default")]
    pub no_repeat_ngram_size: usize,
    /// No sequence of this many tokens of [`PromptInfo::encoder`](super::PromptInfo::encoder) is written; 0,
    /// the default: any may be. BLIP-2's language model reads embedded tokens without ids, so that this has
    /// no effect there, as in transformers.
    #[serde(deserialize_with = "or_default")]
    pub encoder_no_repeat_ngram_size: usize,
    /// Sequences of tokens that are not written; none by default. A single end token is no such sequence:
    /// it is allowed.
    #[serde(deserialize_with = "or_default")]
    pub bad_words_ids: Vec<Vec<u32>>,
    /// The token that follows the first token of the text. That is the first new token of an encoder-decoder
    /// model, whose text begins with a start token, and the second one of a BLIP-2 with a decoder-only model,
    /// whose prompt has no ids, as in transformers. None by default.
    #[serde(deserialize_with = "or_default")]
    pub forced_bos_token_id: Option<u32>,
    /// The search; `"beam"` by default.
    pub search: Search,
}

/// JSON has `null` where transformers has no value.
fn or_default<'d, D: Deserializer<'d>, T: Deserialize<'d> + Default>(value: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self {
            max_new_tokens: 32,
            min_new_tokens: 0,
            end_tokens: Vec::new(),
            num_beams: 1,
            num_return_sequences: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::No,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            encoder_no_repeat_ngram_size: 0,
            bad_words_ids: Vec::new(),
            forced_bos_token_id: None,
            search: Search::Beam,
        }
    }
}

/// The search. In a file: `search = "beam"`, `search = { sample = { top_p = 0.9 } }` or
/// `search = { diverse_beam = { groups = 2 } }`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Search {
    /// The `num_beams` best continuations of all beams; with one beam the most probable token at every step.
    #[default]
    Beam,
    /// Beams in groups; each group is penalised for tokens that earlier groups chose at the same step.
    DiverseBeam(DiverseBeam),
    /// Tokens sampled by probability.
    Sample(Sample),
}

/// Settings of diverse beam search (Vijayakumar et al., 2016).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiverseBeam {
    /// Number of groups of equal size; 2 by default.
    pub groups: usize,
    /// Subtracted from a token's log-probability for each beam of an earlier group with it at this step; 0.5
    /// by default.
    pub penalty: f64,
}

impl Default for DiverseBeam {
    fn default() -> Self {
        Self { groups: 2, penalty: 0.5 }
    }
}

/// Settings of sampling. The filters apply in the order of the fields.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sample {
    /// Divides the logits; 1 by default. Above 1 flattens the distribution, below 1 sharpens it.
    pub temperature: f64,
    /// Samples from the `top_k` most probable tokens and all that equal the last of them; 0, the default:
    /// from all. (Hugging Face's default is 50.)
    pub top_k: usize,
    /// Samples from the fewest most probable tokens whose probabilities reach this sum; 1, the default: from
    /// all.
    pub top_p: f64,
    /// Random seed; 0 by default.
    pub seed: u64,
}

impl Default for Sample {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 0 }
    }
}

/// When a beam search with `num_beams` finished sequences stops: `false`, `true` or `"never"` in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub enum EarlyStopping {
    /// When the best running beam, with its current length, scores no better than the worst finished
    /// sequence.
    #[default]
    No,
    /// Immediately.
    Yes,
    /// When no running beam can score better than the worst finished sequence at any length.
    Never,
}

/// The form in files.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected true, false or \"never\"")]
enum Stored {
    Flag(bool),
    Word(Word),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Never,
}

impl From<Stored> for EarlyStopping {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Flag(false) => Self::No,
            Stored::Flag(true) => Self::Yes,
            Stored::Word(Word::Never) => Self::Never,
        }
    }
}

impl From<EarlyStopping> for Stored {
    fn from(stopping: EarlyStopping) -> Self {
        match stopping {
            EarlyStopping::No => Self::Flag(false),
            EarlyStopping::Yes => Self::Flag(true),
            EarlyStopping::Never => Self::Word(Word::Never),
        }
    }
}

/// An invalid setting.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A count or a factor is outside its range.
    #[error("{field} is {value}, but must be {range}")]
    OutOfRange {
        /// The setting.
        field: &'static str,
        /// Its value.
        value: String,
        /// The valid range.
        range: String,
    },
    /// More sequences are requested than there are beams.
    #[error(
        "num_return_sequences is {sequences}, but num_beams is {beams} and no more sequences are kept; raise \
         num_beams, or draw them with search = {{ sample = {{ }} }}"
    )]
    TooManySequences {
        /// `num_return_sequences`.
        sequences: usize,
        /// `num_beams`.
        beams: usize,
    },
    /// Sampling with beams is not supported.
    #[error(
        "search is \"sample\" and num_beams is {0}; samples are drawn one by one, so num_beams must be 1"
    )]
    SampleWithBeams(usize),
    /// Groups of unequal size.
    #[error("diverse_beam.groups is {groups}, which does not divide num_beams {beams}")]
    UnevenGroups {
        /// `diverse_beam.groups`.
        groups: usize,
        /// `num_beams`.
        beams: usize,
    },
    /// A repeated end token.
    #[error("end_tokens names {0} twice")]
    EndTwice(u32),
    /// An empty sequence that is not to be written.
    #[error("bad_words_ids has an empty list at place {0}; give the tokens of a word, or leave it out")]
    EmptyBadWord(usize),
    /// A token outside the vocabulary.
    #[error("{field} names {token}, but the language model's vocabulary ends at {vocabulary}")]
    OutsideVocabulary {
        /// The setting.
        field: &'static str,
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
}

impl GenerateConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// The first invalid setting.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let range = |inside: bool, field: &'static str, value: &dyn fmt::Display, range: String| {
            let error = || ConfigError::OutOfRange { field, value: value.to_string(), range };
            if inside { Ok(()) } else { Err(error()) }
        };
        let rows = || format!("1 to {MAX_ROWS}");
        range(self.max_new_tokens >= 1, "max_new_tokens", &self.max_new_tokens, "at least 1".into())?;
        let fits = self.min_new_tokens <= self.max_new_tokens;
        let limit = || format!("at most max_new_tokens, {}", self.max_new_tokens);
        range(fits, "min_new_tokens", &self.min_new_tokens, limit())?;
        range((1..=MAX_ROWS).contains(&self.num_beams), "num_beams", &self.num_beams, rows())?;
        let sequences = self.num_return_sequences;
        range((1..=MAX_ROWS).contains(&sequences), "num_return_sequences", &sequences, rows())?;
        let penalty = self.repetition_penalty;
        let usable = penalty > 0.0 && (penalty as f32).is_normal();
        range(usable, "repetition_penalty", &penalty, "a number above 0".into())?;
        let longest = length_divisor(self.max_new_tokens, self.length_penalty);
        let usable = self.length_penalty.is_finite() && (longest as f32).is_normal();
        let reason = || format!("a number, and {}^length_penalty too", self.max_new_tokens);
        range(usable, "length_penalty", &self.length_penalty, reason())?;
        let mut ends = self.end_tokens.clone();
        ends.sort_unstable();
        if let Some(pair) = ends.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ConfigError::EndTwice(pair[0]));
        }
        if let Some(place) = self.bad_words_ids.iter().position(Vec::is_empty) {
            return Err(ConfigError::EmptyBadWord(place));
        }
        if !matches!(self.search, Search::Sample(_)) && sequences > self.num_beams {
            return Err(ConfigError::TooManySequences { sequences, beams: self.num_beams });
        }
        match self.search {
            Search::Beam => Ok(()),
            Search::DiverseBeam(DiverseBeam { groups, penalty }) => {
                let several = groups >= 2 && groups <= self.num_beams;
                let reason = || format!("2 to num_beams, {}", self.num_beams);
                range(several, "diverse_beam.groups", &groups, reason())?;
                if !self.num_beams.is_multiple_of(groups) {
                    return Err(ConfigError::UnevenGroups { groups, beams: self.num_beams });
                }
                let usable = penalty > 0.0 && (penalty as f32).is_finite();
                range(usable, "diverse_beam.penalty", &penalty, "a number above 0".into())
            }
            Search::Sample(Sample { temperature, top_p, .. }) => {
                if self.num_beams != 1 {
                    return Err(ConfigError::SampleWithBeams(self.num_beams));
                }
                let usable = temperature > 0.0 && (temperature as f32).is_normal();
                range(usable, "sample.temperature", &temperature, "a number above 0".into())?;
                range(top_p > 0.0 && top_p <= 1.0, "sample.top_p", &top_p, "above 0 and at most 1".into())
            }
        }
    }
}

impl GenerateConfig {
    /// Checks that the vocabulary has every token that the settings name.
    pub(super) fn fits(&self, vocabulary: usize) -> Result<(), ConfigError> {
        let ends = self.end_tokens.iter().map(|token| ("end_tokens", token));
        let bad = self.bad_words_ids.iter().flatten().map(|token| ("bad_words_ids", token));
        let forced = self.forced_bos_token_id.iter().map(|token| ("forced_bos_token_id", token));
        match ends.chain(bad).chain(forced).find(|(_, token)| **token as usize >= vocabulary) {
            Some((field, &token)) => Err(ConfigError::OutsideVocabulary { field, token, vocabulary }),
            None => Ok(()),
        }
    }
}

/// The divisor of a log-probability: length^length_penalty.
pub(super) fn length_divisor(length: usize, penalty: f64) -> f64 {
    (length as f64).powf(penalty)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<GenerateConfig, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_config_reads_as_it_is_written() {
        let configs = [
            ("{}", GenerateConfig::default()),
            (
                r#"{"num_beams":5,"early_stopping":"never","length_penalty":-1,"end_tokens":[1,2],"search":"beam"}"#,
                GenerateConfig {
                    num_beams: 5,
                    early_stopping: EarlyStopping::Never,
                    length_penalty: -1.0,
                    end_tokens: vec![1, 2],
                    ..GenerateConfig::default()
                },
            ),
            (
                r#"{"early_stopping":true,"search":{"sample":{"top_p":0.9,"seed":7}}}"#,
                GenerateConfig {
                    early_stopping: EarlyStopping::Yes,
                    search: Search::Sample(Sample { top_p: 0.9, seed: 7, ..Sample::default() }),
                    ..GenerateConfig::default()
                },
            ),
            (
                r#"{"no_repeat_ngram_size":3,"bad_words_ids":[[4],[5,6]],"forced_bos_token_id":7,
                    "encoder_no_repeat_ngram_size":null}"#,
                GenerateConfig {
                    no_repeat_ngram_size: 3,
                    bad_words_ids: vec![vec![4], vec![5, 6]],
                    forced_bos_token_id: Some(7),
                    ..GenerateConfig::default()
                },
            ),
            (
                r#"{"num_beams":6,"search":{"diverse_beam":{"groups":3}}}"#,
                GenerateConfig {
                    num_beams: 6,
                    search: Search::DiverseBeam(DiverseBeam { groups: 3, ..DiverseBeam::default() }),
                    ..GenerateConfig::default()
                },
            ),
        ];
        for (text, config) in configs {
            assert_eq!(parse(text).unwrap(), config);
            assert_eq!(config.validate(), Ok(()));
            assert_eq!(parse(&serde_json::to_string(&config).unwrap()).unwrap(), config);
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        for text in [
            r#"{"beams":5}"#,
            r#"{"search":"nucleus"}"#,
            r#"{"search":{"sample":{"p":0.5}}}"#,
            r#"{"early_stopping":"always"}"#,
            r#"{"num_beams":-1}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let message = parse(r#"{"early_stopping":"always"}"#).unwrap_err();
        assert!(message.contains(r#"true, false or "never""#), "{message}");
    }

    #[test]
    fn settings_that_cannot_be_are_named() {
        for (text, message) in [
            (r#"{"max_new_tokens":0}"#, "max_new_tokens is 0, but must be at least 1"),
            (r#"{"min_new_tokens":33}"#, "min_new_tokens is 33, but must be at most max_new_tokens, 32"),
            (r#"{"num_beams":0}"#, "num_beams is 0, but must be 1 to 1024"),
            (r#"{"num_beams":9999}"#, "num_beams is 9999, but must be 1 to 1024"),
            (r#"{"num_return_sequences":0}"#, "num_return_sequences is 0"),
            (r#"{"num_return_sequences":2}"#, "num_return_sequences is 2, but num_beams is 1"),
            (r#"{"num_beams":3,"num_return_sequences":4}"#, "num_return_sequences is 4, but num_beams is 3"),
            (r#"{"repetition_penalty":0}"#, "repetition_penalty is 0"),
            (r#"{"repetition_penalty":1e-60}"#, "repetition_penalty is 0.000"),
            (r#"{"length_penalty":-1000}"#, "length_penalty is -1000"),
            (r#"{"length_penalty":1e300}"#, "length_penalty is 1000"),
            (r#"{"end_tokens":[3,1,3]}"#, "end_tokens names 3 twice"),
            (r#"{"bad_words_ids":[[3],[]]}"#, "bad_words_ids has an empty list at place 1"),
            (r#"{"search":{"sample":{"temperature":0}}}"#, "sample.temperature is 0"),
            (r#"{"search":{"sample":{"temperature":-1}}}"#, "sample.temperature is -1"),
            (r#"{"search":{"sample":{"top_p":0}}}"#, "sample.top_p is 0, but must be above 0 and at most 1"),
            (r#"{"search":{"sample":{"top_p":1.5}}}"#, "sample.top_p is 1.5"),
            (r#"{"num_beams":2,"search":{"sample":{}}}"#, "num_beams must be 1"),
            (
                r#"{"num_beams":5,"search":{"diverse_beam":{}}}"#,
                "groups is 2, which does not divide num_beams 5",
            ),
            (
                r#"{"num_beams":4,"search":{"diverse_beam":{"groups":1}}}"#,
                "groups is 1, but must be 2 to num_beams, 4",
            ),
            (r#"{"num_beams":4,"search":{"diverse_beam":{"groups":8}}}"#, "groups is 8"),
            (r#"{"num_beams":4,"search":{"diverse_beam":{"penalty":0}}}"#, "diverse_beam.penalty is 0"),
        ] {
            let error = parse(text).unwrap().validate().unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        for broken in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let of = |config: GenerateConfig| config.validate().is_err();
            assert!(of(GenerateConfig { length_penalty: broken, ..GenerateConfig::default() }));
            assert!(of(GenerateConfig { repetition_penalty: broken, ..GenerateConfig::default() }));
            let sample = Sample { temperature: broken, ..Sample::default() };
            assert!(of(GenerateConfig { search: Search::Sample(sample), ..GenerateConfig::default() }));
            let sample = Sample { top_p: broken, ..Sample::default() };
            assert!(of(GenerateConfig { search: Search::Sample(sample), ..GenerateConfig::default() }));
        }
    }
}
