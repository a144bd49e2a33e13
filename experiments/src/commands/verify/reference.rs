//! A reference as `scripts/reference/reference.py` writes it: tensors in a safetensors file, settings in a
//! JSON file of the same stem.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use model::Fusion;
use model::generate::GenerateConfig;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::{Value, json};

/// Tensors of another program and its settings.
#[derive(Debug)]
pub struct Reference {
    /// By name.
    pub tensors: BTreeMap<String, HostTensor>,
    /// Its settings.
    pub settings: Settings,
}

/// An array on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Extents.
    pub shape: Vec<usize>,
    /// Row by row.
    pub values: Values,
}

/// The elements of a [`HostTensor`].
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Of a floating-point tensor.
    Floats(Vec<f32>),
    /// Of a tensor of token ids.
    Integers(Vec<i64>),
}

/// The JSON beside the tensors. Other keys, such as `command`, are ignored.
#[derive(Debug, Clone, Deserialize)]
pub struct Settings {
    /// Fusion of the frames.
    pub fusion: Fusion,
    /// Frames a video.
    pub frames: usize,
    /// Tokens that end a sequence; the checkpoint's own where absent.
    #[serde(default)]
    pub end_tokens: Option<Vec<u32>>,
    /// Padding of generated ids; the checkpoint's own where absent.
    #[serde(default)]
    pub pad_token_id: Option<i64>,
    /// First token of generated ids of an encoder-decoder model.
    #[serde(default)]
    pub decoder_start_token_id: Option<i64>,
    /// Settings of `generated_beam`.
    #[serde(flatten)]
    pub beam: GenerateConfig,
    /// Further settings, whose ids are the tensors `generations.INDEX.ids`.
    #[serde(default)]
    pub generations: Vec<Value>,
}

/// Refuses settings without a length: the default would compare with something else.
fn require_length(settings: &Value) -> Result<(), String> {
    settings.get("max_new_tokens").map(|_| ()).ok_or_else(|| "missing field `max_new_tokens`".to_owned())
}

/// Reads one of [`Settings::generations`]; without its own end tokens it has those given. The error is an
/// unknown key, or a missing length.
pub(super) fn generation(mut value: Value, end_tokens: &[u32]) -> Result<GenerateConfig, String> {
    let known = json!(GenerateConfig::default());
    let is_unknown = |key: &&String| *key == "search" || known.get(*key).is_none();
    match value.as_object().and_then(|object| object.keys().find(is_unknown)) {
        Some(key) => Err(format!("{key} is not known here")),
        None => {
            require_length(&value)?;
            if value.is_object() && value["end_tokens"].is_null() {
                value["end_tokens"] = json!(end_tokens);
            }
            serde_json::from_value(value).map_err(|error| error.to_string())
        }
    }
}

/// The numbers of `N` bytes each.
fn numbers<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|&number| read(number)).collect()
}

/// Refuses a Git LFS pointer or an HTML page in place of a file.
fn refuse_stand_in(bytes: &[u8], path: &Path) -> anyhow::Result<()> {
    match model::checkpoint::stand_in(bytes) {
        Some(reason) => bail!("{reason}: {}", path.display()),
        None => Ok(()),
    }
}

impl Reference {
    /// Reads both files.
    ///
    /// # Errors
    /// When one is absent or damaged, or a tensor has another type than F32, I64 or I32.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let settings_path = path.with_extension("json");
        let text = std::fs::read_to_string(&settings_path)
            .with_context(|| format!("cannot read the reference's settings {}", settings_path.display()))?;
        refuse_stand_in(text.as_bytes(), &settings_path)?;
        let damaged = || format!("not the settings of a reference: {}", settings_path.display());
        let settings: Value =
            serde_json::from_str(text.trim_start_matches('\u{feff}')).with_context(damaged)?;
        require_length(&settings).map_err(anyhow::Error::msg).with_context(damaged)?;
        let settings = serde_json::from_value(settings).with_context(damaged)?;
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read the reference {}", path.display()))?;
        refuse_stand_in(&bytes, path)?;
        let damaged =
            || format!("not a readable safetensors file (truncated or damaged?): {}", path.display());
        let file = SafeTensors::deserialize(&bytes).with_context(damaged)?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            let bytes = view.data();
            let values = match view.dtype() {
                Dtype::F32 => Values::Floats(numbers(bytes, f32::from_le_bytes)),
                Dtype::I64 => Values::Integers(numbers(bytes, i64::from_le_bytes)),
                Dtype::I32 => Values::Integers(numbers(bytes, |b| i64::from(i32::from_le_bytes(b)))),
                other => bail!("{name} is of type {other:?}, expected F32, I64 or I32: {}", path.display()),
            };
            tensors.insert(name, HostTensor { shape: view.shape().to_vec(), values });
        }
        let reference = Self { tensors, settings };
        reference.check().with_context(|| format!("in the reference {}", path.display()))?;
        Ok(reference)
    }

    /// The floats of a tensor with `D` axes.
    pub(super) fn floats<const D: usize>(
        &self,
        name: &str,
    ) -> anyhow::Result<Option<(Vec<f32>, [usize; D])>> {
        let Some(tensor) = self.tensors.get(name) else { return Ok(None) };
        let (Values::Floats(values), Ok(shape)) = (&tensor.values, tensor.shape.clone().try_into()) else {
            bail!("{name} must hold floats on {D} axes, got {:?}", tensor.shape);
        };
        Ok(Some((values.clone(), shape)))
    }

    /// The ids of a tensor `[rows, columns]`.
    pub(super) fn ids(&self, name: &str) -> anyhow::Result<Option<(Vec<i64>, [usize; 2])>> {
        let Some(tensor) = self.tensors.get(name) else { return Ok(None) };
        let (Values::Integers(values), Ok(shape)) = (&tensor.values, tensor.shape.clone().try_into()) else {
            bail!("{name} must hold integers on 2 axes, got {:?}", tensor.shape);
        };
        Ok(Some((values.clone(), shape)))
    }

    fn check(&self) -> anyhow::Result<()> {
        let Some((_, [b, f, channels, height, width])) = self.floats::<5>("pixel_values")? else {
            bail!("there is no tensor pixel_values");
        };
        let Some((_, [rows, t])) = self.ids("labels")? else { bail!("there is no tensor labels") };
        ensure!(channels == 3 && height == width, "pixel_values must be [b, f, 3, S, S]");
        let frames = self.settings.frames;
        ensure!(f == frames, "pixel_values have {f} frames, the settings say {frames}");
        ensure!(
            rows == b && t > 0 && b > 0 && f > 0,
            "labels are [{rows}, {t}] for {b} videos of {f} frames"
        );
        for name in ["input_ids", "qformer_input_ids"] {
            if let Some((_, [rows, t])) = self.ids(name)? {
                ensure!(rows == b && t > 0, "{name} are [{rows}, {t}] for {b} videos");
            }
        }
        Ok(())
    }
}
