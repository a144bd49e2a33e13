//! The cache of decoded frames and of features: items of equal size in shards on disk.
//!
//! The name of a shard is a digest of everything that determines its content: the settings, and the id and
//! content digest of each item. So other settings or other files never give old items, data sets and splits
//! share a folder, and an interrupted run continues after its last complete shard. Unused shards can be
//! deleted.

mod claim;
mod shard;

pub(crate) use shard::Writer;

use claim::Claim;

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
    /// items' numbers, puts each item into the writer by its place in that range, and counts it. Processes
    /// that open the same shards at the same time share the work.
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
        let mut found: Vec<Option<Shard>> =
            wanted.par_iter().map(|(path, _, header)| complete(path, header)).collect();
        let kept = found.iter().flatten().map(|shard| shard.header.ids.len()).sum();
        let missing: Vec<usize> = (0..found.len()).filter(|&number| found[number].is_none()).collect();
        if !missing.is_empty() {
            let counter = Counter::new(stage, count, on_progress);
            counter.add(kept);
            let mut make_claimed = |number: usize, _claim: Claim| {
                let (path, range, header) = &wanted[number];
                found[number] = complete(path, header);
                if found[number].is_some() {
                    counter.add(range.len());
                    return Ok(());
                }
                let writer = Writer::create(path, header)?;
                make(&writer, range.clone(), &counter)?;
                Ok::<(), E>(writer.finish()?)
            };
            // first what no other process makes, then what the others were making
            let mut others = Vec::new();
            for number in missing {
                match Claim::attempt(&wanted[number].0) {
                    Some(claim) => make_claimed(number, claim)?,
                    None => others.push(number),
                }
            }
            for number in others {
                make_claimed(number, Claim::wait(&wanted[number].0))?;
            }
        }
        let opened = wanted.into_iter().zip(found);
        let shards = opened.map(|((path, ..), found)| found.map_or_else(|| Shard::open(&path), Ok));
        Ok(Shards { shards: shards.collect::<Result<_>>()?, per_shard: self.per_shard, kept })
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

/// A shard on disk that has this header and is not damaged.
fn complete(path: &Path, header: &Header) -> Option<Shard> {
    let shard = Shard::open(path).ok().filter(|shard| shard.header == *header)?;
    shard.verify().is_ok().then_some(shard)
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
    fn processes_that_open_the_same_shards_share_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let ids: Vec<String> = (0..40).map(|item| item.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let contents = contents("a", &ids);
        let makes = || {
            let mut made = Vec::new();
            let shards = contents.open(folder.path(), "testing", &|_| {}, |writer, range, _| {
                for (place, item) in range.enumerate() {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                    writer.put(place, &[item as u8, 7])?;
                    made.push(item);
                }
                Ok::<_, Error>(())
            });
            let shards = shards.unwrap();
            assert!((0..40).all(|item| shards.item(item) == [item as u8, 7]));
            made
        };
        let made: Vec<Vec<usize>> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..3).map(|_| scope.spawn(makes)).collect();
            running.into_iter().map(|run| run.join().unwrap()).collect()
        });
        let mut all = made.concat();
        all.sort_unstable();
        assert_eq!(all, (0..40).collect::<Vec<_>>(), "each item is made once");
        assert!(made.iter().all(|own| !own.is_empty()), "none waits for all others: {made:?}");
        assert_eq!(files(folder.path()).len(), 20, "no claim is left");
    }

    /// What a process that failed was making is made by one that waited for it.
    #[test]
    fn a_shard_whose_maker_failed_is_made_by_another() {
        let folder = tempfile::tempdir().unwrap();
        let contents = contents("a", &["x", "y"]);
        let path = folder.path().join(format!("frames-{}.shard", contents.header(0..2).unwrap().key));
        let claim = Claim::attempt(&path).unwrap();
        assert!(Claim::attempt(&path).is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| open(&contents, folder.path(), 9).0);
            std::thread::sleep(std::time::Duration::from_millis(50));
            drop(claim);
            assert_eq!(waiting.join().unwrap(), [0, 1]);
        });
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
