//! What a training loop draws its batches from: frames in memory, the order of examples, and workers that make batches
//! ahead of time.

mod frames;
mod order;
mod workers;

pub use frames::FrameStore;
pub use order::{Lengths, Order, Plan, Position, Saved, draw_caption};
pub use workers::{Batches, LoadError, Prefetch};
