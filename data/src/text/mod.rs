//! Tokenizers, and the preparation of captions and questions.

mod clean;
mod files;
mod sentencepiece;

pub use clean::{MAX_WORDS, QUESTION_PROMPT, ask, clean_caption, clean_question};
pub use files::has_tokenizer;

use crate::error::{Error, Result, panic_message};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::str::FromStr;
use tokenizers::{AddedToken, TruncationDirection};

/// Sentencepiece's replacement for a space.
const SPACE: &str = "\u{2581}";

/// The kind of a tokenizer, which determines the positions of special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// WordPiece: `[CLS] text [SEP]`; the Q-Former's.
    Bert,
    /// Byte-level BPE with `</s>`: `</s> text`; a caption ends with a line feed.
    Opt,
    /// Byte-level BPE of other models, such as SmolLM2: `text <|endoftext|>`.
    Gpt2,
    /// Unigram: `text </s>`.
    T5,
    /// BPE with byte fallback: `<s> text`; a caption ends with `</s>`.
    Llama,
    /// Whole words: `text </s>`; the tiny world's.
    Words,
}

/// A tokenizer with its end token.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    family: Family,
    end: u32,
}

/// Id of unknown words in [`Tokenizer::word_level`].
pub const UNKNOWN: u32 = 2;

