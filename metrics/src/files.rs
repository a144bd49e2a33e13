//! Reading files of predictions and references.
//!
//! Predictions: COCO results (`[{"image_id": .., "caption": ".."}]`), the same a line each, or an object of
//! id to caption. References: COCO annotations, MSR-VTT's `videodatainfo` (plain, gzipped or in its zip),
//! MSVD's sentence lists (`id<TAB>caption`) and its CSV, VATEX's JSON (a list or a line each), or an object
//! of id to captions. The content decides the format, not the name.
//!
//! Nothing is dropped silently: an unreadable entry is an error that names the file, the entry and the
//! expected format.

mod parse;

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;

use crate::corpus::{Corpus, Video};
use crate::{Error, files::parse::Parser};

/// Captions to be scored, by id, in the order of the file.
pub type Predictions = Vec<(String, String)>;

/// References by id, in the order in which the file first names each id.
pub type References = Vec<(String, Vec<String>)>;

/// Maximum number of ids listed in a message.
const LISTED: usize = 20;

/// Predictions with their references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The common videos, in the order of the references, so that the order of the predictions has no effect.
    pub corpus: Corpus,
    /// Videos with references and no prediction. Empty unless `partial` is set.
    pub without_prediction: Vec<String>,
    /// Predictions without references. Empty unless `partial` is set.
    pub without_references: Vec<String>,
    /// Whether predictions were renamed from MSVD's numbering from 0 (`video0`) to that from 1 (`vid1`).
    pub renumbered: bool,
}

/// Reads predictions.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`], and [`Error::DuplicatePrediction`] when an id has two captions.
pub fn read_predictions(path: &Path) -> Result<Predictions, Error> {
    let text = read(path, MAX_BYTES)?;
    let predictions = Parser { path }.predictions(&text)?;
    let mut seen = HashSet::new();
    if let Some((id, _)) = predictions.iter().find(|(id, _)| !seen.insert(id.as_str())) {
        return Err(Error::DuplicatePrediction { path: path.to_owned(), id: id.clone() });
    }
    if predictions.is_empty() {
        return Err(Error::malformed(path, "the file", "at least one caption", "none"));
    }
    Ok(predictions)
}

/// Reads references. `split` keeps the videos of one split, where the file says which is which (MSR-VTT's
/// does).
///
/// # Errors
/// [`Error::Io`] and [`Error::Malformed`].
pub fn read_references(path: &Path, split: Option<&str>) -> Result<References, Error> {
    let text = read(path, MAX_BYTES)?;
    let pairs = Parser { path }.references(&text, split)?;
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut references: References = Vec::new();
    for (id, caption) in pairs {
        let place = *places.entry(id.clone()).or_insert_with(|| {
            references.push((id, Vec::new()));
            references.len() - 1
        });
        references[place].1.push(caption);
    }
    if references.is_empty() {
        let expected = match split {
            Some(split) => format!("videos of split {split:?}"),
            None => "at least one reference".to_owned(),
        };
        return Err(Error::malformed(path, "the file", &expected, "none"));
    }
    Ok(references)
}

/// Matches predictions with references.
///
/// # Errors
/// [`Error::IdsDiffer`] with the ids that one side lacks, unless `partial`; [`Error::NothingInCommon`]
/// without a common id.
pub fn join(predictions: Predictions, references: References, partial: bool) -> Result<Joined, Error> {
    let (predictions, renumbered) = renumber_msvd(predictions, &references);
    let example =
        (predictions.first().map(|(id, _)| id.clone()), references.first().map(|(id, _)| id.clone()));
    let order: Vec<String> = predictions.iter().map(|(id, _)| id.clone()).collect();
    let mut captions: HashMap<String, String> = HashMap::with_capacity(predictions.len());
    for (id, caption) in predictions {
        if captions.insert(id.clone(), caption).is_some() {
            return Err(Error::DuplicateVideo { id });
        }
    }
    let mut videos = Vec::new();
    let mut without_prediction = Vec::new();
    for (id, references) in references {
        match captions.remove(&id) {
            Some(hypothesis) => videos.push(Video { id, hypothesis, references }),
            None => without_prediction.push(id),
        }
    }
    let without_references: Vec<String> = order.into_iter().filter(|id| captions.contains_key(id)).collect();
    if videos.is_empty() {
        let name = |id: Option<String>| id.map_or_else(|| "none at all".to_owned(), |id| format!("{id:?}"));
        return Err(Error::NothingInCommon { prediction: name(example.0), reference: name(example.1) });
    }
    if !partial && (!without_prediction.is_empty() || !without_references.is_empty()) {
        return Err(Error::IdsDiffer {
            without_prediction: list(&without_prediction),
            without_references: list(&without_references),
            common: videos.len(),
        });
    }
    Ok(Joined { corpus: Corpus::new(videos)?, without_prediction, without_references, renumbered })
}

