//! VATEX's annotations: the published JSON (`vatex_training_v1.0.json` etc.: `videoID` and ten `enCap`) and
//! the JSON lines (`vatex_en_c_val_release.jsonl`: `vid_name` and `descs`). The file's name contains the
//! split.

use super::{Annotations, ClipCollector, Split, source, split_of_file};
use crate::error::{Error, Result};
use crate::format::thousands;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;

const FORMAT: &str = "VATEX annotations";
const MAPPING: &str = "VATEX name mapping";

#[derive(Deserialize)]
#[serde(untagged)]
enum Record {
    Published {
        #[serde(rename = "videoID")]
        id: String,
        #[serde(rename = "enCap", default)]
        captions: Vec<String>,
    },
    Lines {
        vid_name: String,
        clip_id: Option<u64>,
        #[serde(default)]
        descs: Vec<Description>,
    },
}

#[derive(Deserialize)]
struct Description {
    desc: String,
}

/// The published list of the private test set: names alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Name(String),
    Record(Record),
}

/// A clip of one file.
struct Read {
    id: String,
    number: Option<u64>,
    captions: Vec<String>,
}

/// Reads annotation files, one per split. With `mapping` (`vatex_mapping.txt`), clips may have files such as
/// `video25991.mp4`, and each clip must be in the split of its number.
///
/// The private test set is published without captions: its clips can be captioned, not scored. It is the
/// test split where no other file is; beside the public test set it is passed over, which a note says.
///
/// # Errors
/// A file that is missing, breaks the format or has no split in its name; a clip that is listed twice, has no
/// caption, or is in another split than in the mapping.
pub fn read(paths: &[&Path], mapping: Option<&Path>) -> Result<Annotations> {
    let numbers = mapping.map(read_mapping).transpose()?;
    let mut files = Vec::new();
    for path in paths {
        let split = split_of_file(FORMAT, path)?;
        let clips: Vec<Read> = source::json_records(path, FORMAT)?.into_iter().map(Read::of).collect();
        let is_private =
            split == Split::Test && !clips.is_empty() && clips.iter().all(|clip| clip.captions.is_empty());
        files.push((*path, split, clips, is_private));
    }
    let has_public = files.iter().any(|(_, split, _, is_private)| *split == Split::Test && !is_private);
    let mut notes = Vec::new();
    files.retain(|(path, _, clips, is_private)| {
        let passed_over = *is_private && has_public;
        if passed_over {
            notes.push(format!(
                "the {} clips of the private test set have no captions and are not used beside the public test \
                 set; give the file itself as annotations to caption them: {}",
                thousands(clips.len()),
                path.display()
            ));
        }
        !passed_over
    });
    let mut collected = ClipCollector::new(FORMAT, Path::new(""));
    for (path, split, clips, is_private) in files {
        collected.source = path.to_path_buf();
        let numbers = numbers.as_ref().filter(|_| !is_private);
        for read in clips {
            let fault = |reason: String| Error::malformed(FORMAT, path, format!("clip {}", read.id), reason);
            let clip = collected.new_clip(&read.id, split)?;
            if read.captions.is_empty() && !is_private {
                return Err(fault("has no English caption, and other clips of the file have".into()));
            }
            clip.captions = read.captions;
            clip.names.extend(read.number.map(|number| format!("video{number}")));
            let Some(numbers) = numbers else { continue };
            let number = numbers.get(&read.id).ok_or_else(|| fault("is not in the name mapping".into()))?;
            let expected = match number {
                0..25_991 => Split::Train,
                25_991..28_991 => Split::Validate,
                _ => Split::Test,
            };
            if expected != split {
                return Err(fault(format!("is video{number}, which is in split {expected}, not in {split}")));
            }
            clip.names = vec![format!("video{number}")];
        }
    }
    Ok(Annotations { notes, ..collected.finish("vatex")? })
}

impl Read {
    fn of(entry: Entry) -> Self {
        match entry {
            Entry::Name(id) => Self { id, number: None, captions: Vec::new() },
            Entry::Record(Record::Published { id, captions }) => Self { id, number: None, captions },
            Entry::Record(Record::Lines { vid_name, clip_id, descs }) => Self {
                id: vid_name,
                number: clip_id,
                captions: descs.into_iter().map(|description| description.desc).collect(),
            },
        }
    }
}

