//! Checkpoints of runs with frozen parts: a folder that has the trained tensors only (`trained.safetensors`)
//! and names the checkpoint that has the others (`base.json`), its base, by the hash of its content.
//!
//! A base may have a base itself: a run may start from the checkpoint of another run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::FloatDType;
use half::{bf16, f16};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::huggingface::Names;
use super::parts::{LN_VISION, Parts, Role};
use super::save::{Entry, save_file, save_tensors};
use super::{CheckpointError, Precision, WEIGHTS_FILE, hash::weights_hash, json};

/// File of the trained tensors.
pub const TRAINED_FILE: &str = "trained.safetensors";
/// File that names the base.
pub const BASE_FILE: &str = "base.json";

/// The content of [`BASE_FILE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// [`weights_hash`] of the base.
    pub weights_hash: String,
    /// Its folder when the run was made, an absolute path; this is where it is looked for first.
    pub absolute: PathBuf,
    /// The same as it was configured, where it is looked for next.
    pub directory: PathBuf,
    /// The types that the run's frozen values had.
    pub types: FrozenTypes,
}

/// Types of the frozen values of a run: what the base holds is rounded to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FrozenTypes {
    /// Of the ViT.
    pub vision_model: FrozenValue,
    /// Of the language model.
    pub language_model: FrozenValue,
}

/// The type of a frozen value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrozenValue {
    /// Single precision.
    #[default]
    F32,
    /// Half precision with the exponent of f32.
    Bf16,
    /// Half precision of devices without bf16.
    F16,
}

impl FrozenValue {
    /// A value, rounded to this type.
    pub(super) fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::Bf16 => bf16::from_f32(value).to_f32(),
            Self::F16 => f16::from_f32(value).to_f32(),
        }
    }

    fn of(dtype: Dtype) -> Self {
        match dtype {
            Dtype::BF16 => Self::Bf16,
            Dtype::F16 => Self::F16,
            _ => Self::F32,
        }
    }
}

impl From<FrozenTypes> for Precision {
    fn from(types: FrozenTypes) -> Self {
        let of = |value| match value {
            FrozenValue::F32 => FloatDType::F32,
            FrozenValue::Bf16 => FloatDType::BF16,
            FrozenValue::F16 => FloatDType::F16,
        };
        Self { vision_model: of(types.vision_model), language_model: of(types.language_model), int8: false }
    }
}

impl FrozenTypes {
    /// The type of a frozen tensor of this name.
    pub(super) fn value(self, name: &str) -> FrozenValue {
        if name.starts_with("vision_model.") && !name.starts_with(LN_VISION) {
            self.vision_model
        } else if name.starts_with("language_model.") {
            self.language_model
        } else {
            FrozenValue::F32
        }
    }

    /// The types of these tensors: of a part, the one that is not f32, if any is.
    fn of(entries: &[Entry<'_>]) -> Self {
        let part = |prefix: &str| {
            let own = entries.iter().filter(|entry| entry.name.starts_with(prefix));
            let own = own.filter(|entry| !entry.name.starts_with(LN_VISION));
            let mut types = own.map(|entry| FrozenValue::of(entry.dtype));
            types.find(|value| *value != FrozenValue::F32).unwrap_or_default()
        };
        Self { vision_model: part("vision_model."), language_model: part("language_model.") }
    }
}

impl Base {
    /// The base of a folder; none if it is a whole checkpoint.
    ///
    /// # Errors
    /// If its file is damaged.
    pub fn of(folder: &Path) -> Result<Option<Self>, CheckpointError> {
        let path = folder.join(BASE_FILE);
        let Some(value) = json::read_if_present(&path)? else { return Ok(None) };
        let damaged = |error: serde_json::Error| CheckpointError::Json { reason: error.to_string(), path };
        serde_json::from_value(value).map(Some).map_err(damaged)
    }

