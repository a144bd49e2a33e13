//! Captions to token ids and back.

use crate::error::{Error, Result};
use serde_json::json;
use std::path::Path;
use std::str::FromStr;

/// Words a cleaned caption keeps at most.
pub const MAX_WORDS: usize = 50;

/// A caption as LAVIS's `blip_caption` processor leaves it: lower case, `.!"()*#:;~` as spaces, single spaces, at most
/// [`MAX_WORDS`] words.
#[must_use]
pub fn clean_caption(caption: &str) -> String {
    let lower = caption.to_lowercase();
    let spaced: String = lower.chars().map(|c| if r#".!"()*#:;~"#.contains(c) { ' ' } else { c }).collect();
    spaced.split_whitespace().take(MAX_WORDS).collect::<Vec<_>>().join(" ")
}

/// A tokenizer, with the token that ends a text.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pad: u32,
    end: u32,
}

/// Padding's id in [`Tokenizer::word_level`].
pub const PAD: u32 = 0;
/// The end of text's id in [`Tokenizer::word_level`], as in T5.
pub const END: u32 = 1;
/// The unknown word's id in [`Tokenizer::word_level`].
pub const UNKNOWN: u32 = 2;

impl Tokenizer {
    /// A tokenizer that knows whole words: `<pad>` is 0, `</s>` 1, `<unk>` 2, the vocabulary follows in its order.
    /// Text is lower-cased, and punctuation stands for itself.
    ///
    /// # Errors
    /// A word that is empty, doubled, or one of the three special tokens.
    pub fn word_level(vocabulary: &[String]) -> Result<Self> {
        let special = ["<pad>", "</s>", "<unk>"];
        let mut ids = serde_json::Map::new();
        for word in special.into_iter().chain(vocabulary.iter().map(String::as_str)) {
            if word.is_empty() || ids.insert(word.to_string(), json!(ids.len())).is_some() {
                return Err(failed(None, format!("word {word:?} of the vocabulary is empty or there twice")));
            }
        }
        let added: Vec<_> = special
            .iter()
            .enumerate()
            .map(|(id, content)| {
                json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                       "normalized": false, "special": true})
            })
            .collect();
        let document = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": null,
            "decoder": null,
            "model": {"type": "WordLevel", "vocab": ids, "unk_token": "<unk>"},
        });
        let inner = tokenizers::Tokenizer::from_str(&document.to_string())
            .map_err(|error| failed(None, error.to_string()))?;
        Ok(Self { inner, pad: PAD, end: END })
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// The file is missing or broken, or has no token that ends a text (`</s>`, `[SEP]` or `<|endoftext|>`).
    pub fn from_file(path: &Path) -> Result<Self> {
        if !path.is_file() {
            return Err(Error::NotFound {
                what: "tokenizer",
                path: path.to_path_buf(),
                next: "give the path of a tokenizer.json".into(),
            });
        }
        let text = std::fs::read_to_string(path).map_err(Error::io("read the tokenizer", path))?;
        let inner =
            tokenizers::Tokenizer::from_str(&text).map_err(|error| failed(Some(path), error.to_string()))?;
        let first_of = |names: &[&str]| names.iter().find_map(|name| inner.token_to_id(name));
        let end = first_of(&["</s>", "[SEP]", "<|endoftext|>"]).ok_or_else(|| {
            failed(Some(path), "it has none of </s>, [SEP], <|endoftext|>, so no text can end".into())
        })?;
        let pad = first_of(&["<pad>", "[PAD]", "<unk>"]).unwrap_or(end);
        Ok(Self { inner, pad, end })
    }

    /// Writes a `tokenizer.json`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = self.inner.to_string(true).map_err(|error| failed(Some(path), error.to_string()))?;
        std::fs::write(path, text).map_err(Error::io("write the tokenizer", path))
    }

    /// A text's ids, the end token last, at most `max` in all: a longer text loses its last tokens, never its end.
    ///
    /// # Shapes
    /// returns `[t]`, `t <= max`
    ///
    /// # Errors
    /// The tokenizer fails on the text.
    pub fn encode(&self, text: &str, max: usize) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|error| failed(None, format!("{error}, of the text {text:?}")))?;
        let kept = encoding.get_ids().iter().copied().take(max.saturating_sub(1));
        Ok(kept.chain(std::iter::once(self.end)).take(max).collect())
    }

    /// The text of ids up to the first end token, without special tokens.
    ///
    /// # Errors
    /// The tokenizer fails on the ids.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let before_end = ids.split(|&id| id == self.end).next().unwrap_or_default();
        self.inner
            .decode(before_end, true)
            .map_err(|error| failed(None, format!("{error}, of the ids {ids:?}")))
    }

    /// Number of ids, added tokens included.
    #[must_use]
    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id that fills up a batch.
    #[must_use]
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// The id that ends a text.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.end
    }

    /// One token's id.
    #[must_use]
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }
}

