//! Token ids against transformers' and sentencepiece's. `scripts/reference/token_ids.py` wrote the fixture;
//! ids are integers, so they must be equal.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use crate::shared::shared;
use data::text::{Family, Tokenizer, clean_caption, clean_question};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers")
}

fn document() -> Value {
    let path =
        std::env::var_os("RECAP_TOKENIZER_IDS").map_or_else(|| fixtures().join("ids.json"), PathBuf::from);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Ids of each text; none where the reference has no opinion.
fn ids(value: &Value) -> Vec<Option<Vec<u32>>> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Compares every text and shows the first differences.
fn compare(name: &str, texts: &[String], expected: &[Option<Vec<u32>>], encode: impl Fn(&str) -> Vec<u32>) {
    assert_eq!(texts.len(), expected.len());
    let different: Vec<String> = texts
        .iter()
        .zip(expected)
        .filter_map(|(text, expected)| {
            let (got, expected) = (encode(text), expected.as_ref()?);
            (got != *expected).then(|| format!("{text:?}: expected {expected:?}, got {got:?}"))
        })
        .collect();
    let shown = different.iter().take(8).cloned().collect::<Vec<_>>().join("\n");
    assert!(different.is_empty(), "{name}: {} of {} texts differ\n{shown}", different.len(), texts.len());
    println!("{name}: {} texts have equal ids", texts.len());
}

#[test]
fn published_tokenizers_give_transformers_ids() {
    let document = document();
    let texts = texts(&document["texts"]);
    let kinds = [
        ("bert-base-uncased", "bert-base-uncased", Family::Bert),
        ("opt", "opt", Family::Opt),
        ("t5", "t5", Family::T5),
        ("llama", "llama/tokenizer.model", Family::Llama),
    ];
    for (name, path, family) in kinds {
        let Some(path) = shared(&format!("tokenizers/{path}")) else { return };
        let tokenizer = Tokenizer::open(&path).unwrap();
        assert_eq!(tokenizer.family(), family);
        let whole = |text: &str| tokenizer.encode_as_published(text, usize::MAX).unwrap();
        compare(name, &texts, &ids(&document["ids"][name]), whole);
        let cut = |text: &str| tokenizer.encode_as_published(text, 9).unwrap();
        compare(&format!("{name}, cut"), &texts, &ids(&document["cut_to_9"][name]), cut);

        let folder = tempfile::tempdir().unwrap();
        let saved = folder.path().join("tokenizer.json");
        tokenizer.save(&saved).unwrap();
        let again = Tokenizer::open(folder.path()).unwrap();
        assert_eq!((again.family(), again.end()), (family, tokenizer.end()));
        let reread = |text: &str| again.encode_as_published(text, usize::MAX).unwrap();
        compare(&format!("{name}, saved"), &texts, &ids(&document["ids"][name]), reread);
    }
}

#[test]
fn targets_are_what_lavis_trains_on() {
    let open = |path: &str| shared(&format!("tokenizers/{path}")).map(|path| Tokenizer::open(&path).unwrap());
    let (Some(opt), Some(t5), Some(llama)) = (open("opt"), open("t5"), open("llama/tokenizer.model")) else {
        return;
    };
    assert_eq!(opt.end(), 50118);
    assert_eq!(opt.target("a man", 32).unwrap(), [2, 102, 313, 50118]);
    assert_eq!(opt.target("a man", 3).unwrap(), [2, 102, 313]);
    // the whole text is `</s>`, the prompt, and this
    let whole = opt.encode_as_published("a video of a man\n", 32).unwrap();
    let prompt = opt.encode_as_published("a video of", 32).unwrap();
    assert_eq!(opt.continuation("a man", 32).unwrap(), whole[prompt.len()..]);
    assert_eq!(opt.continuation("a man", 2).unwrap(), whole[prompt.len()..][..2]);
    assert_eq!((t5.end(), t5.vocabulary_size()), (1, 32100));
    assert_eq!(t5.target("a man", 32).unwrap(), [3, 9, 388, 1]);
    assert_eq!(llama.end(), 2);
    assert_eq!(llama.target("a man", 32).unwrap(), [263, 767, 2]);
    for tokenizer in [opt, t5, llama] {
        let ids = tokenizer.target("a man is running", 32).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap().trim_start_matches("</s>"), "a man is running");
    }
}

#[test]
fn small_sentencepiece_models_give_sentencepieces_ids() {
    let document: Value =
        serde_json::from_slice(&std::fs::read(fixtures().join("ids.json")).unwrap()).unwrap();
    let texts = texts(&document["small_texts"]);
    for (name, special) in [("unigram", 1), ("pairs", 1)] {
        let tokenizer = Tokenizer::open(&fixtures().join(format!("{name}.model"))).unwrap();
        // sentencepiece adds no special tokens by itself; T5's is last, LLaMA's first.
        let plain = |text: &str| {
            let ids = tokenizer.encode_as_published(text, usize::MAX).unwrap();
            if tokenizer.family() == Family::T5 {
                ids[..ids.len() - special].to_vec()
            } else {
                ids[special..].to_vec()
            }
        };
        compare(name, &texts, &ids(&document["small_ids"][name]), plain);
    }
}

#[test]
fn clean_up_gives_the_texts_of_lavis_rules() {
    let document = document();
    let (texts, captions) = (texts(&document["texts"]), texts(&document["captions"]));
    let questions: Vec<String> = serde_json::from_value(document["questions"].clone()).unwrap();
    for ((text, caption), question) in texts.iter().zip(&captions).zip(&questions) {
        assert_eq!(
            (clean_caption(text).as_str(), clean_question(text).as_str()),
            (caption.as_str(), question.as_str())
        );
    }
}

#[test]
fn a_damaged_tokenizer_file_is_named() {
    // This copy has lost its no-break spaces, so that three of its merges are no pairs.
    let Some(path) = shared("tokenizers/llama/tokenizer.json") else { return };
    let message = Tokenizer::open(&path).unwrap_err().to_string();
    assert!(message.contains("erges") && message.contains("tokenizer.json"), "{message}");
}
