//! What the process offers to a run: the device, Ctrl-C, folder locks, shared caches, progress bars and the
//! memory counter. It imports `text` only.

pub mod cache;
pub mod device;
mod lock;
pub mod memory;
#[cfg(feature = "mpi")]
mod mpi;
pub mod processes;
mod progress;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use train::TrainError;
use train::dashboard::Dashboard;
use train::processes::{ProcessGroup, agree};

pub use cache::Caches;
pub use lock::FolderLock;
pub use progress::{ProgressBars, note, open_world, synthesize};

/// What the runs of one command share.
pub struct Session {
    /// The device that computes.
    pub device: Device,
    /// Its name as a `--device` word, never `auto`.
    pub device_word: String,
    /// Bytes of an accelerator's memory, where its driver reports them.
    pub device_memory: Option<usize>,
    /// Set by Ctrl-C.
    pub stop: Arc<AtomicBool>,
    /// The display of training progress.
    pub dashboard: Dashboard,
    /// Shared caches.
    pub caches: Caches,
    /// The processes that run the command together.
    pub processes: Arc<dyn ProcessGroup>,
}

impl Session {
    /// One process on the CPU, silent, with caches in a temporary folder.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self::with_cache(&std::env::temp_dir())
    }

    /// The same with caches in a folder.
    #[cfg(test)]
    pub(crate) fn with_cache(cache: &std::path::Path) -> Self {
        Self {
            device: Device::flex(),
            device_word: "cpu".to_owned(),
            device_memory: None,
            stop: Arc::default(),
            dashboard: Dashboard::Silent,
            caches: Caches::new(Some(cache)),
            processes: Arc::new(train::processes::SingleProcess),
        }
    }

    /// Whether Ctrl-C was pressed.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether this is the process that writes files and prints for all.
    pub fn is_first(&self) -> bool {
        self.processes.rank() == 0
    }

    /// A process's own result if all succeeded, else an error on all: [`train::processes::agree`].
    ///
    /// # Errors
    /// When a process failed, or is gone.
    pub fn agree<T>(&self, own: anyhow::Result<T>) -> anyhow::Result<T> {
        struct Chain(anyhow::Error);
        impl std::fmt::Display for Chain {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(formatter, "{:#}", self.0)
            }
        }
        impl From<TrainError> for Chain {
            fn from(error: TrainError) -> Self {
                Self(error.into())
            }
        }
        let reported = |Chain(error)| if self.is_first() { error } else { Reported(error).into() };
        agree(&*self.processes, own.map_err(Chain)).map_err(reported)
    }

    /// Lets the first process work before the others, which find what it left in a shared folder.
    ///
    /// # Errors
    /// Those of `work`, on all processes.
    pub fn in_turn<T>(&self, work: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let first = self.first(&work)?;
        self.agree(first.map_or_else(work, Ok))
    }

    /// Does something in the first process only, for all: writing a file.
    ///
    /// # Errors
    /// Those of `work`, on all processes.
    pub fn once(&self, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.first(work).map(|_| ())
    }

    /// The same with a value, which the first process alone gets: a lock.
    ///
    /// # Errors
    /// Those of `work`, on all processes.
    pub fn first<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<Option<T>> {
        self.agree(self.is_first().then(work).transpose())
    }
}

/// An error of another process than the first, which knows of it and prints it for all.
#[derive(Debug)]
pub struct Reported(anyhow::Error);

impl std::fmt::Display for Reported {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:#}", self.0)
    }
}

impl std::error::Error for Reported {}

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