/// MSVD's sentence lists number its clips from 1, as `vid1`; another common list numbers them from 0, as
/// `video0`, in the same order. The predictions are renamed only if every id of both sides has this form.
fn renumber_msvd(predictions: Predictions, references: &References) -> (Predictions, bool) {
    let number = |id: &str, start: &str| id.strip_prefix(start)?.parse::<u32>().ok();
    let is_msvd = references.iter().all(|(id, _)| number(id, "vid").is_some());
    let renamed: Option<Predictions> = predictions
        .iter()
        .map(|(id, caption)| Some((format!("vid{}", number(id, "video")?.checked_add(1)?), caption.clone())))
        .collect();
    match renamed {
        Some(renamed) if is_msvd => (renamed, true),
        _ => (predictions, false),
    }
}

fn list(ids: &[String]) -> String {
    let shown = ids.iter().take(LISTED).cloned().collect::<Vec<_>>().join(" ");
    match ids.len() {
        0 => "none".to_owned(),
        count if count > LISTED => format!("{count}: {shown} and {} more", count - LISTED),
        count => format!("{count}: {shown}"),
    }
}

/// Maximum size of an unpacked file of captions, against zip bombs.
const MAX_BYTES: u64 = 512 << 20;

fn read_within(path: &Path, reader: impl Read, max: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    reader.take(max + 1).read_to_end(&mut bytes).map_err(|error| Error::io(path, error))?;
    if bytes.len() as u64 > max {
        let expected = format!("at most {max} bytes unpacked");
        return Err(Error::malformed(path, "the file", &expected, "more"));
    }
    Ok(bytes)
}

/// The text of a file, unpacked when it is gzipped or the one JSON file of a zip.
fn read(path: &Path, max: u64) -> Result<String, Error> {
    let file = std::fs::File::open(path).map_err(|error| Error::io(path, error))?;
    let bytes = read_within(path, file, max)?;
    let bytes = match bytes.get(..2) {
        Some([0x1f, 0x8b]) => read_within(path, flate2::read::MultiGzDecoder::new(&bytes[..]), max)?,
        Some(b"PK") => unzip(path, bytes, max)?,
        _ => bytes,
    };
    if let Some(got) = other_file(&bytes) {
        return Err(Error::malformed(path, "the file", "captions in UTF-8", got));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let place = format!("byte {}", error.utf8_error().valid_up_to());
        Error::malformed(path, &place, "UTF-8", "something else")
    })?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

/// What is there instead of captions, where that is easily told, and what to do.
fn other_file(bytes: &[u8]) -> Option<&'static str> {
    let start = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let is_tag =
        |tag: &str| start.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag.as_bytes()));
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16; save it as UTF-8"),
        _ if start.starts_with(b"version https://git-lfs.github.com/") => {
            Some("a Git LFS pointer; fetch the real file with `git lfs pull`")
        }
        _ if is_tag("<!doctype html") || is_tag("<html") => {
            Some("a page of a web server; the download failed or needs a login, fetch it again")
        }
        _ => None,
    }
}

