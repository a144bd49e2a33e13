//! `adapter_config.json`: which keys and values of peft's `LoraConfig` are computed here.
//!
//! Every key of peft up to 0.21 is in [`KEYS`]. A key that is not, and a value that is not computed, are
//! errors that name the key: an adapter is never computed as another kind of adapter.

use std::path::Path;

use serde_json::Value;

use crate::checkpoint::{CheckpointError, json};
use crate::lora::LoraConfig;

/// File of an adapter's settings.
pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";

/// Which values of a key are accepted. Null, and an empty text, list or object, mean that a key is not set.
enum Accepted {
    /// Part of [`LoraConfig`].
    Read,
    /// Every value: it does not affect what the adapter computes.
    Any,
    /// This value, or not set; and what to do about another.
    Only(Value, &'static str),
    /// Not set; and what to do otherwise.
    Unset(&'static str),
    /// One of the ways to draw the first factors.
    FirstFactors,
}

/// What the user can do about a variant that is merged by peft.
const MERGE: &str = "merge it into the model with peft's `merge_and_unload()`, and import the result";
/// What the user can do about an adapter that cannot be merged either.
const TRAIN: &str = "it has no equal plain LoRA; train one without this setting";

const KEYS: &[(&str, Accepted)] = &[
    ("r", Accepted::Read),
    ("lora_alpha", Accepted::Read),
    ("lora_dropout", Accepted::Read),
    ("target_modules", Accepted::Read),
    ("use_rslora", Accepted::Read),
    ("rank_pattern", Accepted::Read),
    ("alpha_pattern", Accepted::Read),
    ("init_lora_weights", Accepted::FirstFactors),
    // records of how and with what the adapter was made
    ("auto_mapping", Accepted::Any),
    ("base_model_name_or_path", Accepted::Any),
    ("inference_mode", Accepted::Any),
    ("peft_version", Accepted::Any),
    ("revision", Accepted::Any),
    ("task_type", Accepted::Any),
    ("runtime_config", Accepted::Any),
    // peft ignores these without the setting that uses them
    ("corda_config", Accepted::Any),
    ("eva_config", Accepted::Any),
    ("loftq_config", Accepted::Any),
    ("lora_ga_config", Accepted::Any),
    ("megatron_core", Accepted::Any),
    ("qalora_group_size", Accepted::Any),
    ("alora_invocation_tokens", Accepted::Unset(TRAIN)),
    ("arrow_config", Accepted::Unset(TRAIN)),
    ("exclude_modules", Accepted::Unset("list the layers that have updates in target_modules instead")),
    ("kasa_config", Accepted::Unset(MERGE)),
    ("layer_replication", Accepted::Unset(TRAIN)),
    ("layers_pattern", Accepted::Unset("list the layers that have updates in target_modules instead")),
    ("layers_to_transform", Accepted::Unset("list the layers that have updates in target_modules instead")),
    ("megatron_config", Accepted::Unset(MERGE)),
    ("modules_to_save", Accepted::Unset(MERGE)),
    ("monteclora_config", Accepted::Unset(TRAIN)),
    ("target_parameters", Accepted::Unset(MERGE)),
    ("trainable_token_indices", Accepted::Unset(MERGE)),
    ("use_bdlora", Accepted::Unset(MERGE)),
    ("velora_config", Accepted::Unset(MERGE)),
    ("ensure_weight_tying", Accepted::Only(Value::Bool(false), MERGE)),
    ("fan_in_fan_out", Accepted::Only(Value::Bool(false), MERGE)),
    ("lora_bias", Accepted::Only(Value::Bool(false), MERGE)),
    ("use_dora", Accepted::Only(Value::Bool(false), MERGE)),
    ("use_qalora", Accepted::Only(Value::Bool(false), MERGE)),
];

/// peft's values of keys that are not set.
const DEFAULTS: [(&str, u64); 3] = [("r", 8), ("lora_alpha", 8), ("lora_dropout", 0)];

/// First factors that leave the model's weights as they are, so that the saved factors are all of the
/// adapter.
const PLAIN_FACTORS: [&str; 2] = ["gaussian", "orthogonal"];

/// What to do about first factors that change the model's weights: peft subtracts their product when it makes
/// the adapter, and again when it loads it.
const CONVERT: &str = "peft takes the first factors out of the model's weights, which is not computed here; save the \
     adapter with `save_pretrained(..., path_initial_model_for_weight_conversion=FIRST_ADAPTER)`, which makes a plain \
     LoRA, or merge it with `merge_and_unload()`";

/// What to do about the other first factors, by the start of their name.
const OTHER_FACTORS: [(&str, &str); 3] = [
    (
        "eva",
        "peft loads a trained EVA adapter like a plain LoRA: if its base weights are the model's, set it to true",
    ),
    ("mica", "it trains one factor only: if its base weights are the model's, set it to true"),
    (
        "loftq",
        "the adapter belongs to quantised weights, which are not computed here; merge it with `merge_and_unload()`, and \
         import the result",
    ),
];

/// The settings of the adapter in a directory, if there is one.
///
/// # Errors
/// If they cannot be read, or have a key or value that is not computed here; the error names it.
pub fn load_adapter_config(directory: &Path) -> Result<Option<LoraConfig>, CheckpointError> {
    let path = directory.join(ADAPTER_CONFIG_FILE);
    let Some(value) = json::read_if_present(&path)? else { return Ok(None) };
    parse(value).map(Some).map_err(|reason| CheckpointError::Adapter { reason, path })
}

fn parse(mut value: Value) -> Result<LoraConfig, String> {
    let Some(settings) = value.as_object_mut() else {
        return Err("expected an object of settings".to_owned());
    };
    settings.retain(|_, value| !is_unset(value));
    if let Some(kind) = settings.remove("peft_type").filter(|kind| kind != "LORA") {
        return Err(format!("peft_type is {kind}, and only LORA is computed here; {MERGE}"));
    }
    if let Some(bias) = settings.remove("bias").filter(|bias| bias != "none") {
        return Err(format!("bias is {bias}, and only none is computed here; {MERGE}"));
    }
    for (key, found) in settings.iter() {
        check(key, found)?;
    }
    match settings.get("target_modules") {
        None => return Err("target_modules is not set, expected a list of names".to_owned()),
        Some(pattern @ Value::String(_)) => {
            return Err(format!(
                "target_modules is the pattern {pattern}, expected a list of names; list the layers that have updates"
            ));
        }
        Some(_) => {}
    }
    for (key, default) in DEFAULTS {
        settings.entry(key).or_insert_with(|| default.into());
    }
    let config: LoraConfig = json::typed(&value, "")?;
    config.check()?;
    Ok(config)
}

/// Whether a value means that the key is not set.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn check(key: &str, found: &Value) -> Result<(), String> {
    let Some((_, accepted)) = KEYS.iter().find(|(known, _)| *known == key) else {
        return match found {
            // a switch that is off
            Value::Bool(false) => Ok(()),
            _ => Err(format!(
                "{key} is {found}, a setting that is not known here and may change what the adapter computes; {MERGE}"
            )),
        };
    };
    match accepted {
        Accepted::Read | Accepted::Any => Ok(()),
        Accepted::Only(known, _) if found == known => Ok(()),
        Accepted::Only(_, advice) | Accepted::Unset(advice) => {
            Err(format!("{key} is {found}, which is not computed here; {advice}"))
        }
        Accepted::FirstFactors => check_first_factors(key, found),
    }
}

fn check_first_factors(key: &str, found: &Value) -> Result<(), String> {
    let kind = match found {
        Value::Bool(_) => return Ok(()),
        Value::String(kind) => kind.to_lowercase(),
        other => return Err(format!("{key} is {other}, expected true, false or a name")),
    };
    if PLAIN_FACTORS.contains(&kind.as_str()) {
        return Ok(());
    }
    let other = OTHER_FACTORS.iter().find(|(start, _)| kind.starts_with(start));
    Err(format!("{key} is {found}: {}", other.map_or(CONVERT, |(_, advice)| advice)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(key: &str, value: Value) -> Result<LoraConfig, String> {
        let mut settings = json!({
            "peft_type": "LORA", "r": 4, "lora_alpha": 8, "lora_dropout": 0.05, "bias": "none",
            "target_modules": ["q_proj", "v_proj"], "init_lora_weights": true,
        });
        settings[key] = value;
        parse(settings)
    }

    /// Each value makes peft compute something else than a plain LoRA of these factors.
    #[test]
    fn adapters_of_another_kind_are_rejected_by_the_name_of_the_setting() {
        let config = json!({"beta": 1.0});
        for (key, value) in [
            ("init_lora_weights", json!("pissa")),
            ("init_lora_weights", json!("pissa_niter_4")),
            ("init_lora_weights", json!("PiSSA")),
            ("init_lora_weights", json!("olora")),
            ("init_lora_weights", json!("OLoRA")),
            ("init_lora_weights", json!("loftq")),
            ("init_lora_weights", json!("corda")),
            ("init_lora_weights", json!("eva")),
            ("init_lora_weights", json!("lora_ga")),
            ("init_lora_weights", json!("mica")),
            ("init_lora_weights", json!("a later one")),
            ("init_lora_weights", json!(2)),
            ("alora_invocation_tokens", json!([5, 6])),
            ("use_dora", json!(true)),
            ("use_qalora", json!(true)),
            ("fan_in_fan_out", json!(true)),
            ("lora_bias", json!(true)),
            ("ensure_weight_tying", json!(true)),
            ("bias", json!("lora_only")),
            ("peft_type", json!("IA3")),
            ("modules_to_save", json!(["lm_head"])),
            ("exclude_modules", json!("lm_head")),
            ("exclude_modules", json!(["lm_head"])),
            ("layers_to_transform", json!(0)),
            ("layers_to_transform", json!([0])),
            ("layers_pattern", json!("layers")),
            ("layer_replication", json!([[0, 4], [2, 5]])),
            ("target_parameters", json!(["experts.up"])),
            ("trainable_token_indices", json!([3])),
            ("trainable_token_indices", json!({"embed_tokens": [3]})),
            ("target_modules", json!(".*q_proj")),
            ("target_modules", json!([])),
            ("megatron_config", config.clone()),
            ("use_bdlora", config.clone()),
            ("arrow_config", config.clone()),
            ("kasa_config", config.clone()),
            ("velora_config", config.clone()),
            ("monteclora_config", config.clone()),
            ("a_later_config", config.clone()),
            ("use_something_later", json!(true)),
            ("r", json!(0)),
            ("r", json!("four")),
            ("rank_pattern", json!({"q_proj": 0})),
            ("rank_pattern", json!({"q_(proj|x)": 2})),
            ("alpha_pattern", json!({"q_proj": "x"})),
        ] {
            let error = with(key, value.clone()).expect_err(&format!("{key}: {value}"));
            assert!(error.contains(key), "{key}: {value}: {error}");
        }
    }

    #[test]
    fn what_is_not_set_and_what_only_records_the_making_is_passed_over() {
        let plain = with("r", json!(4)).unwrap();
        for (key, value) in [
            ("modules_to_save", json!([])),
            ("exclude_modules", json!([])),
            ("layers_to_transform", json!([])),
            ("layers_pattern", json!("")),
            ("layer_replication", json!([])),
            ("alora_invocation_tokens", json!([])),
            ("rank_pattern", json!({})),
            ("alpha_pattern", json!(null)),
            ("loftq_config", json!({})),
            ("megatron_config", json!({})),
            ("megatron_core", json!("megatron.core")),
            ("qalora_group_size", json!(16)),
            ("corda_config", json!({"corda_method": "kpm"})),
            ("init_lora_weights", json!("gaussian")),
            ("init_lora_weights", json!("orthogonal")),
            ("init_lora_weights", json!(false)),
            ("init_lora_weights", json!(null)),
            ("task_type", json!("CAUSAL_LM")),
            ("peft_version", json!("0.21.2")),
            ("a_later_config", json!(null)),
            ("use_something_later", json!(false)),
        ] {
            assert_eq!(with(key, value.clone()).unwrap(), plain, "{key}: {value}");
        }
    }
}
