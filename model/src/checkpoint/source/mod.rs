//! Tensors by name from checkpoint files of several formats.
//!
//! A [`Source`] is opened from a path: a directory in Hugging Face's layout, a safetensors file, a file of
//! `torch.save`, or an ONNX model. Files are mapped into memory; [`Source::read_f32`] reads one tensor at a
//! time, so that peak memory is one tensor. Nothing in a file is executed, and every length in a file is
//! checked against the length of the file.

mod directory;
mod error;
mod file;
mod onnx;
mod pickle;
mod protobuf;
mod safetensors;
mod stored;
mod torch;
mod wrappers;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use file::MappedFile;
use stored::Stored;

pub use error::SourceError;
pub use onnx::Node;
pub use stored::ElementType;
pub(super) use wrappers::without_wrappers;

/// An opened set of tensors.
#[derive(Debug)]
pub struct Source {
    opened: Opened,
    path: std::path::PathBuf,
}

/// Shape, type and file of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorInfo<'a> {
    /// Extents, outermost first.
    pub shape: &'a [usize],
    /// The elements' type in the file.
    pub element_type: ElementType,
    /// The file with the elements.
    pub file: &'a Path,
}

/// The content of one file, or of several shards.
#[derive(Debug, Default)]
struct Opened {
    tensors: BTreeMap<String, Stored>,
    left_out: Vec<String>,
    /// The operations of an ONNX model.
    graph: Option<Vec<Node>>,
}

impl Source {
    /// Opens a directory (`model.safetensors`, `pytorch_model.bin`, or shards and their `*.index.json`), or a
    /// file (`.safetensors`, `.pth`, `.pt`, `.bin`, `.onnx`, an index). The content decides the format of a
    /// file. Names are the model's own, without those of wrappers (`_orig_mod.`, `module.`, `model.`).
    ///
    /// # Errors
    /// If a file is absent, damaged, of another format, or has a call in place of a tensor.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let mut opened = if path.is_dir() { directory::open(path)? } else { open_file_or_index(path)? };
        // the operations of an ONNX model refer to its names
        if opened.graph.is_none() {
            opened.tensors = wrappers::unwrap_names(opened.tensors).map_err(|[one, other]| {
                let reason = format!("tensors {one} and {other} have one name without the names of wrappers");
                SourceError::Unsupported { reason, path: path.to_owned() }
            })?;
        }
        Ok(Self { opened, path: path.to_owned() })
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.opened.tensors.keys().map(String::as_str)
    }

    /// Shape and type of a tensor; `None` if it does not exist.
    pub fn get(&self, name: &str) -> Option<TensorInfo<'_>> {
        self.opened.tensors.get(name).map(|stored| TensorInfo {
            shape: &stored.shape,
            element_type: stored.element_type,
            file: stored.file.path(),
        })
    }

    /// Reads a tensor of floating-point numbers, in row-major order.
    ///
    /// # Errors
    /// If it does not exist, has another type, or its bytes are damaged.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, SourceError> {
        let stored = self.stored(name)?;
        stored.to_f32().map_err(|reason| stored.file.tensor(name, reason))
    }

    /// Reads the bytes of a tensor: little-endian, in row-major order; borrowed if the file has this order.
    ///
    /// # Errors
    /// As [`Source::read_f32`].
    pub fn read_bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, SourceError> {
        let stored = self.stored(name)?;
        stored.to_bytes().map_err(|reason| stored.file.tensor(name, reason))
    }

    /// Names without a tensor that were skipped: `optimizer`, `config`, plain values of the state dict.
    pub fn left_out(&self) -> &[String] {
        &self.opened.left_out
    }

    /// The operations of an ONNX model, in the order of execution.
    pub fn graph(&self) -> Option<&[Node]> {
        self.opened.graph.as_deref()
    }

    /// The path of the source.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn stored(&self, name: &str) -> Result<&Stored, SourceError> {
        self.opened.tensors.get(name).ok_or_else(|| SourceError::Tensor {
            name: name.to_owned(),
            reason: "absent".to_owned(),
            path: self.path.clone(),
        })
    }
}

fn open_file_or_index(path: &Path) -> Result<Opened, SourceError> {
    let is_index = path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".index.json"));
    if is_index { directory::open_index(path) } else { open_file(path) }
}

fn open_file(path: &Path) -> Result<Opened, SourceError> {
    let file = &Arc::new(MappedFile::open(path)?);
    let bytes = file.bytes();
    let extension = file.path().extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    // a truncated file may have lost its signature, so the name counts, too
    if torch::is_zip(bytes) {
        torch::open_zip(file)
    } else if torch::is_legacy(bytes) {
        torch::open_legacy(file)
    } else if extension == "onnx" {
        onnx::open(file)
    } else if extension == "safetensors" || bytes.get(8) == Some(&b'{') {
        safetensors::open(file)
    } else if onnx::is_model(bytes) {
        onnx::open(file)
    } else {
        let reason =
            "neither safetensors, nor a file of torch.save, nor an ONNX model (truncated or damaged?)";
        Err(file.unsupported(reason))
    }
}
