//! Which tokens a checkpoint's `generation_config.json` excludes or forces.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{CheckpointError, GENERATION_CONFIG_FILE, json};
use crate::generate::GenerateConfig;

/// Tokens that generation excludes or forces, under the keys of transformers; none by default. Settings of
/// search and length are the user's and are not read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Constraints {
    /// As [`GenerateConfig::no_repeat_ngram_size`].
    pub no_repeat_ngram_size: usize,
    /// As [`GenerateConfig::encoder_no_repeat_ngram_size`].
    pub encoder_no_repeat_ngram_size: usize,
    /// As [`GenerateConfig::bad_words_ids`].
    pub bad_words_ids: Vec<Vec<u32>>,
    /// As [`GenerateConfig::forced_bos_token_id`].
    pub forced_bos_token_id: Option<u32>,
}

impl Constraints {
    /// Reads those of a checkpoint; none without a `generation_config.json`.
    ///
    /// # Errors
    /// If the file is damaged, or one of the keys has another form; the message names the key.
    pub fn of_checkpoint(directory: &Path) -> Result<Self, CheckpointError> {
        let path = directory.join(GENERATION_CONFIG_FILE);
        let Some(document) = json::read_if_present(&path)? else { return Ok(Self::default()) };
        Self::parse(&document).map_err(|reason| CheckpointError::Config { reason, path })
    }

    fn parse(document: &Value) -> Result<Self, String> {
        Ok(Self {
            no_repeat_ngram_size: value(document, "no_repeat_ngram_size")?,
            encoder_no_repeat_ngram_size: value(document, "encoder_no_repeat_ngram_size")?,
            bad_words_ids: value(document, "bad_words_ids")?,
            forced_bos_token_id: value(document, "forced_bos_token_id")?,
        })
    }

    /// The constraints of settings.
    #[must_use]
    pub fn of_settings(settings: &GenerateConfig) -> Self {
        Self {
            no_repeat_ngram_size: settings.no_repeat_ngram_size,
            encoder_no_repeat_ngram_size: settings.encoder_no_repeat_ngram_size,
            bad_words_ids: settings.bad_words_ids.clone(),
            forced_bos_token_id: settings.forced_bos_token_id,
        }
    }
}

/// A key that may be absent or null.
fn value<T: DeserializeOwned + Default>(document: &Value, key: &str) -> Result<T, String> {
    let found = document.get(key).unwrap_or(&Value::Null);
    let value = Option::<T>::deserialize(found).map_err(|error| format!("{key}: {error}"))?;
    Ok(value.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Constraints, String> {
        Constraints::parse(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn four_keys_are_read_and_the_rest_is_ignored() {
        let text = r#"{"no_repeat_ngram_size": 3, "bad_words_ids": [[4], [5, 6]], "forced_bos_token_id": 7,
                       "encoder_no_repeat_ngram_size": null, "num_beams": 9, "eos_token_id": [1, 2]}"#;
        let expected = Constraints {
            no_repeat_ngram_size: 3,
            encoder_no_repeat_ngram_size: 0,
            bad_words_ids: vec![vec![4], vec![5, 6]],
            forced_bos_token_id: Some(7),
        };
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(parse("{}").unwrap(), Constraints::default());
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Constraints::of_checkpoint(folder.path()).unwrap(), Constraints::default());
    }

    #[test]
    fn a_key_of_another_form_is_named() {
        for (text, key) in [
            (r#"{"no_repeat_ngram_size": -1}"#, "no_repeat_ngram_size: "),
            (r#"{"bad_words_ids": [4]}"#, "bad_words_ids: "),
            (r#"{"forced_bos_token_id": "a"}"#, "forced_bos_token_id: "),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(key), "{message}");
        }
    }
}
