//! From a video to token ids.

mod greedy;

pub use greedy::greedy;

use serde::{Deserialize, Serialize};

/// How captions are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerateConfig {
    /// Most new tokens, the end of sequence counted.
    pub max_new_tokens: usize,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self { max_new_tokens: 32 }
    }
}

/// One written sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// The new tokens, the end of sequence included where one was written.
    pub ids: Vec<u32>,
    /// Sum of the new tokens' log-probabilities.
    pub log_probability: f32,
}