impl Tokenizer {
    /// A tokenizer of whole words: `<pad>` is 0, `</s>` 1, `<unk>` 2, then the vocabulary in its order. Text
    /// is converted to lower case; punctuation marks are separate tokens.
    ///
    /// # Errors
    /// A word that is empty, repeated, or one of the three special tokens.
    pub fn word_level(vocabulary: &[String]) -> Result<Self> {
        let special = ["<pad>", "</s>", "<unk>"];
        let mut ids = serde_json::Map::new();
        for word in special.into_iter().chain(vocabulary.iter().map(String::as_str)) {
            if word.is_empty() || ids.insert(word.to_string(), json!(ids.len())).is_some() {
                return Err(failed(None, format!("word {word:?} of the vocabulary is empty or there twice")));
            }
        }
        let tokens: Vec<Value> =
            special.iter().enumerate().map(|(id, content)| added(id, content, true, false)).collect();
        let document = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": tokens,
            "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": null,
            "decoder": null,
            "model": {"type": "WordLevel", "vocab": ids, "unk_token": "<unk>"},
        });
        Self::of(from_document(&document, None)?, None)
    }

    /// Reads a `tokenizer.json`; [`Self::open`] reads other formats.
    ///
    /// # Errors
    /// The file is missing or broken, or has no end token (`</s>`, `[SEP]` or `<|endoftext|>`).
    pub fn from_file(path: &Path) -> Result<Self> {
        if !path.is_file() {
            return Err(Error::NotFound {
                what: "tokenizer",
                path: path.to_path_buf(),
                next: "give the path of a tokenizer.json".into(),
            });
        }
        Self::of(from_text(&files::read_text(path)?, Some(path))?, Some(path))
    }

    /// Detects the family and the end token of a tokenizer.
    fn of(mut inner: tokenizers::Tokenizer, path: Option<&Path>) -> Result<Self> {
        // Truncation and padding of the file are ignored; callers give maximum lengths.
        inner.with_truncation(None).map_err(|error| failed(path, error.to_string()))?;
        inner.with_padding(None);
        let family = match inner.get_model() {
            tokenizers::ModelWrapper::WordPiece(_) => Family::Bert,
            tokenizers::ModelWrapper::Unigram(_) => Family::T5,
            tokenizers::ModelWrapper::WordLevel(_) => Family::Words,
            tokenizers::ModelWrapper::BPE(model) if model.byte_fallback => Family::Llama,
            tokenizers::ModelWrapper::BPE(_) if inner.token_to_id("</s>").is_some() => Family::Opt,
            tokenizers::ModelWrapper::BPE(_) => Family::Gpt2,
        };
        // OPT's captions end with the line feed that LAVIS appends; its token is Ċ.
        let ends: &[&str] = match family {
            Family::Bert => &["[SEP]"],
            Family::Opt => &["Ċ", "</s>"],
            Family::Gpt2 => &["<|endoftext|>", "<|end_of_text|>", "<|im_end|>"],
            Family::Llama => &["</s>"],
            Family::T5 | Family::Words => &["</s>", "[SEP]", "<|endoftext|>"],
        };
        let end = ends.iter().find_map(|name| inner.token_to_id(name)).ok_or_else(|| {
            failed(path, format!("it has no {}, so no text can end", ends.join(" and no ")))
        })?;
        Ok(Self { inner, family, end })
    }

    /// The same tokenizer with the end token that a model's configuration names, where its file does not
    /// determine one: byte-level BPE of other models than OPT. Another tokenizer keeps its own.
    #[must_use]
    pub fn ending_with(self, id: u32) -> Self {
        let is_open = self.family == Family::Gpt2 && self.inner.id_to_token(id).is_some();
        if is_open { Self { end: id, ..self } } else { self }
    }

    /// Whether a text after a prompt is tokenized with the space before its first word.
    #[must_use]
    pub fn joins_words_with_spaces(&self) -> bool {
        matches!(self.family, Family::Opt | Family::Gpt2)
    }

    /// Writes a `tokenizer.json`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = self.inner.to_string(true).map_err(|error| failed(Some(path), error.to_string()))?;
        std::fs::write(path, text).map_err(Error::io("write the tokenizer", path))
    }

    fn plain(&self, text: &str) -> Result<tokenizers::Encoding> {
        encoded(text, || self.inner.encode_fast(text, false))
    }

    /// A text's ids with the end token, at most `max` in total: a longer text is cut, the end token stays.
    ///
    /// # Shapes
    /// returns `[t]`, `t <= max`
    ///
    /// # Errors
    /// The tokenizer fails on the text.
    pub fn encode(&self, text: &str, max: usize) -> Result<Vec<u32>> {
        let encoding = self.plain(text)?;
        let kept = encoding.get_ids().iter().copied().take(max.saturating_sub(1));
        Ok(kept.chain(std::iter::once(self.end)).take(max).collect())
    }

    /// A text's ids with the special tokens of the published tokenizer, such as `[CLS] text [SEP]`, equal to
    /// those of transformers; a longer text is cut, the special tokens stay. For prompts and Q-Former texts.
    ///
    /// # Shapes
    /// returns `[t]`, `t <= max` where `max` has room for the special tokens
    ///
    /// # Errors
    /// The tokenizer fails on the text.
    pub fn encode_as_published(&self, text: &str, max: usize) -> Result<Vec<u32>> {
        let mut encoding = self.plain(text)?;
        let special = self
            .inner
            .get_post_processor()
            .map_or(0, |own| tokenizers::PostProcessor::added_tokens(own, false));
        encoding.truncate(max.saturating_sub(special), 0, TruncationDirection::Right);
        let whole = self.inner.post_process(encoding, None, true);
        let whole = whole.map_err(|error| failed(None, format!("{error}, of the text {text:?}")))?;
        Ok(whole.get_ids().to_vec())
    }

    /// The target ids of a caption, as in LAVIS, at most `max`: T5 `text </s>`; OPT `</s> text` and a line
    /// feed, cut at its end; LLaMA and others `text </s>`.
    ///
    /// # Shapes
    /// returns `[t]`, `t <= max`
    ///
    /// # Errors
    /// The tokenizer fails on the text.
    pub fn target(&self, caption: &str, max: usize) -> Result<Vec<u32>> {
        match self.family {
            Family::Opt => self.encode_as_published(&format!("{caption}\n"), max),
            Family::Bert | Family::Gpt2 | Family::T5 | Family::Llama | Family::Words => {
                self.encode(caption, max)
            }
        }
    }

    /// The target ids of a caption that continues a prompt, at most `max`, as in LAVIS: OPT's text goes on,
    /// so that its first token contains the space before the word, and the `</s>` is already before the
    /// prompt. So does that of other byte-level BPE. Others as [`target`](Self::target).
    ///
    /// # Shapes
    /// returns `[t]`, `t <= max`
    ///
    /// # Errors
    /// The tokenizer fails on the text.
    pub fn continuation(&self, caption: &str, max: usize) -> Result<Vec<u32>> {
        match self.family {
            Family::Opt => {
                let encoding = self.plain(&format!(" {caption}\n"))?;
                Ok(encoding.get_ids().iter().copied().take(max).collect())
            }
            Family::Gpt2 => self.encode(&format!(" {caption}"), max),
            Family::Bert | Family::T5 | Family::Llama | Family::Words => self.encode(caption, max),
        }
    }

    /// The unknown words of texts with their counts, the most frequent first; none with subwords.
    ///
    /// # Errors
    /// The tokenizer fails on one of the texts.
    pub fn unknown_words<S: AsRef<str>>(
        &self,
        texts: impl IntoIterator<Item = S>,
    ) -> Result<Vec<(String, usize)>> {
        if self.family != Family::Words {
            return Ok(Vec::new());
        }
        // The captions of a data set have few different words.
        let mut all = BTreeMap::<String, usize>::new();
        for text in texts {
            for word in text.as_ref().split_whitespace() {
                *all.entry(word.to_lowercase()).or_default() += 1;
            }
        }
        let mut counts = BTreeMap::<String, usize>::new();
        for (word, times) in &all {
            // In contrast to `plain`, with offsets.
            let encoding = encoded(word, || self.inner.encode(word.as_str(), false))?;
            let parts = encoding.get_ids().iter().zip(encoding.get_offsets());
            for (_, &(start, end)) in parts.filter(|(id, _)| **id == UNKNOWN) {
                *counts.entry(word.get(start..end).unwrap_or_default().to_owned()).or_default() += times;
            }
        }
        let mut words: Vec<_> = counts.into_iter().collect();
        words.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Ok(words)
    }

    /// The text of the ids before the first end token, without special tokens.
    ///
    /// # Errors
    /// The tokenizer fails on the ids.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let before_end = ids.split(|&id| id == self.end).next().unwrap_or_default();
        guarded(|| self.inner.decode(before_end, true))
            .and_then(|text| text.map_err(|error| error.to_string()))
            .map_err(|reason| failed(None, format!("{reason}, of the ids {ids:?}")))
    }

    /// Adds the special token `[DEC]`, which starts LAVIS's Q-Former captions; returns its id.
    ///
    /// # Errors
    /// The tokenizer cannot add tokens.
    pub fn add_decoder_start(&mut self) -> Result<u32> {
        self.inner
            .add_special_tokens([AddedToken::from("[DEC]", true)])
            .map_err(|error| failed(None, error.to_string()))?;
        self.id_of("[DEC]").ok_or_else(|| failed(None, "it did not add [DEC]".into()))
    }

    /// Number of ids, including added tokens: one more than the highest. A file may leave ids out.
    #[must_use]
    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1)
    }

    /// The tokenizer's family.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// The id that ends a text and stops generation.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.end
    }

    /// The id of a token.
    #[must_use]
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }
}

