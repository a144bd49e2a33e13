//! Writing weights as one safetensors file with Hugging Face's names.

use std::fs::File;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{FloatDType, Tensor};
use safetensors::{Dtype, tensor::TensorView};

use super::CheckpointError;
use super::huggingface::name_of;
use crate::blip2::Blip2;
use crate::parameters;

pub(super) fn save_weights(model: &Blip2, path: &Path) -> Result<(), CheckpointError> {
    let damaged = |reason: String| CheckpointError::Weights { reason, path: path.to_owned() };
    let is_gated = parameters::names(model).iter().any(|name| name.ends_with("feed_forward.wi_1.weight"));
    let mut collector = Collector { path: Vec::new(), tensors: Vec::new(), is_gated, error: None };
    model.visit(&mut collector);
    if let Some(error) = collector.error {
        return Err(damaged(error));
    }
    let views: Vec<_> = collector
        .tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<_, safetensors::SafeTensorError>>()
        .map_err(|error| damaged(error.to_string()))?;
    // transformers refuses files that do not say so
    let metadata = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(|error| damaged(error.to_string()))?;
    replace_file(path, |file| std::io::Write::write_all(file, &bytes))
}

/// Writes to a temporary name beside `path`, syncs, and renames: the file is whole or absent.
pub(super) fn replace_file(
    path: &Path,
    write: impl FnOnce(&mut File) -> std::io::Result<()>,
) -> Result<(), CheckpointError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let attempt = || -> std::io::Result<()> {
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666)); // the umask takes its share
        }
        let mut file = builder.tempfile_in(directory)?;
        write(file.as_file_mut())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    attempt().map_err(|source| CheckpointError::Io {
        action: "write the checkpoint",
        source,
        path: path.to_owned(),
    })
}

struct Collector {
    path: Vec<String>,
    tensors: Vec<(String, Vec<usize>, Vec<u8>)>,
    is_gated: bool,
    error: Option<String>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let tensor = parameter.val().cast(FloatDType::F32);
        let shape = tensor.dims().to_vec();
        match tensor.into_data().try_to_vec::<f32>() {
            Ok(values) => {
                let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                self.tensors.push((name_of(&self.path.join("."), self.is_gated), shape, bytes));
            }
            Err(error) => self.error = Some(format!("{error:?}")),
        }
    }
}
