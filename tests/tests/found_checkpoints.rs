//! Checkpoints as they are found: with other tokenizers, wrapped names, buffers of older versions, missing
//! downloads, adapters of other kinds, and inputs that are too long for them. Each is used as a user does.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use data::text::Tokenizer;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tests::{Desk, Ran};

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4cac19622fc3\nsize 2336927\n";
const PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n";

fn fixture(inside: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures").join(inside)
}

fn word(path: &Path) -> String {
    path.display().to_string()
}

/// A copy of a fixture's checkpoint, without its references.
fn copy(desk: &Desk, name: &str) -> PathBuf {
    let (from, to) = (fixture("parity").join(name), desk.path(&name.replace('/', "-")));
    std::fs::create_dir_all(&to).unwrap();
    for file in std::fs::read_dir(from).unwrap().flatten().filter(|file| file.path().is_file()) {
        if !file.file_name().to_string_lossy().starts_with("reference") {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
    to
}

fn change(path: &Path, adapt: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    adapt(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

/// Writes a checkpoint's tensors again under other names, with one more of zeros where asked.
fn rename(directory: &Path, name_of: impl Fn(&str) -> String, added: &[(&str, Vec<usize>)]) {
    let path = directory.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let zeros = vec![0; 1 << 16];
    let mut views: BTreeMap<String, TensorView<'_>> =
        tensors.tensors().into_iter().map(|(name, view)| (name_of(&name), view)).collect();
    for (name, shape) in added {
        let length = 4 * shape.iter().product::<usize>();
        let view = TensorView::new(Dtype::F32, shape.clone(), &zeros[..length]).unwrap();
        views.insert((*name).to_owned(), view);
    }
    let written = safetensors::serialize(views, None).unwrap();
    std::fs::write(&path, written).unwrap();
}

fn verify(desk: &Desk, checkpoint: &Path, reference: &str) -> Ran {
    let reference = word(&fixture(&format!("parity/{reference}.safetensors")));
    desk.run(&["verify", "--checkpoint", &word(checkpoint), "--reference", &reference])
}

fn ok(ran: Ran) -> String {
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.out, ran.err);
    ran.out
}

#[track_caller]
fn fails(ran: &Ran, words: &[&str]) {
    assert_eq!(ran.code, Some(1), "{}\n{}", ran.out, ran.err);
    for word in words {
        assert!(ran.err.contains(word), "{word} is not in: {}", ran.err);
    }
}

/// A picture, which is a clip of one frame.
fn clip(desk: &Desk) -> String {
    let path = desk.path("clip.gif");
    let pixel = b"\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";
    std::fs::write(&path, [b"GIF89a".as_slice(), pixel].concat()).unwrap();
    word(&path)
}

/// The caption's tokens.
fn ids(desk: &Desk, checkpoint: &Path, options: &[&str]) -> Value {
    let (checkpoint, clip) = (word(checkpoint), clip(desk));
    let command = ["caption", "--checkpoint", &checkpoint, "--format", "jsonl", "--frames", "2", &clip];
    let out = ok(desk.run(&[&command[..], options].concat()));
    let line: Value = serde_json::from_str(&out).unwrap();
    line["ids"].clone()
}

/// A tokenizer of whole words, in the folder of a checkpoint.
fn add_words(directory: &Path) {
    let words = ["a", "what", "is", "this", "?"].map(str::to_owned);
    Tokenizer::word_level(&words).unwrap().save(&directory.join("tokenizer.json")).unwrap();
}

#[test]
fn an_adapter_of_another_kind_is_rejected_and_never_computed_as_plain_lora() {
    let desk = Desk::new();
    let (base, adapter) = (copy(&desk, "opt"), copy(&desk, "lora/opt"));
    for (name, value) in [
        ("init_lora_weights", json!("pissa")),
        ("init_lora_weights", json!("olora")),
        ("alora_invocation_tokens", json!([5, 6])),
        ("use_dora", json!(true)),
    ] {
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            std::fs::copy(adapter.join(file), base.join(file)).unwrap();
        }
        change(&base.join("adapter_config.json"), |config| config[name] = value);
        fails(&verify(&desk, &base, "lora/opt/reference"), &[name, "adapter_config.json"]);
    }
    // empty lists mean that nothing is set
    std::fs::copy(adapter.join("adapter_config.json"), base.join("adapter_config.json")).unwrap();
    change(&base.join("adapter_config.json"), |config| {
        for key in ["modules_to_save", "exclude_modules", "layers_to_transform", "alora_invocation_tokens"] {
            config[key] = json!([]);
        }
    });
    ok(verify(&desk, &base, "lora/opt/reference"));
    // an import keeps the adapter
    let out = ok(desk.run(&["import", &word(&base), "--out", "imported"]));
    assert!(out.contains("with the adapter"), "{out}");
    ok(verify(&desk, &desk.path("imported"), "lora/opt/reference"));
}

#[test]
fn names_with_the_prefixes_of_wrappers_are_those_of_the_model() {
    let desk = Desk::new();
    for (front, part) in [
        ("_orig_mod.", ""),
        ("module.", ""),
        ("model.", ""),
        ("module._orig_mod.", ""),
        ("model._orig_mod.module.", ""),
        ("", "_orig_mod."),
        ("model.", "module._orig_mod."),
    ] {
        for model in ["opt", "t5-flan"] {
            let checkpoint = copy(&desk, model);
            let name_of = |name: &str| {
                format!("{front}{}", name.replace("language_model.", &format!("language_model.{part}")))
            };
            rename(&checkpoint, name_of, &[]);
            ok(verify(&desk, &checkpoint, &format!("{model}/frames1")));
        }
    }
}

/// The language models alone, whose own names begin with `model.`
#[test]
fn a_wrapped_language_model_is_imported_under_its_own_names() {
    let desk = Desk::new();
    for model in ["opt", "llama", "t5-flan"] {
        let whole = copy(&desk, model);
        for front in ["", "model.", "model._orig_mod.", "module."] {
            let (rest, own) = (desk.path("rest"), desk.path("own"));
            for (folder, is_own) in [(&rest, false), (&own, true)] {
                std::fs::create_dir_all(folder).unwrap();
                let bytes = std::fs::read(whole.join("model.safetensors")).unwrap();
                let tensors = SafeTensors::deserialize(&bytes).unwrap();
                let of_part = tensors.tensors().into_iter().filter_map(|(name, view)| {
                    match (is_own, name.strip_prefix("language_model.")) {
                        (true, Some(name)) => Some((format!("{front}{name}"), view)),
                        (false, None) => Some((name, view)),
                        _ => None,
                    }
                });
                let part = safetensors::serialize(of_part, None).unwrap();
                std::fs::write(folder.join("model.safetensors"), part).unwrap();
            }
            let (config, out) = (word(&whole.join("config.json")), format!("{model}-{front}"));
            let [rest, own] = [rest, own].map(|path| word(&path));
            let parts = ["import", &rest, "--language-model", &own, "--config", &config, "--out", &out];
            ok(desk.run(&parts));
            ok(verify(&desk, &desk.path(&out), &format!("{model}/frames1")));
        }
    }
}

#[test]
fn tensors_of_older_files_that_no_model_uses_are_passed_over() {
    let desk = Desk::new();
    let bias = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";
    let in_whole = format!("language_model.{bias}");
    let buffers: &[(&str, Vec<usize>)] = &[
        (&in_whole, vec![8, 3]),
        ("vision_model.embeddings.position_ids", vec![1, 10]),
        ("qformer.embeddings.position_ids", vec![1, 30]),
    ];
    let checkpoint = copy(&desk, "t5-flan");
    rename(&checkpoint, str::to_owned, buffers);
    ok(verify(&desk, &checkpoint, "t5-flan/frames1"));
    let llama = copy(&desk, "llama");
    let inverse = "language_model.model.layers.0.self_attn.rotary_emb.inv_freq";
    rename(&llama, str::to_owned, &[(inverse, vec![2])]);
    ok(verify(&desk, &llama, "llama/frames1"));
    // in another block it is not a table that transformers passes over
    let other = format!("language_model.{}", bias.replace("block.0", "block.1"));
    rename(&checkpoint, str::to_owned, &[(&other, vec![8, 3])]);
    fails(&verify(&desk, &checkpoint, "t5-flan/frames1"), &["unexpected", &other]);

    let language_model = copy(&desk, "lavis/t5");
    rename(&language_model, str::to_owned, &[(bias, vec![8, 3])]);
    let config = word(&fixture("parity/t5-flan/config.json"));
    let (stage, vision) = ("parity/lavis/stage2_t5.pth", "parity/lavis/eva_vit_g.pth");
    let [stage, vision] = [stage, vision].map(|name| word(&fixture(name)));
    let parts = ["import", &stage, "--vision", &vision, "--config", &config];
    ok(desk.run(&[&parts[..], &["--language-model", &word(&language_model), "--out", "ckpt"]].concat()));
    ok(verify(&desk, &desk.path("ckpt"), "lavis/t5"));
}

#[test]
fn a_token_of_minus_one_is_no_token_and_another_negative_is_an_error_with_its_key() {
    let desk = Desk::new();
    for model in ["opt", "llama", "t5-flan"] {
        let checkpoint = copy(&desk, model);
        let config = checkpoint.join("config.json");
        let tokens: &[&str] =
            if model == "t5-flan" { &["pad_token_id"] } else { &["pad_token_id", "bos_token_id"] };
        for key in tokens {
            change(&config, |config| config["text_config"][key] = json!(-1));
        }
        ok(verify(&desk, &checkpoint, &format!("{model}/frames1")));
        ok(desk.run(&["import", &word(&checkpoint), "--out", "imported"]));
        ok(verify(&desk, &desk.path("imported"), &format!("{model}/frames1")));
        for (section, key, value) in [
            ("text_config", "pad_token_id", json!(-2)),
            ("text_config", "vocab_size", json!("many")),
            ("vision_config", "hidden_size", json!(-16)),
            ("qformer_config", "num_attention_heads", json!(1.5)),
        ] {
            change(&config, |config| config[section][key] = value);
            fails(
                &verify(&desk, &checkpoint, &format!("{model}/frames1")),
                &[&format!("{section}.{key} is ")],
            );
            std::fs::copy(fixture("parity").join(model).join("config.json"), &config).unwrap();
        }
        change(&config, |config| config["num_query_tokens"] = json!(-5));
        fails(&verify(&desk, &checkpoint, &format!("{model}/frames1")), &["num_query_tokens is -5"]);
    }
}

#[test]
fn a_pointer_or_a_page_in_place_of_a_file_is_named_as_such() {
    let desk = Desk::new();
    for (content, kind) in [(POINTER, "Git LFS pointer"), (PAGE, "HTML page")] {
        for file in ["config.json", "model.safetensors"] {
            let checkpoint = copy(&desk, "opt");
            std::fs::write(checkpoint.join(file), content).unwrap();
            fails(&verify(&desk, &checkpoint, "opt/frames1"), &[kind, file]);
        }
        for file in ["generation_config.json", "recap.toml"] {
            let checkpoint = copy(&desk, "opt");
            add_words(&checkpoint);
            std::fs::write(checkpoint.join(file), content).unwrap();
            let caption = ["caption", "--checkpoint", &word(&checkpoint), &clip(&desk)];
            fails(&desk.run(&caption), &[kind, file]);
            std::fs::remove_dir_all(checkpoint).unwrap();
        }
        for file in ["pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json"] {
            let checkpoint = copy(&desk, "opt");
            std::fs::remove_file(checkpoint.join("model.safetensors")).unwrap();
            std::fs::write(checkpoint.join(file), content).unwrap();
            fails(&verify(&desk, &checkpoint, "opt/frames1"), &[kind, file]);
            std::fs::remove_file(checkpoint.join(file)).unwrap();
        }
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            let (checkpoint, adapter) = (copy(&desk, "opt"), copy(&desk, "lora/opt"));
            std::fs::write(adapter.join(file), content).unwrap();
            let reference = word(&fixture("parity/lora/opt/reference.safetensors"));
            let [checkpoint, adapter] = [checkpoint, adapter].map(|path| word(&path));
            let command = ["verify", "--checkpoint", &checkpoint, "--adapter", &adapter];
            fails(&desk.run(&[&command[..], &["--reference", &reference]].concat()), &[kind, file]);
        }
        for file in ["blip2.pth", "vit.onnx", "rest.safetensors", "weights.ckpt"] {
            std::fs::write(desk.path(file), content).unwrap();
            fails(&desk.run(&["import", file, "--out", "x"]), &[kind, file]);
        }
        for file in ["tokenizer.json", "tokenizer.model", "spiece.model", "vocab.txt"] {
            let checkpoint = copy(&desk, "opt");
            std::fs::write(checkpoint.join(file), content).unwrap();
            let (name, clip) = (word(&checkpoint), clip(&desk));
            fails(&desk.run(&["import", &name, "--out", "x"]), &[kind, file]);
            let ran = desk.run(&["caption", "--checkpoint", &name, &clip]);
            assert!(ran.code == Some(1) && ran.err.contains(kind), "{}", ran.err);
            std::fs::remove_file(checkpoint.join(file)).unwrap();
        }
    }
}

#[test]
fn a_sequence_longer_than_the_positions_is_an_error_before_generation_that_states_the_maximum() {
    let desk = Desk::new();
    let clip = clip(&desk);
    for (model, positions) in [("opt", 50), ("llama", 64)] {
        let checkpoint = copy(&desk, model);
        add_words(&checkpoint);
        let prompt = "a ".repeat(70);
        // five queries; the last new token is not read
        let most = (positions - 5 + 1).to_string();
        let more = (positions - 5 + 2).to_string();
        let caption = |options: &[&str]| {
            let name = word(&checkpoint);
            let command = ["caption", "--checkpoint", &name, "--frames", "2", "--beams", "1", &clip];
            desk.run(&[&command[..], options].concat())
        };
        let maximum = format!("maximum of {positions}");
        ok(caption(&["--max-new-tokens", &most, "--min-new-tokens", &most]));
        for options in [
            &["--max-new-tokens", &more][..],
            &["--max-new-tokens", "1000000"],
            &["--prompt", &prompt],
            &["--fusion", "concat_queries", "--frames", "12"],
        ] {
            let ran = if options[0] == "--fusion" {
                let name = word(&checkpoint);
                desk.run(&[&["caption", "--checkpoint", &name, &clip][..], options].concat())
            } else {
                caption(options)
            };
            fails(&ran, &[&maximum]);
            assert!(!ran.err.contains("panicked"), "{}", ran.err);
        }
    }
    let t5 = copy(&desk, "t5-flan");
    add_words(&t5);
    let options = ["--max-new-tokens", "200", "--min-new-tokens", "100", "--beams", "1"];
    assert!(ids(&desk, &t5, &options).as_array().unwrap().len() > 100, "relative positions have no maximum");
}

/// BERT's special tokens, and some words.
const PIECES: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nwhat\nis\nth\n##is\n?\n";

#[test]
fn the_tokenizer_of_an_instructblips_qformer_is_used_and_kept_on_import() {
    let desk = Desk::new();
    let checkpoint = copy(&desk, "instructblip-t5");
    add_words(&checkpoint);
    let folder = checkpoint.join("qformer_tokenizer");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("vocab.txt"), PIECES).unwrap();
    std::fs::write(folder.join("tokenizer_config.json"), r#"{"do_lower_case": true}"#).unwrap();
    let prompt = ["--prompt", "what is this?"];
    let own = ids(&desk, &checkpoint, &prompt);
    ok(desk.run(&["import", &word(&checkpoint), "--out", "imported"]));
    let imported = desk.path("imported");
    assert_eq!(desk.read("imported/qformer_tokenizer/vocab.txt"), PIECES);
    assert_eq!(ids(&desk, &imported, &prompt), own);
    ok(desk.run(&["export", "--checkpoint", "imported", "--out", "exported"]));
    assert_eq!(ids(&desk, &desk.path("exported"), &prompt), own);

    // the eleven positions of this Q-Former
    let fitting = format!("what {}", "is ".repeat(8));
    ids(&desk, &imported, &["--prompt", &fitting]);
    let (clip, long) = (clip(&desk), format!("what {}", "is ".repeat(9)));
    let ran = desk.run(&["caption", "--checkpoint", "imported", "--prompt", &long, &clip]);
    fails(&ran, &["12 tokens", "maximum of 11"]);
    // a tokenizer of another Q-Former, and none
    let many: String = (0..30).map(|index| format!("w{index}\n")).collect();
    std::fs::write(imported.join("qformer_tokenizer/vocab.txt"), format!("{PIECES}{many}")).unwrap();
    let caption = ["caption", "--checkpoint", "imported", "--prompt", "what", &clip];
    fails(&desk.run(&caption), &["the Q-Former 30"]);
    std::fs::remove_dir_all(imported.join("qformer_tokenizer")).unwrap();
    fails(&desk.run(&caption), &["qformer_tokenizer"]);
}

/// `vocab.json` and `merges.txt`, as OPT's.
const VOCABULARY: &str =
    r#"{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5, "ab": 6, "Ġ": 7, "Ġab": 8, "Ċ": 9}"#;

/// A sentencepiece model with pieces of whole words; 1 is unigram, 2 byte pairs.
fn sentencepiece(algorithm: u8) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
    };
    let piece = |text: &str, score: f32, kind: u8| {
        let score = score.to_le_bytes();
        field(1, &[&field(1, text.as_bytes())[..], &[2 << 3 | 5], &score, &[3 << 3, kind]].concat())
    };
    let controls = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("<0x41>", 0.0, 6)];
    let words = [("▁", -3.0, 1), ("a", -4.0, 1), ("b", -5.0, 1), ("ab", -1.0, 1), ("▁ab", -2.0, 1)];
    let mut bytes: Vec<u8> =
        controls.iter().chain(&words).flat_map(|(text, score, kind)| piece(text, *score, *kind)).collect();
    bytes.extend(field(2, &[3 << 3, algorithm, 0x98, 0x02, 1]));
    bytes
}

