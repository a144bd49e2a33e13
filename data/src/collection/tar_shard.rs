//! The clips of a webdataset shard: members with the extension of a video, GIF or image. A text and a JSON
//! member of the same key are kept with the clip.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{OnId, Place, Row};
use crate::datasets::files::is_clip;
use crate::datasets::source::is_macs;
use crate::error::{Error, Result};

const WHAT: &str = "webdataset shard";

/// Maximum length of a text or JSON member; a longer one is none of a clip's.
const MAX_TEXT: u64 = 1 << 24;

/// An indexed shard.
#[derive(Debug)]
pub(super) struct TarShard {
    path: PathBuf,
    clips: Vec<Clip>,
}

#[derive(Debug, Default)]
struct Clip {
    key: String,
    name: String,
    video: (u64, u64),
    text: Option<(u64, u64)>,
    json: Option<(u64, u64)>,
}

impl TarShard {
    /// Indexes a shard; one that ends early has the clips before.
    pub(super) fn open(path: &Path, problems: &mut Vec<String>, on_id: OnId<'_>) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io("open the shard", path))?;
        let mut magic = [0; 2];
        if file.read(&mut magic).map_err(Error::io("read the shard", path))? == 2 && magic == [0x1f, 0x8b] {
            let reason = "is gzipped, so that its members cannot be found; unpack it with gunzip";
            return Err(Error::malformed(WHAT, path, "archive", reason));
        }
        let file = File::open(path).map_err(Error::io("open the shard", path))?;
        let mut archive = tar::Archive::new(BufReader::new(file));
        let (mut found, mut places) = (Vec::<Clip>::new(), HashMap::new());
        let entries = archive.entries().map_err(Error::io("read the shard", path))?;
        for entry in entries {
            let (name, place) = match entry.and_then(|entry| {
                let name = entry.path()?.to_string_lossy().into_owned();
                let is_file = entry.header().entry_type().is_file();
                Ok((is_file.then_some(name), (entry.raw_file_position(), entry.size())))
            }) {
                Ok(entry) => entry,
                Err(error) => {
                    problems.push(format!(
                        "the shard cannot be read to its end ({error}); {} clips before are used: {}",
                        found.iter().filter(|clip| !clip.name.is_empty()).count(),
                        path.display()
                    ));
                    break;
                }
            };
            let Some((name, key, extension)) = name.as_deref().and_then(member) else { continue };
            let at = *places.entry(key.to_owned()).or_insert_with(|| {
                found.push(Clip { key: key.to_owned(), ..Clip::default() });
                found.len() - 1
            });
            let clip = &mut found[at];
            match extension {
                "txt" => clip.text = Some(place),
                "json" => clip.json = Some(place),
                _ if clip.name.is_empty() => (clip.name, clip.video) = (name.to_owned(), place),
                _ => problems.push(format!(
                    "{key} has two videos or images, and {} is used: {}",
                    clip.name,
                    path.display()
                )),
            }
        }
        found.retain(|clip| !clip.name.is_empty());
        found.iter().for_each(|clip| on_id(&clip.key));
        Ok(Self { path: path.to_owned(), clips: found })
    }

    pub(super) fn len(&self) -> usize {
        self.clips.len()
    }

    pub(super) fn read(&self, rows: Range<usize>) -> Result<Vec<Row>> {
        let file = File::open(&self.path).map_err(Error::io("open the shard", &self.path))?;
        rows.map(|index| self.row(&file, index)).collect()
    }

    fn row(&self, file: &File, index: usize) -> Result<Row> {
        let Clip { key, name, video: (offset, length), text, json } = &self.clips[index];
        let bytes = |place: &Option<(u64, u64)>| {
            let Some((offset, length)) = place.filter(|(_, length)| *length <= MAX_TEXT) else {
                return Ok(Vec::new());
            };
            let mut bytes = vec![0; length as usize];
            file.read_exact_at(&mut bytes, offset).map_err(Error::io("read the shard", &self.path))?;
            Ok(bytes)
        };
        let mut extra = match serde_json::from_slice(&bytes(json)?) {
            Ok(Value::Object(columns)) => columns,
            _ => Map::new(),
        };
        let text = String::from_utf8_lossy(&bytes(text)?).trim().to_owned();
        if !text.is_empty() {
            extra.insert("txt".to_owned(), Value::String(text));
        }
        let (offset, length) = (*offset, *length);
        let place = Place::Member { archive: self.path.clone(), name: name.clone(), offset, length };
        Ok(Row { index, id: key.clone(), place: Ok(place), extra })
    }
}

/// Name, key and extension of a member that belongs to a clip. The key ends at the first dot of the file's
/// name, as in webdataset.
fn member(name: &str) -> Option<(&str, &str, &str)> {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].find('.').filter(|dot| *dot > 0)?;
    let extension = &name[dot + 1..];
    let belongs = matches!(extension, "txt" | "json") || is_clip(Path::new(name));
    (belongs && !is_macs(name)).then_some((name, &name[..dot], extension))
}
