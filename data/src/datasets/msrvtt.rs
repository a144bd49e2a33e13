//! MSR-VTT's annotations as published: one JSON object with `videos` (id and split) and `sentences` (caption and id).

use super::{Clip, Split, VideoSet};
use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// File extensions under which a clip is looked for.
pub const EXTENSIONS: [&str; 8] = ["mp4", "webm", "mkv", "avi", "mov", "m4v", "flv", "gif"];

const FORMAT: &str = "MSR-VTT annotations";

#[derive(Deserialize)]
struct Annotations {
    videos: Vec<Video>,
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Video {
    video_id: String,
    split: String,
}

#[derive(Deserialize)]
struct Sentence {
    video_id: String,
    caption: String,
}

/// Reads annotations and finds each clip's file, `VIDEO_ID.EXTENSION`, in `videos`.
///
/// # Errors
/// Annotations that are missing or break the format; a split of another name; a sentence about an unknown clip, a clip
/// without sentences or annotated twice; [`Error::MissingClips`] listing every clip without a file.
pub fn load(annotations: &Path, videos: &Path) -> Result<VideoSet> {
    let bytes = std::fs::read(annotations).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound {
            what: "annotation file",
            path: annotations.to_path_buf(),
            next: "give the path of videodatainfo.json".into(),
        },
        _ => Error::io("read the annotations", annotations)(error),
    })?;
    let parsed: Annotations = serde_json::from_slice(&bytes).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Error::malformed(FORMAT, annotations, place, error.to_string())
    })?;
    let files = files_by_stem(videos)?;
    let mut clips = Vec::with_capacity(parsed.videos.len());
    let mut index: HashMap<&str, usize> = HashMap::with_capacity(parsed.videos.len());
    let mut missing = Vec::new();
    for video in &parsed.videos {
        let id = video.video_id.as_str();
        let malformed = |reason: String| Error::malformed(FORMAT, annotations, format!("video {id}"), reason);
        if index.insert(id, clips.len()).is_some() {
            return Err(malformed("is listed twice".into()));
        }
        let split = split_named(&video.split).ok_or_else(|| {
            malformed(format!("expected split train, validate or test, got {:?}", video.split))
        })?;
        let path = files.get(id).cloned().unwrap_or_else(|| {
            missing.push(id.to_string());
            PathBuf::new()
        });
        clips.push(Clip { id: id.to_string(), path, captions: Vec::new(), split });
    }
    if !missing.is_empty() {
        return Err(Error::MissingClips {
            annotations: annotations.to_path_buf(),
            videos: videos.to_path_buf(),
            pattern: format!("ID.{{{}}}", EXTENSIONS.join(",")),
            total: clips.len(),
            ids: missing,
        });
    }
    for (place, sentence) in parsed.sentences.iter().enumerate() {
        let clip = index.get(sentence.video_id.as_str()).ok_or_else(|| {
            let reason = format!("names clip {:?}, which `videos` does not list", sentence.video_id);
            Error::malformed(FORMAT, annotations, format!("sentence {place}"), reason)
        })?;
        clips[*clip].captions.push(sentence.caption.clone());
    }
    if let Some(clip) = clips.iter().find(|clip| clip.captions.is_empty()) {
        let reason = "has no sentence".to_string();
        return Err(Error::malformed(FORMAT, annotations, format!("video {}", clip.id), reason));
    }
    Ok(VideoSet { name: "msrvtt".into(), clips })
}

fn split_named(name: &str) -> Option<Split> {
    match name {
        "train" => Some(Split::Train),
        "validate" | "val" => Some(Split::Validate),
        "test" => Some(Split::Test),
        _ => None,
    }
}

/// The video files of a directory by their name without extension; of several, the first extension of [`EXTENSIONS`].
pub(crate) fn files_by_stem(videos: &Path) -> Result<HashMap<String, PathBuf>> {
    let entries = std::fs::read_dir(videos).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound {
            what: "directory of videos",
            path: videos.to_path_buf(),
            next: "give the directory that holds the clips".into(),
        },
        _ => Error::io("list the videos", videos)(error),
    })?;
    let rank = |path: &Path| {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        EXTENSIONS.iter().position(|known| *known == extension)
    };
    let mut files: HashMap<String, PathBuf> = HashMap::new();
    for entry in entries {
        let path = entry.map_err(Error::io("list the videos", videos))?.path();
        let (Some(new), Some(stem)) = (rank(&path), path.file_stem().and_then(|stem| stem.to_str())) else {
            continue;
        };
        match files.get(stem).and_then(|path| rank(path)) {
            Some(old) if old <= new => {}
            _ => {
                files.insert(stem.to_string(), path);
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            message.contains("1 of 2") && message.contains("video1") && message.contains("ID.{mp4,webm"),
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
