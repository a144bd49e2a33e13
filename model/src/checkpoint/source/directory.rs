//! A directory in Hugging Face's layout: one file of weights, or shards and an index of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde::Deserialize;

use super::file::MappedFile;
use super::{Opened, SourceError, open_file, open_file_or_index};

/// File names in the order of transformers.
const WHOLE: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

pub(super) fn open(directory: &Path) -> Result<Opened, SourceError> {
    match WHOLE.iter().map(|name| directory.join(name)).find(|path| path.exists()) {
        Some(path) => open_file_or_index(&path),
        None => Err(SourceError::Unsupported {
            reason: format!("no checkpoint in this directory (looked for {})", WHOLE.join(", ")),
            path: directory.to_owned(),
        }),
    }
}

/// Opens the shards of an index. Tensors of a shard that are not in the index are included.
pub(super) fn open_index(index: &Path) -> Result<Opened, SourceError> {
    let file = MappedFile::open(index)?;
    let damaged = |reason: String| file.damaged("index of shards", reason);
    let Index { weight_map } =
        serde_json::from_slice(file.bytes()).map_err(|error| damaged(error.to_string()))?;
    let directory = index.parent().unwrap_or(Path::new("."));
    let mut opened = Opened::default();
    let mut found_in: BTreeMap<String, &str> = BTreeMap::new();
    for shard in weight_map.values().collect::<BTreeSet<_>>() {
        let mut components = Path::new(shard).components();
        if !matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) {
            return Err(damaged(format!("shard {shard:?} is not the name of a file beside it")));
        }
        let path = directory.join(shard);
        if !path.exists() {
            return Err(SourceError::ShardAbsent { shard: shard.clone(), index: index.to_owned() });
        }
        let part = open_file(&path)?;
        opened.left_out.extend(part.left_out);
        for (name, stored) in part.tensors {
            match weight_map.get(&name) {
                Some(listed) if listed != shard => continue, // a copy; the index decides
                _ => {}
            }
            if let Some(other) = found_in.insert(name.clone(), shard) {
                return Err(damaged(format!(
                    "tensor {name} is in {other} and in {shard}, and the index names neither"
                )));
            }
            opened.tensors.insert(name, stored);
        }
    }
    for (tensor, shard) in weight_map {
        if !opened.tensors.contains_key(&tensor) {
            return Err(SourceError::NotInShard { tensor, shard, index: index.to_owned() });
        }
    }
    Ok(opened)
}
