//! Image-text pairs: webdataset tar shards with an image and a text file of the same stem for each pair, one
//! after the other, or a table (CSV, TSV, JSON or JSON lines) of image files and captions. Opening a set
//! reads captions and the images' locations; images stay on disk.

use super::own;
use crate::digest::sha256_of_files;
use crate::error::{Error, Result};
use serde::Deserialize;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const FORMAT: &str = "webdataset shard";
const IMAGES: [&str; 4] = ["jpg", "jpeg", "png", "gif"];

/// The file that img2dataset writes for each image; only the caption is read.
#[derive(Deserialize)]
struct Sidecar {
    #[serde(alias = "text")]
    caption: String,
}

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
    shards: Vec<PathBuf>,
    /// Every pair.
    pub pairs: Vec<Pair>,
}

/// The tar files of a directory whose names start with `prefix`, sorted by name.
///
/// # Errors
/// The directory cannot be listed, or holds no such file.
pub fn shards(directory: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let next = format!("give a directory with files {prefix}*.tar");
    let missing = Error::open("list the shards", directory, "directory of shards", next.clone());
    let entries = std::fs::read_dir(directory).map_err(missing)?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("list the shards", directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(prefix) && name.ends_with(".tar") {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(Error::NotFound { what: "shard", path: directory.to_path_buf(), next });
    }
    Ok(found)
}

/// Reads the captions and the images' locations of shards.
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

/// Reads a table of pairs: a captions file of any form of [`own`], with image paths relative to `images`. An
/// image with several captions gives several pairs. Missing images are detected when they are read.
///
/// # Errors
/// A table that is missing or breaks the format; an image outside `images`; a record without a caption.
pub fn load_table(table: &Path, images: &Path) -> Result<PairSet> {
    let fault = |place: &str, reason: String| Error::malformed("image-text table", table, place, reason);
    let mut pairs = Vec::new();
    for record in own::records(table)? {
        let file = Path::new(&record.file);
        if file.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            let reason = format!("expected an image below {}, got {}", images.display(), record.file);
            return Err(fault(&record.place, reason));
        }
        if record.captions.is_empty() {
            return Err(fault(&record.place, "has no caption".into()));
        }
        for caption in record.captions {
            let location = Location::File(images.join(file));
            pairs.push(Pair { id: record.file.clone(), caption, location });
        }
    }
    match pairs.is_empty() {
        true => Err(fault("the whole file", "has no pair".into())),
        false => Ok(PairSet { shards: Vec::new(), pairs }),
    }
}

/// A pair whose files are being read.
#[derive(Default)]
struct Partial {
    id: String,
    caption: Option<String>,
    /// The caption of a `.json` file, for pairs without a `.txt`.
    sidecar: Option<String>,
    image: Option<(u64, u64)>,
}

impl Partial {
    fn finish(self, shard: usize, path: &Path) -> Result<Pair> {
        let Self { id, caption, sidecar, image } = self;
        let lacks =
            |what: &str| Error::malformed(FORMAT, path, format!("pair {id}"), format!("has no {what}"));
        let caption = caption.or(sidecar);
        let caption = caption.ok_or_else(|| lacks(".txt file, and no .json file with a caption"))?;
        let (offset, length) = image.ok_or_else(|| lacks("image file (.jpg, .png or .gif)"))?;
        Ok(Pair { id, caption, location: Location::Shard { shard, offset, length } })
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
        let end = offset.saturating_add(length);
        if end > size {
            return Err(broken(format!("{name} ends at byte {end}, the file has {size}")));
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
        } else if extension == "json" {
            let mut text = Vec::new();
            entry.read_to_end(&mut text).map_err(|error| broken(format!("{name}: {error}")))?;
            // Other tools write other JSON files; only one with a caption is used.
            partial.sidecar =
                serde_json::from_slice::<Sidecar>(&text).ok().map(|own| own.caption.trim().to_string());
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
    /// The shard changed since it was opened, or cannot be read; the image file does not exist.
    pub fn image_bytes(&self, pair: &Pair) -> Result<Vec<u8>> {
        match &pair.location {
            Location::File(path) => {
                let next = "put it there or take it out of the table";
                std::fs::read(path).map_err(Error::open("read the image", path, "image", next))
            }
            Location::Shard { shard, offset, length } => {
                let path = self.shards.get(*shard).map_or(Path::new(""), PathBuf::as_path);
                let mut file = File::open(path).map_err(Error::io("open the shard", path))?;
                file.seek(SeekFrom::Start(*offset)).map_err(Error::io("read the shard", path))?;
                let mut bytes = vec![0; *length as usize];
                file.read_exact(&mut bytes).map_err(Error::io("read the shard", path))?;
                Ok(bytes)
            }
        }
    }

    /// A digest of each pair's image: of the image file, or of the shard with the image's offset.
    pub(crate) fn digests(&self, cache: &Path) -> Result<Vec<String>> {
        let files = self.pairs.iter().map(|pair| match &pair.location {
            Location::File(path) => (path.as_path(), 0),
            Location::Shard { shard, offset, .. } => (self.shards[*shard].as_path(), *offset),
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
                self.shards.get(*shard).map(|shard| shard.join(&pair.id)).unwrap_or_default()
            }
        }
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
    fn a_caption_may_come_from_a_json_file() {
        let file = shard(&[
            ("0.jpg", b"x"),
            ("0.json", br#"{"caption": " a cat ", "width": 5}"#),
            ("1.jpg", b"x"),
            ("1.json", br#"{"caption": "not this"}"#),
            ("1.txt", b"a dog"),
        ]);
        let set = load(&[file.path().to_path_buf()]).unwrap();
        let captions: Vec<&str> = set.pairs.iter().map(|pair| pair.caption.as_str()).collect();
        assert_eq!(captions, ["a cat", "a dog"]);
        let without = shard(&[("0.jpg", b"x"), ("0.json", b"{}")]);
        assert!(
            load(&[without.path().to_path_buf()]).unwrap_err().to_string().contains("no .json file with")
        );
    }

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
