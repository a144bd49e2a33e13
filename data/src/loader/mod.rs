//! Loading of batches: the order of examples, and workers that make batches ahead of time.

mod order;
mod workers;

pub use order::{Lengths, Order, Plan, Position, Saved, draw_caption};
pub use workers::{Batches, LoadError, Prefetch};
