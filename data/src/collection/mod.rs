//! Clips to be captioned: files, folders, lists and webdataset shards, of any number.
//!
//! Rows are numbered through all inputs. Only an index is kept in memory (of a list, a place every few
//! hundred rows), and rows are read when they are needed.

mod folder;
mod list;
mod parquet_list;
mod tar_shard;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::hash::Hasher;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rustc_hash::FxHasher;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::digest::hex;
use crate::error::{Error, Result};
use list::List;
use parquet_list::ParquetList;
use tar_shard::TarShard;

/// A clip of a collection, or a row of a list that names none.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its number in the collection, from 0.
    pub index: usize,
    /// Its name: that of the list's column `id`, the key of a webdataset shard, or the path.
    pub id: String,
    /// Where its file is; the reason, where the row is malformed.
    pub place: std::result::Result<Place, String>,
    /// Other columns of a list, and what a webdataset shard has beside the clip.
    pub extra: Map<String, Value>,
}

/// Where the file of a clip is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file of its own.
    File(PathBuf),
    /// A member of a tar archive.
    Member {
        /// The archive.
        archive: PathBuf,
        /// The member's name.
        name: String,
        /// Its first byte in the archive.
        offset: u64,
        /// Its bytes.
        length: u64,
    },
}

impl Place {
    /// A name for people and for rows: the path, and a member's name behind it.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::File(path) => path.to_string_lossy().into_owned(),
            Self::Member { archive, name, .. } => format!("{}/{name}", archive.display()),
        }
    }
}

/// The clips of several inputs.
#[derive(Debug)]
pub struct Collection {
    parts: Vec<(usize, Part)>,
    rows: usize,
    /// Rows whose id an earlier row has, with the number of that row.
    duplicates: BTreeMap<usize, usize>,
    digest: String,
    /// What could not be read of the inputs, a sentence each: folders without permission, loops of links,
    /// archives that end early.
    pub problems: Vec<String>,
}

#[derive(Debug)]
enum Part {
    /// Ids and files.
    Files(Vec<(String, PathBuf)>),
    List(List),
    Parquet(ParquetList),
    Tar(TarShard),
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Self::Files(files) => files.len(),
            Self::List(list) => list.len(),
            Self::Parquet(list) => list.len(),
            Self::Tar(shard) => shard.len(),
        }
    }

    /// Rows by their numbers within this part, which are also their indices for now.
    fn read(&self, rows: Range<usize>) -> Result<Vec<Row>> {
        match self {
            Self::Files(files) => Ok(rows
                .map(|index| {
                    let (id, path) = &files[index];
                    Row { index, id: id.clone(), place: Ok(Place::File(path.clone())), extra: Map::new() }
                })
                .collect()),
            Self::List(list) => list.read(rows),
            Self::Parquet(list) => list.read(rows),
            Self::Tar(shard) => shard.read(rows),
        }
    }
}

/// Receives the id of each row while a part is indexed.
type OnId<'a> = &'a mut dyn FnMut(&str);

