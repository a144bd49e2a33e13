//! A file mapped into memory, read only through checked slices.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::SourceError;

/// A mapped file. Pages are read as they are touched, and given back by the system under pressure.
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
        // A directory, a pipe or a device opens like a file, but is none.
        if !file.metadata().map_err(io)?.is_file() {
            return Err(SourceError::Unsupported {
                reason: "not a regular file".to_owned(),
                path: path.to_owned(),
            });
        }
        // SAFETY: the map is only ever read. A file that somebody truncates while it is mapped is outside of what can
        // be guarded against.
        #[allow(unsafe_code)]
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        Ok(Self { map, path: path.to_owned() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The bytes in `range`, or `None` where it leaves the file.
    pub(super) fn slice(&self, range: &Range<usize>) -> Option<&[u8]> {
        self.map.get(range.clone())
    }

    /// Gives the memory of a range back: what was read stays in the system's cache of files, but no longer counts as this
    /// process's. Without this, a whole checkpoint would, beside the weights that are made of it.
    pub(super) fn release(&self, range: &Range<usize>) {
        #[cfg(unix)]
        if self.slice(range).is_some_and(|bytes| !bytes.is_empty()) {
            // SAFETY: the map is of a file and is never written to, so that a page given back is read from the file
            // again, with the same bytes, should anybody touch it.
            #[allow(unsafe_code)]
            let released = unsafe {
                let advice = memmap2::UncheckedAdvice::DontNeed;
                self.map.unchecked_advise_range(advice, range.start, range.len())
            };
            drop(released); // only memory is at stake
        }
    }

    /// The error that this file breaks `format`.
    pub(super) fn damaged(&self, format: &'static str, reason: impl Into<String>) -> SourceError {
        SourceError::Damaged { format, reason: reason.into(), path: self.path.clone() }
    }

    /// The error that this file is sound, but not what can be read.
    pub(super) fn unsupported(&self, reason: impl Into<String>) -> SourceError {
        SourceError::Unsupported { reason: reason.into(), path: self.path.clone() }
    }

    /// The error that one of the file's tensors cannot be read.
    pub(super) fn tensor(&self, name: &str, reason: impl Into<String>) -> SourceError {
        SourceError::Tensor { name: name.to_owned(), reason: reason.into(), path: self.path.clone() }
    }
}
