//! `config.json` of `Blip2ForConditionalGeneration` and of InstructBLIP in transformers.

use std::path::Path;

use serde_json::{Value, json};

use super::{CONFIG_FILE, CheckpointError, json};
use crate::blip2::Blip2Config;
use crate::fusion::Fusion;
use crate::lm::LanguageModelConfig;
use crate::lm::llama::LlamaConfig;
use crate::lm::opt::OptConfig;
use crate::lm::t5::T5Config;
use crate::qformer::QFormerConfig;
use crate::vit::VitConfig;

/// Supported values of `model_type`, with the default of `use_qformer_text_input` and of `fusion`.
const MODEL_TYPES: &[(&str, bool, Fusion)] = &[
    ("blip-2", false, Fusion::Concat),
    ("instructblip", true, Fusion::ConcatQueries),
    ("instructblipvideo", true, Fusion::ConcatQueries),
];

/// Settings with only one supported value: section, language model, key, value. An absent key means that
/// value.
const FIXED: &[(&str, &str, &str, Value)] = &[
    ("vision_config", "", "qkv_bias", Value::Bool(true)),
    ("text_config", "opt", "do_layer_norm_before", Value::Bool(true)),
    ("text_config", "opt", "enable_bias", Value::Bool(true)),
    ("text_config", "opt", "layer_norm_elementwise_affine", Value::Bool(true)),
    ("text_config", "opt", "_remove_final_layer_norm", Value::Bool(false)),
    ("text_config", "llama", "pretraining_tp", Value::Null),
];

/// The language model's section, in errors.
const TEXT: &str = "text_config.";

/// Keys of tokens that a model may lack: null and -1 mean none, as in transformers.
const TOKENS: [&str; 3] = ["pad_token_id", "bos_token_id", "eos_token_id"];

/// Loads a configuration file of any name.
///
/// # Errors
/// If it is absent or not that of a BLIP-2 or InstructBLIP with OPT, T5 or LLaMA.
pub fn load_config_file(path: &Path) -> Result<Blip2Config, CheckpointError> {
    let fail = |reason: String| CheckpointError::Config { reason, path: path.to_owned() };
    parse(json::read(path)?).map_err(fail)
}

/// Loads the configuration of a directory with only a language model.
///
/// # Errors
/// If it is absent or not that of an OPT, T5 or LLaMA.
pub fn load_language_model_config(directory: &Path) -> Result<LanguageModelConfig, CheckpointError> {
    let path = &directory.join(CONFIG_FILE);
    let fail = |reason: String| CheckpointError::Config { reason, path: path.to_owned() };
    let mut value = json!({ "text_config": json::read(path)? });
    check_language_model(&mut value).map_err(fail)?;
    typed_language_model(&value["text_config"]).map_err(fail)
}

fn parse(mut value: Value) -> Result<Blip2Config, String> {
    let model_type = value["model_type"].as_str().unwrap_or_default().to_owned();
    let Some((_, reads_text, fusion)) = MODEL_TYPES.iter().find(|(name, ..)| *name == model_type) else {
        let known: Vec<&str> = MODEL_TYPES.iter().map(|(name, ..)| *name).collect();
        return Err(format!("model_type is {}, expected one of {}", value["model_type"], known.join(", ")));
    };
    check_language_model(&mut value)?;
    if !value.is_object() || !value["qformer_config"].is_object() || !value["vision_config"].is_object() {
        return Err("qformer_config and vision_config must be objects".to_owned());
    }
    if value["qformer_config"]["use_qformer_text_input"].is_null() {
        value["qformer_config"]["use_qformer_text_input"] = json!(reads_text);
    }
    if value["fusion"].is_null() {
        value["fusion"] = json!(fusion);
    }
    // the sections first: an error names the key
    json::typed::<VitConfig>(&value["vision_config"], "vision_config.")?;
    json::typed::<QFormerConfig>(&value["qformer_config"], "qformer_config.")?;
    typed_language_model(&value["text_config"])?;
    let config: Blip2Config = json::typed(&value, "")?;
    config.check()?;
    Ok(config)
}

