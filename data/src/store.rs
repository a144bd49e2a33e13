//! Files that are written whole or not at all, and hashes that tell whether a file is still the same.

use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Writes a file under a temporary name and renames it, so that nobody ever reads a part.
pub(crate) fn write_whole(path: &Path, data: &[u8]) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(Error::io("make the directory", directory))?;
    let mut file =
        tempfile::NamedTempFile::new_in(directory).map_err(Error::io("write in the directory", directory))?;
    file.write_all(data)
        .and_then(|()| file.as_file().sync_all())
        .map_err(Error::io("write the file", path))?;
    file.persist(path).map_err(|error| Error::io("rename the file to", path)(error.error))?;
    Ok(())
}

/// Feeds a file's name, length, and first and last 64 KiB into a hash: enough to notice another file, and quick on
/// thousands of long videos.
pub(crate) fn digest_file(key: &mut Sha256, id: &str, path: &Path) -> Result<()> {
    const PART: u64 = 1 << 16;
    let read = || -> std::io::Result<(u64, Vec<u8>)> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut part = Vec::new();
        Read::by_ref(&mut file).take(PART).read_to_end(&mut part)?;
        if length > PART {
            file.seek(SeekFrom::Start(length.saturating_sub(PART).max(PART)))?;
            file.take(PART).read_to_end(&mut part)?;
        }
        Ok((length, part))
    };
    let (length, part) = read().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound {
            what: "file",
            path: path.to_path_buf(),
            next: "the data set changed since it was read; read it again".into(),
        },
        _ => Error::io("read", path)(error),
    })?;
    key.update((id.len() as u64).to_le_bytes());
    key.update(id);
    key.update(length.to_le_bytes());
    key.update(part);
    Ok(())
}

pub(crate) fn hex(key: Sha256) -> String {
    key.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}
