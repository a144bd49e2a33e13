//! Webdataset shards: tar archives, plain or gzipped, with an image and a text file of the same stem for each
//! pair.

use super::shard_members::{Member, member};
use super::source::is_macs;
use crate::encoding::unmarked;
use crate::error::{Error, Result};
use crate::stand_in::stand_in;
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

const FORMAT: &str = "webdataset shard";

/// Maximum length of a caption's file; a longer one is no caption.
const MAX_CAPTION: u64 = 1 << 24;

/// The file that img2dataset writes for each image; only the caption is read.
#[derive(Deserialize)]
struct Sidecar {
    #[serde(alias = "text")]
    caption: String,
}

/// The shards of a directory whose names start with `prefix`, sorted by name. Of a shard and the same one
/// gzipped (`.tar.gz` or `.tgz`), the plain one is used.
///
/// # Errors
/// The directory cannot be listed, or holds no such file.
pub fn list(directory: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let next = format!("give a directory with files {prefix}*.tar, {prefix}*.tar.gz or {prefix}*.tgz");
    let missing = Error::open("list the shards", directory, "directory of shards", next.clone());
    let entries = std::fs::read_dir(directory).map_err(missing)?;
    let mut found: Vec<(String, bool, PathBuf)> = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("list the shards", directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let gzipped = name.strip_suffix(".tar.gz").or_else(|| name.strip_suffix(".tgz"));
        let stem = gzipped.or_else(|| name.strip_suffix(".tar"));
        if let Some(stem) = stem.filter(|_| name.starts_with(prefix) && !is_macs(name)) {
            found.push((stem.to_owned(), gzipped.is_some(), path));
        }
    }
    found.sort();
    found.dedup_by(|next, first| next.0 == first.0);
    if found.is_empty() {
        return Err(Error::NotFound { what: "shard", path: directory.to_path_buf(), next });
    }
    Ok(found.into_iter().map(|(_, _, path)| path).collect())
}

/// The archives of gzipped shards, one after the other in a temporary file without a name: the file goes with
/// the process, and any number of shards needs one descriptor.
#[derive(Debug, Default)]
pub(super) struct Unpacked(Option<Arc<Mutex<File>>>);

/// An opened shard.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    path: PathBuf,
    /// Of a gzipped shard, the file of its archive.
    unpacked: Option<Arc<Mutex<File>>>,
    /// The archive's start in its file.
    start: u64,
    /// Bytes of the archive.
    size: u64,
}

impl PartialEq for Shard {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for Shard {}

/// A pair of a shard: the image's place in the archive, and its caption.
pub(super) struct Found {
    pub(super) id: String,
    pub(super) caption: String,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// A pair whose files are being read.
#[derive(Default)]
struct Partial {
    id: String,
    caption: Option<String>,
    /// A `.json` file; its caption is used where there is no `.txt`.
    sidecar: Option<Option<String>>,
    image: Option<(u64, u64)>,
}

impl Shard {
    /// Opens a shard; a gzipped one is unpacked at the end of `unpacked`.
    pub(super) fn open(path: &Path, unpacked: &mut Unpacked) -> Result<Self> {
        let broken = |reason: &str| Error::malformed(FORMAT, path, "archive", reason);
        let mut file = File::open(path).map_err(Error::io("open the shard", path))?;
        let mut head = Vec::new();
        let start = file.by_ref().take(1024).read_to_end(&mut head);
        start.and_then(|_| file.rewind()).map_err(Error::io("read the shard", path))?;
        if let Some(reason) = stand_in(&head) {
            return Err(broken(reason));
        }
        let packed = match head.as_slice() {
            [] => return Err(broken("is empty (0 bytes)")),
            [0x1f, 0x8b, ..] => return Self::unpack(path, file, unpacked),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some("xz"),
            [b'B', b'Z', b'h', ..] => Some("bzip2"),
            [b'P', b'K', 3, 4, ..] => Some("zip"),
            _ => None,
        };
        if let Some(packed) = packed {
            return Err(broken(&format!("is packed with {packed}; unpack it to a tar file or gzip it")));
        }
        let size = file.metadata().map_err(Error::io("read the shard", path))?.len();
        Ok(Self { path: path.to_path_buf(), unpacked: None, start: 0, size })
    }