fn typed_language_model(text: &Value) -> Result<LanguageModelConfig, String> {
    match text["model_type"].as_str() {
        Some("opt") => json::typed::<OptConfig>(text, TEXT).map(LanguageModelConfig::Opt),
        Some("t5") => json::typed::<T5Config>(text, TEXT).map(LanguageModelConfig::T5),
        _ => json::typed::<LlamaConfig>(text, TEXT).map(LanguageModelConfig::Llama),
    }
}

/// Rejects unsupported settings, and adds absent ones.
fn check_language_model(value: &mut Value) -> Result<(), String> {
    let language_model = value["text_config"]["model_type"].as_str().unwrap_or_default().to_owned();
    if !["opt", "t5", "llama"].contains(&language_model.as_str()) {
        let found = &value["text_config"]["model_type"];
        return Err(format!("text_config.model_type is {found}, expected one of opt, t5, llama"));
    }
    for (section, language, key, expected) in FIXED {
        let found = &value[*section][*key];
        let applies = language.is_empty() || *language == language_model;
        if applies && !expected.is_null() && !found.is_null() && found != expected {
            return Err(format!("{section}.{key} is {found}, and only {expected} is known here"));
        }
    }
    if language_model == "opt" {
        let (width, embedded) =
            (&value["text_config"]["hidden_size"], &value["text_config"]["word_embed_proj_dim"]);
        if !embedded.is_null() && embedded != width {
            return Err(format!(
                "text_config.word_embed_proj_dim is {embedded}, and only hidden_size ({width}) is known here"
            ));
        }
    }
    if language_model == "llama" {
        read_rope(&mut value["text_config"])?;
    }
    fill_in(&mut value["text_config"], &language_model);
    Ok(())
}

