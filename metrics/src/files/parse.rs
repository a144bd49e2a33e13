//! The file formats of the data sets.

use std::path::Path;

use serde_json::{Map, Value};

use crate::Error;

/// Keys of a video's id.
const ID_KEYS: [&str; 6] = ["image_id", "video_id", "videoID", "vid_name", "clip_id", "id"];

/// Reads one file; its path is part of every message.
pub(super) struct Parser<'a> {
    pub(super) path: &'a Path,
}

type Pairs = Vec<(String, String)>;

impl Parser<'_> {
    pub(super) fn predictions(&self, text: &str) -> Result<Pairs, Error> {
        let expected =
            "COCO results ([{\"image_id\": .., \"caption\": \"..\"}]) or an object of id to caption";
        let start = text.trim_start();
        if !start.starts_with(['{', '[']) && start.lines().next().is_some_and(|line| line.contains('\t')) {
            return self.sentence_list(text);
        }
        match self.json(text, expected)? {
            Value::Array(entries) => self.results(&entries),
            // a single line of a file with an entry a line
            value @ Value::Object(_) if value.get("caption").is_some() && is_entry(&value) => {
                self.results(&[value])
            }
            Value::Object(map) => {
                self.refuse_repeated_keys(text)?;
                // some programs store the captions beside scores or settings
                match ["predictions", "annotations", "results"].iter().find_map(|key| map.get(*key)) {
                    Some(Value::Array(entries)) => self.results(entries),
                    Some(Value::Object(map)) => self.results_by_id(map),
                    _ => self.results_by_id(&map),
                }
            }
            other => Err(self.malformed("the file", expected, kind(&other))),
        }
    }

    fn results(&self, entries: &[Value]) -> Result<Pairs, Error> {
        let result = |(place, entry): (usize, &Value)| {
            let place = format!("entry {}", place + 1);
            let caption = match entry.get("caption") {
                // several captions are an error
                Some(list @ Value::Array(_)) => self.only_caption(&place, list)?,
                _ => self.caption(entry, "caption", &place)?,
            };
            Ok((self.id(entry, &place)?, caption))
        };
        entries.iter().enumerate().map(result).collect()
    }

    fn results_by_id(&self, map: &Map<String, Value>) -> Result<Pairs, Error> {
        map.iter()
            .map(|(id, value)| Ok((id.clone(), self.only_caption(&format!("id {id:?}"), value)?)))
            .collect()
    }

    /// Rejects an object with a repeated key: serde_json keeps only the last value, and a caption would be
    /// lost.
    fn refuse_repeated_keys(&self, text: &str) -> Result<(), Error> {
        serde_json::from_str::<DistinctKeys>(text).map(drop).map_err(|error| {
            let place = format!("line {} column {}", error.line(), error.column());
            self.malformed(&place, "each id once", &error.to_string())
        })
    }

    /// The only caption of an id: a string, or a list of one as in coco-caption's dictionaries.
    fn only_caption(&self, place: &str, value: &Value) -> Result<String, Error> {
        match value {
            Value::String(caption) => Ok(caption.clone()),
            Value::Array(list) if list.len() == 1 => self.only_caption(place, &list[0]),
            Value::Object(_) => self.caption(value, "caption", place),
            Value::Array(list) => {
                Err(self.malformed(place, "one caption", &format!("a list of {}", list.len())))
            }
            other => Err(self.malformed(place, "one caption", kind(other))),
        }
    }

    pub(super) fn references(&self, text: &str, split: Option<&str>) -> Result<Pairs, Error> {
        let refuse_split = |got: &str| match split {
            Some(_) => Err(self.malformed("the file", "one that names splits (MSR-VTT's)", got)),
            None => Ok(()),
        };
        let start = text.trim_start();
        if !start.starts_with(['{', '[']) {
            refuse_split("a list of sentences")?;
            return if start.lines().next().is_some_and(|line| line.contains("VideoID")) {
                self.msvd_table(text)
            } else {
                self.sentence_list(text)
            };
        }
        let expected =
            "COCO annotations, MSR-VTT's videodatainfo, VATEX's list, or an object of id to captions";
        match self.json(text, expected)? {
            Value::Object(map) => {
                if let Some(Value::Array(sentences)) = map.get("sentences") {
                    return self.msrvtt(&map, sentences, split);
                }
                refuse_split("another")?;
                if let Some(Value::Array(annotations)) = map.get("annotations") {
                    return self.pairs(annotations, "annotation");
                }
                if map.contains_key("descs") || map.contains_key("enCap") {
                    return self.vatex(&[Value::Object(map)]);
                }
                let value = Value::Object(map);
                if value.get("caption").is_some() && is_entry(&value) {
                    return self.pairs(&[value], "entry");
                }
                self.refuse_repeated_keys(text)?;
                self.captions_by_id(value.as_object().unwrap_or(&Map::new()))
            }
            Value::Array(entries) => {
                refuse_split("a list")?;
                let is_vatex = |entry: &Value| entry.get("descs").is_some() || entry.get("enCap").is_some();
                if entries.first().is_some_and(is_vatex) {
                    self.vatex(&entries)
                } else {
                    self.pairs(&entries, "entry")
                }
            }
            other => Err(self.malformed("the file", expected, kind(&other))),
        }
    }

    /// MSR-VTT: `videos` have the split of each video, `sentences` the captions.
    fn msrvtt(
        &self,
        map: &Map<String, Value>,
        sentences: &[Value],
        split: Option<&str>,
    ) -> Result<Pairs, Error> {
        let pairs = self.pairs(sentences, "sentence")?;
        let Some(split) = split else { return Ok(pairs) };
        let Some(Value::Array(videos)) = map.get("videos") else {
            return Err(self.malformed("\"videos\"", "a list that names each video's split", "none"));
        };
        let mut wanted = std::collections::HashSet::new();
        for (place, video) in videos.iter().enumerate() {
            if video.get("split").and_then(Value::as_str) == Some(split) {
                wanted.insert(self.id(video, &format!("video {}", place + 1))?);
            }
        }
        Ok(pairs.into_iter().filter(|(id, _)| wanted.contains(id)).collect())
    }

    fn pairs(&self, entries: &[Value], what: &str) -> Result<Pairs, Error> {
        entries
            .iter()
            .enumerate()
            .map(|(place, entry)| {
                let place = format!("{what} {}", place + 1);
                Ok((self.id(entry, &place)?, self.caption(entry, "caption", &place)?))
            })
            .collect()
    }

    /// VATEX: a video with its English captions, `descs` of objects or `enCap` of strings.
    fn vatex(&self, entries: &[Value]) -> Result<Pairs, Error> {
        let mut pairs = Vec::new();
        for (place, entry) in entries.iter().enumerate() {
            let place = format!("entry {}", place + 1);
            let id = match entry.get("vid_name").or_else(|| entry.get("videoID")) {
                Some(Value::String(id)) => id.clone(),
                _ => self.id(entry, &place)?,
            };
            let Some(Value::Array(captions)) = entry.get("descs").or_else(|| entry.get("enCap")) else {
                return Err(self.malformed(&place, "\"descs\" or \"enCap\" with a list", "none"));
            };
            self.add_captions(&mut pairs, &id, captions, "desc", &place)?;
        }
        Ok(pairs)
    }

    /// Adds an id's captions, each a string or an object with the caption under `key`.
    fn add_captions(
        &self,
        pairs: &mut Pairs,
        id: &str,
        captions: &[Value],
        key: &str,
        place: &str,
    ) -> Result<(), Error> {
        for caption in captions {
            let caption = match caption {
                Value::String(caption) => caption.clone(),
                _ => self.caption(caption, key, place)?,
            };
            pairs.push((id.to_owned(), caption));
        }
        Ok(())
    }

    fn captions_by_id(&self, map: &Map<String, Value>) -> Result<Pairs, Error> {
        let mut pairs = Vec::new();
        for (id, value) in map {
            let place = format!("id {id:?}");
            match value {
                Value::String(caption) => pairs.push((id.clone(), caption.clone())),
                Value::Array(captions) => self.add_captions(&mut pairs, id, captions, "caption", &place)?,
                other => return Err(self.malformed(&place, "a list of captions", kind(other))),
            }
        }
        Ok(pairs)
    }

    /// MSVD's sentence lists: an id, a tab, a caption.
    fn sentence_list(&self, text: &str) -> Result<Pairs, Error> {
        let lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).enumerate();
        lines
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(place, line)| match line.split_once('\t') {
                Some((id, caption)) => Ok((id.trim().to_owned(), caption.to_owned())),
                None => {
                    let start: String = line.chars().take(40).collect();
                    Err(self.malformed(
                        &format!("line {}", place + 1),
                        "id<TAB>caption",
                        &format!("{start:?}"),
                    ))
                }
            })
            .collect()
    }

    /// MSVD's table: one caption a row, the clip named by video and seconds. Only English captions are
    /// references.
    fn msvd_table(&self, text: &str) -> Result<Pairs, Error> {
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
        let bad =
            |error: csv::Error| self.malformed("the table", "comma-separated cells", &error.to_string());
        let header = reader.headers().map_err(bad)?.clone();
        let column = |name: &str| {
            header.iter().position(|cell| cell == name).ok_or_else(|| {
                let got = header.iter().collect::<Vec<_>>().join(",");
                self.malformed("the header", &format!("a column {name:?}"), &got)
            })
        };
        let (video, start, end) = (column("VideoID")?, column("Start")?, column("End")?);
        let (language, caption) = (column("Language")?, column("Description")?);
        let mut pairs = Vec::new();
        for (place, row) in reader.records().enumerate() {
            let row = row.map_err(bad)?;
            let cell = |column: usize| {
                row.get(column).ok_or_else(|| {
                    let expected = format!("{} cells", header.len());
                    self.malformed(&format!("row {}", place + 2), &expected, &format!("{}", row.len()))
                })
            };
            if cell(language)? == "English" && !cell(caption)?.trim().is_empty() {
                // some captions of the table contain a line end
                let caption = cell(caption)?.replace("\r\n", " ").replace('\r', " ");
                pairs.push((format!("{}_{}_{}", cell(video)?, cell(start)?, cell(end)?), caption));
            }
        }
        Ok(pairs)
    }

    fn json(&self, text: &str, expected: &str) -> Result<Value, Error> {
        let whole = match serde_json::from_str(text) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        // one value a line is read as a list
        let lines: Result<Vec<Value>, _> =
            text.lines().filter(|line| !line.trim().is_empty()).map(serde_json::from_str).collect();
        match lines {
            Ok(entries) if !entries.is_empty() => Ok(Value::Array(entries)),
            _ => Err(self.malformed(
                &format!("line {} column {}", whole.line(), whole.column()),
                expected,
                &whole.to_string(),
            )),
        }
    }

    fn id(&self, entry: &Value, place: &str) -> Result<String, Error> {
        match ID_KEYS.iter().find_map(|key| entry.get(key)) {
            Some(Value::String(id)) => Ok(id.clone()),
            Some(Value::Number(id)) => Ok(id.to_string()),
            Some(other) => Err(self.malformed(place, "an id that is a string or a number", kind(other))),
            None => Err(self.malformed(place, "\"image_id\"", "none")),
        }
    }

    fn caption(&self, entry: &Value, key: &str, place: &str) -> Result<String, Error> {
        match entry.get(key) {
            Some(Value::String(caption)) => Ok(caption.clone()),
            Some(other) => Err(self.malformed(place, &format!("{key:?} with a string"), kind(other))),
            None => Err(self.malformed(place, &format!("{key:?}"), "none")),
        }
    }

    fn malformed(&self, place: &str, expected: &str, got: &str) -> Error {
        Error::malformed(self.path, place, expected, got)
    }
}

