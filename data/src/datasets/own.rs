//! A user's own clips: a folder of videos or images and a captions file. The file is a table, JSON, JSON
//! lines or plain text, with a file, one or several captions and optionally a split for each clip.
//!
//! ```text
//! captions.csv     video,caption[,split]          a clip may have several rows
//! captions.jsonl   {"video": "a.mp4", "caption": "…" or ["…"], "split": "train"}
//! captions.json    an array of such objects, or {"a.mp4": "…" or ["…"]}
//! captions.txt     a.mp4 <tab> a caption
//! ```

use super::{Annotations, ClipCollector, Id, Question, Split, Texts, repeated, source};
use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

const FORMAT: &str = "captions file";

/// Names of the column or key of a clip's file; the first one that exists is used.
const FILE_KEYS: [&str; 10] =
    ["video", "image", "file", "file_name", "filename", "path", "video_id", "image_id", "clip", "id"];
/// Names of the column or key of a caption.
const CAPTION_KEYS: [&str; 6] = ["caption", "captions", "text", "sentence", "description", "title"];

/// A row or object about one file.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) file: String,
    pub(super) captions: Vec<String>,
    pub(super) question: Option<Question>,
    pub(super) split: Option<Split>,
    /// Line or item, for messages.
    pub(super) place: String,
}

/// Reads a captions file. A clip without a split is in the split of the file's name, or in `Train`.
///
/// # Errors
/// A file that is missing or breaks the format; a record without file or caption; a clip in two splits.
pub fn read(path: &Path) -> Result<Annotations> {
    let mut gathered = ClipCollector::new(FORMAT, path);
    let default = Split::of_file(path).unwrap_or(Split::Train);
    for record in records(path)? {
        let clip = gathered.clip(&record.file, record.split.unwrap_or(default))?;
        clip.captions.extend(record.captions);
        clip.questions.extend(record.question);
    }
    gathered.finish("own")
}

/// The records of a captions file of any form.
pub(super) fn records(path: &Path) -> Result<Vec<Record>> {
    let bytes = source::bytes(path, FORMAT)?;
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => array("item", source::parse(&bytes, path, FORMAT)?, path),
        Some(b'{') => objects(&bytes, path),
        _ => text(&bytes, path),
    }
}

fn array(place: &str, values: Vec<Value>, path: &Path) -> Result<Vec<Record>> {
    let one = |(index, value): (usize, Value)| object(value, path, format!("{place} {}", index + 1));
    values.into_iter().enumerate().map(one).collect()
}

/// One object that maps files to captions, or one object per line.
fn objects(bytes: &[u8], path: &Path) -> Result<Vec<Record>> {
    if let Ok(Value::Object(whole)) = serde_json::from_slice::<Value>(bytes)
        && key(&whole, &CAPTION_KEYS).is_none()
    {
        repeated::refuse(bytes, path, FORMAT)?;
        let captions = |(file, value): (String, Value)| {
            let place = format!("key {file:?}");
            let captions = texts(value).ok_or_else(|| {
                Error::malformed(FORMAT, path, place.clone(), "expected a caption or an array of captions")
            })?;
            checked(Record { file, captions, place, ..Record::default() }, path)
        };
        return whole.into_iter().map(captions).collect();
    }
    array("line", source::json_records(path, FORMAT)?, path)
}

fn key<'a>(map: &'a serde_json::Map<String, Value>, names: &[&str]) -> Option<&'a Value> {
    names.iter().find_map(|name| map.get(*name))
}

fn texts(value: Value) -> Option<Vec<String>> {
    serde_json::from_value::<Texts>(value).ok().map(Into::into)
}

fn object(value: Value, path: &Path, place: String) -> Result<Record> {
    let fault = |reason: String| Error::malformed(FORMAT, path, place.clone(), reason);
    let Value::Object(map) = value else { return Err(fault("expected an object".into())) };
    let file = key(&map, &FILE_KEYS).and_then(|value| Id::deserialize(value).ok());
    let file = file.ok_or_else(|| fault(format!("has none of the keys {}", FILE_KEYS.join(", "))))?.text();
    let captions = match key(&map, &CAPTION_KEYS) {
        None => Vec::new(),
        Some(value) => texts(value.clone())
            .ok_or_else(|| fault("expected a caption or an array of captions".to_string()))?,
    };
    let split = match map.get("split") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(split_named(name).map_err(fault)?),
        Some(other) => return Err(fault(format!("expected a split's name, got {other}"))),
    };
    let question = match (map.get("question"), map.get("answer")) {
        (Some(Value::String(text)), Some(Value::String(answer))) => Some(Question {
            id: key(&map, &["question_id", "qid"])
                .and_then(|id| Id::deserialize(id).ok())
                .map_or_else(|| place.clone(), |id| id.text()),
            text: text.clone(),
            answer: answer.clone(),
        }),
        (None, None) => None,
        _ => return Err(fault("expected `question` and `answer`, both texts".into())),
    };
    checked(Record { file, captions, question, split, place }, path)
}

