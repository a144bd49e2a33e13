//! Saving weights as one safetensors file with Hugging Face's names, tensor by tensor.

use std::borrow::Cow;
use std::cell::RefCell;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, FloatDType, Tensor};
use safetensors::{Dtype, View};

use super::CheckpointError;
use super::huggingface::{Names, Slice};
use crate::parameters::{FieldPath, track_path};

pub(super) fn save_weights<M: Module>(model: &M, names: &Names, path: &Path) -> Result<(), CheckpointError> {
    save_tensors(entries(model, names), path)
}

/// The tensors of a model.
pub(super) fn entries<'a, M: Module>(model: &M, names: &'a Names) -> Vec<Entry<'a>> {
    let mut collector =
        Collector { path: FieldPath::default(), names, entries: Vec::new(), first: Vec::new() };
    model.visit(&mut collector);
    collector.entries
}

/// A tensor to save; its values are fetched when it is written.
pub(super) struct Entry<'a> {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub fetch: Box<dyn Fn() -> Result<Vec<u8>, CheckpointError> + 'a>,
}

/// Saves tensors to a safetensors file that is complete or absent.
pub(super) fn save_tensors(entries: Vec<Entry<'_>>, path: &Path) -> Result<(), CheckpointError> {
    let failure = RefCell::new(None);
    let views = entries.into_iter().map(|entry| (entry.name.clone(), Lazy { entry, failure: &failure }));
    // transformers rejects files without it
    let metadata = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
    let damaged = |reason: String| CheckpointError::Weights { reason, path: path.to_owned() };
    replace(path, |temporary| {
        let written = safetensors::serialize_to_file(views, Some(metadata), temporary);
        match failure.borrow_mut().take() {
            Some(failure) => Err(failure),
            None => written.map_err(|error| damaged(error.to_string())),
        }
    })
}

/// safetensors requests the bytes of a tensor when it writes them, and accepts no error: it is stored in
/// `failure`.
struct Lazy<'a> {
    entry: Entry<'a>,
    failure: &'a RefCell<Option<CheckpointError>>,
}

impl View for Lazy<'_> {
    fn dtype(&self) -> Dtype {
        self.entry.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.entry.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let expected = self.data_len();
        if self.failure.borrow().is_none() {
            match (self.entry.fetch)() {
                Ok(bytes) if bytes.len() == expected => return bytes.into(),
                Ok(bytes) => {
                    let reason = format!("{}: {} bytes, expected {expected}", self.entry.name, bytes.len());
                    let path = self.entry.name.as_str().into();
                    *self.failure.borrow_mut() = Some(CheckpointError::Weights { reason, path });
                }
                Err(error) => *self.failure.borrow_mut() = Some(error),
            }
        }
        Cow::Owned(Vec::new())
    }

    fn data_len(&self) -> usize {
        self.entry.shape.iter().product::<usize>() * self.entry.dtype.bitsize() / 8
    }
}

struct Collector<'a> {
    path: FieldPath,
    names: &'a Names,
    entries: Vec<Entry<'a>>,
    /// The first third of a fused bias; its last third follows.
    first: Vec<u8>,
}

impl ModuleVisitor for Collector<'_> {
    track_path!();

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let ours = self.path.name();
        if ours.contains(".lora.") {
            return; // saved in a separate file, in the layout of peft
        }
        let (name, slice) = self.names.location(&ours);
        let tensor = parameter.val().without_autodiff();
        let dtype = match tensor.dtype() {
            DType::BF16 => Dtype::BF16,
            DType::F16 => Dtype::F16,
            _ => Dtype::F32,
        };
        let mut shape = tensor.dims().to_vec();
        let fetch: Box<dyn Fn() -> Result<Vec<u8>, CheckpointError> + '_> = match slice {
            Slice::Whole => Box::new(move || Ok(bytes(tensor.clone()))),
            Slice::First => {
                self.first = bytes(tensor);
                return;
            }
            Slice::Last => {
                shape[0] *= 3;
                let last = bytes(tensor);
                let mut fused = std::mem::take(&mut self.first);
                fused.resize(2 * last.len(), 0);
                fused.extend(last);
                Box::new(move || Ok(fused.clone()))
            }
        };
        self.entries.push(Entry { name, dtype, shape, fetch });
    }
}

fn bytes<const D: usize>(tensor: Tensor<D>) -> Vec<u8> {
    let is_half = matches!(tensor.dtype(), DType::BF16 | DType::F16);
    let tensor = if is_half { tensor } else { tensor.cast(FloatDType::F32) };
    tensor.into_data().as_bytes().to_vec()
}

/// Saves bytes to a file that is complete or absent.
pub(super) fn save_file(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    replace(path, |temporary| std::fs::write(temporary, bytes).map_err(cannot_write(path)))
}

/// Writes a file under a temporary name in the same directory, syncs it, and renames it.
fn replace(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666)); // less the umask
    }
    let file = builder.tempfile_in(directory).map_err(cannot_write(path))?;
    write(file.path())?;
    // safetensors replaces the file by one that only its owner may read
    let settle = || {
        let written = std::fs::File::open(file.path())?;
        written.set_permissions(file.as_file().metadata()?.permissions())?;
        written.sync_all()
    };
    settle().map_err(cannot_write(path))?;
    file.persist(path).map_err(|error| cannot_write(path)(error.error))?;
    Ok(())
}

fn cannot_write(path: &Path) -> impl Fn(std::io::Error) -> CheckpointError {
    move |source| CheckpointError::Io { action: "write the checkpoint", source, path: path.to_owned() }
}
