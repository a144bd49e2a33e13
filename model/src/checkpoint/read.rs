//! Reading weights: the file is mapped, and tensors are converted to f32 one by one.

use std::collections::BTreeSet;
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::CheckpointError;
use super::huggingface::{MAY_BE_LEFT, MAY_BE_MISSING, name_of};
use crate::blip2::Blip2;
use crate::parameters;

pub(super) fn load_weights(model: Blip2, path: &Path) -> Result<Blip2, CheckpointError> {
    let io = |source| CheckpointError::Io {
        action: "read the checkpoint's weights",
        source,
        path: path.to_owned(),
    };
    let damaged = |reason: String| CheckpointError::Weights { reason, path: path.to_owned() };
    let file = std::fs::File::open(path).map_err(io)?;
    // SAFETY: the map is only read, and dropped before this function returns; a file that somebody truncates meanwhile
    // is outside of what can be guarded against.
    #[allow(unsafe_code)]
    let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| damaged(error.to_string()))?;
    let is_gated = parameters::names(&model).iter().any(|name| name.ends_with("feed_forward.wi_1.weight"));
    let mut loader = Loader {
        unread: tensors.names().into_iter().map(str::to_owned).collect(),
        tensors: &tensors,
        is_gated,
        path: Vec::new(),
        problems: Vec::new(),
    };
    let model = model.map(&mut loader);
    let Loader { mut problems, unread, .. } = loader;
    let left = unread.iter().filter(|name| !MAY_BE_LEFT.contains(&name.as_str()));
    problems.extend(left.map(|name| format!("unexpected {name}")));
    if problems.is_empty() {
        Ok(model)
    } else {
        Err(CheckpointError::Mismatch { problems, path: path.to_owned() })
    }
}

struct Loader<'a> {
    tensors: &'a SafeTensors<'a>,
    unread: BTreeSet<String>,
    is_gated: bool,
    path: Vec<String>,
    problems: Vec<String>,
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = name_of(&self.path.join("."), self.is_gated);
        let Ok(view) = self.tensors.tensor(&name) else {
            if !MAY_BE_MISSING.contains(&name.as_str()) {
                let nearest = nearest(&name, &self.unread);
                self.problems.push(format!("missing {name}{nearest}"));
            }
            return parameter;
        };
        self.unread.remove(&name);
        let expected = parameter.lazy_shape().to_vec();
        if view.shape() != expected {
            self.problems.push(format!("{name}: expected {expected:?}, got {:?}", view.shape()));
            return parameter;
        }
        match to_f32(&view) {
            Some(values) => {
                let data = TensorData::new(values, expected);
                let tensor = Tensor::from_data(data, &parameter.lazy_device().inner());
                let id = parameter.id;
                parameter.transform_for_load(tensor, id)
            }
            None => {
                self.problems.push(format!("{name}: of type {:?}, expected F32, F16 or BF16", view.dtype()));
                parameter
            }
        }
    }
}

fn to_f32(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let bytes = view.data();
    match view.dtype() {
        Dtype::F32 => {
            Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
        }
        Dtype::F16 => {
            Some(bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect())
        }
        Dtype::BF16 => {
            Some(bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect())
        }
        _ => None,
    }
}

fn nearest(name: &str, candidates: &BTreeSet<String>) -> String {
    let best = candidates.iter().map(|other| (strsim::normalized_levenshtein(name, other), other));
    match best.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((likeness, other)) if likeness > 0.8 => format!(" (the file has {other})"),
        _ => String::new(),
    }
}
