//! SHA-256 digests of files, cached by path, size and modification time.

use crate::error::{Error, Result};
use crate::files;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// File of the known digests in a cache folder.
const INDEX: &str = "digests.json";

/// A file that changed within this time may change again without a new modification time, so its digest is
/// not cached. File systems store times with a resolution of up to two seconds.
const RESOLUTION: Duration = Duration::from_secs(2);

/// A file's digest, and the file's state when it was computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    bytes: u64,
    modified_ns: u64,
    sha256: String,
}

/// The SHA-256 of a file's content, 64 hexadecimal digits.
///
/// # Errors
/// [`Error::NotFound`] or [`Error::Io`] where the file cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    let digest = File::open(path).and_then(digest_of);
    digest.map(|digest| hex(&digest)).map_err(unreadable(path))
}

/// The SHA-256 of each file's content, as [`sha256`], computed on all cores.
///
/// Digests are stored in `cache` and reused while path, size and modification time are the same.
///
/// # Errors
/// As [`sha256`] for the first file that cannot be read; a cache that cannot be written.
pub fn sha256_of_files<P: AsRef<Path>>(paths: &[P], cache: &Path) -> Result<Vec<String>> {
    let index = cache.join(INDEX);
    // A missing or damaged index costs time, nothing else.
    let known = std::fs::read(&index).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let mut known: BTreeMap<String, Known> = known.unwrap_or_default();
    let unique: BTreeSet<&Path> = paths.iter().map(|path| path.as_ref()).collect();
    let look_up = |path| -> Result<_> { Ok((path, look_up(path, &known)?)) };
    let digests: BTreeMap<&Path, (Option<String>, Known)> =
        unique.into_par_iter().map(look_up).collect::<Result<_>>()?;
    let mut is_new = false;
    for (key, digest) in digests.values() {
        if let Some(key) = key.as_ref().filter(|key| known.get(*key) != Some(digest)) {
            known.insert(key.clone(), digest.clone());
            is_new = true;
        }
    }
    if is_new {
        files::replace_json(&index, &known)?;
    }
    Ok(paths.iter().map(|path| digests[path.as_ref()].1.sha256.clone()).collect())
}

/// A file's digest, and its name in the index where it may be stored there.
fn look_up(path: &Path, known: &BTreeMap<String, Known>) -> Result<(Option<String>, Known)> {
    let metadata = std::fs::metadata(path).map_err(unreadable(path))?;
    let modified = metadata.modified().ok();
    let settled =
        modified.filter(|time| SystemTime::now().duration_since(*time).is_ok_and(|age| age > RESOLUTION));
    let nanoseconds =
        settled.and_then(|time| u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok());
    let absolute = std::path::absolute(path).ok().and_then(|path| path.into_os_string().into_string().ok());
    let key = absolute.filter(|_| nanoseconds.is_some());
    let (bytes, modified_ns) = (metadata.len(), nanoseconds.unwrap_or_default());
    let found = key.as_ref().and_then(|key| known.get(key));
    let found = found.filter(|found| (found.bytes, found.modified_ns) == (bytes, modified_ns));
    let digest = match found {
        Some(found) => found.clone(),
        None => Known { bytes, modified_ns, sha256: sha256(path)? },
    };
    Ok((key, digest))
}

/// The SHA-256 of everything that a reader gives.
pub(crate) fn digest_of(reader: impl Read) -> std::io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    update(&mut hash, reader)?;
    Ok(hash.finalize().into())
}

/// Adds everything that a reader gives to a hash.
///
/// # Errors
/// Those of the reader.
pub fn update(hash: &mut Sha256, mut reader: impl Read) -> std::io::Result<()> {
    let mut part = vec![0; 1 << 18];
    loop {
        match reader.read(&mut part)? {
            0 => return Ok(()),
            read => hash.update(&part[..read]),
        }
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    Error::open("read", path, "file", "the data set changed since it was read; read it again")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a file whose modification time is `age` seconds ago.
    fn write(path: &Path, content: &[u8], age: u64) {
        std::fs::write(path, content).unwrap();
        let time = UNIX_EPOCH + Duration::from_secs(1_700_000_000 - age);
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn a_digest_is_that_of_the_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, b"abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&path).unwrap(), expected);
        assert_eq!(sha256_of_files(&[&path, &path], folder.path()).unwrap(), [expected, expected]);
        assert!(!folder.path().join(INDEX).exists(), "a file that may still change is not cached");
        std::fs::write(&path, b"abd").unwrap();
        assert_ne!(sha256_of_files(&[&path], folder.path()).unwrap(), [expected]);
    }

    #[test]
    fn digests_are_reused_while_path_size_and_time_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let path = folder.path().join("a");
        let digest = || sha256_of_files(&[&path], &cache).unwrap().remove(0);
        write(&path, b"one", 50);
        let one = digest();
        assert_eq!(one, sha256(&path).unwrap());
        write(&path, b"two", 50);
        assert_eq!(digest(), one, "the file was not read again");
        write(&path, b"two", 49);
        assert_eq!(digest(), sha256(&path).unwrap());
        write(&path, b"three", 49);
        assert_eq!(digest(), sha256(&path).unwrap());
        std::fs::write(cache.join(INDEX), b"damaged").unwrap();
        assert_eq!(digest(), sha256(&path).unwrap());
    }

    #[test]
    fn an_unreadable_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.mp4");
        let message = |path: &Path| sha256_of_files(&[path], folder.path()).unwrap_err().to_string();
        assert!(message(&missing).contains("missing.mp4"));
        assert!(message(folder.path()).contains("could not read"), "a folder has no content");
    }
}
