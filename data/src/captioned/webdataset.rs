//! Rows as a webdataset shard: for each clip its file, its first caption and its row.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::{CaptionedRow, WHAT};
use crate::collection::Place;
use crate::error::{Error, Result};

/// Writes the shard. Keys are the numbers of the rows, since ids may contain dots and slashes; each `.json`
/// has the id.
pub(super) fn write(
    writer: &mut impl Write,
    path: &Path,
    rows: &[(CaptionedRow, Option<Place>)],
) -> Result<()> {
    let fail = Error::io("write the rows", path);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut archive = tar::Builder::new(writer);
    archive.mode(tar::HeaderMode::Deterministic);
    for (number, (row, place)) in rows.iter().enumerate() {
        let key = format!("{stem}{number:05}");
        if let (Some(place), Some(caption)) = (place, row.captions.first()) {
            append_clip(&mut archive, &key, place)?;
            append(&mut archive, &format!("{key}.txt"), caption.as_bytes())
                .map_err(Error::io("write the rows", path))?;
        }
        let text = serde_json::to_vec(row).map_err(std::io::Error::from);
        let text = text.map_err(Error::io("write the rows", path))?;
        append(&mut archive, &format!("{key}.json"), &text).map_err(Error::io("write the rows", path))?;
    }
    archive.finish().map_err(fail)
}

fn header(length: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(length);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

fn append(archive: &mut tar::Builder<impl Write>, name: &str, content: &[u8]) -> std::io::Result<()> {
    archive.append_data(&mut header(content.len() as u64), name, content)
}

fn append_clip(archive: &mut tar::Builder<impl Write>, key: &str, place: &Place) -> Result<()> {
    let (path, name, offset, length) = match place {
        Place::File(path) => (path, path.to_string_lossy().into_owned(), 0, None),
        Place::Member { archive, name, offset, length } => (archive, name.clone(), *offset, Some(*length)),
    };
    let extension = Path::new(&name).extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let mut file = File::open(path).map_err(Error::io("read the clip", path))?;
    let length = match length {
        Some(length) => length,
        None => file.metadata().map_err(Error::io("read the clip", path))?.len(),
    };
    file.seek(SeekFrom::Start(offset)).map_err(Error::io("read the clip", path))?;
    archive
        .append_data(&mut header(length), format!("{key}.{extension}"), file.take(length))
        .map_err(Error::io("copy the clip to its shard", path))
}

/// Reads the rows of a shard. The path of a clip that the shard contains is that of its member.
pub(super) fn read(path: &Path) -> Result<Vec<CaptionedRow>> {
    let next = "give a file that `experiments caption --out` wrote";
    let file = File::open(path).map_err(Error::open("read the rows", path, WHAT, next))?;
    let mut archive = tar::Archive::new(BufReader::new(file));
    let mut rows = Vec::new();
    for entry in archive.entries().map_err(Error::io("read the rows", path))? {
        let mut entry = entry.map_err(Error::io("read the rows", path))?;
        let name = entry.path().map_err(Error::io("read the rows", path))?.to_string_lossy().into_owned();
        if !name.ends_with(".json") {
            continue;
        }
        let mut text = Vec::new();
        entry.read_to_end(&mut text).map_err(Error::io("read the rows", path))?;
        let row = serde_json::from_slice(&text);
        rows.push(row.map_err(|error| Error::malformed(WHAT, path, name, error.to_string()))?);
    }
    Ok(rows)
}