fn is_entry(value: &Value) -> bool {
    ID_KEYS.iter().any(|key| matches!(value.get(key), Some(Value::String(_) | Value::Number(_))))
}

/// Any JSON whose objects, at every depth, have each key once.
struct DistinctKeys;

impl<'de> serde::Deserialize<'de> for DistinctKeys {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DistinctKeys)
    }
}

macro_rules! scalars {
    ($($visit:ident($type:ty)),*) => {
        $(fn $visit<E>(self, _: $type) -> Result<DistinctKeys, E> {
            Ok(DistinctKeys)
        })*
    };
}

impl<'de> serde::de::Visitor<'de> for DistinctKeys {
    type Value = Self;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<DistinctKeys, A::Error> {
        let mut seen = std::collections::HashSet::new();
        while let Some((key, DistinctKeys)) = map.next_entry::<String, DistinctKeys>()? {
            if !seen.insert(key.clone()) {
                return Err(serde::de::Error::custom(format!("{key:?} a second time")));
            }
        }
        Ok(DistinctKeys)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<DistinctKeys, A::Error> {
        while let Some(DistinctKeys) = list.next_element()? {}
        Ok(DistinctKeys)
    }

    scalars!(visit_bool(bool), visit_i64(i64), visit_u64(u64), visit_f64(f64), visit_str(&str));

    fn visit_unit<E>(self) -> Result<DistinctKeys, E> {
        Ok(DistinctKeys)
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(text: &str) -> Result<Pairs, Error> {
        Parser { path: Path::new("references.json") }.references(text, None)
    }

    fn predictions(text: &str) -> Result<Pairs, Error> {
        Parser { path: Path::new("predictions.json") }.predictions(text)
    }

    fn pairs(expected: &[(&str, &str)]) -> Pairs {
        expected.iter().map(|(id, caption)| (id.to_string(), caption.to_string())).collect()
    }

    #[test]
    fn coco_files() {
        let results = r#"[{"image_id": 7, "caption": "a dog"}, {"image_id": "8", "caption": ""}]"#;
        assert_eq!(predictions(results).unwrap(), pairs(&[("7", "a dog"), ("8", "")]));
        let annotations =
            r#"{"images": [{"id": 7}], "annotations": [{"image_id": 7, "id": 1, "caption": "A dog."}]}"#;
        assert_eq!(references(annotations).unwrap(), pairs(&[("7", "A dog.")]));
    }

    #[test]
    fn an_object_of_ids_and_lines_of_objects() {
        assert_eq!(
            predictions(r#"{"v1": "a", "v2": ["b"], "v3": [{"caption": "c"}]}"#).unwrap(),
            pairs(&[("v1", "a"), ("v2", "b"), ("v3", "c")])
        );
        assert_eq!(
            predictions("{\"image_id\": 1, \"caption\": \"a\"}\n{\"image_id\": 2, \"caption\": \"b\"}\n")
                .unwrap(),
            pairs(&[("1", "a"), ("2", "b")])
        );
    }

    #[test]
    fn each_data_set_has_its_own() {
        let msrvtt = r#"{"videos": [{"video_id": "video1", "id": 1, "split": "test"}, {"video_id": "video2", "id": 2, "split": "train"}],
            "sentences": [{"caption": "a", "video_id": "video1", "sen_id": 0}, {"caption": "b", "video_id": "video2", "sen_id": 1}]}"#;
        assert_eq!(references(msrvtt).unwrap(), pairs(&[("video1", "a"), ("video2", "b")]));
        let test = Parser { path: Path::new("r") }.references(msrvtt, Some("test")).unwrap();
        assert_eq!(test, pairs(&[("video1", "a")]));
        assert_eq!(references("vid1\ta b\nvid1\tc\r\n\n").unwrap(), pairs(&[("vid1", "a b"), ("vid1", "c")]));
        let table = ",VideoID,Start,End,Language,Description\n0,x-_,1,9,English,\"A \"\"b\"\", c\"\n1,x-_,1,9,German,Ein\n";
        assert_eq!(references(table).unwrap(), pairs(&[("x-__1_9", "A \"b\", c")]));
        let vatex = "{\"vid_name\": \"v\", \"clip_id\": 3, \"descs\": [{\"desc\": \"a\"}]}\n{\"videoID\": \"w\", \"enCap\": [\"b\"]}";
        assert_eq!(references(vatex).unwrap(), pairs(&[("v", "a"), ("w", "b")]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("[1, 2", "line 1 column"),
            ("[{\"caption\": \"a\"}]", "entry 1"),
            ("[{\"image_id\": 1, \"caption\": 2}]", "a number"),
            ("{\"v\": [\"a\", \"b\"]}", "a list of 2"),
            ("3", "a number"),
        ] {
            let message = predictions(text).unwrap_err().to_string();
            assert!(message.contains(words) && message.contains("predictions.json"), "{text}: {message}");
        }
        let message = references("vid1 no tab").unwrap_err().to_string();
        assert!(message.contains("line 1") && message.contains("<TAB>"), "{message}");
    }

    #[test]
    fn predictions_as_other_programs_write_them() {
        let one = pairs(&[("video7010", "a dog")]);
        for text in [
            r#"{"predictions": [{"image_id": "video7010", "caption": "a dog"}], "scores": {"CIDEr": 0.5}}"#,
            r#"{"predictions": {"video7010": [{"image_id": "video7010", "caption": "a dog"}]}}"#,
            r#"{"video7010": [{"image_id": "video7010", "caption": "a dog"}]}"#,
            r#"{"image_id": "video7010", "caption": "a dog"}"#,
            r#"[{"image_id": "video7010", "id": 3, "caption": ["a dog"]}]"#,
            "video7010\ta dog\n",
        ] {
            assert_eq!(predictions(text).unwrap(), one, "{text}");
        }
        assert_eq!(references(r#"{"image_id": 1, "caption": "a"}"#).unwrap(), pairs(&[("1", "a")]));
    }

    #[test]
    fn an_id_twice_in_an_object_is_refused() {
        for text in [r#"{"v1": "a", "v2": "b", "v1": "c"}"#, r#"{"predictions": {"v1": ["a"], "v1": ["b"]}}"#]
        {
            let message = predictions(text).unwrap_err().to_string();
            assert!(message.contains("v1") && message.contains("second time"), "{message}");
        }
        assert!(references(r#"{"v1": ["a"], "v1": ["b"]}"#).is_err());
    }
}
