//! LoRA updates in the layout of peft: `adapter_config.json` and `adapter_model.safetensors`.

mod settings;

pub use settings::{ADAPTER_CONFIG_FILE, load_adapter_config};

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

/// File of an adapter's weights, and its name in older versions of peft.
pub const ADAPTER_WEIGHTS_FILES: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];

/// Prefixes of layers in peft, if it wraps the whole model or only the language model.
const WHOLE: &str = "base_model.model.language_model.";
const ALONE: &str = "base_model.model.";

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
    let file = ADAPTER_WEIGHTS_FILES.iter().map(|name| directory.join(name)).find(|path| path.is_file());
    let path = file.unwrap_or_else(|| directory.join(ADAPTER_WEIGHTS_FILES[0]));
    let source = Source::open(&path)?;
    let mut unread: BTreeMap<String, String> =
        source.names().map(|name| (plain(name), name.to_owned())).collect();
    let (mut problems, mut failure) = (Vec::new(), None);
    blip2.language_model.visit_linears(&mut |layer, linear| {
        linear.lora = None;
        if !config.targets(layer) || failure.is_some() {
            return;
        }
        if config.is_ambiguous(layer) {
            problems.push(format!("several names of rank_pattern or alpha_pattern fit {layer}"));
            return;
        }
        let mut lora = config.init(layer, linear.weight.lazy_shape().dims(), &linear.weight.lazy_device());
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
    save_tensors(entries.collect(), &directory.join(ADAPTER_WEIGHTS_FILES[0]))?;
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
