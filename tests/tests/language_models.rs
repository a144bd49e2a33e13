//! The runner with every language model: small checkpoints with tokenizers of the published kinds are
//! trained, resumed, rewarded, evaluated and reported with the settings of the profile `paper`.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::Desk;

/// Special tokens, then one token for each letter, so that all words of the tiny world can be written.
fn vocabulary(special: &[&str]) -> serde_json::Map<String, Value> {
    let letters = ('a'..='z').map(String::from);
    let all = special.iter().map(|&token| token.to_owned()).chain(letters);
    all.enumerate().map(|(id, token)| (token, json!(id))).collect()
}

/// A tokenizer as OPT's repositories have it: `</s>` before every text, a line feed after a caption.
fn write_opt_tokenizer(directory: &Path) {
    let vocabulary = vocabulary(&["<s>", "<pad>", "</s>", "Ġ", "Ċ"]);
    std::fs::write(directory.join("vocab.json"), Value::from(vocabulary).to_string()).unwrap();
    std::fs::write(directory.join("merges.txt"), "#version: 0.2\n").unwrap();
}

/// LLaMA's: `<s>` before every text, `</s>` after a caption.
fn write_llama_tokenizer(directory: &Path) {
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": (["<unk>", "<s>", "</s>"].iter().enumerate().map(|(id, token)| json!({
            "id": id, "content": token, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })).collect::<Vec<_>>()),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": vocabulary(&["<unk>", "<s>", "</s>", "▁"]), "merges": [],
        },
    });
    std::fs::write(directory.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

/// A Unigram tokenizer, T5's: `</s>` after every text.
fn write_t5_tokenizer(directory: &Path) {
    let letters = ('a'..='z').map(|letter| json!([letter.to_string(), -3.0]));
    let special = ["<pad>", "</s>", "<unk>", "▁"].map(|token| json!([token, -2.0]));
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": (["<pad>", "</s>", "<unk>"].iter().enumerate().map(|(id, token)| json!({
            "id": id, "content": token, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })).collect::<Vec<_>>()),
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "model": {"type": "Unigram", "unk_id": 2, "vocab": special.into_iter().chain(letters).collect::<Vec<_>>()},
    });
    std::fs::write(directory.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

/// BERT's, for a Q-Former that reads an instruction.
fn write_bert_tokenizer(directory: &Path) {
    std::fs::create_dir(directory.join("qformer_tokenizer")).unwrap();
    let words = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nvideo\nof\nwhat\nis\n?\n";
    std::fs::write(directory.join("qformer_tokenizer/vocab.txt"), words).unwrap();
}

/// A copy of a small random checkpoint made by transformers.
fn checkpoint(desk: &Desk, name: &str) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/parity").join(name);
    let to = desk.path(name);
    std::fs::create_dir(&to).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    to
}

/// The study of a checkpoint: cross-entropy with the language model's low-rank updates, then rewards.
fn write_study(desk: &Desk, name: &str, targets: &str, prompt: &str) {
    let variant = |variant: &str, description: &str| {
        format!(
            r#"
[variants.{variant}]
description = "{description}"
[variants.{variant}.set]
checkpoint = "{name}"
text.prompt = "{prompt}"
model.lora = {{ r = 2, lora_alpha = 4.0, lora_dropout = 0.05, target_modules = [{targets}] }}
[variants.{variant}.set.train]
steps = 4
evaluate_every = 2
batch_size = 4
micro_batches = 2
parameters = {{ "vision_model.*" = "frozen", "language_model.*" = "frozen", "*.lora.*" = 1.0 }}
"#
        )
    };
    let rewards = r#"
[variants.rewarded.set.scst]
reward = { mode = "standard", candidates = 2, baseline = "greedy" }
train = { steps = 2, evaluate_every = 2, batch_size = 2, micro_batches = 2 }
"#;
    let text = [
        format!("question = \"Does the runner train {name}?\"\n"),
        variant("words", "captions are learned word by word"),
        variant("rewarded", "then captions of a high CIDEr-D become likelier"),
        rewards.to_owned(),
    ];
    std::fs::write(desk.path(&format!("{name}.toml")), text.concat()).unwrap();
}

/// Runs the first variant of a study, then the study with `--resume`, evaluates both checkpoints and reads
/// the report.
fn run_study(desk: &Desk, name: &str) {
    let file = format!("{name}.toml");
    let sets =
        ["dataset.own_split=true", "model.image_size=21", "frames.count=2", "generate.max_new_tokens=12"];
    let sets = sets.into_iter().chain(["generate.num_beams=2", "generate.min_new_tokens=1"]);
    let sets: Vec<&str> = sets.flat_map(|set| ["--set", set]).collect();
    let study = ["ablation", &file, "--profile", "paper", "--dataset", "msrvtt=w", "--no-tui"];
    let run = |more: &[&str]| {
        let ran = desk.run(&[&study[..], &sets, more].concat());
        assert_eq!(ran.code, Some(0), "{name}: {}{}", ran.out, ran.err);
        ran
    };
    run(&["--only", "words"]);
    let result = desk.read(&format!("runs/{name}/words/seed-1/result.json"));
    run(&["--resume"]);
    assert_eq!(desk.read(&format!("runs/{name}/words/seed-1/result.json")), result, "{name}: kept");
    for variant in ["words", "rewarded"] {
        let place = format!("runs/{name}/{variant}/seed-1");
        let result: Value = serde_json::from_str(&desk.read(&format!("{place}/result.json"))).unwrap();
        assert!(result["trainable"].as_u64().unwrap() < result["parameters"].as_u64().unwrap());
        let scored = desk.run(&["evaluate", "--checkpoint", &format!("{place}/best"), "--json"]);
        assert_eq!(scored.code, Some(0), "{place}: {}", scored.err);
        let scored: Value = serde_json::from_str(&scored.out).unwrap();
        assert_eq!(scored, result["test"], "{place}: its best checkpoint alone gives its result");
    }
    let report = desk.read(&format!("runs/{name}/report.md"));
    assert!(report.contains("rewarded") && report.contains("video"), "{report}");
}

/// The whole way of one checkpoint, in a folder of synthetic clips.
fn check(name: &str, write_tokenizers: &[fn(&Path)], targets: &str, prompt: &str) {
    let desk = Desk::new();
    assert_eq!(desk.run(&["data", "synthesize", "--profile", "smoke", "--out", "w"]).code, Some(0));
    let directory = checkpoint(&desk, name);
    write_tokenizers.iter().for_each(|write| write(&directory));
    write_study(&desk, name, targets, prompt);
    run_study(&desk, name);
}

const DECODER: &str = r#""q_proj", "v_proj""#;

#[test]
fn opt_is_trained_rewarded_resumed_and_evaluated() {
    check("opt", &[write_opt_tokenizer], DECODER, "");
}

#[test]
fn llama_is_trained_rewarded_resumed_and_evaluated() {
    check("llama", &[write_llama_tokenizer], DECODER, "");
}

#[test]
fn an_instructblip_with_llama_is_trained_rewarded_resumed_and_evaluated() {
    check("instructblip-llama", &[write_llama_tokenizer, write_bert_tokenizer], DECODER, "a video of");
}

#[test]
fn an_instructblip_with_t5_is_trained_rewarded_resumed_and_evaluated() {
    check("instructblip-t5", &[write_t5_tokenizer, write_bert_tokenizer], r#""q", "v""#, "a video of");
}
