//! What the process offers to a run: the device, Ctrl-C, folder locks, shared caches, progress bars and the
//! memory counter. It imports no other folder.

pub mod cache;
pub mod device;
mod lock;
pub mod memory;
mod progress;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use train::dashboard::Dashboard;

pub use cache::Caches;
pub use lock::FolderLock;
pub use progress::{ProgressBars, open_world, synthesize};

/// What the runs of one command share.
pub struct Session {
    /// The device that computes.
    pub device: Device,
    /// Its name as a `--device` word, never `auto`.
    pub device_word: String,
    /// Set by Ctrl-C.
    pub stop: Arc<AtomicBool>,
    /// The display of training progress.
    pub dashboard: Dashboard,
    /// Shared caches.
    pub caches: Caches,
}

impl Session {
    /// Whether Ctrl-C was pressed.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// How a study or pretraining ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// All runs are finished.
    Finished,
    /// Some runs failed, the others are finished.
    Failed,
    /// Ctrl-C; `--resume` continues.
    Interrupted,
}
