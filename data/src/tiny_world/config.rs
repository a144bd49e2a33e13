//! Configuration of a tiny world: seed, sizes and probabilities.

use super::{question_words, words};
use crate::digest::hex;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Version of the generator. It must change whenever the same configuration and words give another world;
/// otherwise caches of an older generator would be used.
const GENERATOR: u32 = 2;

/// Everything that determines a world: the same configuration gives the same files, byte for byte.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorldConfig {
    /// Random seed.
    pub seed: u64,
    /// Clips of each split.
    pub clips: ClipCounts,
    /// Image-text pairs of each split.
    pub pairs: PairCounts,
    /// Side of a frame in pixels.
    pub size: u32,
    /// Frames per second.
    pub fps: u32,
    /// Shortest clip, in frames.
    pub shortest: usize,
    /// Longest clip, in frames.
    pub longest: usize,
    /// Captions per clip, all different.
    pub captions: usize,
    /// Maximum number of questions per clip.
    pub questions: usize,
    /// Standard deviation of the pixel noise, of pixels in 0..1.
    pub noise: f64,
    /// Probabilities of objects and events.
    pub scenes: SceneOdds,
    /// Probabilities of the parts of a clip's caption.
    pub clip_captions: ClipCaptionOdds,
    /// Probabilities of the parts of an image's caption.
    pub image_captions: ImageCaptionOdds,
}

/// Number of clips of each split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipCounts {
    /// Training clips.
    pub train: usize,
    /// Validation clips.
    pub validate: usize,
    /// Test clips.
    pub test: usize,
}

/// Number of image-text pairs of each split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairCounts {
    /// Training pairs.
    pub train: usize,
    /// Held-out pairs; two thirds of them show one object.
    pub validate: usize,
}

/// Probabilities of objects and events in a scene.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SceneOdds {
    /// A clip has two events, one after the other.
    pub two_events: f64,
    /// A clip has a second object, if a corner is free.
    pub second_object: f64,
    /// A clip's square, triangle or cross is tilted.
    pub tilted: f64,
    /// An object is large.
    pub large: f64,
    /// An image has two objects.
    pub two_in_image: f64,
    /// An image's square, triangle or cross is tilted.
    pub tilted_in_image: f64,
}

/// Probabilities of the parts of a clip's caption.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClipCaptionOdds {
    /// The event is omitted.
    pub no_event: f64,
    /// The direction of a movement or of a change of size is omitted.
    pub no_direction: f64,
    /// One of two events is omitted.
    pub one_of_two: f64,
    /// The main object's colour is stated.
    pub colour: f64,
    /// The main object's size is stated, if it does not change.
    pub size: f64,
    /// The main object has the article "a" instead of "the".
    pub indefinite: f64,
    /// The second object is mentioned, if there is one.
    pub second: f64,
    /// The background is stated.
    pub background: f64,
}

/// Probabilities of the parts of an image's caption.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageCaptionOdds {
    /// An object's colour is stated.
    pub colour: f64,
    /// A single object's size is stated.
    pub size: f64,
    /// A tilted object is described as tilted.
    pub tilted: f64,
    /// An upright object that could be tilted is described as upright.
    pub upright: f64,
    /// An object's position is stated.
    pub place: f64,
    /// The position of two objects relative to each other is stated.
    pub relation: f64,
    /// The background is stated.
    pub background: f64,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            clips: ClipCounts { train: 1000, validate: 150, test: 300 },
            pairs: PairCounts { train: 40_000, validate: 600 },
            size: 64,
            fps: 12,
            shortest: 24,
            longest: 36,
            captions: 20,
            questions: 5,
            noise: 0.02,
            scenes: SceneOdds::default(),
            clip_captions: ClipCaptionOdds::default(),
            image_captions: ImageCaptionOdds::default(),
        }
    }
}

impl Default for SceneOdds {
    fn default() -> Self {
        Self {
            two_events: 0.30,
            second_object: 0.35,
            tilted: 0.30,
            large: 0.50,
            two_in_image: 0.35,
            tilted_in_image: 0.25,
        }
    }
}