    fn unpack(path: &Path, packed: File, unpacked: &mut Unpacked) -> Result<Self> {
        let no_space = "write the unpacked shard of";
        let shared = match &unpacked.0 {
            Some(file) => file.clone(),
            None => {
                let file = Arc::new(Mutex::new(tempfile::tempfile().map_err(Error::io(no_space, path))?));
                unpacked.0.insert(file).clone()
            }
        };
        let mut file = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let start = file.seek(SeekFrom::End(0)).map_err(Error::io(no_space, path))?;
        let mut stream = flate2::read::MultiGzDecoder::new(BufReader::new(packed));
        let size = std::io::copy(&mut stream, &mut *file).map_err(|error| match error.kind() {
            std::io::ErrorKind::StorageFull => Error::io(no_space, path)(error),
            _ => Error::malformed(FORMAT, path, "archive", format!("cannot be unpacked: {error}")),
        })?;
        drop(file);
        Ok(Self { path: path.to_path_buf(), unpacked: Some(shared), start, size })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Calls a function with the archive's file, which is at an offset of the archive.
    fn at<T>(&self, offset: u64, read: impl FnOnce(&mut File) -> std::io::Result<T>) -> Result<T> {
        let go = |file: &mut File| file.seek(SeekFrom::Start(self.start + offset)).and_then(|_| read(file));
        let done = match &self.unpacked {
            Some(shared) => go(&mut shared.lock().unwrap_or_else(PoisonError::into_inner)),
            None => go(&mut File::open(&self.path).map_err(Error::io("open the shard", &self.path))?),
        };
        done.map_err(Error::io("read the shard", &self.path))
    }

    /// Bytes of the archive.
    pub(super) fn bytes(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        self.at(offset, |file| file.read_exact(&mut bytes))?;
        Ok(bytes)
    }

    /// The pairs, in the order of their first members. A member belongs to the last pair of its stem that
    /// lacks one of its kind: programs on macOS do not pack a pair's files one after the other.
    pub(super) fn pairs(&self) -> Result<Vec<Found>> {
        self.at(0, |file| Ok(self.pairs_of(file)))?
    }

    fn pairs_of(&self, file: &File) -> Result<Vec<Found>> {
        let path = &self.path;
        let broken = |reason: String| Error::malformed(FORMAT, path, "archive", reason);
        let no_tar = |error: std::io::Error| broken(format!("is no tar archive, or damaged: {error}"));
        let mut archive = tar::Archive::new(BufReader::with_capacity(1 << 16, file.take(self.size)));
        let mut partials: Vec<Partial> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut others = Vec::new();
        for entry in archive.entries().map_err(no_tar)? {
            let mut entry = entry.map_err(no_tar)?;
            let kind = entry.header().entry_type();
            if !(kind.is_file() || kind.is_contiguous()) {
                continue;
            }
            let name = entry.path().map_err(no_tar)?.to_string_lossy().into_owned();
            let Some((stem, member)) = member(&name) else {
                others.push(name);
                continue;
            };
            let (offset, length) = (entry.raw_file_position(), entry.size());
            let end = offset.saturating_add(length);
            if end > self.size {
                let size = self.size;
                return Err(broken(format!(
                    "is cut short: {name} ends at byte {end}, the archive has {size}"
                )));
            }
            let place = places.get(stem).copied().filter(|place| !partials[*place].has(&member));
            let place = place.unwrap_or_else(|| {
                partials.push(Partial { id: stem.to_owned(), ..Partial::default() });
                places.insert(stem.to_owned(), partials.len() - 1);
                partials.len() - 1
            });
            let partial = &mut partials[place];
            let mut text = Vec::new();
            if !matches!(member, Member::Image) {
                let read = entry.by_ref().take(MAX_CAPTION).read_to_end(&mut text);
                read.map_err(|error| broken(format!("{name}: {error}")))?;
                text = unmarked(text).map_err(|reason| broken(format!("{name}: {reason}")))?;
            }
            match member {
                Member::Image => partial.image = Some((offset, length)),
                Member::Caption => {
                    let caption = std::str::from_utf8(&text);
                    let caption = caption.map_err(|error| broken(format!("{name} is no text: {error}")))?;
                    partial.caption = Some(caption.trim().to_string());
                }
                // Other tools write other JSON files; only one with a caption is used.
                Member::Sidecar => {
                    let sidecar = serde_json::from_slice::<Sidecar>(&text).ok();
                    partial.sidecar = Some(sidecar.map(|own| own.caption.trim().to_string()));
                }
            }
        }
        self.whole(&partials, &others)
    }

    fn whole(&self, partials: &[Partial], others: &[String]) -> Result<Vec<Found>> {
        let members = || {
            let stems = partials.iter().map(|partial| &partial.id);
            others.iter().chain(stems).take(5).cloned().collect::<Vec<_>>().join(", ")
        };
        // A JSON file without image and caption describes the shard.
        let is_pair = |partial: &&Partial| partial.image.is_some() || partial.text().is_some();
        if partials.iter().all(|partial| !is_pair(&partial)) && !(partials.is_empty() && others.is_empty()) {
            let reason = format!("has no pair such as 0.jpg and 0.txt; it holds {}", members());
            return Err(Error::malformed(FORMAT, &self.path, "archive", reason));
        }
        partials.iter().filter(is_pair).map(|partial| partial.finish(&self.path)).collect()
    }
}

impl Partial {
    fn has(&self, member: &Member) -> bool {
        match member {
            Member::Image => self.image.is_some(),
            Member::Caption => self.caption.is_some(),
            Member::Sidecar => self.sidecar.is_some(),
        }
    }