impl Collection {
    /// Indexes the inputs: files of any format that decodes, folders (searched recursively for files of known
    /// extensions, in alphabetical order), lists (`.txt`, `.csv`, `.tsv`, `.jsonl`, `.parquet`) and
    /// webdataset shards (`.tar`). A list's paths are relative to its folder.
    ///
    /// # Errors
    /// An input is missing, or is a list or an archive that cannot be read at all.
    pub fn open(inputs: &[PathBuf]) -> Result<Self> {
        let mut ids = Ids::default();
        let (mut parts, mut problems, mut rows) = (Vec::new(), Vec::new(), 0);
        for input in inputs {
            let part = open_part(input, inputs.len() > 1, &mut problems, &mut |id| ids.push(id))?;
            let length = part.len();
            parts.push((rows, part));
            rows += length;
        }
        debug_assert_eq!(rows, ids.parts.iter().map(Vec::len).sum::<usize>(), "one id a row");
        let (digest, suspects) = ids.finish();
        let mut collection = Self { parts, rows, duplicates: BTreeMap::new(), digest, problems };
        if !suspects.is_empty() {
            collection.duplicates = collection.find_duplicates(&suspects)?;
        }
        Ok(collection)
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// A digest of all ids in their order, 16 hexadecimal digits: it tells whether inputs are the same as
    /// before.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The earlier row with the same id, if there is one.
    #[must_use]
    pub fn duplicate_of(&self, row: usize) -> Option<usize> {
        self.duplicates.get(&row).copied()
    }

    /// Number of rows whose id an earlier row has.
    #[must_use]
    pub fn duplicates(&self) -> usize {
        self.duplicates.len()
    }

    /// Reads some rows, in order.
    ///
    /// # Errors
    /// A list that changed since it was indexed, or cannot be read.
    pub fn read(&self, rows: Range<usize>) -> Result<Vec<Row>> {
        let mut all = Vec::with_capacity(rows.len());
        for (start, part) in &self.parts {
            let own = rows.start.max(*start)..rows.end.min(start + part.len());
            if own.is_empty() {
                continue;
            }
            for mut row in part.read(own.start - start..own.end - start)? {
                row.index += start;
                all.push(row);
            }
        }
        Ok(all)
    }

    /// Reads all rows once more, and compares the ids of those whose hashes are not unique.
    fn find_duplicates(&self, suspects: &HashSet<u64>) -> Result<BTreeMap<usize, usize>> {
        const AT_A_TIME: usize = 1 << 14;
        let (mut first, mut duplicates) = (HashMap::new(), BTreeMap::new());
        for start in (0..self.rows).step_by(AT_A_TIME) {
            for row in self.read(start..self.rows.min(start + AT_A_TIME))? {
                if !suspects.contains(&hash(&row.id)) {
                    continue;
                }
                match first.get(&row.id) {
                    Some(earlier) => {
                        duplicates.insert(row.index, *earlier);
                    }
                    None => {
                        first.insert(row.id, row.index);
                    }
                }
            }
        }
        Ok(duplicates)
    }
}

fn open_part(
    input: &Path,
    is_one_of_many: bool,
    problems: &mut Vec<String>,
    on_id: OnId<'_>,
) -> Result<Part> {
    let next =
        "give a video, a folder, a list (.txt, .csv, .tsv, .jsonl, .parquet) or a webdataset shard (.tar)";
    let metadata = std::fs::metadata(input).map_err(Error::open("read the input", input, "input", next))?;
    if metadata.is_dir() {
        let files = folder::list(input, is_one_of_many, problems);
        files.iter().for_each(|(id, _)| on_id(id));
        return Ok(Part::Files(files));
    }
    let extension = input.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "txt" | "csv" | "tsv" | "jsonl" | "ndjson" => List::open(input, on_id).map(Part::List),
        "parquet" => ParquetList::open(input, on_id).map(Part::Parquet),
        "tar" => TarShard::open(input, problems, on_id).map(Part::Tar),
        _ => {
            let id = input.to_string_lossy().into_owned();
            on_id(&id);
            Ok(Part::Files(vec![(id, input.to_owned())]))
        }
    }
}

/// The ids of all rows: a digest of them, and their hashes in parts, because a vector that grows holds its
/// values twice.
#[derive(Default)]
struct Ids {
    digest: Sha256,
    parts: Vec<Vec<u64>>,
}

impl Ids {
    /// Hashes of a part.
    const PART: usize = 1 << 17;

    fn push(&mut self, id: &str) {
        self.digest.update(id.as_bytes());
        self.digest.update(b"\n");
        match self.parts.last_mut() {
            Some(part) if part.len() < Self::PART => part.push(hash(id)),
            _ => {
                let mut part = Vec::with_capacity(Self::PART);
                part.push(hash(id));
                self.parts.push(part);
            }
        }
    }

    /// The digest, and the hashes that occur twice.
    fn finish(mut self) -> (String, HashSet<u64>) {
        self.parts.iter_mut().for_each(|part| part.sort_unstable());
        // the smallest hash that is left of each part
        let mut next: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
        let mut left: Vec<_> = self.parts.iter().map(|part| part.iter().copied()).collect();
        let push = |next: &mut BinaryHeap<_>, hash: Option<u64>, part| {
            if let Some(hash) = hash {
                next.push(Reverse((hash, part)));
            }
        };
        for (part, hashes) in left.iter_mut().enumerate() {
            push(&mut next, hashes.next(), part);
        }
        let (mut twice, mut last) = (HashSet::new(), None);
        while let Some(Reverse((hash, part))) = next.pop() {
            if last.replace(hash) == Some(hash) {
                twice.insert(hash);
            }
            push(&mut next, left[part].next(), part);
        }
        (hex(&self.digest.finalize()[..8]), twice)
    }
}

fn hash(id: &str) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(id.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests;
