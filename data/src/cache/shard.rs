//! Files of items of equal size. A shard is written completely or not at all, ends with a digest of its
//! content, and is read through memory mapping.
//!
//! ```text
//! 8 bytes   "recapshd"
//! 8 bytes   length of the header, little-endian
//! header    JSON: kind, key, bytes of an item, ids
//! padding   zeros up to a multiple of 64 bytes
//! items     raw bytes, in the header's order
//! 32 bytes  SHA-256 of everything before
//! ```

use crate::digest::digest_of;
use crate::error::{Error, Result};
use crate::files;
use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

const FORMAT: &str = "prepared data";
const MAGIC: &[u8; 8] = b"recapshd";
const ALIGNMENT: usize = 64;
const DIGEST: usize = 32;
/// Maximum length of a header: a million ids of 64 bytes.
const MAX_HEADER: u64 = 1 << 26;

/// Description of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    /// `frames` or `features`.
    pub(crate) kind: String,
    /// Digest of everything that determines the content.
    pub(crate) key: String,
    /// Bytes of one item.
    pub(crate) item_bytes: usize,
    /// The items' ids, in order.
    pub(crate) ids: Vec<String>,
}

/// Writes a shard. Items may come from several threads and in any order.
pub(crate) struct Writer {
    path: PathBuf,
    file: Mutex<tempfile::NamedTempFile>,
    start: usize,
    each: usize,
    count: usize,
}

impl Writer {
    pub(crate) fn create(path: &Path, header: &Header) -> Result<Self> {
        let (each, count) = (header.item_bytes, header.ids.len());
        let text = serde_json::to_vec(header)
            .map_err(|error| Error::malformed(FORMAT, path, "header", error.to_string()))?;
        let start = (MAGIC.len() + 8 + text.len()).next_multiple_of(ALIGNMENT);
        let mut file = files::temporary_file(path)?;
        let mut head = Vec::with_capacity(start);
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&(text.len() as u64).to_le_bytes());
        head.extend_from_slice(&text);
        head.resize(start, 0);
        file.write_all(&head)
            .and_then(|()| file.as_file().set_len((start + each * count + DIGEST) as u64))
            .map_err(Error::io("write the prepared data", path))?;
        Ok(Self { path: path.to_path_buf(), file: Mutex::new(file), start, each, count })
    }

    /// Writes one item.
    pub(crate) fn put(&self, item: usize, bytes: &[u8]) -> Result<()> {
        if bytes.len() != self.each || item >= self.count {
            let reason = format!(
                "expected {} items of {} bytes, got item {item} of {} bytes",
                self.count,
                self.each,
                bytes.len()
            );
            return Err(Error::malformed(FORMAT, &self.path, format!("item {item}"), reason));
        }
        let mut file = self.file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        file.seek(SeekFrom::Start((self.start + item * self.each) as u64))
            .and_then(|_| file.write_all(bytes))
            .map_err(Error::io("write the prepared data", &self.path))
    }

    /// Appends the digest, syncs the file and gives it its name.
    pub(crate) fn finish(self) -> Result<()> {
        let mut file = self.file.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        let end = (self.start + self.each * self.count) as u64;
        file.seek(SeekFrom::Start(0))
            .and_then(|_| digest_of(Read::by_ref(&mut file).take(end)))
            .and_then(|digest| {
                file.seek(SeekFrom::Start(end))?;
                file.write_all(&digest)
            })
            .map_err(Error::io("write the prepared data", &self.path))?;
        files::persist(file, &self.path)
    }
}

/// A shard on disk, mapped into memory.
#[derive(Debug)]
pub(crate) struct Shard {
    map: Mmap,
    path: PathBuf,
    pub(crate) header: Header,
    start: usize,
}

