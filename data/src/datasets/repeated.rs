//! Repeated keys of JSON objects. `serde_json` keeps the last value of a key, so captions would be lost
//! without an error.

use crate::error::{Error, Result};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use std::collections::HashSet;
use std::path::Path;

/// Refuses an object with a repeated key. Only the outermost object is looked at, and text that is no JSON
/// object passes: its reader reports it better.
///
/// # Errors
/// The key, with the line of its second value.
pub(super) fn refuse(text: &[u8], path: &Path, what: &'static str) -> Result<()> {
    match serde_json::from_slice::<Distinct>(text) {
        Err(error) if error.is_data() && error.to_string().starts_with(REPEATED) => {
            let place = format!("line {}, column {}", error.line(), error.column());
            Err(Error::malformed(what, path, place, error.to_string()))
        }
        _ => Ok(()),
    }
}

const REPEATED: &str = "repeats the key";

struct Distinct;

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(Distinct)
    }
}

impl<'de> Visitor<'de> for Distinct {
    type Value = Self;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self, A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<IgnoredAny>()?;
            if let Some(key) = seen.replace(key) {
                return Err(A::Error::custom(format!("{REPEATED} {key:?}")));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::testing::file;
    use crate::datasets::{images, own};

    #[test]
    fn a_repeated_key_is_named_with_its_line() {
        let refused = |text: &str| refuse(text.as_bytes(), Path::new("a.json"), "captions");
        let message = refused("{\"a\": [1],\n \"b\": {}, \"a\": 2}").unwrap_err().to_string();
        assert!(message.contains("line 2") && message.contains("repeats the key \"a\""), "{message}");
        for text in
            ["{\"a\": {\"a\": 1}}", "[{\"a\": 1, \"a\": 2}]", "{\"a\": 1", "{\"a\": 1}\n{\"a\": 1}", ""]
        {
            assert!(refused(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn no_caption_is_lost_to_a_repeated_file_or_image() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder, "train.json", r#"{"1": ["one"], "2": ["two"], "1": ["three"]}"#);
        for error in [own::read(&path).unwrap_err(), images::read_coco(&[&path]).unwrap_err()] {
            let message = error.to_string();
            assert!(message.contains("repeats the key \"1\"") && message.contains("train.json"), "{message}");
        }
    }
}
