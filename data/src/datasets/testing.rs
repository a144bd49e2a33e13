//! Helpers of this folder's tests.

use std::path::PathBuf;

/// Writes a file into a temporary folder.
pub(crate) fn file(folder: &tempfile::TempDir, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, contents).unwrap();
    path
}