fn split_named(name: &str) -> std::result::Result<Split, String> {
    Split::named(name).ok_or_else(|| format!("expected split train, validate or test, got {name:?}"))
}

/// A table with a header, or lines of file, tab and caption.
fn text(bytes: &[u8], path: &Path) -> Result<Vec<Record>> {
    let table = source::table_of(bytes, path, FORMAT);
    let has_header = table
        .as_ref()
        .is_ok_and(|table| table.find(&FILE_KEYS).is_some() && table.find(&CAPTION_KEYS).is_some());
    if !has_header && bytes.contains(&b'\t') {
        return lines(path);
    }
    let table = table?;
    let (file, caption) = (table.column(&FILE_KEYS)?, table.column(&CAPTION_KEYS)?);
    let split = table.find(&["split"]);
    let mut records = Vec::new();
    for (index, row) in table.rows().enumerate() {
        let split = match split.map(|column| row.text(column)).transpose()? {
            None | Some("") => None,
            Some(name) => Some(split_named(name).map_err(|reason| row.fault(reason))?),
        };
        let record = Record {
            file: row.text(file)?.trim().to_owned(),
            captions: vec![row.text(caption)?.trim().to_owned()],
            split,
            place: format!("row {}", index + 1),
            ..Record::default()
        };
        records.push(checked(record, path)?);
    }
    Ok(records)
}

fn lines(path: &Path) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for (line, text) in source::lines(path, FORMAT)? {
        let place = format!("line {line}");
        let Some((file, caption)) = text.split_once('\t') else {
            let reason = format!("expected a file, a tab and a caption, got {text:?}");
            return Err(Error::malformed(FORMAT, path, place, reason));
        };
        let (file, captions) = (file.trim().to_owned(), vec![caption.trim().to_owned()]);
        records.push(checked(Record { file, captions, place, ..Record::default() }, path)?);
    }
    Ok(records)
}

fn checked(record: Record, path: &Path) -> Result<Record> {
    let reason = if record.file.trim().is_empty() {
        "names no file"
    } else if record.captions.iter().any(|caption| caption.trim().is_empty()) {
        "has an empty caption"
    } else if record.captions.is_empty() && record.question.is_none() {
        "has no caption"
    } else {
        return Ok(record);
    };
    Err(Error::malformed(FORMAT, path, record.place, reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_text(text: &str) -> Result<Annotations> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("captions");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn every_form_reads_the_same() {
        for text in [
            "video,caption\na.mp4,one\nb.mp4,\"two, then\"\na.mp4,three\n",
            "Video\tCaption\na.mp4\tone\nb.mp4\ttwo, then\na.mp4\tthree\n",
            "a.mp4\tone\nb.mp4\ttwo, then\na.mp4\tthree\n",
            r#"[{"video": "a.mp4", "caption": ["one", "three"]}, {"video": "b.mp4", "caption": "two, then"}]"#,
            "{\"video\": \"a.mp4\", \"caption\": [\"one\", \"three\"]}\n{\"video\": \"b.mp4\", \"text\": \"two, then\"}",
            r#"{"a.mp4": ["one", "three"], "b.mp4": "two, then"}"#,
        ] {
            let set = read_text(text).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert_eq!(set.clips.len(), 2, "{text}");
            assert_eq!((set.clips[0].id.as_str(), set.clips[0].split), ("a.mp4", Split::Train));
            assert_eq!(set.clips[0].captions, ["one", "three"], "{text}");
            assert_eq!(set.clips[1].captions, ["two, then"], "{text}");
        }
    }

    #[test]
    fn splits_and_questions_are_read() {
        let set = read_text("file,text,split\na,x,val\nb,y,test\nc,z,\n").unwrap();
        let splits: Vec<Split> = set.clips.iter().map(|clip| clip.split).collect();
        assert_eq!(splits, [Split::Validate, Split::Test, Split::Train]);
        let set =
            read_text(r#"[{"video": "a", "question": "what?", "answer": "x", "question_id": 4}]"#).unwrap();
        assert_eq!(set.clips[0].questions[0].id, "4");
        assert!(set.clips[0].captions.is_empty());
    }

    #[test]
    fn errors_name_the_line_or_item() {
        let message = |text: &str| read_text(text).unwrap_err().to_string();
        assert!(message("video,caption,split\na,b,tset\n").contains("line 2: expected split"));
        assert!(message("video,caption\na,\n").contains("row 1: has an empty caption"));
        assert!(message("name,words\na,b\n").contains("expected a column video or image"));
        assert!(message("a\tb\nc\n").contains("line 2"));
        assert!(message(r#"[{"video": "a", "caption": 5}]"#).contains("item 1: expected a caption"));
        assert!(message(r#"[{"caption": "x"}]"#).contains("has none of the keys"));
        assert!(message(r#"{"a.mp4": 5}"#).contains("key \"a.mp4\""));
        assert!(
            message("video,caption,split\na,b,train\na,c,test\n")
                .contains("in split train and in split test")
        );
        assert!(message("").contains("captions file"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[\\[\\]{}\":,a-z0-9 \t\n]{0,200}") {
            let _ = read_text(&text);
        }
    }
}
