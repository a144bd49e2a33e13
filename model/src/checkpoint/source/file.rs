//! A file mapped into memory and read through checked slices.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::SourceError;
use crate::checkpoint::stand_in;

/// A mapped file. The system reads pages on access and releases them under memory pressure.
#[derive(Debug)]
pub(super) struct MappedFile {
    map: memmap2::Mmap,
    path: PathBuf,
}

impl MappedFile {
    pub(super) fn open(path: &Path) -> Result<Self, SourceError> {
        let io =
            |source| SourceError::Io { action: "open the checkpoint's file", source, path: path.to_owned() };
        let file = File::open(path).map_err(io)?;
        // a directory, a pipe or a device can be opened, too
        if !file.metadata().map_err(io)?.is_file() {
            return Err(SourceError::Unsupported {
                reason: "not a regular file".to_owned(),
                path: path.to_owned(),
            });
        }
        // SAFETY: the map is only read. If another process truncates the file while it is mapped, a signal
        // ends this process; that cannot be prevented.
        #[allow(unsafe_code)]
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        stand_in::reject(&map, path)?;
        Ok(Self { map, path: path.to_owned() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The bytes in `range`, or `None` if it is not within the file.
    pub(super) fn slice(&self, range: &Range<usize>) -> Option<&[u8]> {
        self.map.get(range.clone())
    }

    /// Releases the memory of a range: it stays in the page cache, but does not count as memory of this
    /// process. Otherwise a loaded checkpoint would count twice.
    pub(super) fn release(&self, range: &Range<usize>) {
        #[cfg(unix)]
        if self.slice(range).is_some_and(|bytes| !bytes.is_empty()) {
            // SAFETY: the map is of a file and never modified, so a released page is read from the file again
            // with the same bytes on access.
            #[allow(unsafe_code)]
            let released = unsafe {
                let advice = memmap2::UncheckedAdvice::DontNeed;
                self.map.unchecked_advise_range(advice, range.start, range.len())
            };
            drop(released); // a failure costs only memory
        }
    }

    /// The error that this file violates `format`.
    pub(super) fn damaged(&self, format: &'static str, reason: impl Into<String>) -> SourceError {
        SourceError::Damaged { format, reason: reason.into(), path: self.path.clone() }
    }

    /// The error that this file cannot be read as tensors.
    pub(super) fn unsupported(&self, reason: impl Into<String>) -> SourceError {
        SourceError::Unsupported { reason: reason.into(), path: self.path.clone() }
    }

    /// The error that one of the file's tensors cannot be read.
    pub(super) fn tensor(&self, name: &str, reason: impl Into<String>) -> SourceError {
        SourceError::Tensor { name: name.to_owned(), reason: reason.into(), path: self.path.clone() }
    }
}
