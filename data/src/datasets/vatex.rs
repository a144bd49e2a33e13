//! VATEX's annotations: the published JSON (`vatex_training_v1.0.json` etc.: `videoID` and ten `enCap`) and
//! the JSON lines (`vatex_en_c_val_release.jsonl`: `vid_name` and `descs`). The file's name contains the
//! split.

use super::{Annotations, ClipCollector, Split, source, split_of_file};
use crate::error::{Error, Result};
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

/// Reads annotation files, one per split. With `mapping` (`vatex_mapping.txt`), clips may have files such as
/// `video25991.mp4`, and each clip must be in the split of its number.
///
/// # Errors
/// A file that is missing, breaks the format or has no split in its name; a clip that is listed twice, has no
/// caption, or is in another split than in the mapping.
pub fn read(paths: &[&Path], mapping: Option<&Path>) -> Result<Annotations> {
    let numbers = mapping.map(read_mapping).transpose()?;
    ClipCollector::read_files(FORMAT, "vatex", paths, |clips, path| {
        let split = split_of_file(FORMAT, path)?;
        for record in source::json_records::<Record>(path, FORMAT)? {
            let (id, number, captions) = match record {
                Record::Published { id, captions } => (id, None, captions),
                Record::Lines { vid_name, clip_id, descs } => {
                    (vid_name, clip_id, descs.into_iter().map(|description| description.desc).collect())
                }
            };
            let fault = |reason: String| Error::malformed(FORMAT, path, format!("clip {id}"), reason);
            let clip = clips.new_clip(&id, split)?;
            if captions.is_empty() {
                let reason = "has no English caption; the private test file has none, the public one does";
                return Err(fault(reason.into()));
            }
            clip.captions = captions;
            clip.names.extend(number.map(|number| format!("video{number}")));
            let Some(numbers) = &numbers else { continue };
            let number = numbers.get(&id).ok_or_else(|| fault("is not in the name mapping".into()))?;
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
        Ok(())
    })
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
        assert!(message(r#"[{"videoID": "a"}]"#).contains("has no English caption"));
        let one = r#"{"videoID": "a", "enCap": ["x"]}"#;
        assert!(message(&format!("[{one}, {one}]")).contains("listed twice"));
        assert!(message("[]").contains("has no clip"));
        assert!(message(r#"[{"id": "a"}]"#).contains("VATEX annotations"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[\\[\\]{}\":,a-z0-9 \n]{0,200}") {
            let folder = tempfile::tempdir().unwrap();
            let _ = read(&[&file(&folder, "train.json", &text)], Some(&file(&folder, "m", &text)));
        }
    }
}
