//! Which process makes a shard: several share a cache, and each makes those that no other is making.
//!
//! It is the operating system's lock on a file beside the shard, so that it ends with its process. Where a
//! file system has no locks, processes make the same shards, and the last one's stay.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// A shard that this process makes, until the value is dropped.
pub(crate) struct Claim {
    path: PathBuf,
    /// None where the file system has no locks.
    _file: Option<File>,
}

impl Claim {
    /// Claims a shard; none where another process has.
    pub(crate) fn attempt(shard: &Path) -> Option<Self> {
        let (path, file) = open(shard);
        match file.as_ref().map(File::try_lock) {
            Some(Err(TryLockError::WouldBlock)) => None,
            Some(Ok(())) => Some(Self { path, _file: file }),
            None | Some(Err(TryLockError::Error(_))) => Some(Self { path, _file: None }),
        }
    }

    /// Claims a shard when the process that makes it has finished, or failed.
    pub(crate) fn wait(shard: &Path) -> Self {
        let (path, file) = open(shard);
        let file = file.filter(|file| file.lock().is_ok());
        Self { path, _file: file }
    }
}

impl Drop for Claim {
    /// The file is removed while it is locked. A process that creates it again finds the shard, and makes
    /// nothing.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn open(shard: &Path) -> (PathBuf, Option<File>) {
    let path = shard.with_extension("making");
    if let Some(folder) = path.parent() {
        let _ = std::fs::create_dir_all(folder);
    }
    let file = File::options().create(true).truncate(false).write(true).open(&path).ok();
    (path, file)
}
