//! The learner: one training loop inside burn-train for fine-tuning, self-critical training and both pretraining stages.
//!
//! The order of the files is the order of a step: [`batch`] (host arrays), [`loader`] (which examples, in which order),
//! [`task`] (what a batch becomes: loss and gradients) with its kinds, [`captioner`] and [`scst`], [`processes`] (the one
//! seam for several of them), [`freezing`], [`schedule`] and [`optimizer`] (the update), [`run`](crate::fit) (the loop),
//! [`evaluation`] (captions and scores), [`checkpoint`] (nothing lost), [`dashboard`] (what a person sees meanwhile).

mod adamw;
pub mod batch;
pub mod captioner;
pub mod checkpoint;
pub mod config;
pub mod dashboard;
pub mod error;
pub mod evaluation;
pub mod files;
pub mod fit;
pub mod freezing;
pub mod loader;
pub mod optimizer;
pub mod pretraining;
pub mod processes;
mod run;
pub mod schedule;
pub mod scst;
pub mod task;
#[cfg(test)]
mod testing;

pub use batch::{Batch, HostPrompts, HostTokens, HostVisual};
pub use captioner::{Captioner, Context};
pub use config::{Selection, TrainConfig};
pub use error::TrainError;
pub use evaluation::{Prediction, Scorer, Validation};
pub use fit::{Fit, Outcome, fit, is_running};
pub use freezing::Freezing;
pub use loader::{Examples, Loader};
pub use run::{BEST, STATES};
pub use task::Task;
