//! Changes to the configuration that a checkpoint stores.

use std::fmt;

use model::lora::LoraConfig;
use model::{Blip2Config, Fusion, Temporal};
use serde::Serialize;

/// What replaces the checkpoint's own configuration. A field that is `None` leaves the checkpoint's value.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Overrides {
    /// How frames are joined.
    pub fusion: Option<Fusion>,
    /// Whether and how the model distinguishes frames.
    pub temporal: Option<Temporal>,
    /// Height and width of the images in pixels; the ViT's positions are resampled.
    pub image_size: Option<usize>,
    /// Dropout of Q-Former, language model and low-rank updates.
    pub dropout: Option<f64>,
    /// Low-rank updates of the language model.
    pub lora: Option<LoraConfig>,
    /// Frames of a clip. A temporal embedding gets at least as many rows.
    pub frames: usize,
}

/// One value that an override changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: &'static str,
    /// The checkpoint's value.
    pub before: String,
    /// The value used.
    pub after: String,
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {} -> {}", self.key, self.before, self.after)
    }
}

impl Overrides {
    /// Changes a configuration; returns the values that are now different.
    pub fn apply(&self, config: &mut Blip2Config) -> Vec<Change> {
        let before = values(config);
        config.fusion = self.fusion.unwrap_or(config.fusion);
        config.temporal = self.temporal.unwrap_or(config.temporal);
        config.max_frames = config.max_frames.max(self.frames);
        if let Some(size) = self.image_size {
            config.vision_config.image_size = size;
        }
        if self.lora.is_some() {
            config.lora.clone_from(&self.lora);
        }
        if let Some(dropout) = self.dropout {
            config.set_dropout(dropout);
        }
        let pairs = before.into_iter().zip(values(config));
        let changed = pairs.filter(|(before, after)| before != after);
        changed.map(|((key, before), (_, after))| Change { key, before, after }).collect()
    }
}

/// The values that [`Overrides`] can change, as text.
fn values(config: &Blip2Config) -> [(&'static str, String); 6] {
    fn word(value: impl Serialize) -> String {
        match serde_json::to_value(value) {
            Ok(serde_json::Value::String(word)) => word,
            Ok(value) => value.to_string(),
            Err(error) => error.to_string(),
        }
    }
    let lora = config.lora.as_ref().map_or_else(|| "none".to_owned(), word);
    let [qformer, language_model] = [config.qformer_config.hidden_dropout_prob, config.text_config.dropout()]
        .map(|rate| rate.to_string());
    let dropout = if qformer == language_model { qformer } else { format!("{qformer} and {language_model}") };
    [
        ("fusion", word(config.fusion)),
        ("temporal", word(config.temporal)),
        ("image_size", config.vision_config.image_size.to_string()),
        ("dropout", dropout),
        ("lora", lora),
        ("max_frames", config.max_frames.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkpoints_own_values_hold_unless_overridden() {
        let mut config =
            Blip2Config { fusion: Fusion::Average, temporal: Temporal::Learned, ..Blip2Config::default() };
        let own = config.clone();
        assert_eq!(Overrides::default().apply(&mut config), []);
        assert_eq!(config, own);
        let equal = Overrides { fusion: Some(Fusion::Average), frames: 8, ..Overrides::default() };
        assert_eq!(equal.apply(&mut config), []);
    }

    #[test]
    fn every_effective_override_is_returned() {
        let mut config = Blip2Config { fusion: Fusion::Average, ..Blip2Config::default() };
        config.set_dropout(0.1);
        let overrides = Overrides {
            fusion: Some(Fusion::Concat),
            temporal: Some(Temporal::Sinusoidal),
            image_size: Some(364),
            dropout: Some(0.0),
            frames: 40,
            ..Overrides::default()
        };
        let changes: Vec<String> = overrides.apply(&mut config).iter().map(Change::to_string).collect();
        assert_eq!(
            changes,
            [
                "fusion: average -> concat",
                "temporal: none -> sinusoidal",
                "image_size: 224 -> 364",
                "dropout: 0.1 -> 0",
                "max_frames: 32 -> 40"
            ]
        );
    }
}
