//! How a checkpoint is used: which frames it sees, what the prompt is, how captions are generated.

use std::num::NonZeroUsize;
use std::path::Path;

use data::augment::Augment;
use data::preprocess::{Preprocess, Resizing};
use data::sampling::Sampling;
use data::video::FrameRequest;
use data::views::ViewRequest;
use model::checkpoint::Constraints;
pub use model::checkpoint::SETTINGS_FILE;
use model::generate::GenerateConfig;
use serde::{Deserialize, Serialize};

use crate::CaptionerError;

/// The settings that a checkpoint remembers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Frames of a clip.
    pub frames: FrameConfig,
    /// Prompt and caption length.
    #[serde(default)]
    pub text: TextConfig,
    /// Generation.
    #[serde(default)]
    pub generate: GenerationConfig,
}

impl Default for Settings {
    /// Eight uniform frames, no prompt, five beams.
    fn default() -> Self {
        Self {
            frames: FrameConfig::default(),
            text: TextConfig::default(),
            generate: GenerationConfig { num_beams: 5, ..GenerationConfig::default() },
        }
    }
}

impl Settings {
    /// Reads the tables `frames`, `text` and `generate` of a checkpoint's [`SETTINGS_FILE`]; `None` without
    /// such a file. Other tables are ignored.
    ///
    /// # Errors
    /// When the file cannot be read, or one of the three tables is not valid.
    pub fn of_checkpoint(directory: &Path) -> Result<Option<Self>, CaptionerError> {
        let path = directory.join(SETTINGS_FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CaptionerError::Io { path, source }),
        };
        let fail = |reason: String| CaptionerError::Settings { reason, path: path.clone() };
        if let Some(reason) = model::checkpoint::stand_in(text.as_bytes()) {
            return Err(fail(reason.to_owned()));
        }
        toml::from_str(&text).map(Some).map_err(|error| fail(error.to_string()))
    }
}

/// Which frames a model sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameConfig {
    /// Frames per clip.
    pub count: usize,
    /// How they are chosen.
    pub sampling: Sampling,
    /// How training frames are chosen, where that differs. A random rule draws frames from the video files
    /// for every example and epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_sampling: Option<Sampling>,
    /// Random crops and flips of training frames, for every example and epoch; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augment: Option<Augment>,
    /// Number of views of a training clip that are drawn once and stored, with a frozen ViT's output.
    /// Examples and epochs take turns with them. Without it, each example draws a new view in each
    /// epoch, as in LAVIS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub views: Option<NonZeroUsize>,
    /// Interpolation: that of BLIP's image processor or of LAVIS.
    #[serde(default)]
    pub resizing: Resizing,
    /// Where decoded frames and ViT features are stored.
    #[serde(default)]
    pub storage: Storage,
}

impl Default for FrameConfig {
    fn default() -> Self {
        Self {
            count: 8,
            sampling: Sampling::default(),
            train_sampling: None,
            augment: None,
            views: None,
            resizing: Resizing::default(),
            storage: Storage::default(),
        }
    }
}

impl FrameConfig {
    /// The frames of a clip in validation and test.
    pub fn request(&self, size: u32) -> FrameRequest {
        let (sampling, resizing) = (self.sampling, self.resizing);
        FrameRequest { sampling, resizing, ..FrameRequest::uniform(self.count, size) }
    }

    /// How frames become the ViT's input.
    pub fn preprocess(&self, size: usize) -> Preprocess {
        Preprocess { resizing: self.resizing, ..Preprocess::new(size as u32) }
    }

    /// The views of a clip in training, in a run with this seed.
    pub fn training(&self, size: u32, seed: u64) -> ViewRequest {
        let request = FrameRequest { sampling: self.train_rule(), seed, ..self.request(size) };
        ViewRequest { request, augment: self.augment.clone() }
    }

    /// Whether training draws views: otherwise all examples of a clip have the same frames in every epoch.
    pub fn varies(&self) -> bool {
        self.augment.is_some() || self.train_rule().is_random()
    }

    /// Views of a training clip that are stored: one where nothing is drawn, none where a view is drawn for
    /// every example.
    pub fn stored_views(&self) -> Option<usize> {
        if self.varies() { self.views.map(NonZeroUsize::get) } else { Some(1) }
    }

    fn train_rule(&self) -> Sampling {
        self.train_sampling.unwrap_or(self.sampling)
    }
}

/// Where decoded frames and ViT features are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Storage {
    /// In memory, features in f32.
    #[default]
    Memory,
    /// In the cache on disk, memory-mapped; features in bf16.
    Disk,
}

/// Prompt and caption length, in training and evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextConfig {
    /// Read by the language model after the video; by an InstructBLIP's Q-Former too.
    pub prompt: String,
    /// Maximum number of tokens of a training caption, its end included; longer captions are truncated.
    pub max_tokens: usize,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self { prompt: String::new(), max_tokens: GenerateConfig::default().max_new_tokens }
    }
}

