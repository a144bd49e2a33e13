//! Training: one loop inside burn-train for fine-tuning, self-critical training and both stages of
//! pretraining.
//!
//! The files in the order of a step: [`batch`] (arrays on the host), [`loader`] and [`examples`] (which
//! examples, in which order), [`objective`] (from a batch to a loss) with [`cross_entropy`], [`scst`] and
//! [`pretraining`], [`gradients`] (micro-batches), [`processes`] (several processes), [`freezing`],
//! [`schedule`] and [`optimizer`] (the update), [`mod@fit`] and `run` (the loop), [`evaluation`] with
//! [`prediction`] and [`metrics`] (predictions and scores), [`checkpoint`] (saved states), `burn_train` and
//! [`dashboard`] (what is shown).

pub mod adamw;
pub mod batch;
mod burn_train;
pub mod checkpoint;
pub mod config;
pub mod cross_entropy;
pub mod dashboard;
pub mod error;
pub mod evaluation;
pub mod examples;
pub mod fit;
pub mod freezing;
pub mod gradients;
pub mod loader;
pub mod memory;
pub mod metrics;
pub mod objective;
pub mod optimizer;
pub mod prediction;
pub mod pretraining;
pub mod processes;
mod run;
pub mod schedule;
pub mod scst;
#[cfg(test)]
mod testing;

pub use batch::Batch;
pub use burn_train::is_training;
pub use config::{SelectionMetric, TrainConfig};
pub use cross_entropy::CrossEntropy;
pub use data::files;
pub use error::TrainError;
pub use evaluation::Validation;
pub use examples::{CaptionUse, Captioned};
pub use fit::fit;
pub use freezing::Freezing;
pub use loader::{Examples, Loader};
pub use metrics::Metrics;
pub use objective::{Evaluation, Objective};
pub use prediction::{Prediction, Scorer};
pub use run::{BEST, Fit, Outcome, STATES};
