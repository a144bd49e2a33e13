//! Image-text pairs: webdataset shards, see [`shards`](super::shards), or a table (CSV, TSV, JSON or JSON
//! lines) of image files and captions. Opening a set reads captions and the images' locations; images stay
//! on disk.

use super::files::Directory;
use super::own;
use super::shards::{Shard, Unpacked};
use crate::digest::sha256_of_files;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

pub use super::shards::list as shards;

/// An image's caption and location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The common stem of both files, or the name of the image file.
    pub id: String,
    /// The caption.
    pub caption: String,
    location: Location,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Location {
    Shard { shard: usize, offset: u64, length: u64 },
    File(PathBuf),
}

/// Image-text pairs, in the shards' order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairSet {
    shards: Vec<Shard>,
    /// Every pair.
    pub pairs: Vec<Pair>,
}

/// Reads the captions and the images' locations of shards. A gzipped shard is unpacked into a temporary file
/// that exists as long as the set.
///
/// # Errors
/// A shard that is missing, broken or cut short, no tar archive, or without any pair; a pair without its
/// image or its text; no space for unpacked shards.
pub fn load(shards: &[PathBuf]) -> Result<PairSet> {
    let mut set = PairSet { shards: Vec::new(), pairs: Vec::new() };
    let mut unpacked = Unpacked::default();
    for (index, path) in shards.iter().enumerate() {
        let shard = Shard::open(path, &mut unpacked)?;
        for found in shard.pairs()? {
            let location = Location::Shard { shard: index, offset: found.offset, length: found.length };
            set.pairs.push(Pair { id: found.id, caption: found.caption, location });
        }
        set.shards.push(shard);
    }
    Ok(set)
}

/// Reads a table of pairs: a captions file of any form of [`own`], with image paths relative to `images`. An
/// image with several captions gives several pairs. Missing images are detected when they are read.
///
/// # Errors
/// A table that is missing or breaks the format; an image outside `images`; a record without a caption.
pub fn load_table(table: &Path, images: &Path) -> Result<PairSet> {
    let fault = |place: &str, reason: String| Error::malformed("image-text table", table, place, reason);
    let (mut pairs, mut listed) = (Vec::new(), None);
    for record in own::records(table)? {
        let file = Path::new(&record.file);
        if file.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            let reason = format!("expected an image below {}, got {}", images.display(), record.file);
            return Err(fault(&record.place, reason));
        }
        if record.captions.is_empty() {
            return Err(fault(&record.place, "has no caption".into()));
        }
        let mut path = images.join(file);
        if !path.is_file() && !record.file.is_ascii() {
            // The table and the disk may write the same name in two forms of Unicode.
            let directory = match &mut listed {
                Some(directory) => directory,
                none => none.insert(Directory::list(images)?),
            };
            path = directory.at(&record.file).unwrap_or(path);
        }
        for caption in record.captions {
            let location = Location::File(path.clone());
            pairs.push(Pair { id: record.file.clone(), caption, location });
        }
    }
    match pairs.is_empty() {
        true => Err(fault("the whole file", "has no pair".into())),
        false => Ok(PairSet { shards: Vec::new(), pairs }),
    }
}

impl PairSet {
    /// The encoded bytes of one pair's image.
    ///
    /// # Errors
    /// The shard changed since it was opened, or cannot be read; the image file does not exist.
    pub fn image_bytes(&self, pair: &Pair) -> Result<Vec<u8>> {
        match &pair.location {
            Location::File(path) => {
                let next = "put it there or take it out of the table";
                std::fs::read(path).map_err(Error::open("read the image", path, "image", next))
            }
            Location::Shard { shard, offset, length } => self.shards[*shard].bytes(*offset, *length),
        }
    }

    /// A digest of each pair's image: of the image file, or of the shard with the image's offset.
    pub(crate) fn digests(&self, cache: &Path) -> Result<Vec<String>> {
        let files = self.pairs.iter().map(|pair| match &pair.location {
            Location::File(path) => (path.as_path(), 0),
            Location::Shard { shard, offset, .. } => (self.shards[*shard].path(), *offset),
        });
        let (paths, offsets): (Vec<&Path>, Vec<u64>) = files.unzip();
        let digests = sha256_of_files(&paths, cache)?;
        Ok(digests.into_iter().zip(offsets).map(|(digest, offset)| format!("{digest} {offset}")).collect())
    }

    /// The location of a pair's image, for messages: the image's file, or the shard and the pair's id.
    pub(crate) fn location(&self, pair: &Pair) -> PathBuf {
        match &pair.location {
            Location::File(path) => path.clone(),
            Location::Shard { shard, .. } => {
                self.shards.get(*shard).map(|shard| shard.path().join(&pair.id)).unwrap_or_default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_names_images_below_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("pairs.jsonl");
        let write = |text: &str| std::fs::write(&table, text).unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        std::fs::write(folder.path().join("in/a.jpg"), b"jpeg").unwrap();
        write(
            "{\"image\": \"in/a.jpg\", \"caption\": [\"a cat\", \"one cat\"]}\n{\"image\": \"b.jpg\", \"text\": \"x\"}",
        );
        let set = load_table(&table, folder.path()).unwrap();
        assert_eq!(set.pairs.len(), 3);
        assert_eq!(
            (set.pairs[1].caption.as_str(), set.image_bytes(&set.pairs[1]).unwrap()),
            ("one cat", b"jpeg".to_vec())
        );
        let message = set.image_bytes(&set.pairs[2]).unwrap_err().to_string();
        assert!(message.contains("no image there") && message.contains("b.jpg"), "{message}");
        for outside in ["../a.jpg", "/etc/passwd"] {
            write(&format!("{{\"image\": \"{outside}\", \"caption\": \"x\"}}"));
            assert!(
                load_table(&table, folder.path())
                    .unwrap_err()
                    .to_string()
                    .contains("expected an image below")
            );
        }
    }

    #[test]
    fn a_table_finds_decomposed_names() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("pairs.csv");
        std::fs::create_dir(folder.path().join("in")).unwrap();
        std::fs::write(folder.path().join("in/cafe\u{301}.jpg"), b"jpeg").unwrap();
        std::fs::write(&table, "image,caption\nin/caf\u{e9}.jpg,one\ncaf\u{e9}.jpg,two\n").unwrap();
        let set = load_table(&table, folder.path()).unwrap();
        assert_eq!(set.image_bytes(&set.pairs[0]).unwrap(), b"jpeg");
        assert!(set.image_bytes(&set.pairs[1]).is_err(), "in another folder");
    }
}