impl Default for ClipCaptionOdds {
    fn default() -> Self {
        Self {
            no_event: 0.08,
            no_direction: 0.25,
            one_of_two: 0.06,
            colour: 0.85,
            size: 0.18,
            indefinite: 0.12,
            second: 0.22,
            background: 0.07,
        }
    }
}

impl Default for ImageCaptionOdds {
    fn default() -> Self {
        Self {
            colour: 0.95,
            size: 0.35,
            tilted: 0.45,
            upright: 0.12,
            place: 0.65,
            relation: 0.60,
            background: 0.12,
        }
    }
}

impl WorldConfig {
    /// Checks the ranges of all values.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first value out of range.
    pub fn validate(&self) -> Result<()> {
        let Self { size, fps, shortest, longest, captions, questions, .. } = *self;
        let is_size = (16..=512).contains(&size) && size.is_multiple_of(2);
        let is_length = shortest >= 8 && (shortest..=1000).contains(&longest);
        let lengths = format!("{shortest} and {longest}");
        let checks = [
            (is_size, "size", "an even number from 16 to 512", size.to_string()),
            ((1..=120).contains(&fps), "fps", "from 1 to 120", fps.to_string()),
            (is_length, "shortest and longest", "at least 8 frames, shortest <= longest <= 1000", lengths),
            ((1..=40).contains(&captions), "captions", "from 1 to 40", captions.to_string()),
            ((1..=8).contains(&questions), "questions", "from 1 to 8", questions.to_string()),
        ];
        if let Some((_, key, expected, got)) = checks.into_iter().find(|(is_valid, ..)| !is_valid) {
            return Err(Error::setting(key, expected, got));
        }
        let groups = [
            ("scenes.", serde_json::to_value(&self.scenes)),
            ("clip_captions.", serde_json::to_value(&self.clip_captions)),
            ("image_captions.", serde_json::to_value(&self.image_captions)),
            ("", Ok(serde_json::json!({"noise": self.noise}))),
        ];
        for (group, odds) in groups {
            let odds = odds.map_err(|error| Error::setting(group, "numbers", error))?;
            for (name, value) in odds.as_object().into_iter().flatten() {
                // JSON has no NaN: such a value is `null`.
                if !value.as_f64().is_some_and(|value| (0.0..=1.0).contains(&value)) {
                    return Err(Error::setting(format!("{group}{name}"), "from 0 to 1", value));
                }
            }
        }
        Ok(())
    }

    /// The world's name: 16 hexadecimal digits of the SHA-256 of generator version, words and configuration.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(GENERATOR.to_le_bytes());
        for (phrase, weight) in words::tables().into_iter().chain(question_words::tables()).flatten() {
            hash.update(phrase);
            hash.update(weight.to_le_bytes());
        }
        hash.update(serde_json::to_vec(self).unwrap_or_default());
        hex(&hash.finalize()[..8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_follows_every_setting() {
        let base = WorldConfig::default();
        assert_eq!(base.hash(), WorldConfig::default().hash());
        assert_eq!(base.hash().len(), 16);
        let mut other = base.clone();
        other.image_captions.place = 0.5;
        assert_ne!(base.hash(), other.hash());
        assert_ne!(base.hash(), WorldConfig { seed: 1, ..base.clone() }.hash());
    }

    #[test]
    fn impossible_settings_are_named() {
        WorldConfig::default().validate().unwrap();
        let message = |config: WorldConfig| config.validate().unwrap_err().to_string();
        assert!(message(WorldConfig { size: 15, ..Default::default() }).contains("size must be"));
        assert!(message(WorldConfig { longest: 3, ..Default::default() }).contains("longest"));
        let none = message(WorldConfig { questions: 0, ..Default::default() });
        assert_eq!(none, "questions must be from 1 to 8, got 0");
        let mut config = WorldConfig::default();
        config.clip_captions.colour = 1.5;
        assert_eq!(message(config), "clip_captions.colour must be from 0 to 1, got 1.5");
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(serde_json::from_str::<WorldConfig>(r#"{"seeds": 1}"#).is_err());
        assert_eq!(serde_json::from_str::<WorldConfig>("{}").unwrap(), WorldConfig::default());
    }
}
