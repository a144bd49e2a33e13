//! Captions of videos with a BLIP-2 checkpoint.
//!
//! ```
//! use captioner::{Captioner, Options};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let checkpoint = concat!(env!("CARGO_MANIFEST_DIR"), "/../experiments/checkpoints/tiny");
//! # let folder = tempfile::tempdir()?;
//! # let video = folder.path().join("a.gif");
//! # let pixel = b"\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";
//! # std::fs::write(&video, [b"GIF89a".as_slice(), pixel].concat())?;
//! # let missing = folder.path().join("b.mp4");
//! let captioner = Captioner::open(checkpoint, Options::default())?;
//! for clip in captioner.caption(&[&video, &missing])? {
//!     match clip.captions {
//!         Ok(captions) => println!("{}: {}", clip.path.display(), captions[0].text),
//!         Err(reason) => eprintln!("{}: {reason}", clip.path.display()),
//!     }
//! }
//! # let is_ok = |path| Ok::<_, captioner::CaptionerError>(captioner.caption(&[path])?[0].captions.is_ok());
//! # assert!(is_ok(&video)? && !is_ok(&missing)?);
//! # Ok(())
//! # }
//! ```
//!
//! Training and evaluation use the same steps one by one. In the order of the data:
//!
//! 1. [`checkpoint`] reads weights, sizes and tokenizers. [`overrides`] changes sizes by name; [`settings`]
//!    holds how a checkpoint is used: frames, prompt, generation.
//! 2. [`frames`] reads or draws the frames of a split; [`features`] caches the output of a frozen ViT;
//!    [`videos`] joins both.
//! 3. [`host`] holds batches as plain arrays and uploads them.
//! 4. [`context`] builds prompts and generates captions; [`Captioner`] is all of it for a list of files.

mod captioner;
pub mod checkpoint;
pub mod collection;
pub mod context;
pub mod error;
pub mod features;
pub mod frames;
pub mod host;
pub mod overrides;
pub mod settings;
pub mod videos;

pub use captioner::{Captioner, ClipCaptions, Options};
pub use checkpoint::{Checkpoint, QFORMER_TOKENIZER, TOKENIZER_FILE, hex, weights_hash};
pub use context::{Caption, Context, PromptIds};
pub use error::CaptionerError;
pub use features::FeatureStore;
pub use frames::{FrameSource, Shown};
pub use host::{HostPrompts, HostTokens, HostVisual};
pub use overrides::{Change, Overrides};
pub use settings::{FrameConfig, GenerationConfig, SETTINGS_FILE, Settings, Storage, TextConfig};
pub use videos::Videos;