#[test]
fn every_layout_of_a_tokenizer_is_used_for_captions_and_kept_on_import() {
    let desk = Desk::new();
    let merges = "#version: 0.2\na b\nĠ ab\n";
    let layouts = [
        ("opt", vec![("vocab.json", VOCABULARY.into()), ("merges.txt", merges.into())]),
        ("llama", vec![("tokenizer.model", sentencepiece(2))]),
        ("llama-grouped", vec![("spiece.model", sentencepiece(2))]),
    ];
    for (model, files) in layouts {
        let checkpoint = copy(&desk, model);
        for (name, content) in &files {
            std::fs::write(checkpoint.join(name), content).unwrap();
        }
        let own = ids(&desk, &checkpoint, &[]);
        let out = format!("{model}-imported");
        let printed = ok(desk.run(&["import", &word(&checkpoint), "--out", &out]));
        for (name, content) in &files {
            assert!(printed.contains(name), "{printed}");
            assert_eq!(&std::fs::read(desk.path(&out).join(name)).unwrap(), content);
        }
        assert_eq!(ids(&desk, &desk.path(&out), &[]), own);
    }
    // a unigram model gets T5's hundred sentinels, more tokens than the fixture has
    let checkpoint = copy(&desk, "t5-flan");
    std::fs::write(checkpoint.join("spiece.model"), sentencepiece(1)).unwrap();
    let name = word(&checkpoint);
    fails(&desk.run(&["import", &name, "--out", "x"]), &["109 tokens", "37"]);
    fails(&desk.run(&["caption", "--checkpoint", &name, &clip(&desk)]), &["109 tokens", "37"]);
}