fn failed(path: Option<&Path>, reason: String) -> Error {
    Error::Tokenizer { path: path.map(Path::to_path_buf), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::synthetic::{WorldConfig, text_corpus, vocabulary};
    use proptest::prelude::*;

    #[test]
    fn captions_are_cleaned_as_lavis_does() {
        assert_eq!(
            clean_caption("A man, (in red) says: \"Hello!\"  twice..."),
            "a man, in red says hello twice"
        );
        assert_eq!(clean_caption("it's a #1 *star* ~ 2;3"), "it's a 1 star 2 3");
        let long = "word ".repeat(60);
        assert_eq!(clean_caption(&long).split(' ').count(), 50);
        assert_eq!(clean_caption(""), "");
    }

    #[test]
    fn words_and_ids_go_both_ways() {
        let words = ["a", "cat", "sits", ","].map(str::to_string);
        let tokenizer = Tokenizer::word_level(&words).unwrap();
        assert_eq!(tokenizer.vocabulary_size(), 7);
        assert_eq!(tokenizer.encode("A cat, sits", 10).unwrap(), [3, 4, 6, 5, END]);
        assert_eq!(tokenizer.encode("a dog", 10).unwrap(), [3, UNKNOWN, END]);
        assert_eq!(tokenizer.encode("a cat sits", 3).unwrap(), [3, 4, END]);
        assert_eq!(tokenizer.encode("a cat", 1).unwrap(), [END]);
        assert_eq!(tokenizer.decode(&[3, 4, END, 5, PAD]).unwrap(), "a cat");
        assert_eq!(tokenizer.decode(&[]).unwrap(), "");
    }

    #[test]
    fn a_saved_tokenizer_is_the_same() {
        let tokenizer = Tokenizer::word_level(&vocabulary()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        tokenizer.save(&path).unwrap();
        let again = Tokenizer::from_file(&path).unwrap();
        assert_eq!(
            (again.pad(), again.end(), again.vocabulary_size()),
            (PAD, END, tokenizer.vocabulary_size())
        );
        let text = "a red circle moves to the left";
        assert_eq!(again.encode(text, 40).unwrap(), tokenizer.encode(text, 40).unwrap());
    }

    #[test]
    fn bad_vocabularies_and_files_are_refused() {
        assert!(Tokenizer::word_level(&["a".into(), "a".into()]).is_err());
        assert!(Tokenizer::word_level(&["</s>".into()]).is_err());
        assert!(
            Tokenizer::from_file(Path::new("no/such.json")).unwrap_err().to_string().contains("no tokenizer")
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{}").unwrap();
        assert!(Tokenizer::from_file(file.path()).is_err());
    }

    #[test]
    fn the_grammar_has_no_unknown_words() {
        let tokenizer = Tokenizer::word_level(&vocabulary()).unwrap();
        for sentence in text_corpus(&WorldConfig::default(), 4000) {
            let cleaned = clean_caption(&sentence);
            assert_eq!(cleaned, sentence, "the grammar writes clean captions");
            let ids = tokenizer.encode(&cleaned, 100).unwrap();
            assert!(!ids.contains(&UNKNOWN), "{sentence}");
            assert_eq!(tokenizer.decode(&ids).unwrap(), sentence);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_cleaned_and_encoded(text in ".{0,300}", max in 0usize..20) {
            let cleaned = clean_caption(&text);
            prop_assert!(cleaned.split(' ').count() <= MAX_WORDS);
            prop_assert_eq!(clean_caption(&cleaned), cleaned.clone());
            let tokenizer = Tokenizer::word_level(&vocabulary()).unwrap();
            let ids = tokenizer.encode(&cleaned, max).unwrap();
            prop_assert!(ids.len() <= max);
            prop_assert!(max == 0 || ids.last() == Some(&END));
        }
    }
}
