//! LoRA updates in the layout of peft: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use safetensors::Dtype;
use serde_json::{Value, json};

use super::CheckpointError;
use super::save::{Entry, save_file, save_tensors};
use super::source::Source;
use crate::blip2::Blip2;
use crate::lora::{self, Lora, LoraConfig};

/// File of an adapter's settings.
pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";
/// File of an adapter's weights, and its name in older versions of peft.
const WEIGHTS_FILES: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];

/// Prefixes of layers in peft, if it wraps the whole model or only the language model.
const WHOLE: &str = "base_model.model.language_model.";
const ALONE: &str = "base_model.model.";

/// Settings with only one supported value; `null` means the same.
const FIXED: &[(&str, Value)] = &[
    ("peft_type", Value::Null),
    ("use_dora", Value::Bool(false)),
    ("use_rslora", Value::Bool(false)),
    ("fan_in_fan_out", Value::Bool(false)),
    ("lora_bias", Value::Bool(false)),
    ("modules_to_save", Value::Null),
    ("layers_to_transform", Value::Null),
    ("exclude_modules", Value::Null),
    ("layer_replication", Value::Null),
];

/// The settings of the adapter in a directory, if there is one.
///
/// # Errors
/// If they cannot be read, or have unsupported values.
pub fn load_adapter_config(directory: &Path) -> Result<Option<LoraConfig>, CheckpointError> {
    let path = directory.join(ADAPTER_CONFIG_FILE);
    let fail = |reason: String| CheckpointError::Config { reason, path: path.clone() };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(CheckpointError::Io { action: "read the adapter's settings", source, path });
        }
    };
    let value: Value = serde_json::from_str(&text).map_err(|error| fail(error.to_string()))?;
    for (key, known) in FIXED {
        let found = &value[*key];
        let is_kind = *key == "peft_type" && found.as_str() == Some("LORA");
        if !found.is_null() && found != known && !is_kind {
            return Err(fail(format!("{key} is {found}, which is not known here")));
        }
    }
    for key in ["rank_pattern", "alpha_pattern"] {
        if value[key].as_object().is_some_and(|pattern| !pattern.is_empty()) {
            return Err(fail(format!("{key} is not empty, which is not known here")));
        }
    }
    if value["bias"].as_str().is_some_and(|bias| bias != "none") {
        return Err(fail(format!("bias is {}, which is not known here", value["bias"])));
    }
    if value["target_modules"].is_string() {
        let pattern = &value["target_modules"];
        return Err(fail(format!("target_modules is the pattern {pattern}, expected a list of names")));
    }
    let config: LoraConfig = serde_json::from_value(value).map_err(|error| fail(error.to_string()))?;
    if config.r == 0 || config.r > 1 << 14 || !config.lora_alpha.is_finite() {
        return Err(fail(format!("rank {} and alpha {} make no update", config.r, config.lora_alpha)));
    }
    Ok(Some(config))
}

/// Loads the adapter of a directory into a model, replacing its updates. `adapt` may change settings that do
/// not depend on the weights (dropout).
///
/// # Errors
/// If there is no adapter, it cannot be read, or its tensors do not fit the layers that it targets (all are
/// listed).
pub fn load_adapter(
    blip2: &mut Blip2,
    directory: &Path,
    adapt: impl FnOnce(&mut LoraConfig),
) -> Result<LoraConfig, CheckpointError> {
    let Some(mut config) = load_adapter_config(directory)? else {
        let reason = "there is no adapter".to_owned();
        return Err(CheckpointError::Config { reason, path: directory.join(ADAPTER_CONFIG_FILE) });
    };
    adapt(&mut config);
    let file = WEIGHTS_FILES.iter().map(|name| directory.join(name)).find(|path| path.is_file());
    let path = file.unwrap_or_else(|| directory.join(WEIGHTS_FILES[0]));
    let source = Source::open(&path)?;
    let mut unread: BTreeMap<String, String> =
        source.names().map(|name| (plain(name), name.to_owned())).collect();
    let (mut problems, mut failure) = (Vec::new(), None);
    blip2.language_model.visit_linears(&mut |layer, linear| {
        linear.lora = None;
        if !config.targets(layer) || failure.is_some() {
            return;
        }
        let [d_output, d_input] = linear.weight.lazy_shape().dims();
        let mut lora = config.init(d_input, d_output, &linear.weight.lazy_device());
        for (letter, parameter) in [("lora_A", &mut lora.a), ("lora_B", &mut lora.b)] {
            let name = format!("{layer}.{letter}.weight");
            let Some(stored) = unread.remove(&name) else {
                problems.push(format!("missing {name}"));
                continue;
            };
            let expected = parameter.lazy_shape().to_vec();
            let found = source.get(&stored).map(|info| info.shape.to_vec()).unwrap_or_default();
            if found != expected {
                problems.push(format!("{stored}: expected {expected:?}, got {found:?}"));
                continue;
            }
            match source.read_f32(&stored) {
                Ok(values) => set(parameter, values, expected),
                Err(error) => failure = Some(error),
            }
        }
        linear.lora = Some(lora);
    });
    if let Some(failure) = failure {
        return Err(failure.into());
    }
    problems.extend(unread.values().map(|name| format!("unexpected {name}")));
    if problems.is_empty() { Ok(config) } else { Err(CheckpointError::Mismatch { problems, path }) }
}

/// Saves a model's updates as peft does for a whole BLIP-2; each file is complete or absent.
///
/// # Errors
/// If the directory is not writable.
pub fn save_adapter(blip2: &mut Blip2, config: &LoraConfig, directory: &Path) -> Result<(), CheckpointError> {
    let entries =
        lora::updates(&mut blip2.language_model).into_iter().flat_map(|(layer, Lora { a, b, .. })| {
            [("lora_A", a), ("lora_B", b)].map(|(letter, parameter)| {
                let tensor = parameter.val().without_autodiff();
                Entry {
                    name: format!("{WHOLE}{layer}.{letter}.weight"),
                    dtype: Dtype::F32,
                    shape: tensor.dims().to_vec(),
                    fetch: Box::new(move || Ok(tensor.clone().into_data().as_bytes().to_vec())),
                }
            })
        });
    save_tensors(entries.collect(), &directory.join(WEIGHTS_FILES[0]))?;
    let path = directory.join(ADAPTER_CONFIG_FILE);
    let fail =
        |error: serde_json::Error| CheckpointError::Config { reason: error.to_string(), path: path.clone() };
    let mut value = serde_json::to_value(config).map_err(fail)?;
    value["peft_type"] = json!("LORA");
    value["bias"] = json!("none");
    value["task_type"] = Value::Null;
    value["base_model_name_or_path"] = Value::Null;
    value["inference_mode"] = json!(true);
    let text = serde_json::to_string_pretty(&value).map_err(fail)?;
    save_file(&path, (text + "\n").as_bytes())
}

/// A factor's name without the prefix of the wrapped model: `LAYER.lora_A.weight`.
fn plain(name: &str) -> String {
    let name = name.strip_prefix(WHOLE).or_else(|| name.strip_prefix(ALONE)).unwrap_or(name);
    name.replace(".default.weight", ".weight")
}

fn set(parameter: &mut Param<Tensor<2>>, values: Vec<f32>, shape: Vec<usize>) {
    let tensor = Tensor::<2>::from_data(TensorData::new(values, shape), &parameter.lazy_device().inner());
    let id = parameter.id;
    *parameter = parameter.clone().transform_for_load(tensor, id);
}
