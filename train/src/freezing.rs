//! Which parameters are trained, and how fast: a table of name pattern -> learning-rate scale, or frozen.

use model::parameters::Parameter;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
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

const FROZEN: &str = "frozen";

impl Serialize for Freezing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(pattern, scale)| match scale {
            Scale::Frozen => (pattern, Value::from(FROZEN)),
            Scale::Times(times) => (pattern, Value::from(*times)),
        }))
    }
}

impl<'de> Deserialize<'de> for Freezing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let row = |(pattern, value): (String, Value)| match (value.as_str(), value.as_f64()) {
            (Some(FROZEN), _) => Ok((pattern, Scale::Frozen)),
            (None, Some(times)) if times.is_finite() && times > 0.0 => Ok((pattern, Scale::Times(times))),
            _ => Err(D::Error::custom(format!("\"{pattern}\" must be \"frozen\" or a number above 0"))),
        };
        // serde_json's map keeps the order
        let table = serde_json::Map::<String, Value>::deserialize(deserializer)?;
        table.into_iter().map(row).collect::<Result<_, _>>().map(Self)
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
