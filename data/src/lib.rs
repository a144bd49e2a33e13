//! Video files to host batches.
//!
//! The way of a clip through this crate, in the order of the modules: [`video`] decodes the frames that [`sampling`]
//! chose, [`preprocess`] resizes and normalises them, [`datasets`] says which clips and captions there are, [`text`]
//! turns captions into ids, and [`loader`] puts clips in order for training. Before training, [`check`] reads a data set
//! once and lists what must be left out, [`prepare`] decodes it once, and [`features`] keeps what a frozen vision
//! transformer makes of it. Nothing here knows tensors of a training framework: what it hands over are host arrays.

pub mod augment;
pub mod check;
pub mod datasets;
pub mod error;
pub mod features;
pub mod loader;
pub mod prepare;
pub mod preprocess;
pub mod probe;
pub mod progress;
pub mod random;
pub mod sampling;
mod shards;
mod store;
pub mod text;
pub mod video;

pub use error::{Error, Result};