    fn text(&self) -> Option<&String> {
        self.caption.as_ref().or(self.sidecar.as_ref().and_then(Option::as_ref))
    }

    fn finish(&self, path: &Path) -> Result<Found> {
        let place = format!("pair {}", self.id);
        let lacks = |what: &str| Error::malformed(FORMAT, path, place.clone(), format!("has no {what}"));
        let caption = self.text().ok_or_else(|| lacks(".txt file, and no .json file with a caption"))?;
        let image = self.image.ok_or_else(|| lacks("image file (.jpg, .png, .gif, .webp or .bmp)"));
        let (id, caption, (offset, length)) = (self.id.clone(), caption.clone(), image?);
        Ok(Found { id, caption, offset, length })
    }
}

#[cfg(test)]
mod tests {
    use super::super::pairs::{PairSet, load};
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    type Entries<'a> = &'a [(&'a str, &'a [u8])];

    fn tar_of(entries: Entries<'_>) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, data) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append_data(&mut header, name, *data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    }

    /// The pairs of a shard, with its file, which goes when this is dropped.
    fn read(bytes: &[u8]) -> Result<(PairSet, tempfile::NamedTempFile)> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        Ok((load(&[file.path().to_path_buf()])?, file))
    }

    fn message(bytes: &[u8]) -> String {
        read(bytes).unwrap_err().to_string()
    }

    fn seen(set: &PairSet) -> Vec<(String, String, Vec<u8>)> {
        let image = |pair| set.image_bytes(pair).unwrap();
        set.pairs.iter().map(|pair| (pair.id.clone(), pair.caption.clone(), image(pair))).collect()
    }

