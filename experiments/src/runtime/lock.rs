//! A lock that lets one process at a time write to a folder.
//!
//! It is the operating system's lock on a file beside the folder, so that it ends with its process. The file
//! stays: if it were removed, a third process could enter while a second one waits.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

/// A locked folder; dropping the value unlocks it.
#[derive(Debug)]
pub struct FolderLock(File);

impl FolderLock {
    /// Locks a folder, which need not exist yet.
    ///
    /// # Errors
    /// When another process holds the lock, or the lock file cannot be written.
    pub fn or_fail(folder: &Path) -> anyhow::Result<Self> {
        let (lock, is_held) = Self::attempt(folder, File::try_lock)?;
        ensure!(is_held, "{}", at_work(folder));
        Ok(lock)
    }

    /// Locks a folder for this process and others that share it, and against those that do not.
    ///
    /// # Errors
    /// As [`or_fail`](Self::or_fail).
    pub fn share_or_fail(folder: &Path) -> anyhow::Result<Self> {
        let (lock, is_held) = Self::attempt(folder, File::try_lock_shared)?;
        ensure!(is_held, "{}", at_work(folder));
        Ok(lock)
    }

    /// Locks a folder; waits, with a message, while another process holds the lock.
    ///
    /// # Errors
    /// When the lock file cannot be written.
    pub fn wait(folder: &Path) -> anyhow::Result<Self> {
        let (lock, is_held) = Self::attempt(folder, File::try_lock)?;
        if !is_held {
            eprintln!("waiting for another process that is at work in {}", folder.display());
            lock.0.lock().with_context(|| cannot_lock(folder))?;
        }
        Ok(lock)
    }

    /// The opened file, and whether it could be locked; another process holds the lock where it could not.
    fn attempt(
        folder: &Path,
        lock: impl Fn(&File) -> Result<(), TryLockError>,
    ) -> anyhow::Result<(Self, bool)> {
        let file = open(folder)?;
        match lock(&file) {
            Ok(()) => Ok((Self(file), true)),
            Err(TryLockError::WouldBlock) => Ok((Self(file), false)),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| cannot_lock(folder)),
        }
    }
}

fn open(folder: &Path) -> anyhow::Result<File> {
    let path = lock_of(folder);
    let open = || {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        File::options().create(true).truncate(false).write(true).open(&path)
    };
    open().with_context(|| cannot_lock(folder))
}

fn lock_of(folder: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(folder.file_name().unwrap_or_default());
    name.push(".lock");
    folder.with_file_name(name)
}

fn at_work(folder: &Path) -> String {
    let shown = folder.display();
    format!(
        "another process is at work in {shown}; wait for it, or choose another folder with --runs. Jobs that each run \
         one seed (--seed) may share a folder"
    )
}

fn cannot_lock(folder: &Path) -> String {
    let (folder, lock) = (folder.display(), lock_of(folder));
    format!("cannot write to the folder of the run: {folder} (its lock, {})", lock.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_shared_by_several_or_held_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let one = folder.path().join("one");
        let shared = [FolderLock::share_or_fail(&one).unwrap(), FolderLock::share_or_fail(&one).unwrap()];
        assert!(FolderLock::or_fail(&one).unwrap_err().to_string().contains("--seed"));
        drop(shared);
        let _held = FolderLock::or_fail(&one).unwrap();
        FolderLock::share_or_fail(&one).unwrap_err();
    }

    #[test]
    fn a_folder_is_held_by_one_at_a_time_and_free_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        let held = FolderLock::or_fail(&one).unwrap();
        let error = FolderLock::or_fail(&one).unwrap_err().to_string();
        assert!(error.contains("another process") && error.contains("--runs"), "{error}");
        FolderLock::or_fail(&other).unwrap();
        let waiting = std::thread::spawn({
            let one = one.clone();
            move || FolderLock::wait(&one).unwrap()
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!waiting.is_finished(), "it is held");
        drop(held);
        let held = waiting.join().unwrap();
        FolderLock::or_fail(&one).unwrap_err();
        drop(held);
        FolderLock::or_fail(&one).unwrap();
    }
}
