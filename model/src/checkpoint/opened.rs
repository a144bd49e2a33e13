//! interim
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

use super::{CheckpointError, Tensors};

pub(super) struct OpenedFile {
    bytes: memmap2::Mmap,
    path: PathBuf,
}

impl OpenedFile {
    pub(super) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let io = |source| CheckpointError::Io {
            action: "read the checkpoint's weights",
            source,
            path: path.to_owned(),
        };
        let file = std::fs::File::open(path).map_err(io)?;
        #[allow(unsafe_code)]
        let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        SafeTensors::deserialize(&bytes)
            .map_err(|error| CheckpointError::Weights { reason: error.to_string(), path: path.to_owned() })?;
        Ok(Self { bytes, path: path.to_owned() })
    }
}

impl Tensors for OpenedFile {
    fn names(&self) -> Vec<String> {
        SafeTensors::deserialize(&self.bytes)
            .map(|t| t.names().into_iter().map(str::to_owned).collect())
            .unwrap_or_default()
    }
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        SafeTensors::deserialize(&self.bytes).ok()?.tensor(name).ok().map(|v| v.shape().to_vec())
    }
    fn read_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let fail = |reason: String| CheckpointError::Weights { reason, path: self.path.clone() };
        let tensors = SafeTensors::deserialize(&self.bytes).map_err(|e| fail(e.to_string()))?;
        let view = tensors.tensor(name).map_err(|e| fail(e.to_string()))?;
        let bytes = view.data();
        match view.dtype() {
            Dtype::F32 => {
                Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
            }
            Dtype::F16 => {
                Ok(bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect())
            }
            Dtype::BF16 => {
                Ok(bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect())
            }
            other => Err(fail(format!("{name} is of type {other:?}"))),
        }
    }
}
