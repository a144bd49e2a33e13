//! Files that appear complete or not at all.

use std::path::Path;

use serde::Serialize;

use crate::TrainError;

/// Writes to a temporary name in the same directory, syncs and renames.
///
/// # Errors
/// When the directory cannot be written to; the old file is then still there.
pub fn replace(path: &Path, contents: &[u8]) -> Result<(), TrainError> {
    let attempt = || -> std::io::Result<()> {
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        let mut file = temporary(directory)?;
        std::io::Write::write_all(&mut file, contents)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    attempt().map_err(TrainError::io("write a file", path))
}

/// A temporary file with the permissions of an ordinary file.
fn temporary(directory: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666)); // the umask applies
    }
    builder.tempfile_in(directory)
}

/// Writes a value as indented JSON.
///
/// # Errors
/// As [`replace`].
pub fn replace_json<T: Serialize>(path: &Path, value: &T) -> Result<(), TrainError> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| TrainError::Io {
        action: "write a file as JSON",
        source: error.into(),
        path: path.to_owned(),
    })?;
    text.push('\n');
    replace(path, text.as_bytes())
}
