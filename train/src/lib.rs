//! The learner: one training loop inside burn-train for fine-tuning and for both pretraining stages.
//!
//! The order of the files is the order of a step: [`batch`] (host arrays), [`loader`] (which examples, in which order),
//! [`captioner`] (forward, loss, backward, and writing captions), [`freezing`], [`schedule`] and [`optimizer`] (the
//! update), [`strategy`] (the loop), [`checkpoint`] (nothing lost), [`dashboard`] (what a person sees meanwhile).

pub mod batch;
pub mod captioner;
pub mod checkpoint;
pub mod dashboard;
pub mod error;
pub mod files;
pub mod freezing;
pub mod loader;
pub mod optimizer;
pub mod schedule;
pub mod strategy;

pub use batch::{Batch, HostTokens, HostVisual};
pub use captioner::{Captioner, Context};
pub use error::TrainError;
pub use freezing::Freezing;
pub use loader::{Examples, Loader};
pub use strategy::{Fit, Outcome, TrainConfig, fit};