    const PAIRS: Entries<'static> =
        &[("0.jpg", b"x"), ("0.txt", b"a cat"), ("1.jpg", b"y"), ("1.txt", b"a dog")];

    #[test]
    fn pairs_are_grouped_by_stem() {
        let set = read(&tar_of(&[
            ("a/0.jpg", b"jpeg"),
            ("a/0.json", b"{}"),
            ("a/0.txt", b"a cat\n"),
            ("a/1.txt", b"\xef\xbb\xbfa dog"),
            ("a/1.PNG", b"png!!"),
        ]));
        let (set, _file) = set.unwrap();
        let pair =
            |id: &str, caption: &str, image: &[u8]| (id.to_owned(), caption.to_owned(), image.to_vec());
        assert_eq!(seen(&set), [pair("a/0", "a cat", b"jpeg"), pair("a/1", "a dog", b"png!!")]);
    }

    #[test]
    fn members_of_no_pair_are_passed_over() {
        let (plain, _file) = read(&tar_of(PAIRS)).unwrap();
        let with = |others: Entries<'_>, all: bool| {
            let mut entries = Vec::new();
            for (index, pair) in PAIRS.iter().enumerate() {
                entries.extend(others.iter().filter(|_| all || index == 0));
                entries.push(*pair);
            }
            let (set, _file) = read(&tar_of(&entries)).unwrap_or_else(|error| panic!("{error}: {others:?}"));
            seen(&set)
        };
        let binary = b"\0\x05\x16\x07\0\x02".as_slice();
        for others in [
            &[("._0.jpg", binary), ("._0.txt", binary)] as Entries<'_>,
            &[("d/._0.jpg", binary), (".DS_Store", binary), ("d/.DS_Store", binary)],
            &[("__MACOSX/0.jpg", binary), ("__MACOSX/._0.txt", binary)],
            &[("PaxHeader/0.jpg", binary), ("PaxHeaders.12/0.txt", binary), ("./PaxHeaders/0.txt", b"x")],
            &[("README", b"x"), ("LICENSE.md", b"x"), ("readme.txt", b"x"), ("d/README-images.txt", b"x")],
            &[("__worker__.txt", b"x"), ("0.cls", b"7"), ("0.npy", binary), ("Makefile", b"x")],
            &[("info.json", b"{\"shards\": 7}"), ("dataset_info.json", b"[]")],
        ] {
            for all in [false, true] {
                assert_eq!(with(others, all), seen(&plain), "{others:?}");
            }
        }
    }

    #[test]
    fn gzipped_shards_are_read() {
        let (plain, _file) = read(&tar_of(PAIRS)).unwrap();
        assert_eq!(seen(&read(&gzipped(&tar_of(PAIRS))).unwrap().0), seen(&plain));
        let folder = tempfile::tempdir().unwrap();
        let other: Entries<'_> = &[("2.jpg", b"z"), ("2.txt", b"a bird")];
        let paths = ["a", "b.tar", "c.tgz"].map(|name| folder.path().join(name));
        for (path, bytes) in
            paths.iter().zip([gzipped(&tar_of(other)), tar_of(PAIRS), gzipped(&tar_of(PAIRS))])
        {
            std::fs::write(path, bytes).unwrap();
        }
        let set = load(&paths).unwrap();
        let (first, _other) = read(&tar_of(other)).unwrap();
        let expected = [seen(&first), seen(&plain), seen(&plain)].concat();
        assert_eq!(seen(&set), expected);
        let cut = gzipped(&tar_of(PAIRS));
        assert!(message(&cut[..cut.len() - 9]).contains("cannot be unpacked"));
    }

