//! Captioned images: COCO in Karpathy's split and Flickr8k.
//!
//! Formats: Karpathy's `dataset_coco.json` and `dataset_flickr8k.json`, LAVIS's `coco_karpathy_train.json`
//! etc., COCO's `captions_val2014.json`, a map of image ids to captions, and for Flickr8k
//! `Flickr8k.token.txt` or Kaggle's `captions.txt` with three lists of images.

use super::own;
use super::splits::read_ids;
use super::{Annotations, ClipCollector, Split, Texts, repeated, source, split_of_file};
use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::path::Path;

const COCO: &str = "COCO captions";
const FLICKR: &str = "Flickr8k captions";

/// `serde` tries the shapes in this order: COCO's has a key that Karpathy's lacks.
#[derive(Deserialize)]
#[serde(untagged)]
enum Document {
    Official { images: Vec<OfficialImage>, annotations: Vec<OfficialCaption> },
    Karpathy { images: Vec<KarpathyImage> },
    Lavis(Vec<LavisRecord>),
    Map(HashMap<String, Vec<String>>),
}

#[derive(Deserialize)]
struct KarpathyImage {
    filename: String,
    #[serde(default)]
    filepath: String,
    cocoid: Option<u64>,
    split: String,
    sentences: Vec<KarpathySentence>,
}

#[derive(Deserialize)]
struct KarpathySentence {
    raw: String,
}

#[derive(Deserialize)]
struct OfficialImage {
    id: u64,
    file_name: Option<String>,
}

#[derive(Deserialize)]
struct OfficialCaption {
    image_id: u64,
    caption: String,
}

#[derive(Deserialize)]
struct LavisRecord {
    #[serde(alias = "file_name")]
    image: String,
    #[serde(alias = "captions")]
    caption: Texts,
    split: Option<String>,
}

/// Reads COCO captions. In Karpathy's file `restval` is part of training, as usual.
///
/// # Errors
/// A file that is missing or has an unknown shape; a file without splits whose name contains none; an image
/// that is listed twice or has no caption.
pub fn read_coco(paths: &[&Path]) -> Result<Annotations> {
    read(paths, COCO, "coco")
}

fn read(paths: &[&Path], what: &'static str, name: &str) -> Result<Annotations> {
    let images =
        ClipCollector::read_files(what, name, paths, |images, path| read_document(path, what, images))?;
    match images.clips.iter().find(|clip| clip.captions.is_empty()) {
        Some(clip) => {
            Err(Error::malformed(what, &images.source, format!("image {}", clip.id), "has no caption"))
        }
        None => Ok(images),
    }
}

fn read_document(path: &Path, what: &'static str, gathered: &mut ClipCollector) -> Result<()> {
    let of_file = || split_of_file(what, path);
    // Parsed in two steps: an untagged shape would lose line and column of a syntax error.
    let document: serde_json::Value = source::json(path, what)?;
    let document = Document::deserialize(document).map_err(|_| {
        let expected = "expected Karpathy's, LAVIS's or COCO's own shape, or a map of image ids to captions";
        Error::malformed(what, path, "the whole file", expected)
    })?;
    match document {
        Document::Karpathy { images } => {
            for image in images {
                let split =
                    if image.split == "restval" { Some(Split::Train) } else { Split::named(&image.split) };
                let split = split.ok_or_else(|| {
                    let reason = format!("expected split train, restval, val or test, got {:?}", image.split);
                    Error::malformed(what, path, format!("image {}", image.filename), reason)
                })?;
                let id = image.cocoid.map_or_else(|| stem(&image.filename), |id| id.to_string());
                let clip = gathered.new_clip(&id, split)?;
                if !image.filepath.is_empty() {
                    clip.names.push(format!("{}/{}", image.filepath, image.filename));
                }
                clip.names.push(image.filename);
                clip.captions.extend(image.sentences.into_iter().map(|sentence| sentence.raw));
            }
        }
        Document::Official { images, annotations } => {
            let split = of_file()?;
            for image in images {
                let clip = gathered.new_clip(&image.id.to_string(), split)?;
                clip.names = coco_names(image.id);
                clip.names.extend(image.file_name);
            }
            for (place, annotation) in annotations.into_iter().enumerate() {
                let id = annotation.image_id.to_string();
                let image = gathered.places.get(&id).ok_or_else(|| {
                    let reason = format!("names image {id}, which `images` does not list");
                    Error::malformed(what, path, format!("annotation {place}"), reason)
                })?;
                gathered.clips[*image].captions.push(annotation.caption);
            }
        }
        Document::Lavis(records) => {
            for record in records {
                let split = match record.split.as_deref() {
                    None => of_file()?,
                    Some(name) => Split::named(name).ok_or_else(|| {
                        let reason = format!("expected split train, val or test, got {name:?}");
                        Error::malformed(what, path, format!("image {}", record.image), reason)
                    })?,
                };
                // LAVIS's training file has one record a caption, so an image comes several times.
                let clip = gathered.clip(&coco_id(&record.image), split)?;
                if clip.names.is_empty() {
                    clip.names.push(record.image);
                }
                clip.captions.extend(Vec::from(record.caption));
            }
        }
        Document::Map(map) => {
            repeated::refuse(&source::bytes(path, what)?, path, what)?;
            let split = of_file()?;
            let mut ids: Vec<(String, Vec<String>)> = map.into_iter().collect();
            // A map has no order; sorting makes it deterministic.
            ids.sort_by_key(|(id, _)| (id.parse::<u64>().unwrap_or(u64::MAX), id.clone()));
            for (id, captions) in ids {
                let number = id.parse();
                let clip = gathered.new_clip(&id, split)?;
                clip.names = number.map(coco_names).unwrap_or_default();
                clip.captions = captions;
            }
        }
    }
    Ok(())
}