/// How captions are generated in validation and test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerationConfig {
    /// Maximum number of new tokens, the end included.
    pub max_new_tokens: usize,
    /// Minimum number of new tokens.
    pub min_new_tokens: usize,
    /// Beams; 1 is greedy search.
    pub num_beams: usize,
    /// Length penalty: a beam's score is its log-probability divided by length^length_penalty.
    pub length_penalty: f64,
    /// Repetition penalty: divides the scores of tokens that the caption already holds.
    pub repetition_penalty: f64,
    /// No sequence of this many tokens is repeated; 0 allows it. Where this and the following are absent, the
    /// checkpoint's `generation_config.json` decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_repeat_ngram_size: Option<usize>,
    /// No sequence of this many tokens of the encoder's input is written. It has no effect on a BLIP-2, whose
    /// language model reads embedded tokens, as in transformers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder_no_repeat_ngram_size: Option<usize>,
    /// Sequences of tokens that are not written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad_words_ids: Option<Vec<Vec<u32>>>,
    /// The token that follows the first one of the text: the first new token of a T5, the second one of OPT
    /// and LLaMA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forced_bos_token_id: Option<u32>,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        let config = GenerateConfig::default();
        Self {
            max_new_tokens: config.max_new_tokens,
            min_new_tokens: config.min_new_tokens,
            num_beams: config.num_beams,
            length_penalty: config.length_penalty,
            repetition_penalty: config.repetition_penalty,
            no_repeat_ngram_size: None,
            encoder_no_repeat_ngram_size: None,
            bad_words_ids: None,
            forced_bos_token_id: None,
        }
    }
}

impl GenerationConfig {
    /// The model's settings, with the tokens that end a caption, and the checkpoint's own constraints where
    /// these settings have none.
    pub fn for_model(&self, end_tokens: Vec<u32>, own: &Constraints) -> GenerateConfig {
        let Constraints { no_repeat_ngram_size, encoder_no_repeat_ngram_size, bad_words_ids, .. } = own;
        let encoder_size = self.encoder_no_repeat_ngram_size;
        GenerateConfig {
            max_new_tokens: self.max_new_tokens,
            min_new_tokens: self.min_new_tokens,
            num_beams: self.num_beams,
            length_penalty: self.length_penalty,
            repetition_penalty: self.repetition_penalty,
            no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(*no_repeat_ngram_size),
            encoder_no_repeat_ngram_size: encoder_size.unwrap_or(*encoder_no_repeat_ngram_size),
            bad_words_ids: self.bad_words_ids.as_ref().unwrap_or(bad_words_ids).clone(),
            forced_bos_token_id: self.forced_bos_token_id.or(own.forced_bos_token_id),
            end_tokens,
            ..GenerateConfig::default()
        }
    }

    /// These settings with the constraints that a model is used with, so that they need no
    /// `generation_config.json`.
    #[must_use]
    pub fn with_constraints(&self, used: &Constraints) -> Self {
        fn set<T: Clone + PartialEq + Default>(own: &Option<T>, used: &T) -> Option<T> {
            own.clone().or_else(|| Some(used.clone()).filter(|used| *used != T::default()))
        }
        Self {
            no_repeat_ngram_size: set(&self.no_repeat_ngram_size, &used.no_repeat_ngram_size),
            encoder_no_repeat_ngram_size: set(
                &self.encoder_no_repeat_ngram_size,
                &used.encoder_no_repeat_ngram_size,
            ),
            bad_words_ids: set(&self.bad_words_ids, &used.bad_words_ids),
            forced_bos_token_id: self.forced_bos_token_id.or(used.forced_bos_token_id),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_tables_are_read_and_the_rest_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(folder.path().join(SETTINGS_FILE), text).unwrap();
        assert_eq!(Settings::of_checkpoint(folder.path()).unwrap(), None);
        write(
            "\u{feff}checkpoint = \"x\"\n[train]\nepochs = 3\n[frames]\ncount = 4\nsampling = \"middle\"\n[text]\nprompt = \"a\"\n\
             [generate]\nnum_beams = 3\n",
        );
        let settings = Settings::of_checkpoint(folder.path()).unwrap().unwrap();
        assert_eq!((settings.frames.count, settings.frames.sampling), (4, Sampling::Middle));
        assert_eq!((settings.text.prompt.as_str(), settings.text.max_tokens), ("a", 32));
        assert_eq!((settings.generate.num_beams, settings.generate.length_penalty), (3, 1.0));
        write("[frames]\ncount = 4\nsampling = \"middle\"\nkeep = \"disk\"\n");
        let error = Settings::of_checkpoint(folder.path()).unwrap_err().to_string();
        assert!(error.contains("keep") && error.contains(SETTINGS_FILE), "{error}");
    }

    #[test]
    fn settings_come_before_the_checkpoints_own_constraints() {
        let own = Constraints {
            no_repeat_ngram_size: 3,
            bad_words_ids: vec![vec![4]],
            forced_bos_token_id: Some(7),
            ..Constraints::default()
        };
        let read = |text: &str| toml::from_str::<GenerationConfig>(text).unwrap();
        let of = |text: &str| Constraints::of_settings(&read(text).for_model(vec![1], &own));
        assert_eq!(of(""), own);
        let none = "no_repeat_ngram_size = 0\nbad_words_ids = []\nforced_bos_token_id = 8";
        assert_eq!(of(none), Constraints { forced_bos_token_id: Some(8), ..Constraints::default() });
        let saved = toml::to_string(&read("no_repeat_ngram_size = 2").with_constraints(&own)).unwrap();
        let constraints = Constraints::of_settings(&read(&saved).for_model(vec![1], &Constraints::default()));
        assert_eq!(constraints, Constraints { no_repeat_ngram_size: 2, ..own });
        let plain = toml::to_string(&GenerationConfig::default()).unwrap();
        assert!(!plain.contains("ngram") && !plain.contains("bad_words"), "{plain}");
    }
}
