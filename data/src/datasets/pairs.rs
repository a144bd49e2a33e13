//! Image-text pairs in webdataset tar shards: for each pair an image and a text file of the same stem, one after the
//! other. Images stay on disk; reading a set takes only its captions and where each image lies.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const FORMAT: &str = "webdataset shard";
const IMAGES: [&str; 4] = ["jpg", "jpeg", "png", "gif"];

/// An image's caption, and where the image lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The name both files share.
    pub id: String,
    /// The caption.
    pub caption: String,
    shard: usize,
    offset: u64,
    length: u64,
}

/// Image-text pairs, in the shards' order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairSet {
    shards: Vec<PathBuf>,
    /// Every pair.
    pub pairs: Vec<Pair>,
}

/// The tar files of a directory whose names start with `prefix`, sorted by name.
///
/// # Errors
/// The directory cannot be listed, or holds no such file.
pub fn shards(directory: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let missing = |what| Error::NotFound {
        what,
        path: directory.to_path_buf(),
        next: format!("give a directory with files {prefix}*.tar"),
    };
    let entries = std::fs::read_dir(directory).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => missing("directory of shards"),
        _ => Error::io("list the shards", directory)(error),
    })?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("list the shards", directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(prefix) && name.ends_with(".tar") {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() { Err(missing("shard")) } else { Ok(found) }
}

/// Reads the captions of shards and where their images lie.
///
/// # Errors
/// A shard that is missing, broken or cut short; a pair without its image or its text.
pub fn load(shards: &[PathBuf]) -> Result<PairSet> {
    let mut pairs = Vec::new();
    for (index, shard) in shards.iter().enumerate() {
        read_shard(shard, index, &mut pairs)?;
    }
    Ok(PairSet { shards: shards.to_vec(), pairs })
}

/// What is known of a pair while its shard is read.
#[derive(Default)]
struct Partial {
    id: String,
    caption: Option<String>,
    image: Option<(u64, u64)>,
}

impl Partial {
    fn finish(self, shard: usize, path: &Path) -> Result<Pair> {
        let lacks = |what: &str| {
            Error::malformed(FORMAT, path, format!("pair {}", self.id), format!("has no {what}"))
        };
        let caption = self.caption.clone().ok_or_else(|| lacks(".txt file"))?;
        let (offset, length) = self.image.ok_or_else(|| lacks("image file (.jpg, .png or .gif)"))?;
        Ok(Pair { id: self.id, caption, shard, offset, length })
    }
}

fn read_shard(path: &Path, shard: usize, pairs: &mut Vec<Pair>) -> Result<()> {
    let broken = |reason: String| Error::malformed(FORMAT, path, "archive", reason);
    let file = File::open(path).map_err(Error::io("open the shard", path))?;
    let size = file.metadata().map_err(Error::io("read the shard", path))?.len();
    let mut archive = tar::Archive::new(BufReader::with_capacity(1 << 16, file));
    let mut partial: Option<Partial> = None;
    for entry in archive.entries().map_err(|error| broken(error.to_string()))? {
        let mut entry = entry.map_err(|error| broken(error.to_string()))?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().map_err(|error| broken(error.to_string()))?.to_string_lossy().into_owned();
        // Webdataset's rule: the stem ends at the first dot of the file's name.
        let folder = name.rfind('/').map_or(0, |slash| slash + 1);
        let Some((stem, extension)) = name[folder..].split_once('.') else { continue };
        let stem = format!("{}{stem}", &name[..folder]);
        let (offset, length) = (entry.raw_file_position(), entry.size());
        if offset.saturating_add(length) > size {
            return Err(broken(format!(
                "{name} ends at byte {}, the file has {size}",
                offset.saturating_add(length)
            )));
        }
        if partial.as_ref().is_none_or(|partial| partial.id != stem)
            && let Some(done) = partial.replace(Partial { id: stem, ..Partial::default() })
        {
            pairs.push(done.finish(shard, path)?);
        }
        let Some(partial) = partial.as_mut() else { continue };
        if extension == "txt" {
            let mut caption = String::new();
            entry.read_to_string(&mut caption).map_err(|error| broken(format!("{name}: {error}")))?;
            partial.caption = Some(caption.trim().to_string());
        } else if IMAGES.contains(&extension.to_ascii_lowercase().as_str()) {
            partial.image = Some((offset, length));
        }
    }
    if let Some(done) = partial {
        pairs.push(done.finish(shard, path)?);
    }
    Ok(())
}

impl PairSet {
    /// The encoded bytes of one pair's image.
    ///
    /// # Errors
    /// The shard changed since it was read, or cannot be read any more.
    pub fn image_bytes(&self, pair: &Pair) -> Result<Vec<u8>> {
        let path = self.shards.get(pair.shard).map_or(Path::new(""), PathBuf::as_path);
        let mut file = File::open(path).map_err(Error::io("open the shard", path))?;
        file.seek(SeekFrom::Start(pair.offset)).map_err(Error::io("read the shard", path))?;
        let mut bytes = vec![0; pair.length as usize];
        file.read_exact(&mut bytes).map_err(Error::io("read the shard", path))?;
        Ok(bytes)
    }

    /// The shards' files.
    pub(crate) fn shards(&self) -> &[PathBuf] {
        &self.shards
    }

    /// Where a pair's image lies, for messages: the shard and the pair's name.
    pub(crate) fn place(&self, pair: &Pair) -> PathBuf {
        self.shards.get(pair.shard).map(|shard| shard.join(&pair.id)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shard(entries: &[(&str, &[u8])]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::with_suffix(".tar").unwrap();
        let mut builder = tar::Builder::new(file.reopen().unwrap());
        for (name, data) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append_data(&mut header, name, *data).unwrap();
        }
        builder.finish().unwrap();
        file
    }

    #[test]
    fn pairs_are_grouped_by_stem() {
        let file = shard(&[
            ("a/0.jpg", b"jpeg"),
            ("a/0.json", b"{}"),
            ("a/0.txt", b"a cat\n"),
            ("a/1.txt", b"a dog"),
            ("a/1.png", b"png!!"),
        ]);
        let set = load(&[file.path().to_path_buf()]).unwrap();
        let seen: Vec<(&str, &str)> = set.pairs.iter().map(|pair| (&*pair.id, &*pair.caption)).collect();
        assert_eq!(seen, [("a/0", "a cat"), ("a/1", "a dog")]);
        assert_eq!(set.image_bytes(&set.pairs[1]).unwrap(), b"png!!");
    }

    #[test]
    fn halves_of_pairs_are_errors() {
        let message =
            |entries: &[(&str, &[u8])]| load(&[shard(entries).path().to_path_buf()]).unwrap_err().to_string();
        assert!(
            message(&[("0.jpg", b"x"), ("1.jpg", b"x"), ("1.txt", b"x")]).contains("pair 0: has no .txt")
        );
        assert!(message(&[("0.txt", b"x")]).contains("no image"));
    }

    #[test]
    fn a_shard_cut_short_is_an_error() {
        let file = shard(&[("0.txt", b"x"), ("0.jpg", &[7; 5000])]);
        let bytes = std::fs::read(file.path()).unwrap();
        std::fs::write(file.path(), &bytes[..4000]).unwrap();
        assert!(load(&[file.path().to_path_buf()]).is_err());
    }

    #[test]
    fn no_shards_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(shards(folder.path(), "train").unwrap_err().to_string().contains("train*.tar"));
        assert!(shards(Path::new("no/such"), "train").is_err());
    }

    proptest! {
        #[test]
        fn mutated_shards_are_read_without_a_panic(at in 0usize..3000, byte: u8) {
            let file = shard(&[("0.txt", b"x"), ("0.jpg", b"12345"), ("1.txt", b"y"), ("1.jpg", b"12345")]);
            let mut bytes = std::fs::read(file.path()).unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            std::fs::write(file.path(), bytes).unwrap();
            let _ = load(&[file.path().to_path_buf()]);
        }
    }
}