#[test]
fn captions_of_laviss_opt_end_at_the_line_break() {
    let desk = Desk::new();
    let language_model = desk.path("opt");
    std::fs::create_dir(&language_model).unwrap();
    // the language model alone, with its own end token
    let whole = fixture("parity/opt");
    let bytes = std::fs::read(whole.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let own = tensors
        .tensors()
        .into_iter()
        .filter_map(|(name, view)| Some((name.strip_prefix("language_model.")?.to_owned(), view)));
    let own = safetensors::serialize(own, None).unwrap();
    std::fs::write(language_model.join("model.safetensors"), own).unwrap();
    std::fs::write(language_model.join("generation_config.json"), r#"{"eos_token_id": 2}"#).unwrap();
    let [stage, vision] =
        ["stage2_opt.pth", "eva_vit_g.pth"].map(|name| word(&fixture("parity/lavis").join(name)));
    let (config, language_model) = (word(&whole.join("config.json")), word(&language_model));
    let import = |out: &str| {
        let parts = ["import", &stage, "--vision", &vision, "--language-model", &language_model];
        ok(desk.run(&[&parts[..], &["--config", &config, "--out", out]].concat()));
        let read = |file: &str| serde_json::from_str::<Value>(&desk.read(&format!("{out}/{file}"))).unwrap();
        let (config, generation) = (read("config.json"), read("generation_config.json"));
        assert_eq!(config["text_config"]["eos_token_id"], generation["eos_token_id"]);
        generation["eos_token_id"].clone()
    };
    assert_eq!(import("published"), 50_118);
    // where the tokenizer is known, it decides
    std::fs::write(desk.path("opt/vocab.json"), VOCABULARY).unwrap();
    std::fs::write(desk.path("opt/merges.txt"), "a b\n").unwrap();
    assert_eq!(import("own"), 9);
}
