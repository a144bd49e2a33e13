//! Video files to host batches.
//!
//! A data set's annotations and files are read by [`datasets`]; [`tiny_world`] makes a synthetic data set.
//! [`video`] decodes the frames that [`sampling`] chooses, [`augment`] and [`preprocess`] crop, resize and
//! normalise them, [`text`] converts captions to token ids, and [`loader`] orders and batches examples.
//! Before training, [`check`] finds clips that cannot be used, [`frames`] stores decoded frames and
//! [`features`] the output of a frozen vision transformer.
//!
//! The crate returns host arrays and does not depend on a tensor library.

pub mod augment;
mod cache;
pub mod captioned;
pub mod check;
pub mod collection;
pub mod datasets;
pub mod digest;
mod encoding;
pub mod error;
pub mod features;
pub mod files;
pub mod format;
pub mod frames;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod loader;
pub mod preprocess;
pub mod progress;
pub mod random;
pub mod sampling;
pub mod stand_in;
pub mod text;
mod threads;
pub mod tiny_world;
pub mod video;
pub mod views;

pub use error::{Error, Result};
pub use threads::threads;
pub use video::probe;
