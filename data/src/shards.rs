//! Files of equally large items, one after the other: what prepared frames and features are kept in. A shard is written
//! whole or not at all, carries a hash of its content, and is read through memory mapping.
//!
//! ```text
//! 8 bytes   "recapshd"
//! 8 bytes   length of the header, little-endian
//! header    JSON: kind, key, element, shape of an item, ids
//! padding   zeros up to a multiple of 64 bytes
//! items     raw, in the header's order
//! 32 bytes  SHA-256 of everything before
//! ```

use crate::error::{Error, Result};
use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

const FORMAT: &str = "prepared data";
const MAGIC: &[u8; 8] = b"recapshd";
const ALIGNMENT: usize = 64;
const HASH: usize = 32;
/// No header is longer than this: 4,096 ids of 16 kB each would be needed.
const MOST_HEADER: u64 = 1 << 26;

/// What a number of an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Element {
    /// A byte, of pixels.
    U8,
    /// The upper half of an `f32`, of features.
    Bf16,
}

impl Element {
    fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::Bf16 => 2,
        }
    }
}

/// What a shard holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    /// Frames or features.
    pub(crate) kind: String,
    /// A hash of all that decides the content.
    pub(crate) key: String,
    pub(crate) element: Element,
    /// Shape of one item.
    pub(crate) shape: Vec<usize>,
    /// The items' names, in order.
    pub(crate) ids: Vec<String>,
}

impl Header {
    /// Bytes of one item.
    pub(crate) fn each(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.element.bytes(), |bytes, axis| bytes.checked_mul(*axis))
    }

    fn items(&self) -> Option<usize> {
        self.each()?.checked_mul(self.ids.len())
    }
}

/// A shard that is being written. Items may come from several threads and in any order.
pub(crate) struct Writer {
    path: PathBuf,
    file: Mutex<tempfile::NamedTempFile>,
    start: usize,
    each: usize,
    count: usize,
}

impl Writer {
    pub(crate) fn create(path: &Path, header: &Header) -> Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).map_err(Error::io("make the directory", directory))?;
        let too_large = || Error::malformed(FORMAT, path, "header", "the shape is too large");
        let (each, items) = (header.each().ok_or_else(too_large)?, header.items().ok_or_else(too_large)?);
        let text = serde_json::to_vec(header)
            .map_err(|error| Error::malformed(FORMAT, path, "header", error.to_string()))?;
        let start = (MAGIC.len() + 8 + text.len()).next_multiple_of(ALIGNMENT);
        let mut file = tempfile::NamedTempFile::new_in(directory)
            .map_err(Error::io("write in the directory", directory))?;
        let mut head = Vec::with_capacity(start);
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&(text.len() as u64).to_le_bytes());
        head.extend_from_slice(&text);
        head.resize(start, 0);
        file.write_all(&head)
            .and_then(|()| file.as_file().set_len((start + items + HASH) as u64))
            .map_err(Error::io("write the prepared data", path))?;
        let count = header.ids.len();
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

    /// Hashes what was written, puts it on the disk and gives it its name.
    pub(crate) fn finish(self) -> Result<()> {
        let fail = Error::io("write the prepared data", &self.path);
        let mut file = self.file.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        let end = (self.start + self.each * self.count) as u64;
        let finished = file
            .seek(SeekFrom::Start(0))
            .and_then(|_| hash(Read::by_ref(&mut file).take(end)))
            .and_then(|hash| {
                file.seek(SeekFrom::Start(end))?;
                file.write_all(&hash)?;
                file.as_file().sync_all()
            });
        finished.map_err(fail)?;
        file.persist(&self.path)
            .map_err(|error| Error::io("rename the prepared data to", &self.path)(error.error))?;
        Ok(())
    }
}

fn hash(reader: impl Read) -> std::io::Result<[u8; HASH]> {
    let mut reader = BufReader::with_capacity(1 << 20, reader);
    let mut hash = Sha256::new();
    let mut part = vec![0; 1 << 20];
    loop {
        match reader.read(&mut part)? {
            0 => return Ok(hash.finalize().into()),
            read => hash.update(&part[..read]),
        }
    }
}

/// A shard that is read.
pub(crate) struct Shard {
    map: Mmap,
    path: PathBuf,
    pub(crate) header: Header,
    start: usize,
    each: usize,
}

