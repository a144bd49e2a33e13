//! The cache of decoded frames and of features: items of equal size in shards on disk.
//!
//! The name of a shard is a digest of everything that determines its content: the settings, and the id and
//! content digest of each item. So other settings or other files never give old items, data sets and splits
//! share a folder, and an interrupted run continues after its last complete shard. Unused shards can be
//! deleted.

mod shard;

pub(crate) use shard::Writer;

use crate::digest::hex;
use crate::error::{Error, Result};
use crate::progress::{Counter, OnProgress};
use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};
use shard::{Header, Shard};
use std::ops::Range;
use std::path::Path;

/// Version of decoded frames. It must change whenever the same file and request give other pixels.
pub(crate) const FRAMES_VERSION: u32 = 5;

/// Bytes of a shard, about.
const SHARD_BYTES: usize = 1 << 28;

/// An item of the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Its id, for example a clip's.
    pub id: String,
    /// A digest of what the item is made from.
    pub content: String,
}

/// Description of the items in a cache.
pub(crate) struct Contents {
    /// `frames` or `features`.
    kind: &'static str,
    item_bytes: usize,
    /// Everything else that determines the items.
    settings: serde_json::Value,
    items: Vec<Item>,
    per_shard: usize,
}

impl Contents {
    /// Describes items that follow from `settings`, which must have a JSON form, and from their own content.
    pub(crate) fn new(
        kind: &'static str,
        item_bytes: usize,
        settings: &impl Serialize,
        items: Vec<Item>,
    ) -> Result<Self> {
        let settings = serde_json::to_value(settings).map_err(no_json)?;
        Ok(Self { kind, item_bytes, settings, items, per_shard: (SHARD_BYTES / item_bytes.max(1)).max(1) })
    }

    /// Opens the shards in `folder`. Those that are missing or damaged are made first: `make` receives the
    /// items' numbers, puts each item into the writer by its place in that range, and counts it.
    ///
    /// # Errors
    /// Those of `make`; a folder that cannot be written.
    pub(crate) fn open<E: From<Error>>(
        &self,
        folder: &Path,
        stage: &'static str,
        on_progress: OnProgress<'_>,
        mut make: impl FnMut(&Writer, Range<usize>, &Counter<'_>) -> std::result::Result<(), E>,
    ) -> std::result::Result<Shards, E> {
        let count = self.items.len();
        let ranges = (0..count).step_by(self.per_shard).map(|start| start..count.min(start + self.per_shard));
        let wanted: Vec<_> = ranges
            .map(|range| {
                let header = self.header(range.clone())?;
                Ok((folder.join(format!("{}-{}.shard", self.kind, header.key)), range, header))
            })
            .collect::<Result<_>>()?;
        let found: Vec<Option<Shard>> = wanted
            .par_iter()
            .map(|(path, _, header)| {
                let shard = Shard::open(path).ok().filter(|shard| shard.header == *header)?;
                shard.verify().is_ok().then_some(shard)
            })
            .collect();
        let kept = found.iter().flatten().map(|shard| shard.header.ids.len()).sum();
        let counter = (kept < count).then(|| Counter::new(stage, count, on_progress));
        counter.iter().for_each(|counter| counter.add(kept));
        let mut shards = Vec::with_capacity(wanted.len());
        for ((path, range, header), found) in wanted.into_iter().zip(found) {
            if let (None, Some(counter)) = (&found, &counter) {
                let writer = Writer::create(&path, &header)?;
                make(&writer, range, counter)?;
                writer.finish()?;
            }
            shards.push(found.map_or_else(|| Shard::open(&path), Ok)?);
        }
        Ok(Shards { shards, per_shard: self.per_shard, kept })
    }

    fn header(&self, range: Range<usize>) -> Result<Header> {
        let items = &self.items[range];
        let key =
            serde_json::to_vec(&(self.kind, self.item_bytes, &self.settings, items)).map_err(no_json)?;
        Ok(Header {
            kind: self.kind.into(),
            key: hex(&Sha256::digest(key)[..12]),
            item_bytes: self.item_bytes,
            ids: items.iter().map(|item| item.id.clone()).collect(),
        })
    }
}

fn no_json(error: serde_json::Error) -> Error {
    Error::setting("cache key", "a value with a JSON form", error)
}

/// The shards of a cache, mapped into memory.
#[derive(Debug)]
pub(crate) struct Shards {
    shards: Vec<Shard>,
    per_shard: usize,
    /// Items that the cache had before.
    pub(crate) kept: usize,
}

impl Shards {
    /// One item's bytes; empty where there is no such item.
    pub(crate) fn item(&self, item: usize) -> &[u8] {
        self.shards.get(item / self.per_shard).map_or(&[], |shard| shard.item(item % self.per_shard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn contents(settings: &str, items: &[&str]) -> Contents {
        let items = items.iter().map(|id| Item { id: (*id).into(), content: format!("content of {id}") });
        let contents = Contents::new("frames", 2, &settings, items.collect()).unwrap();
        Contents { per_shard: 2, ..contents }
    }

    /// Makes at most `limit` items; the numbers of those that were made, and the shards.
    fn open(contents: &Contents, folder: &Path, limit: usize) -> (Vec<usize>, Result<Shards>) {
        let mut made = Vec::new();
        let shards = contents.open(folder, "testing", &|_| {}, |writer, range, _| {
            for (place, item) in range.enumerate() {
                if made.len() == limit {
                    return Err(Error::video(Path::new("x"), "interrupted"));
                }
                writer.put(place, &[item as u8, 7])?;
                made.push(item);
            }
            Ok(())
        });
        (made, shards)
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn an_interrupted_run_continues_after_its_last_complete_shard() {
        let folder = tempfile::tempdir().unwrap();
        let contents = contents("a", &["v", "w", "x", "y", "z"]);
        let (made, shards) = open(&contents, folder.path(), 3);
        assert_eq!(made, [0, 1, 2]);
        assert!(shards.is_err());
        assert_eq!(files(folder.path()).len(), 1, "no partial shard is left");
        let (made, shards) = open(&contents, folder.path(), 9);
        assert_eq!((made, shards.unwrap().kept), (vec![2, 3, 4], 2));
        let (made, shards) = open(&contents, folder.path(), 0);
        let shards = shards.unwrap();
        assert_eq!((made.len(), shards.kept), (0, 5));
        assert_eq!((shards.item(4), shards.item(5), shards.item(6)), (&[4, 7][..], &[][..], &[][..]));
    }

    #[test]
    fn other_settings_items_and_contents_are_other_shards() {
        let folder = tempfile::tempdir().unwrap();
        let made = |contents: &Contents| open(contents, folder.path(), 9).0;
        assert_eq!(made(&contents("a", &["x", "y", "z"])), [0, 1, 2]);
        assert_eq!(made(&contents("b", &["x", "y", "z"])), [0, 1, 2]);
        assert_eq!(made(&contents("a", &["x", "y", "w"])), [2], "the first shard is the same");
        let mut changed = contents("a", &["x", "y", "z"]);
        changed.items[0].content = "another content".into();
        assert_eq!(made(&changed), [0, 1]);
        assert!(made(&contents("a", &["x", "y", "z"])).is_empty(), "both versions are kept");
    }

    #[test]
    fn a_damaged_shard_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let contents = contents("a", &["x", "y", "z"]);
        open(&contents, folder.path(), 9).1.unwrap();
        for path in files(folder.path()) {
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
        assert_eq!(open(&contents, folder.path(), 9).0, [0, 1, 2]);
        assert!(open(&contents, folder.path(), 9).0.is_empty());
    }
}
