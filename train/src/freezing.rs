//! Which parameters are trained, and how fast: a table of name pattern -> learning-rate scale, or frozen.

use model::parameters::Parameter;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wildmatch::WildMatchPattern;

use crate::TrainError;

/// The table. A parameter has the scale of the last pattern that matches its name, 1 without a match.
///
/// In TOML: `"vision_model.*" = "frozen"` or `"language_model.*" = 0.1`; `*` matches any characters.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Freezing(pub Vec<(String, Scale)>);

/// The learning rate of the parameters that a pattern matches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// Not trained.
    Frozen,
    /// Trained with the learning rate times this.
    Times(f64),
}

impl Freezing {
    /// The scale of one parameter.
    pub fn scale(&self, name: &str) -> Scale {
        let last = self.0.iter().rev().find(|(pattern, _)| matches(pattern, name));
        last.map_or(Scale::Times(1.0), |(_, scale)| *scale)
    }

    /// Whether a parameter is trained.
    pub fn trains(&self, name: &str) -> bool {
        self.scale(name) != Scale::Frozen
    }

    /// Rejects a pattern that matches nothing: it is a misspelling.
    ///
    /// # Errors
    /// The first such pattern.
    pub fn check(&self, parameters: &[Parameter]) -> Result<(), TrainError> {
        let stray = self.0.iter().find(|(pattern, _)| !parameters.iter().any(|p| matches(pattern, &p.name)));
        let Some((pattern, _)) = stray else { return Ok(()) };
        let mut starts: Vec<&str> = parameters.iter().filter_map(|p| p.name.split('.').next()).collect();
        starts.dedup();
        Err(TrainError::Pattern { pattern: pattern.clone(), starts: starts.join(", ") })
    }
}

/// `*` in the pattern matches any characters, everything else itself.
fn matches(pattern: &str, name: &str) -> bool {
    // the second wildcard, for one character, is one that no pattern holds
    WildMatchPattern::<'*', '\0'>::new(pattern).matches(name)
}

impl Serialize for Freezing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (pattern, scale) in &self.0 {
            match scale {
                Scale::Frozen => map.serialize_entry(pattern, FROZEN)?,
                Scale::Times(times) => map.serialize_entry(pattern, times)?,
            }
        }
        map.end()
    }
}

const FROZEN: &str = "frozen";

impl<'de> Deserialize<'de> for Freezing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Entry {
            Word(String),
            Number(f64),
        }
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = Freezing;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a table of parameter pattern = \"frozen\" or a learning-rate scale")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Freezing, A::Error> {
                let mut rows = Vec::new();
                while let Some((pattern, entry)) = map.next_entry::<String, Entry>()? {
                    let scale = match entry {
                        Entry::Word(word) if word == FROZEN => Scale::Frozen,
                        Entry::Number(times) if times.is_finite() && times > 0.0 => Scale::Times(times),
                        _ => {
                            let message = format!("\"{pattern}\" must be \"frozen\" or a number above 0");
                            return Err(serde::de::Error::custom(message));
                        }
                    };
                    rows.push((pattern, scale));
                }
                Ok(Freezing(rows))
            }
        }
        deserializer.deserialize_map(Table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(json: &str) -> Freezing {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_last_matching_pattern_wins() {
        let freezing = table(r#"{"*": "frozen", "qformer.*": 1.0, "qformer.layers.*.weight": 0.5}"#);
        assert_eq!(freezing.scale("vision_model.layers.0.mlp.fc1.weight"), Scale::Frozen);
        assert_eq!(freezing.scale("qformer.layernorm.bias"), Scale::Times(1.0));
        assert_eq!(freezing.scale("qformer.layers.3.attention.query.weight"), Scale::Times(0.5));
        assert_eq!(Freezing::default().scale("anything"), Scale::Times(1.0));
    }

    #[test]
    fn patterns_are_anchored_at_both_ends() {
        assert!(matches("ln_vision.*", "ln_vision.weight"));
        assert!(!matches("ln_vision", "ln_vision.weight"));
        assert!(!matches("vision_model.*", "ln_vision.weight"));
        assert!(matches("*.bias", "a.b.bias"));
        assert!(
            matches("a.*.c*", "a.b.b.c")
                && matches("*", "a")
                && matches("a*", "a")
                && !matches("a.*.c", "a.c")
        );
        assert!(!matches("a?b", "a.b") && !matches("[ab]", "a") && !matches("", "a"));
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_refused_with_the_names_there_are() {
        let parameters = [Parameter { name: "vision_model.x".to_owned(), shape: vec![1] }];
        let error = table(r#"{"vison_model.*": "frozen"}"#).check(&parameters).unwrap_err().to_string();
        assert!(error.contains("vison_model.*") && error.contains("vision_model"), "{error}");
    }

    #[test]
    fn other_words_and_negative_numbers_are_refused() {
        for bad in [r#"{"a": "froze"}"#, r#"{"a": -1.0}"#, r#"{"a": 0}"#, r#"["a"]"#] {
            assert!(serde_json::from_str::<Freezing>(bad).is_err(), "{bad}");
        }
        let written = serde_json::to_string(&table(r#"{"b": "frozen", "a": 0.5}"#)).unwrap();
        assert_eq!(written, r#"{"b":"frozen","a":0.5}"#);
    }
}