/// Sets absent keys to the defaults of transformers, whose files contain only other values.
fn fill_in(text: &mut Value, language_model: &str) {
    let defaults = match language_model {
        "opt" => {
            json!({"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "ffn_dim": 3072})
        }
        "t5" => json!({
            "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "feed_forward_proj": "relu",
            "tie_word_embeddings": true,
        }),
        _ => json!({}),
    };
    let defaults = defaults.as_object().cloned().unwrap_or_default();
    for (key, default) in defaults {
        if text[&key].is_null() {
            text[&key] = default;
        }
    }
    if language_model == "t5" {
        if text["num_decoder_layers"].is_null() {
            text["num_decoder_layers"] = text["num_layers"].clone();
        }
        // transformers 5 may save every T5 as tied; this key has the original value
        if text["scale_decoder_outputs"].is_boolean() {
            text["tie_word_embeddings"] = text["scale_decoder_outputs"].clone();
        }
        // null means the padding token, as in every published T5
        if text["decoder_start_token_id"].is_null() {
            text["decoder_start_token_id"] = json!(text["pad_token_id"].as_u64().unwrap_or(0));
        }
    }
    if let Some(keys) = text.as_object_mut() {
        keys.retain(|key, value| !value.is_null() || TOKENS.contains(&key.as_str()));
        for key in TOKENS {
            if keys.get(key).and_then(Value::as_i64) == Some(-1) {
                keys.insert(key.to_owned(), Value::Null);
            }
        }
    }
}

/// Newer files have the base of the rotary positions in `rope_parameters`; older ones have a `rope_scaling`.
fn read_rope(text: &mut Value) -> Result<(), String> {
    for key in ["rope_parameters", "rope_scaling"] {
        let rope = text[key].clone();
        if rope.is_null() {
            continue;
        }
        let kind =
            [&rope["rope_type"], &rope["type"]].into_iter().find_map(Value::as_str).unwrap_or("default");
        if kind != "default" {
            return Err(format!("text_config.{key} is of type {kind}, and only default is known here"));
        }
        if rope["rope_theta"].is_number() {
            text["rope_theta"] = rope["rope_theta"].clone();
        }
    }
    Ok(())
}

pub(super) fn save_config(config: &Blip2Config, path: &Path) -> Result<(), CheckpointError> {
    let fail = |reason: String| CheckpointError::Config { reason, path: path.to_owned() };
    let mut value = serde_json::to_value(config).map_err(|error| fail(error.to_string()))?;
    let (model_type, architecture, vision, qformer) = if config.qformer_config.reads_text {
        ("instructblip", "InstructBlip", "instructblip_vision_model", "instructblip_qformer")
    } else {
        ("blip-2", "Blip2", "blip_2_vision_model", "blip_2_qformer")
    };
    value["architectures"] = json!([format!("{architecture}ForConditionalGeneration")]);
    value["model_type"] = json!(model_type);
    value["vision_config"]["model_type"] = json!(vision);
    value["qformer_config"]["model_type"] = json!(qformer);
    let is_encoder_decoder = matches!(config.text_config, LanguageModelConfig::T5(_));
    value["text_config"]["is_encoder_decoder"] = json!(is_encoder_decoder);
    value["use_decoder_only_language_model"] = json!(!is_encoder_decoder);
    match &config.text_config {
        LanguageModelConfig::Opt(opt) => value["text_config"]["word_embed_proj_dim"] = json!(opt.hidden_size),
        LanguageModelConfig::Llama(llama) => {
            value["text_config"]["num_key_value_heads"] = json!(llama.key_value_heads());
            value["text_config"]["head_dim"] = json!(llama.d_head());
            value["text_config"]["rope_parameters"] =
                json!({"rope_type": "default", "rope_theta": llama.rope_theta});
        }
        LanguageModelConfig::T5(_) => {}
    }
    let text = serde_json::to_string_pretty(&value).map_err(|error| fail(error.to_string()))?;
    super::save::save_file(path, (text + "\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blip2::tests::tiny;
    use crate::lm::{llama, opt};

    fn written(config: &Blip2Config) -> Value {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        save_config(config, &path).unwrap();
        assert_eq!(&load_config_file(&path).unwrap(), config);
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn with(text_config: LanguageModelConfig) -> Blip2Config {
        Blip2Config { text_config, ..tiny(Fusion::Concat) }
    }

    #[test]
    fn a_saved_configuration_is_loaded_for_every_language_model() {
        assert_eq!(written(&tiny(Fusion::Average))["text_config"]["model_type"], "t5");
        let opt = written(&with(LanguageModelConfig::Opt(opt::tests::tiny())));
        assert_eq!(opt["use_decoder_only_language_model"], true);
        let llama = written(&with(LanguageModelConfig::Llama(llama::tests::tiny())));
        assert_eq!(llama["text_config"]["rope_parameters"]["rope_theta"], 10_000.0);
    }

    #[test]
    fn unsupported_settings_are_errors_with_their_name() {
        let good = written(&with(LanguageModelConfig::Opt(opt::tests::tiny())));
        for (section, key, bad) in [
            ("text_config", "do_layer_norm_before", json!(false)),
            ("text_config", "word_embed_proj_dim", json!(8)),
            ("text_config", "model_type", json!("bloom")),
            ("text_config", "activation_function", json!("swish7")),
            ("vision_config", "qkv_bias", json!(false)),
            ("vision_config", "patch_size", json!(0)),
            ("vision_config", "image_size", json!(0)),
            ("vision_config", "image_size", json!(1_u64 << 40)),
            ("vision_config", "num_attention_heads", json!(3)),
            ("qformer_config", "cross_attention_frequency", json!(0)),
        ] {
            let mut value = good.clone();
            value[section][key] = bad.clone();
            let error = parse(value).unwrap_err();
            let value = bad.as_str().map_or(bad.to_string(), str::to_owned);
            assert!(error.contains(key) || error.contains(&value), "{key}: {error}");
        }
    }

    #[test]
    fn rotary_positions_are_read_in_the_old_and_the_new_form() {
        let mut value = written(&with(LanguageModelConfig::Llama(llama::tests::tiny())));
        value["text_config"]["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 5e5});
        let LanguageModelConfig::Llama(llama) = parse(value.clone()).unwrap().text_config else {
            panic!("a LLaMA stays one")
        };
        assert_eq!(llama.rope_theta, 5e5);
        value["text_config"]["rope_scaling"] = json!({"type": "linear", "factor": 2.0});
        assert!(parse(value).unwrap_err().contains("linear"));
    }
}