impl Shard {
    /// Maps a shard and checks its header and length; [`Self::verify`] checks the content.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let broken = |reason: String| Error::malformed(FORMAT, path, "the whole file", reason);
        let file = File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound {
                what: "prepared data",
                path: path.to_path_buf(),
                next: "`experiments data prepare` makes it".into(),
            },
            _ => Error::io("open the prepared data", path)(error),
        })?;
        // SAFETY: a shard is never changed once it has its name: writers make a new file and rename it. Whoever
        // truncates one by hand while we read gets a bus error, as with every memory-mapped file.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map the prepared data", path))?;
        let head = map.get(..16).filter(|head| head.starts_with(MAGIC));
        let head = head.ok_or_else(|| broken("is no prepared data; make it again".into()))?;
        let length = head[8..].iter().rev().fold(0u64, |length, byte| length << 8 | u64::from(*byte));
        if length > MOST_HEADER {
            return Err(broken(format!("has a header of {length} bytes; make it again")));
        }
        let end = 16 + length as usize;
        let text = map.get(16..end).ok_or_else(|| broken("ends inside its header; make it again".into()))?;
        let header: Header = serde_json::from_slice(text)
            .map_err(|error| broken(format!("header: {error}; make it again")))?;
        let start = end.next_multiple_of(ALIGNMENT);
        let each = header.each().ok_or_else(|| broken("the shape is too large".into()))?;
        let expected = header.items().and_then(|items| items.checked_add(start + HASH));
        if expected != Some(map.len()) {
            let expected = expected.map_or("impossibly many".to_owned(), |expected| expected.to_string());
            return Err(broken(format!("expected {expected} bytes, got {}; make it again", map.len())));
        }
        Ok(Self { map, path: path.to_path_buf(), header, start, each })
    }

    /// One item's bytes; empty where there is no such item.
    pub(crate) fn item(&self, item: usize) -> &[u8] {
        let place = || {
            let start = self.start.checked_add(item.checked_mul(self.each)?)?;
            (item < self.header.ids.len()).then_some(start..start + self.each)
        };
        place().and_then(|place| self.map.get(place)).unwrap_or_default()
    }

    /// Reads the whole file and compares its hash.
    pub(crate) fn verify(&self) -> Result<()> {
        let (content, expected) = self.map.split_at(self.map.len() - HASH);
        let got: [u8; HASH] = Sha256::digest(content).into();
        if got.as_slice() == expected {
            return Ok(());
        }
        let reason = "its content does not fit its hash; delete it and make it again";
        Err(Error::malformed(FORMAT, &self.path, "the whole file", reason))
    }
}

/// The shards that make up a prepared data set, written last: a folder without this file is not finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Index {
    pub(crate) kind: String,
    /// What the content was made from, in words.
    pub(crate) made_from: String,
    pub(crate) shards: Vec<IndexEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IndexEntry {
    pub(crate) file: String,
    pub(crate) key: String,
    pub(crate) items: usize,
}

pub(crate) const INDEX: &str = "index.json";

impl Index {
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(INDEX);
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::malformed(FORMAT, &path, "the index", error.to_string()))?;
        crate::store::write_whole(&path, &text)
    }

    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(INDEX);
        if !path.is_file() {
            return Err(Error::NotFound {
                what: "finished prepared data",
                path,
                next: "`experiments data prepare` makes it, and goes on where it was interrupted".into(),
            });
        }
        crate::datasets::source::json(&path, FORMAT)
    }

    /// Opens every shard, which must be the one that was indexed.
    pub(crate) fn open(&self, folder: &Path, kind: &str) -> Result<Vec<Shard>> {
        if self.kind != kind {
            let reason = format!("expected {kind}, got {}", self.kind);
            return Err(Error::malformed(FORMAT, &folder.join(INDEX), "kind", reason));
        }
        let mut shards = Vec::with_capacity(self.shards.len());
        for entry in &self.shards {
            let path = folder.join(Path::new(&entry.file).file_name().unwrap_or_default());
            let shard = Shard::open(&path)?;
            let Header { kind: own, key, ids, shape, element, .. } = &shard.header;
            let first = shards.first().map(|first: &Shard| (&first.header.shape, first.header.element));
            let fits = own == kind && *key == entry.key && ids.len() == entry.items;
            if !fits || first.is_some_and(|first| first != (shape, *element)) {
                let reason = "is not the shard that the index names; make the prepared data again";
                return Err(Error::malformed(FORMAT, &path, "header", reason));
            }
            shards.push(shard);
        }
        Ok(shards)
    }
}

/// A shard's file name.
pub(crate) fn shard_name(kind: &str, number: usize) -> String {
    format!("{kind}-{number:05}.shard")
}

/// Whether a file is a finished shard with this header and sound content. One that is not is made again.
pub(crate) fn is_finished(path: &Path, header: &Header) -> bool {
    Shard::open(path).is_ok_and(|shard| shard.header == *header && shard.verify().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            kind: "frames".into(),
            key: "k".into(),
            element: Element::U8,
            shape: vec![2, 3],
            ids: vec!["a".into(), "b".into()],
        }
    }

    fn written(folder: &Path) -> PathBuf {
        let path = folder.join(shard_name("frames", 0));
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
        assert!(is_finished(&path, &header()));
        assert!(!is_finished(&path, &Header { key: "other".into(), ..header() }));
    }

    #[test]
    fn an_item_of_another_size_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::create(&folder.path().join("x"), &header()).unwrap();
        assert!(writer.put(0, b"short").unwrap_err().to_string().contains("got item 0 of 5 bytes"));
        assert!(writer.put(2, b"second").unwrap_err().to_string().contains("got item 2"));
    }

    #[test]
    fn an_interrupted_folder_is_not_finished() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path());
        assert!(Index::read(folder.path()).unwrap_err().to_string().contains("data prepare"));
        let entry = IndexEntry { file: shard_name("frames", 0), key: "k".into(), items: 2 };
        let index = Index { kind: "frames".into(), made_from: "x".into(), shards: vec![entry] };
        index.write(folder.path()).unwrap();
        let read = Index::read(folder.path()).unwrap();
        assert_eq!(read.open(folder.path(), "frames").unwrap().len(), 1);
        assert!(read.open(folder.path(), "features").is_err());
        let stale =
            Index { shards: vec![IndexEntry { key: "z".into(), ..index.shards[0].clone() }], ..index };
        assert!(stale.open(folder.path(), "frames").is_err());
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
