//! Import of files in any layout into a Hugging Face directory, tensor by tensor, without a model in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::tensor::Device;
use half::{bf16, f16};
use safetensors::Dtype;

use super::base::remove_base;
use super::huggingface::{MAY_BE_MISSING, Names, Slice, held_name};
use super::parts::Parts;
use super::read::nearest;
use super::save::{Entry, save_tensors};
use super::source::ElementType;
use super::{CONFIG_FILE, CheckpointError, WEIGHTS_FILE, config as config_file, create_directory};
use crate::blip2::Blip2Config;
use crate::parameters;

/// The result of an import.
#[derive(Debug)]
pub struct Imported {
    /// Number of tensors saved.
    pub tensors: usize,
    /// Number of their values.
    pub parameters: usize,
    /// Tensors of the sources that were left out, each with the reason.
    pub left_out: Vec<String>,
}

/// The image size of the ViT's positions, if there are any.
pub fn image_size(parts: &Parts, config: &Blip2Config) -> Option<usize> {
    let shape = parts.shape("vision_model.embeddings.position_embedding")?;
    let patches = shape.get(1)?.checked_sub(1)?;
    Some(patches.isqrt() * config.vision_config.patch_size)
}

/// Saves `config.json` and `model.safetensors`; each file is complete or absent. Half-precision tensors keep
/// their type.
///
/// # Errors
/// If a tensor of the configured model is missing, unexpected or wrongly shaped (all are listed), or a file
/// cannot be read or written.
pub fn import(mut parts: Parts, config: &Blip2Config, out: &Path) -> Result<Imported, CheckpointError> {
    let fail = |reason| CheckpointError::Config { reason, path: out.join(CONFIG_FILE) };
    config.check().map_err(fail)?;
    parts.exclude_pretraining(config);
    let mut config = config.clone();
    parts.find_embeddings(&mut config)?;
    let config = &config;
    let names = Names::new(config);
    let expected = expected(config, &names);
    let entries = plan(&parts, &names, &expected, out)?;
    let (tensors, parameters) =
        (entries.len(), entries.iter().map(|entry| entry.shape.iter().product::<usize>()).sum());
    create_directory(out)?;
    save_tensors(entries, &out.join(WEIGHTS_FILE))?;
    remove_base(out)?;
    config_file::save_config(config, &out.join(CONFIG_FILE))?;
    Ok(Imported { tensors, parameters, left_out: parts.left_out().to_vec() })
}

/// The tensors of a model, by Hugging Face's names.
fn expected(config: &Blip2Config, names: &Names) -> BTreeMap<String, Vec<usize>> {
    // parameters are initialised at first use, so this allocates none
    let list = parameters::list(&config.init(&Device::flex()));
    let tensors = list.into_iter().filter(|parameter| !parameter.name.contains(".lora.")).map(|parameter| {
        let (name, slice) = names.location(&parameter.name);
        let mut shape = parameter.shape;
        if slice != Slice::Whole {
            shape[0] *= 3;
        }
        (name, shape)
    });
    tensors.collect()
}

/// Finds every expected tensor in the sources, or lists all that do not fit.
fn plan<'a>(
    parts: &'a Parts,
    names: &Names,
    expected: &BTreeMap<String, Vec<usize>>,
    out: &Path,
) -> Result<Vec<Entry<'a>>, CheckpointError> {
    let mut unread: BTreeSet<String> = parts.names().map(str::to_owned).collect();
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
    let mut missing = Vec::new();
    for (name, shape) in expected {
        let Some(found) = held_name(name, parts) else {
            if !MAY_BE_MISSING.contains(&name.as_str()) {
                missing.push(name);
            }
            continue;
        };
        unread.remove(&found);
        let got = parts.shape(&found).unwrap_or_default();
        if &got != shape {
            problems.push(format!("{name}: expected {shape:?}, got {got:?}"));
            continue;
        }
        let dtype = match parts.element_type(&found) {
            Some(ElementType::F16) => Dtype::F16,
            Some(ElementType::BF16) => Dtype::BF16,
            _ => Dtype::F32,
        };
        let fetch = move || Ok(to_bytes(&parts.read_f32(&found)?, dtype));
        entries.push(Entry { name: name.clone(), dtype, shape: shape.clone(), fetch: Box::new(fetch) });
    }
    problems.extend(missing.iter().map(|name| format!("missing {name}{}", nearest(name, &unread))));
    let left = unread.iter().filter(|name| !names.may_be_left(name));
    problems.extend(left.map(|name| format!("unexpected {name}")));
    if problems.is_empty() {
        Ok(entries)
    } else {
        Err(CheckpointError::Mismatch { problems, path: out.to_owned() })
    }
}

fn to_bytes(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}
