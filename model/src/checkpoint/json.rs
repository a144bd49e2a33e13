//! JSON files of a checkpoint, and errors that name the key.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{CheckpointError, stand_in};

/// Reads a JSON file; a byte-order mark is skipped.
///
/// # Errors
/// If it cannot be read or is no JSON, with its path; a Git LFS pointer or an HTML page is named as such.
pub(super) fn read(path: &Path) -> Result<Value, CheckpointError> {
    let bytes = std::fs::read(path).map_err(|source| CheckpointError::Io {
        action: "read the checkpoint's configuration",
        source,
        path: path.to_owned(),
    })?;
    stand_in::reject(&bytes, path)?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    serde_json::from_slice(text)
        .map_err(|error| CheckpointError::Json { reason: error.to_string(), path: path.to_owned() })
}

/// As [`read`]; `None` if the file is absent.
pub(super) fn read_if_present(path: &Path) -> Result<Option<Value>, CheckpointError> {
    match read(path) {
        Ok(value) => Ok(Some(value)),
        Err(CheckpointError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives an object its type; every key of the type must have a default. The error names the first key whose
/// value does not fit, after `section`.
pub(super) fn typed<T: DeserializeOwned>(value: &Value, section: &str) -> Result<T, String> {
    let whole = match serde_json::from_value::<T>(value.clone()) {
        Ok(typed) => return Ok(typed),
        Err(error) => error.to_string(),
    };
    let fault = |(key, value): (&String, &Value)| {
        let error = serde_json::from_value::<T>(json!({ key: value })).err()?;
        Some(format!("{section}{key} is {value}: {error}"))
    };
    Err(value.as_object().and_then(|keys| keys.iter().find_map(fault)).unwrap_or(whole))
}