impl Shard {
    /// Maps a shard and checks header and length; [`Self::verify`] checks the content.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let broken = |reason: String| Error::malformed(FORMAT, path, "the whole file", reason);
        let file = File::open(path).map_err(Error::io("open the prepared data", path))?;
        // SAFETY: a shard never changes once it has its name: writers make a new file and rename it.
        // Truncating one by hand while it is read causes a bus error, as with every memory-mapped file.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map the prepared data", path))?;
        let head = map.get(..16).filter(|head| head.starts_with(MAGIC));
        let head = head.ok_or_else(|| broken("is no prepared data; delete it".into()))?;
        let length = head[8..].iter().rev().fold(0u64, |length, byte| length << 8 | u64::from(*byte));
        if length > MAX_HEADER {
            return Err(broken(format!("has a header of {length} bytes; delete it")));
        }
        let end = 16 + length as usize;
        let text = map.get(16..end).ok_or_else(|| broken("ends inside its header; delete it".into()))?;
        let header: Header =
            serde_json::from_slice(text).map_err(|error| broken(format!("header: {error}; delete it")))?;
        let start = end.next_multiple_of(ALIGNMENT);
        let items = header.item_bytes.checked_mul(header.ids.len());
        let expected = items.and_then(|items| items.checked_add(start + DIGEST));
        if expected != Some(map.len()) {
            let expected = expected.map_or("too many".to_owned(), |expected| expected.to_string());
            return Err(broken(format!("expected {expected} bytes, got {}; delete it", map.len())));
        }
        Ok(Self { map, path: path.to_path_buf(), header, start })
    }

    /// One item's bytes; empty where the shard has no such item.
    pub(crate) fn item(&self, item: usize) -> &[u8] {
        let place = || {
            let each = self.header.item_bytes;
            let start = self.start.checked_add(item.checked_mul(each)?)?;
            (item < self.header.ids.len()).then_some(start..start + each)
        };
        place().and_then(|place| self.map.get(place)).unwrap_or_default()
    }

    /// Reads the whole file and compares its digest.
    pub(crate) fn verify(&self) -> Result<()> {
        let (content, expected) = self.map.split_at(self.map.len() - DIGEST);
        let got: [u8; DIGEST] = Sha256::digest(content).into();
        if got.as_slice() == expected {
            return Ok(());
        }
        let reason = "its content does not match its digest; delete it";
        Err(Error::malformed(FORMAT, &self.path, "the whole file", reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header { kind: "frames".into(), key: "k".into(), item_bytes: 6, ids: vec!["a".into(), "b".into()] }
    }

    fn written(folder: &Path) -> PathBuf {
        let path = folder.join("frames.shard");
        let writer = Writer::create(&path, &header()).unwrap();
        writer.put(1, b"second").unwrap();
        assert!(!path.exists(), "an unfinished shard has no name");
        writer.put(0, b"first!").unwrap();
        writer.finish().unwrap();
        path
    }

    #[test]
    fn items_come_back_by_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let shard = Shard::open(&path).unwrap();
        assert_eq!((shard.item(0), shard.item(1), shard.item(2)), (&b"first!"[..], &b"second"[..], &b""[..]));
        shard.verify().unwrap();
        assert_eq!(shard.header, header());
    }

    #[test]
    fn an_item_of_another_size_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::create(&folder.path().join("x"), &header()).unwrap();
        assert!(writer.put(0, b"short").unwrap_err().to_string().contains("got item 0 of 5 bytes"));
        assert!(writer.put(2, b"second").unwrap_err().to_string().contains("got item 2"));
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_noticed_without_a_panic(at in any::<prop::sample::Index>(), change in 1u8..) {
            let folder = tempfile::tempdir().unwrap();
            let path = written(folder.path());
            let mut bytes = std::fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            std::fs::write(&path, bytes).unwrap();
            let sound = Shard::open(&path).and_then(|shard| shard.verify());
            prop_assert!(sound.is_err());
        }

        #[test]
        fn a_shard_cut_short_is_refused(keep in any::<prop::sample::Index>()) {
            let folder = tempfile::tempdir().unwrap();
            let path = written(folder.path());
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..keep.index(bytes.len())]).unwrap();
            prop_assert!(Shard::open(&path).is_err());
        }
    }
}