    /// Finds the base of `folder`: the first of its two places that has the right content.
    fn find(&self, folder: &Path) -> Result<PathBuf, CheckpointError> {
        let Self { weights_hash: expected, absolute, directory, .. } = self;
        let mut places = vec![absolute];
        if std::path::absolute(directory).ok().as_ref() != Some(absolute) {
            places.push(directory);
        }
        let mut found = Vec::new();
        for place in places {
            if !place.is_dir() {
                found.push(format!("{} does not exist", place.display()));
                continue;
            }
            let hash = weights_hash(place)?;
            if hash == *expected {
                return Ok(place.clone());
            }
            found.push(format!("{} has the content hash {hash}", place.display()));
        }
        let (expected, found) = (expected.clone(), found.join(", and "));
        Err(CheckpointError::Base { expected, found, path: folder.join(BASE_FILE) })
    }
}

/// A source whose tensors replace those of the sources before it.
#[derive(Debug)]
pub(super) struct Layer {
    pub path: PathBuf,
    /// The types that its values had in the runs that started from it, the last run's last: they are rounded
    /// to each.
    pub rounded: Vec<FrozenTypes>,
}

/// The sources of a checkpoint, its base before what was trained; the path alone if it is a whole one.
pub(super) fn layers(path: &Path) -> Result<Vec<Layer>, CheckpointError> {
    let base = if path.is_dir() { Base::of(path)? } else { None };
    let Some(base) = base else { return Ok(vec![Layer { path: path.to_owned(), rounded: Vec::new() }]) };
    let mut layers = layers(&base.find(path)?)?;
    layers.iter_mut().for_each(|layer| layer.rounded.push(base.types));
    layers.push(Layer { path: path.join(TRAINED_FILE), rounded: Vec::new() });
    Ok(layers)
}

/// What a run trains, and the checkpoint that it starts from. The base's tensors are listed before training,
/// so that saving after it does not depend on the base's files.
#[derive(Debug, Clone)]
pub struct Trained {
    absolute: PathBuf,
    directory: PathBuf,
    weights_hash: String,
    /// Names of the parameters that any stage of the run trains.
    parameters: BTreeSet<String>,
    /// Shapes of the base's tensors.
    held: BTreeMap<String, Vec<usize>>,
}

impl Trained {
    /// The parameters of these names, trained from the checkpoint `found`, which was configured as
    /// `directory` and has this [`weights_hash`].
    ///
    /// # Errors
    /// If the checkpoint cannot be read.
    pub fn new(
        found: &Path,
        directory: &Path,
        weights_hash: String,
        parameters: BTreeSet<String>,
    ) -> Result<Self, CheckpointError> {
        let absolute = std::path::absolute(found).unwrap_or_else(|_| found.to_owned());
        let parts = Parts::open(&[(Role::Whole, found)])?;
        let shape = |name: &str| Some((name.to_owned(), parts.shape(name)?));
        let held = parts.names().filter_map(shape).collect();
        Ok(Self { absolute, directory: directory.to_owned(), weights_hash, parameters, held })
    }

    /// Saves the tensors that the run trained or that its base lacks, and names the base. False if these are
    /// all, and nothing was saved.
    pub(super) fn save(
        &self,
        entries: Vec<Entry<'_>>,
        names: &Names,
        folder: &Path,
    ) -> Result<bool, CheckpointError> {
        let trained: BTreeSet<String> = self.parameters.iter().map(|name| names.location(name).0).collect();
        // resampled positions, a temporal embedding, and a tensor that the base has under another name only
        let is_of_base = |entry: &Entry<'_>| {
            !trained.contains(&entry.name) && self.held.get(&entry.name) == Some(&entry.shape)
        };
        let (frozen, own): (Vec<_>, Vec<_>) = entries.into_iter().partition(is_of_base);
        if frozen.is_empty() {
            return Ok(false);
        }
        let Self { absolute, directory, weights_hash, .. } = self.clone();
        let base = Base { weights_hash, absolute, directory, types: FrozenTypes::of(&frozen) };
        save_tensors(own, &folder.join(TRAINED_FILE))?;
        let path = folder.join(BASE_FILE);
        let text = serde_json::to_string_pretty(&base);
        let text =
            text.map_err(|error| CheckpointError::Json { reason: error.to_string(), path: path.clone() })?;
        save_file(&path, text.as_bytes())?;
        remove(folder, &[WEIGHTS_FILE])?;
        Ok(true)
    }
}

/// Removes the files of a partial checkpoint from a folder that a whole one was saved to.
pub(super) fn remove_base(folder: &Path) -> Result<(), CheckpointError> {
    remove(folder, &[BASE_FILE, TRAINED_FILE])
}

fn remove(folder: &Path, names: &[&str]) -> Result<(), CheckpointError> {
    for path in names.iter().map(|name| folder.join(name)) {
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(CheckpointError::Io { action: "remove earlier weights", source, path });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