/// Encodes a text. The `tokenizers` crate panics on the tables of some broken files.
fn encoded(
    text: &str,
    encode: impl FnOnce() -> tokenizers::Result<tokenizers::Encoding>,
) -> Result<tokenizers::Encoding> {
    guarded(encode)
        .and_then(|encoding| encoding.map_err(|error| error.to_string()))
        .map_err(|reason| failed(None, format!("{reason}, of the text {text:?}")))
}

/// Runs code of the `tokenizers` crate and converts a panic to an error.
fn guarded<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|panic| format!("its tables are broken ({})", panic_message(&*panic)))
}

/// A tokenizer from the content of a `tokenizer.json`.
fn from_document(document: &Value, path: Option<&Path>) -> Result<tokenizers::Tokenizer> {
    from_text(&document.to_string(), path)
}

fn from_text(text: &str, path: Option<&Path>) -> Result<tokenizers::Tokenizer> {
    sentencepiece::check_charsmaps(text).map_err(|reason| failed(path, format!("it {reason}")))?;
    guarded(|| tokenizers::Tokenizer::from_str(text))
        .map_err(|reason| failed(path, reason))?
        .map_err(|error| failed(path, error.to_string()))
}

/// An added token of a `tokenizer.json`, matched after normalisation if `normalized`, otherwise before.
fn added(id: usize, content: &str, special: bool, normalized: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
           "normalized": normalized, "special": special})
}

/// A post-processor that adds a token before a text, after it, or both.
fn template(start: Option<(&str, usize)>, end: Option<(&str, usize)>) -> Value {
    let token = |(token, _): (&str, usize)| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let (before, after) = (start.map(token), end.map(token));
    let one =
        |id: &str| before.clone().into_iter().chain([sequence(id)]).chain(after.clone()).collect::<Vec<_>>();
    let special: serde_json::Map<String, Value> = start
        .into_iter()
        .chain(end)
        .map(|(token, id)| (token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]})))
        .collect();
    let pair = [one("A"), one("B")].concat();
    json!({"type": "TemplateProcessing", "single": one("A"), "pair": pair,
           "special_tokens": special})
}

fn failed(path: Option<&Path>, reason: String) -> Error {
    Error::Tokenizer { path: path.map(Path::to_path_buf), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiny_world::{WorldConfig, text_corpus, vocabulary};
    use proptest::prelude::*;

    const PAD: u32 = 0;
    const END: u32 = 1;

    #[test]
    fn ids_that_a_vocabulary_leaves_out_count() {
        let document = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [added(0, "<pad>", true, false)],
            "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": {"</s>": 1, "<unk>": 2, "a": 70_000}, "unk_token": "<unk>"},
        });
        let tokenizer = Tokenizer::of(from_document(&document, None).unwrap(), None).unwrap();
        assert_eq!(tokenizer.encode("a", 9).unwrap(), [70_000, 1]);
        assert_eq!(tokenizer.vocabulary_size(), 70_001, "the ids that a model must embed");
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
    fn unknown_words_are_counted() {
        let tokenizer = Tokenizer::word_level(&["a", "cat"].map(str::to_owned)).unwrap();
        let texts = ["A cat", "a Bird, a cat", "the bird"];
        let counted = tokenizer.unknown_words(texts).unwrap();
        assert_eq!(
            counted,
            [("bird", 2), (",", 1), ("the", 1)].map(|(word, count)| (word.to_owned(), count))
        );
    }

    #[test]
    fn a_saved_tokenizer_is_the_same() {
        let tokenizer = Tokenizer::word_level(&vocabulary()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        tokenizer.save(&path).unwrap();
        let again = Tokenizer::from_file(&path).unwrap();
        assert_eq!((again.end(), again.vocabulary_size()), (END, tokenizer.vocabulary_size()));
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
