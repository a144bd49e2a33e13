//! Files that are written completely or not at all.

use crate::error::{Error, Result};
use serde::Serialize;
use std::io::Write;
use std::path::Path;
use tempfile::{Builder, NamedTempFile, TempDir};

/// Writes a file under a temporary name in the same directory, syncs it and renames it: readers see no
/// partial file.
///
/// Missing directories are made. The file has the permissions of the umask.
///
/// # Errors
/// [`Error::Io`] where the directory or the file cannot be written; the old file is unchanged then.
pub fn replace(path: &Path, contents: &[u8]) -> Result<()> {
    let mut file = temporary_file(path)?;
    file.write_all(contents).map_err(Error::io("write the file", path))?;
    persist(file, path)
}

/// Writes a value as indented JSON, see [`replace`].
///
/// # Errors
/// As [`replace`]; a value that has no JSON form.
pub fn replace_json<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(std::io::Error::from);
    let text = text.map_err(Error::io("write the file as JSON", path))? + "\n";
    replace(path, text.as_bytes())
}

/// Writes a value as indented JSON, see [`replace`], unless the file exists. Of several processes that do so
/// at the same time, one writes it.
///
/// # Errors
/// As [`replace_json`].
pub fn create_json<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let text = serde_json::to_string_pretty(value).map_err(std::io::Error::from);
    let text = text.map_err(Error::io("write the file as JSON", path))? + "\n";
    let mut file = temporary_file(path)?;
    file.write_all(text.as_bytes()).map_err(Error::io("write the file", path))?;
    file.as_file().sync_all().map_err(Error::io("write the file", path))?;
    match file.persist_noclobber(path) {
        Err(error) if error.error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::io("rename the file to", path)(error.error))
        }
        _ => Ok(()),
    }
}

/// A temporary file in the directory of `path`; [`persist`] gives it that name.
pub(crate) fn temporary_file(path: &Path) -> Result<NamedTempFile> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(Error::io("make the directory", directory))?;
    builder(0o666).tempfile_in(directory).map_err(Error::io("write in the directory", directory))
}

/// Syncs a temporary file and renames it.
pub(crate) fn persist(file: NamedTempFile, path: &Path) -> Result<()> {
    file.as_file().sync_all().map_err(Error::io("write the file", path))?;
    file.persist(path).map_err(|error| Error::io("rename the file to", path)(error.error))?;
    Ok(())
}

/// A temporary directory in `parent`, to be renamed when its files are complete.
pub(crate) fn temporary_directory(parent: &Path, prefix: &str) -> Result<TempDir> {
    builder(0o777).prefix(prefix).tempdir_in(parent).map_err(Error::io("write a directory in", parent))
}

/// By default `tempfile` denies all access to other users; with `mode`, only the umask does.
fn builder(mode: u32) -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_with_all_directories() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.json");
        replace(&path, b"old").unwrap();
        replace_json(&path, &[1, 2]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[\n  1,\n  2\n]\n");
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "no temporary file is left"
        );
        assert!(replace(&path.join("c"), b"x").unwrap_err().to_string().contains("b.json"));
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_an_ordinary_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        let [plain, replaced] = ["plain", "replaced"].map(|name| folder.path().join(name));
        std::fs::write(&plain, b"x").unwrap();
        replace(&replaced, b"x").unwrap();
        assert_eq!(mode(&replaced), mode(&plain));
        let plain = folder.path().join("directory");
        std::fs::create_dir(&plain).unwrap();
        assert_eq!(mode(temporary_directory(folder.path(), "t").unwrap().path()), mode(&plain));
    }
}