fn read_mapping(path: &Path) -> Result<HashMap<String, u64>> {
    let mut numbers = HashMap::new();
    for (line, text) in source::lines(path, MAPPING)? {
        let number = text
            .split_once(' ')
            .and_then(|(name, number)| Some((name, number.trim().strip_prefix("video")?.parse().ok()?)));
        let Some((name, number)) = number else {
            let reason = format!("expected a clip's name and videoN, got {text:?}");
            return Err(Error::malformed(MAPPING, path, format!("line {line}"), reason));
        };
        if let Some(other) = numbers.insert(name.to_owned(), number).filter(|other| *other != number) {
            let reason = format!("{name} is video{number} here and video{other} before");
            return Err(Error::malformed(MAPPING, path, format!("line {line}"), reason));
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::testing::file;
    use proptest::prelude::*;

    #[test]
    fn both_forms_read_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let json = file(
            &folder,
            "vatex_validation_v1.0.json",
            r#"[{"videoID": "a_000001_000011", "enCap": ["one", "two"], "chCap": ["一"]}]"#,
        );
        let lines = file(
            &folder,
            "vatex_en_c_val_release.jsonl",
            r#"{"vid_name": "a_000001_000011", "clip_id": 25991, "duration": 10, "descs": [{"desc": "one", "desc_id": 1}, {"desc": "two", "desc_id": 2}]}"#,
        );
        let (json, lines) = (read(&[&json], None).unwrap(), read(&[&lines], None).unwrap());
        assert_eq!(json.clips[0].captions, lines.clips[0].captions);
        assert_eq!((json.clips[0].split, lines.clips[0].split), (Split::Validate, Split::Validate));
        assert_eq!(lines.clips[0].names, ["video25991"]);
    }

    #[test]
    fn the_mapping_detects_a_clip_in_the_wrong_split() {
        let folder = tempfile::tempdir().unwrap();
        let json = file(&folder, "vatex_training.json", r#"[{"videoID": "a", "enCap": ["one"]}]"#);
        let map = |text: &str| file(&folder, "vatex_mapping.txt", text);
        let read = |mapping: &Path| read(&[&json], Some(mapping));
        assert_eq!(read(&map("a video7\n")).unwrap().clips[0].names, ["video7"]);
        let message = read(&map("a video25991\n")).unwrap_err().to_string();
        assert!(message.contains("is video25991, which is in split validate, not in train"), "{message}");
        assert!(read(&map("b video7\n")).unwrap_err().to_string().contains("not in the name mapping"));
        assert!(read(&map("a seven\n")).unwrap_err().to_string().contains("line 1"));
        let twice = read(&map("a video7\nb video8\na video9\n")).unwrap_err().to_string();
        assert!(twice.contains("line 3: a is video9 here and video7 before"), "{twice}");
    }

    #[test]
    fn clips_without_captions_and_twice_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let message = |text: &str| read(&[&file(&folder, "test.json", text)], None).unwrap_err().to_string();
        let half = r#"[{"videoID": "b", "enCap": ["x"]}, {"videoID": "a"}]"#;
        assert!(message(half).contains("clip a: has no English caption"));
        let named = file(&folder, "vatex_training.json", r#"[{"videoID": "a"}]"#);
        assert!(read(&[&named], None).unwrap_err().to_string().contains("has no English caption"));
        let one = r#"{"videoID": "a", "enCap": ["x"]}"#;
        assert!(message(&format!("[{one}, {one}]")).contains("listed twice"));
        assert!(message("[]").contains("has no clip"));
        assert!(message(r#"[{"id": "a"}]"#).contains("VATEX annotations"));
    }

    #[test]
    fn the_private_test_set_is_read_without_captions() {
        let folder = tempfile::tempdir().unwrap();
        let mapping = file(&folder, "vatex_mapping.txt", "a video28991\nt video0\n");
        for text in [r#"[{"videoID": "x"}, {"videoID": "y", "enCap": []}]"#, r#"["x", "y"]"#] {
            let private = file(&folder, "vatex_private_test_without_annotations.json", text);
            let set = read(&[&private], Some(&mapping)).unwrap();
            let seen: Vec<_> =
                set.clips.iter().map(|clip| (&*clip.id, clip.captions.len(), clip.split)).collect();
            assert_eq!(seen, [("x", 0, Split::Test), ("y", 0, Split::Test)]);
            assert!(set.notes.is_empty());
            let train = file(&folder, "vatex_training_v1.0.json", r#"[{"videoID": "t", "enCap": ["one"]}]"#);
            assert_eq!(read(&[&train, &private], Some(&mapping)).unwrap().clips.len(), 3);
            // A folder that also holds the public test set has two test files.
            let public = file(
                &folder,
                "vatex_public_test_english_v1.1.json",
                r#"[{"videoID": "a", "enCap": ["one"]}]"#,
            );
            for order in [[&*train, &private, &public], [&*train, &public, &private]] {
                let set = read(&order, Some(&mapping)).unwrap();
                assert_eq!(set.clips.iter().map(|clip| &*clip.id).collect::<Vec<_>>(), ["t", "a"]);
                assert!(set.notes[0].contains("2 clips of the private test set"), "{:?}", set.notes);
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[\\[\\]{}\":,a-z0-9 \n]{0,200}") {
            let folder = tempfile::tempdir().unwrap();
            let _ = read(&[&file(&folder, "train.json", &text)], Some(&file(&folder, "m", &text)));
        }
    }
}