fn stem(name: &str) -> String {
    Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or(name).to_owned()
}

/// `val2014/COCO_val2014_000000391895.jpg` is image 391895; the id of any other file is its stem.
fn coco_id(file: &str) -> String {
    let stem = stem(file);
    let number = stem.strip_prefix("COCO_").and_then(|name| name.rsplit('_').next()).unwrap_or_default();
    number.parse::<u64>().map_or(stem.clone(), |number| number.to_string())
}

/// File names of a COCO image in the releases of 2014 and 2017.
fn coco_names(id: u64) -> Vec<String> {
    vec![format!("COCO_val2014_{id:012}"), format!("COCO_train2014_{id:012}"), format!("{id:012}")]
}

/// Reads Flickr8k: Karpathy's JSON, or a captions file with one list of images per split
/// (`Flickr_8k.trainImages.txt` etc.). Images that are in no list are skipped; 8,000 of 8,092 are listed.
///
/// # Errors
/// A file that is missing or breaks the format; captions without splits and lists; a listed image without
/// captions.
pub fn read_flickr8k(captions: &Path, lists: &[&Path]) -> Result<Annotations> {
    let is_json = source::is_json(&source::bytes(captions, FLICKR)?);
    if lists.is_empty() {
        if is_json {
            return read(&[captions], FLICKR, "flickr8k");
        }
        let reason =
            "has no splits; put Flickr_8k.trainImages.txt, .devImages.txt and .testImages.txt beside it";
        return Err(Error::malformed(FLICKR, captions, "the whole file", reason));
    }
    let mut splits: HashMap<String, Split> = HashMap::new();
    for path in lists {
        let split = split_of_file(FLICKR, path)?;
        for name in read_ids(path)? {
            if let Some(other) = splits.insert(name.clone(), split).filter(|other| *other != split) {
                let reason = format!("is in split {other} and in split {split}");
                return Err(Error::malformed(FLICKR, path, format!("image {name}"), reason));
            }
        }
    }
    let mut gathered = ClipCollector::new(FLICKR, captions);
    let mut seen = HashSet::new();
    for record in own::records(captions)? {
        // Flickr8k.token.txt numbers an image's captions: `1000268201_693b08cb0e.jpg#0`.
        let file = record.file.split('#').next().unwrap_or_default().to_owned();
        let Some(split) = splits.get(&file) else { continue };
        let clip = gathered.clip(&stem(&file), *split)?;
        if clip.names.is_empty() {
            clip.names.push(file.clone());
        }
        clip.captions.extend(record.captions);
        seen.insert(file);
    }
    let mut without: Vec<&String> = splits.keys().filter(|file| !seen.contains(*file)).collect();
    without.sort();
    if let Some(first) = without.first() {
        let reason = format!("{} listed images have no caption, the first is {first}", without.len());
        return Err(Error::malformed(FLICKR, captions, "the whole file", reason));
    }
    gathered.finish("flickr8k")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::testing::file;
    use proptest::prelude::*;

    #[test]
    fn every_shape_of_coco_reads_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let shapes = [
            r#"{"dataset": "coco", "images": [{"filepath": "val2014", "filename": "COCO_val2014_000000000042.jpg",
                "cocoid": 42, "split": "test", "sentids": [1], "sentences": [{"raw": "A dog.", "tokens": ["a", "dog"]}]}]}"#,
            r#"{"images": [{"id": 42, "file_name": "COCO_val2014_000000000042.jpg"}],
                "annotations": [{"id": 1, "image_id": 42, "caption": "A dog."}]}"#,
            r#"[{"image": "val2014/COCO_val2014_000000000042.jpg", "caption": ["A dog."]}]"#,
            r#"{"42": ["A dog."]}"#,
        ];
        for shape in shapes {
            let set = read_coco(&[&file(&folder, "coco_karpathy_test.json", shape)]).unwrap();
            assert_eq!((set.clips[0].id.as_str(), set.clips[0].split), ("42", Split::Test));
            assert_eq!(set.clips[0].captions, ["A dog."]);
            assert!(set.clips[0].names.iter().any(|name| name.contains("COCO_val2014_000000000042")));
        }
    }

    #[test]
    fn karpathys_restval_is_training() {
        let folder = tempfile::tempdir().unwrap();
        let image = |split: &str| {
            format!(
                r#"{{"images": [{{"filename": "a.jpg", "split": "{split}", "sentences": [{{"raw": "x"}}]}}]}}"#
            )
        };
        let read = |split| read_coco(&[&file(&folder, "dataset_coco.json", image(split))]);
        assert_eq!(read("restval").unwrap().clips[0].split, Split::Train);
        assert!(read("rest").unwrap_err().to_string().contains("got \"rest\""));
    }

    #[test]
    fn flickr8k_takes_its_splits_from_the_lists() {
        let folder = tempfile::tempdir().unwrap();
        let train = file(&folder, "Flickr_8k.trainImages.txt", "1.jpg\n");
        let test = file(&folder, "Flickr_8k.testImages.txt", "2.jpg\n");
        for captions in [
            "1.jpg#0\tA child .\n1.jpg#1\tA girl .\n2.jpg#0\tA dog .\n3.jpg#0\tA cat .\n",
            "image,caption\n1.jpg,A child .\n1.jpg,A girl .\n2.jpg,A dog .\n3.jpg,A cat .\n",
        ] {
            let captions = file(&folder, "Flickr8k.token.txt", captions);
            let set = read_flickr8k(&captions, &[&train, &test]).unwrap();
            assert_eq!(set.clips.len(), 2);
            assert_eq!(set.clips[0].captions, ["A child .", "A girl ."]);
            assert_eq!((set.clips[1].id.as_str(), set.clips[1].split), ("2", Split::Test));
            assert!(read_flickr8k(&captions, &[]).unwrap_err().to_string().contains("trainImages"));
            let dev = file(&folder, "Flickr_8k.devImages.txt", "9.jpg\n");
            assert!(
                read_flickr8k(&captions, &[&dev]).unwrap_err().to_string().contains("the first is 9.jpg")
            );
        }
    }

    #[test]
    fn unknown_shapes_and_empty_images_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let message = |text: &str| read_coco(&[&file(&folder, "val.json", text)]).unwrap_err().to_string();
        assert!(message("{").contains("line 1"));
        assert!(message("[1]").contains("expected Karpathy's"));
        assert!(message(r#"{"images": [{"id": 1}], "annotations": []}"#).contains("image 1: has no caption"));
        assert!(
            message(r#"{"images": [], "annotations": [{"image_id": 1, "caption": "x"}]}"#)
                .contains("names image 1")
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[\\[\\]{}\":,a-z0-9 \t\n#]{0,200}") {
            let folder = tempfile::tempdir().unwrap();
            let path = file(&folder, "train.json", &text);
            let _ = read_coco(&[&path]);
            let _ = read_flickr8k(&path, &[&path]);
        }
    }
}