fn unzip(path: &Path, bytes: Vec<u8>, max: u64) -> Result<Vec<u8>, Error> {
    let bad = |error: zip::result::ZipError| {
        Error::malformed(path, "the zip", "a readable one", &error.to_string())
    };
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).map_err(bad)?;
    let mut names = Vec::new();
    for name in archive.file_names() {
        let name = name.map_err(bad)?;
        // macOS adds a file for each file
        if name.ends_with(".json") && !name.starts_with("__MACOSX/") {
            names.push(name.into_owned());
        }
    }
    let [name] = &names[..] else {
        let got = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(Error::malformed(path, "the zip", "one file that ends in .json", &got));
    };
    read_within(path, archive.by_name(name).map_err(bad)?, max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predictions(ids: &[&str]) -> Predictions {
        ids.iter().map(|id| (id.to_string(), "a dog".to_owned())).collect()
    }

    fn references(ids: &[&str]) -> References {
        ids.iter().map(|id| (id.to_string(), vec!["a cat".to_owned()])).collect()
    }

    #[test]
    fn marks_pointers_and_web_pages_are_no_riddles() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |bytes: &[u8]| {
            std::fs::write(file.path(), bytes).unwrap();
            read_predictions(file.path())
        };
        let marked = "\u{feff}{\"a\": \"a dog\"}";
        assert_eq!(read(marked.as_bytes()).unwrap(), [("a".to_owned(), "a dog".to_owned())]);
        for (bytes, expected) in [
            (b"\xff\xfe{\0".as_slice(), "UTF-16"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
            (b" <!DOCTYPE html>", "web server"),
        ] {
            let message = read(bytes).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn ids_missing_on_either_side_are_listed() {
        let error = join(predictions(&["a", "b", "x"]), references(&["b", "a", "c"]), false).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("1: c") && message.contains("1: x") && message.contains("--partial"),
            "{message}"
        );
    }

    #[test]
    fn partial_keeps_what_both_have_in_the_order_of_the_references() {
        let joined = join(predictions(&["a", "b", "x"]), references(&["b", "a", "c"]), true).unwrap();
        let ids: Vec<_> = joined.corpus.videos().iter().map(|video| video.id.as_str()).collect();
        assert_eq!(ids, ["b", "a"]);
        assert_eq!(joined.without_prediction, ["c"]);
        assert_eq!(joined.without_references, ["x"]);
    }

    #[test]
    fn other_names_for_the_same_videos_are_shown() {
        let error = join(predictions(&["clip1300"]), references(&["vid1301"]), true).unwrap_err();
        assert!(error.to_string().contains("\"clip1300\""), "{error}");
        assert!(error.to_string().contains("\"vid1301\""), "{error}");
    }

    #[test]
    fn msvds_two_numberings_are_brought_together_and_no_others() {
        let joined = join(predictions(&["video0", "video9"]), references(&["vid1", "vid10"]), false).unwrap();
        assert!(joined.renumbered);
        assert_eq!(joined.corpus.videos()[1].id, "vid10");
        let joined = join(predictions(&["video1"]), references(&["video1"]), false).unwrap();
        assert!(!joined.renumbered, "MSR-VTT's own names");
        assert!(join(predictions(&["video1"]), references(&["vid2", "other"]), true).is_err());
    }

    #[test]
    fn packed_files_are_read_and_bombs_are_refused() {
        use std::io::Write;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("references.zip");
        let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        let options = zip::write::SimpleFileOptions::default();
        for (name, text) in [("__MACOSX/._a.json", "\0\0"), ("a.json", "{\"v\": [\"a dog\"]}")] {
            zip.start_file(name, options).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
        assert_eq!(read_references(&path, None).unwrap(), [("v".to_owned(), vec!["a dog".to_owned()])]);

        let path = directory.path().join("bomb.json.gz");
        let mut packer =
            flate2::write::GzEncoder::new(std::fs::File::create(&path).unwrap(), flate2::Compression::fast());
        packer.write_all(&[b' '; 100_000]).unwrap();
        packer.finish().unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < 1000);
        let message = read(&path, 1000).unwrap_err().to_string();
        assert!(message.contains("bomb.json.gz") && message.contains("at most 1000 bytes"), "{message}");
    }

    #[test]
    fn two_predictions_of_one_id_are_refused_and_it_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.json");
        std::fs::write(&path, r#"[{"image_id": 1, "caption": "a"}, {"image_id": "1", "caption": "b"}]"#)
            .unwrap();
        let error = read_predictions(&path).unwrap_err();
        assert!(matches!(&error, Error::DuplicatePrediction { id, .. } if id == "1"), "{error}");
    }
}