    #[test]
    fn other_files_are_named_without_binary_bytes() {
        for (bytes, expected) in [
            (b"\x28\xb5\x2f\xfd\0\0\0\0".to_vec(), "packed with zstd"),
            (b"\xfd7zXZ\0\0\0".to_vec(), "packed with xz"),
            (b"BZh91AY".to_vec(), "packed with bzip2"),
            (b"PK\x03\x04\0\0".to_vec(), "packed with zip"),
            (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "Git LFS pointer"),
            (b"<html><body>".to_vec(), "HTML page"),
            ((0..=255).cycle().take(2048).collect(), "no tar archive"),
            (tar_of(&[("0.jpg", b"x"), ("0.txt", b"\xff\xd8\xff\0")]), "0.txt is no text"),
            (tar_of(&[("0.txt", b"x"), ("0.jpg", &[7; 5000])])[..4000].to_vec(), "is cut short"),
            (Vec::new(), "is empty"),
        ] {
            let message = message(&bytes);
            assert!(message.contains(expected), "{message}");
            assert!(!message.contains(|c: char| c.is_control() || c == '\u{fffd}'), "{message:?}");
        }
    }

    #[test]
    fn members_of_a_pair_may_lie_apart() {
        let (jpg, txt) = (b"x".as_slice(), b"a".as_slice());
        let (set, _) =
            read(&tar_of(&[("1.txt", txt), ("0.jpg", jpg), ("1.jpg", jpg), ("0.txt", txt)])).unwrap();
        assert_eq!(set.pairs.iter().map(|pair| &*pair.id).collect::<Vec<_>>(), ["1", "0"]);
        // Shards that were put together repeat the names.
        let twice = [PAIRS, PAIRS].concat();
        assert_eq!(read(&tar_of(&twice)).unwrap().0.pairs.len(), 4);
    }

    #[test]
    fn halves_of_pairs_are_errors() {
        let message = |entries: Entries<'_>| message(&tar_of(entries));
        assert!(
            message(&[("0.jpg", b"x"), ("1.jpg", b"x"), ("1.txt", b"x")]).contains("pair 0: has no .txt")
        );
        assert!(message(&[("0.txt", b"x")]).contains("no image"));
        let none = message(&[("README.md", b"x"), ("0.mp4", b"x"), ("0.json", b"{}")]);
        assert!(none.contains("has no pair") && none.contains("README.md, 0.mp4, 0"), "{none}");
        assert!(read(&tar_of(&[])).unwrap().0.pairs.is_empty());
    }

    #[test]
    fn a_caption_may_come_from_a_json_file() {
        let set = read(&tar_of(&[
            ("0.jpg", b"x"),
            ("0.json", "\u{feff}{\"caption\": \" a cat \", \"width\": 5}".as_bytes()),
            ("1.jpg", b"x"),
            ("1.json", br#"{"caption": "not this"}"#),
            ("1.txt", b"a dog"),
        ]));
        let (set, _) = set.unwrap();
        let captions: Vec<&str> = set.pairs.iter().map(|pair| pair.caption.as_str()).collect();
        assert_eq!(captions, ["a cat", "a dog"]);
        assert!(message(&tar_of(&[("0.jpg", b"x"), ("0.json", b"{}")])).contains("no .json file with"));
    }

    #[test]
    fn shards_are_listed_once() {
        let folder = tempfile::tempdir().unwrap();
        assert!(list(folder.path(), "train").unwrap_err().to_string().contains("train*.tar"));
        assert!(list(Path::new("no/such"), "train").is_err());
        for name in ["t1.tar", "t1.tar.gz", "t0.tgz", "t2.tar.gz", "._t3.tar", "t4.txt", "v.tar"] {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        let found = list(folder.path(), "t").unwrap();
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["t0.tgz", "t1.tar", "t2.tar.gz"]);
    }

    proptest! {
        #[test]
        fn mutated_shards_are_read_without_a_panic(at in any::<prop::sample::Index>(), byte: u8) {
            for mut bytes in [tar_of(PAIRS), gzipped(&tar_of(PAIRS))] {
                let at = at.index(bytes.len());
                bytes[at] = byte;
                let _ = read(&bytes);
            }
        }
    }
}
