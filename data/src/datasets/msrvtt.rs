//! MSR-VTT's annotations as published: one JSON object with `videos` (id, split) and `sentences` (caption,
//! id).

use super::{Annotations, ClipCollector, Split, VideoSet, files, source};
use crate::error::{Error, Result};
use serde::Deserialize;
use std::borrow::Cow;
use std::path::Path;

const FORMAT: &str = "MSR-VTT annotations";

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    videos: Vec<Video<'a>>,
    #[serde(borrow)]
    sentences: Vec<Sentence<'a>>,
}

#[derive(Deserialize)]
struct Video<'a> {
    #[serde(borrow)]
    video_id: Cow<'a, str>,
    #[serde(borrow)]
    split: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Sentence<'a> {
    #[serde(borrow)]
    video_id: Cow<'a, str>,
    caption: String,
}

/// Reads one annotation file and finds each clip's file, `VIDEO_ID.EXTENSION`, in `videos`. Splits are not
/// compared with the published ones.
///
/// # Errors
/// As [`read`]; [`Error::MissingClips`] with every clip without a file.
pub fn load(annotations: &Path, videos: &Path) -> Result<VideoSet> {
    files::locate_all(read(&[annotations])?, videos)
}

/// Reads annotation files, zipped or not. Training and validation are published in one file, test in another.
///
/// # Errors
/// A file that is missing or breaks the format; an unknown split; a sentence of an unknown clip; a clip
/// without sentences or listed twice.
pub fn read(paths: &[&Path]) -> Result<Annotations> {
    ClipCollector::read_files(FORMAT, "msrvtt", paths, read_one)
}

fn read_one(gathered: &mut ClipCollector, path: &Path) -> Result<()> {
    let bytes = source::bytes(path, "annotation file")?;
    let document: Document<'_> = source::parse(&bytes, path, FORMAT)?;
    let first = gathered.clips.len();
    for video in &document.videos {
        let id = video.video_id.as_ref();
        let split = Split::named(&video.split).ok_or_else(|| {
            let reason = format!("expected split train, validate or test, got {:?}", video.split);
            Error::malformed(FORMAT, path, format!("video {id}"), reason)
        })?;
        gathered.new_clip(id, split)?;
    }
    for (place, sentence) in document.sentences.into_iter().enumerate() {
        let clip = gathered.places.get(sentence.video_id.as_ref()).ok_or_else(|| {
            let reason = format!("names clip {:?}, which `videos` does not list", sentence.video_id);
            Error::malformed(FORMAT, path, format!("sentence {place}"), reason)
        })?;
        gathered.clips[*clip].captions.push(sentence.caption);
    }
    match gathered.clips[first..].iter().find(|clip| clip.captions.is_empty()) {
        Some(clip) => Err(Error::malformed(FORMAT, path, format!("video {}", clip.id), "has no sentence")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::PathBuf;

    fn folder(files: &[&str], json: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(folder.path().join(file), b"x").unwrap();
        }
        let annotations = folder.path().join("videodatainfo.json");
        std::fs::write(&annotations, json).unwrap();
        (folder, annotations)
    }

    fn load_from(files: &[&str], json: &str) -> Result<VideoSet> {
        let (folder, annotations) = folder(files, json);
        load(&annotations, folder.path())
    }

    const TWO: &str = r#"{"info": {}, "videos": [
        {"category": 9, "url": "u", "video_id": "video0", "start time": 1.5, "end time": 3, "split": "train", "id": 0},
        {"category": 9, "url": "u", "video_id": "video1", "start time": 1.5, "end time": 3, "split": "test", "id": 1}],
        "sentences": [{"caption": "a car", "video_id": "video1", "sen_id": 0},
        {"caption": "two", "video_id": "video0", "sen_id": 1}, {"caption": "one", "video_id": "video0", "sen_id": 2}]}"#;

    #[test]
    fn clips_come_in_order_with_their_sentences() {
        let set = load_from(&["video0.mp4", "video1.avi", "video1.webm", "notes.txt"], TWO).unwrap();
        assert_eq!(set.clips.len(), 2);
        assert_eq!(set.clips[0].captions, ["two", "one"]);
        assert_eq!(set.clips[1].path.extension().unwrap(), "webm");
        assert_eq!(set.split(Split::Test)[0].id, "video1");
        assert!(set.split(Split::Validate).is_empty());
    }

    #[test]
    fn an_absent_clip_is_named() {
        let error = load_from(&["video0.mp4"], TWO).unwrap_err();
        assert!(matches!(&error, Error::MissingClips { ids, total: 2, .. } if *ids == ["video1"]));
        let message = error.to_string();
        assert!(
            message.contains("1 of 2")
                && message.contains("video1")
                && message.contains("ID with any extension"),
            "{message}"
        );
    }

    #[test]
    fn broken_annotations_say_where() {
        let both = ["video0.mp4", "video1.mp4"];
        let message = |json: &str| load_from(&both, json).unwrap_err().to_string();
        assert!(message("{").contains("line 1"));
        assert!(message(&TWO.replace("\"test\"", "\"tset\"")).contains("got \"tset\""));
        assert!(
            message(
                &TWO.replace("\"a car\", \"video_id\": \"video1\"", "\"a car\", \"video_id\": \"video7\"")
            )
            .contains("video7")
        );
        assert!(
            message(
                &TWO.replace("\"a car\", \"video_id\": \"video1\"", "\"a car\", \"video_id\": \"video0\"")
            )
            .contains("no sentence")
        );
        assert!(
            message(&TWO.replace("\"video_id\": \"video1\", \"start", "\"video_id\": \"video0\", \"start"))
                .contains("twice")
        );
        let nowhere = load(Path::new("no/such.json"), Path::new(".")).unwrap_err().to_string();
        assert!(nowhere.contains("no annotation file there"), "{nowhere}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.json");
            std::fs::write(&path, bytes).unwrap();
            let _ = load(&path, folder.path());
        }
    }
}
