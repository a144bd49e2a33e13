//! Reads the tokenizer files of published checkpoints.

use super::{Tokenizer, added, failed, from_document, sentencepiece, template};
use crate::encoding::unmarked;
use crate::error::{Error, Result};
use crate::stand_in::stand_in;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Maximum size of a tokenizer file; the largest published ones have 20 MB.
const MAX_BYTES: u64 = 1 << 28;

/// Files with a complete tokenizer, in the order of preference.
const WHOLE: [&str; 4] = ["tokenizer.json", "tokenizer.model", "spiece.model", "vocab.txt"];

impl Tokenizer {
    /// Reads a tokenizer from a folder or from one of its files: `tokenizer.json`; sentencepiece's
    /// `tokenizer.model` or `spiece.model`; `vocab.json` with `merges.txt` in the same folder; BERT's
    /// `vocab.txt`. A folder is searched in this order.
    ///
    /// # Errors
    /// No such file; a broken or unsupported file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = if path.is_dir() { in_folder(path)? } else { path.to_path_buf() };
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match (name, extension) {
            ("vocab.json" | "merges.txt", _) => {
                byte_pairs(&file.with_file_name("vocab.json"), &file.with_file_name("merges.txt"))
            }
            ("vocab.txt", _) => word_pieces(&file),
            (_, "model") => {
                let model = sentencepiece::parse(&read(&file)?)
                    .map_err(|reason| failed(Some(&file), format!("it {reason}")))?;
                Self::of(model.build(&file)?, Some(&file))
            }
            _ => Self::from_file(&file),
        }
    }
}

/// Whether a folder has the files of a tokenizer, which [`Tokenizer::open`] reads.
#[must_use]
pub fn has_tokenizer(folder: &Path) -> bool {
    in_folder(folder).is_ok()
}

fn in_folder(folder: &Path) -> Result<PathBuf> {
    let first = |names: &[&str]| names.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    first(&WHOLE[..3])
        .or_else(|| first(&["vocab.json"]).filter(|_| folder.join("merges.txt").is_file()))
        .or_else(|| first(&WHOLE[3..]))
        .ok_or_else(|| Error::NotFound {
            what: "tokenizer",
            path: folder.to_path_buf(),
            next: format!("give a folder with {}, or vocab.json and merges.txt", WHOLE.join(", ")),
        })
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let next = "give the path of a tokenizer's file or of its folder";
    let length =
        std::fs::metadata(path).map_err(Error::open("read the tokenizer", path, "tokenizer", next))?;
    if length.len() > MAX_BYTES {
        return Err(failed(Some(path), format!("{} bytes are no tokenizer", length.len())));
    }
    let bytes = std::fs::read(path).map_err(Error::io("read the tokenizer", path))?;
    match stand_in(&bytes) {
        Some(reason) => Err(failed(Some(path), reason.to_owned())),
        None => Ok(bytes),
    }
}

pub(super) fn read_text(path: &Path) -> Result<String> {
    let text = unmarked(read(path)?).map_err(|reason| failed(Some(path), reason))?;
    String::from_utf8(text).map_err(|error| failed(Some(path), error.utf8_error().to_string()))
}

/// OPT and GPT-2: `vocab.json` and `merges.txt`, byte-level BPE.
fn byte_pairs(vocabulary: &Path, merges: &Path) -> Result<Tokenizer> {
    let ids: serde_json::Map<String, Value> = serde_json::from_str(&read_text(vocabulary)?)
        .map_err(|error| failed(Some(vocabulary), error.to_string()))?;
    let text = read_text(merges)?;
    let mut pairs = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || (index == 0 && line.starts_with("#version")) {
            continue;
        }
        let Some((left, right)) = line.split_once(' ').filter(|(_, right)| !right.contains(' ')) else {
            let reason =
                format!("line {}: expected two pieces with a space between, got {line:?}", index + 1);
            return Err(failed(Some(merges), reason));
        };
        pairs.push([left, right]);
    }
    // OPT's vocabulary has `</s>`, which starts every text. GPT-2's special token is an ordinary one there.
    let id = |token: &str| ids.get(token).and_then(Value::as_u64);
    let names: &[&str] = if id("</s>").is_some() { &["<pad>", "</s>"] } else { &["<|endoftext|>"] };
    let special: Vec<Value> = names
        .iter()
        .filter_map(|token| Some((token, id(token)?)))
        .map(|(token, id)| added(id as usize, token, true, true))
        .collect();
    let start = id("</s>").map(|id| template(Some(("</s>", id as usize)), None));
    let bytes =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let document = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": special,
        "normalizer": null,
        "pre_tokenizer": bytes,
        "post_processor": start,
        "decoder": bytes,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false,
                  "vocab": ids, "merges": pairs},
    });
    Tokenizer::of(from_document(&document, Some(vocabulary))?, Some(vocabulary))
}

