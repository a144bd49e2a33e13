//! What a tiny world is made of: one seed, sizes, and how often things happen.

use super::{questions, words};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Changes whenever the same configuration and words would give another world, so that no cache outlives its generator.
const GENERATOR: u32 = 2;

/// Everything that determines a world. The same configuration gives the same world, byte for byte.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorldConfig {
    /// Seed of every draw.
    pub seed: u64,
    /// Clips of each split.
    pub clips: ClipCounts,
    /// Image-text pairs of each split.
    pub pairs: PairCounts,
    /// Side of a frame in pixels.
    pub size: u32,
    /// Frames a second.
    pub fps: u32,
    /// Fewest frames of a clip.
    pub shortest: usize,
    /// Most frames of a clip.
    pub longest: usize,
    /// Different captions a clip.
    pub captions: usize,
    /// Most questions a clip.
    pub questions: usize,
    /// Standard deviation of the pixel noise, of pixels in 0..1.
    pub noise: f64,
    /// How often things are there and happen.
    pub scenes: SceneOdds,
    /// How often clips' captions say what.
    pub clip_captions: ClipCaptionOdds,
    /// How often images' captions say what.
    pub image_captions: ImageCaptionOdds,
}

/// Number of clips by split.
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

/// Number of image-text pairs by split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairCounts {
    /// Training pairs.
    pub train: usize,
    /// Pairs to measure on: fresh draws, two thirds of them with one object.
    pub validate: usize,
}

/// Probabilities of what is in a scene.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SceneOdds {
    /// A clip has two events, one after the other.
    pub two_events: f64,
    /// A clip has a second object, where a corner is free.
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

/// Probabilities of what a clip's caption says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClipCaptionOdds {
    /// The event is left out.
    pub no_event: f64,
    /// The direction of a movement or change of size is left out.
    pub no_direction: f64,
    /// One of two events is left out.
    pub one_of_two: f64,
    /// The main object's colour is said.
    pub colour: f64,
    /// The main object's size is said, where it does not change.
    pub size: f64,
    /// The main object comes with "a" instead of "the".
    pub indefinite: f64,
    /// The second object is said, where there is one.
    pub second: f64,
    /// The background is said.
    pub background: f64,
}

/// Probabilities of what an image's caption says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageCaptionOdds {
    /// An object's colour is said.
    pub colour: f64,
    /// A single object's size is said.
    pub size: f64,
    /// A tilted object is said to be tilted.
    pub tilted: f64,
    /// An upright object that could be tilted is said to be upright.
    pub upright: f64,
    /// An object's place is said.
    pub place: f64,
    /// Two objects are related to each other.
    pub relation: f64,
    /// The background is said.
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
    /// Refuses what no world can have.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first impossible value.
    pub fn validate(&self) -> Result<()> {
        let setting =
            |key, expected: &str, got: String| Err(Error::Setting { key, expected: expected.into(), got });
        if !(16..=512).contains(&self.size) || !self.size.is_multiple_of(2) {
            return setting("size", "an even number from 16 to 512", self.size.to_string());
        }
        if !(1..=120).contains(&self.fps) {
            return setting("fps", "from 1 to 120", self.fps.to_string());
        }
        if self.shortest < 8 || self.longest < self.shortest || self.longest > 1000 {
            return setting(
                "shortest and longest",
                "at least 8 frames, shortest <= longest <= 1000",
                format!("{} and {}", self.shortest, self.longest),
            );
        }
        if !(1..=40).contains(&self.captions) {
            return setting("captions", "from 1 to 40", self.captions.to_string());
        }
        if !(1..=8).contains(&self.questions) {
            return setting("questions", "from 1 to 8", self.questions.to_string());
        }
        let odds = [
            ("noise", self.noise),
            ("scenes.two_events", self.scenes.two_events),
            ("scenes.second_object", self.scenes.second_object),
            ("scenes.tilted", self.scenes.tilted),
            ("scenes.large", self.scenes.large),
            ("scenes.two_in_image", self.scenes.two_in_image),
            ("scenes.tilted_in_image", self.scenes.tilted_in_image),
            ("clip_captions.no_event", self.clip_captions.no_event),
            ("clip_captions.no_direction", self.clip_captions.no_direction),
            ("clip_captions.one_of_two", self.clip_captions.one_of_two),
            ("clip_captions.colour", self.clip_captions.colour),
            ("clip_captions.size", self.clip_captions.size),
            ("clip_captions.indefinite", self.clip_captions.indefinite),
            ("clip_captions.second", self.clip_captions.second),
            ("clip_captions.background", self.clip_captions.background),
            ("image_captions.colour", self.image_captions.colour),
            ("image_captions.size", self.image_captions.size),
            ("image_captions.tilted", self.image_captions.tilted),
            ("image_captions.upright", self.image_captions.upright),
            ("image_captions.place", self.image_captions.place),
            ("image_captions.relation", self.image_captions.relation),
            ("image_captions.background", self.image_captions.background),
        ];
        match odds.into_iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
            Some((key, value)) => setting(key, "from 0 to 1", value.to_string()),
            None => Ok(()),
        }
    }

    /// Names the world: 16 hexadecimal digits of the SHA-256 of configuration, generator and words.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(GENERATOR.to_le_bytes());
        for (phrase, weight) in words::tables().into_iter().chain(questions::wordings()).flatten() {
            hash.update(phrase);
            hash.update(weight.to_le_bytes());
        }
        hash.update(serde_json::to_vec(self).unwrap_or_default());
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
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