/// BERT: `vocab.txt`, one word piece per line; lower case, unless `tokenizer_config.json` disables it.
fn word_pieces(path: &Path) -> Result<Tokenizer> {
    let text = read_text(path)?;
    let mut ids = serde_json::Map::new();
    for (line, piece) in text.lines().enumerate() {
        if ids.insert(piece.to_owned(), json!(line)).is_some() {
            return Err(failed(Some(path), format!("line {}: {piece:?} is there twice", line + 1)));
        }
    }
    let id = |token: &str| ids.get(token).and_then(Value::as_u64).map(|id| id as usize);
    let (Some(_), Some(start), Some(end)) = (id("[UNK]"), id("[CLS]"), id("[SEP]")) else {
        return Err(failed(Some(path), "expected [UNK], [CLS] and [SEP] among its lines".into()));
    };
    let special: Vec<Value> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .into_iter()
        .filter_map(|token| Some(added(id(token)?, token, true, false)))
        .collect();
    let lower = lower_case(&path.with_file_name("tokenizer_config.json"))?;
    let document = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": special,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": lower},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": template(Some(("[CLS]", start)), Some(("[SEP]", end))),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": ids},
    });
    Tokenizer::of(from_document(&document, Some(path))?, Some(path))
}

fn lower_case(config: &Path) -> Result<bool> {
    if !config.is_file() {
        return Ok(true);
    }
    let config_text = read_text(config)?;
    let value: Value =
        serde_json::from_str(&config_text).map_err(|error| failed(Some(config), error.to_string()))?;
    Ok(value.get("do_lower_case").and_then(Value::as_bool).unwrap_or(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Family;
    use proptest::prelude::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    const VOCABULARY: &str =
        r#"{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5, "ab": 6, "Ġ": 7, "Ġab": 8, "Ċ": 9}"#;

    #[test]
    fn vocabulary_and_merges_make_opts_tokenizer() {
        let folder = folder(&[("vocab.json", VOCABULARY), ("merges.txt", "#version: 0.2\na b\nĠ ab\n")]);
        let tokenizer = Tokenizer::open(folder.path()).unwrap();
        assert_eq!(tokenizer.family(), Family::Opt);
        assert_eq!(tokenizer.end(), 9);
        assert_eq!(tokenizer.encode_as_published("ab ab", 10).unwrap(), [2, 6, 8]);
        assert_eq!(tokenizer.encode("ab ab", 10).unwrap(), [6, 8, 9]);
        assert_eq!(tokenizer.target("ab ab", 10).unwrap(), [2, 6, 8, 9]);
        assert_eq!(tokenizer.decode(&[2, 6, 8, 9, 6]).unwrap(), "ab ab");
    }

    #[test]
    fn byte_pairs_without_opts_end_token_end_as_the_model_says() {
        let vocabulary = VOCABULARY.replace("</s>", "<|endoftext|>").replace("<s>", "<|im_end|>");
        let folder = folder(&[("vocab.json", &vocabulary), ("merges.txt", "a b\nĠ ab\n")]);
        let tokenizer = Tokenizer::open(folder.path()).unwrap();
        assert_eq!((tokenizer.family(), tokenizer.end()), (Family::Gpt2, 2));
        assert_eq!(tokenizer.encode_as_published("ab ab", 10).unwrap(), [6, 8], "no token before a text");
        assert_eq!(tokenizer.target("ab ab", 10).unwrap(), [6, 8, 2]);
        assert_eq!(tokenizer.continuation("ab ab", 10).unwrap(), [8, 8, 2]);
        let ended = tokenizer.clone().ending_with(0);
        assert_eq!(ended.target("ab", 10).unwrap(), [6, 0]);
        assert_eq!(ended.decode(&[6, 8, 0, 6]).unwrap(), "ab ab");
        assert_eq!(tokenizer.ending_with(99).end(), 2, "no token has this id");
    }

    #[test]
    fn opts_end_token_is_its_own() {
        let folder = folder(&[("vocab.json", VOCABULARY), ("merges.txt", "a b\nĠ ab\n")]);
        assert_eq!(Tokenizer::open(folder.path()).unwrap().ending_with(2).end(), 9);
    }

    #[test]
    fn a_list_of_word_pieces_makes_berts_tokenizer() {
        let vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\nÉ\ne\n";
        let lower = folder(&[("vocab.txt", vocabulary)]);
        let tokenizer = Tokenizer::open(lower.path()).unwrap();
        assert_eq!(tokenizer.family(), Family::Bert);
        assert_eq!(tokenizer.encode_as_published("Ab É x", 10).unwrap(), [2, 5, 6, 8, 1, 3]);
        assert_eq!(tokenizer.encode_as_published("Ab É x", 4).unwrap(), [2, 5, 6, 3]);
        assert_eq!(tokenizer.decode(&[2, 5, 6, 8, 3]).unwrap(), "ab e");
        let cased =
            folder(&[("vocab.txt", vocabulary), ("tokenizer_config.json", r#"{"do_lower_case": false}"#)]);
        let cased = Tokenizer::open(&cased.path().join("vocab.txt")).unwrap();
        assert_eq!(cased.encode_as_published("É", 10).unwrap(), [2, 7, 3]);
    }

    #[test]
    fn byte_order_marks_are_no_part_of_a_vocabulary() {
        let (vocabulary, merges) = (format!("\u{feff}{VOCABULARY}"), "\u{feff}#version: 0.2\na b\nĠ ab\n");
        let pairs = folder(&[("vocab.json", &vocabulary), ("merges.txt", merges)]);
        assert_eq!(Tokenizer::open(pairs.path()).unwrap().encode("ab", 10).unwrap(), [6, 9]);
        let pieces = folder(&[("vocab.txt", "\u{feff}[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n")]);
        assert_eq!(Tokenizer::open(pieces.path()).unwrap().encode_as_published("a", 10).unwrap(), [2, 4, 3]);
    }

    #[test]
    fn broken_files_are_named() {
        let message = |files: &[(&str, &str)]| Tokenizer::open(folder(files).path()).unwrap_err().to_string();
        assert!(message(&[]).contains("vocab.json and merges.txt"));
        assert!(message(&[("vocab.txt", "a\nb\na\n")]).contains("line 3"));
        assert!(message(&[("vocab.txt", "a\n")]).contains("expected [UNK]"));
        let merges = message(&[("vocab.json", VOCABULARY), ("merges.txt", "a b c\n")]);
        assert!(merges.contains("line 1") && merges.contains("merges.txt"), "{merges}");
        let unknown = message(&[("vocab.json", VOCABULARY), ("merges.txt", "a z\n")]);
        assert!(unknown.contains("vocab.json"), "{unknown}");
        assert!(message(&[("tokenizer.model", "x")]).contains("tokenizer.model"));
        for name in ["tokenizer.json", "tokenizer.model", "spiece.model", "vocab.txt"] {
            let pointer =
                message(&[(name, "version https://git-lfs.github.com/spec/v1\noid sha256:4c\nsize 9\n")]);
            assert!(pointer.contains("Git LFS pointer") && pointer.contains(name), "{pointer}");
            assert!(message(&[(name, "<!DOCTYPE html><html></html>")]).contains("HTML page"));
        }
        let merges = message(&[("vocab.json", VOCABULARY), ("merges.txt", "<html><head>")]);
        assert!(merges.contains("HTML page") && merges.contains("merges.txt"), "{merges}");
    }

    proptest! {
        #[test]
        fn any_files_are_read_without_a_panic(one in "[\\[\\]{}\":,a-z0-9 \n]{0,120}", two in ".{0,40}") {
            for names in [["vocab.json", "merges.txt"], ["vocab.txt", "x"], ["tokenizer.json", "x"]] {
                let folder = folder(&[(names[0], &one), (names[1], &two)]);
                let _ = Tokenizer::open(folder.path()).map(|tokenizer| tokenizer.encode(&two, 9));
            }
        }
    }
}
