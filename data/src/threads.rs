//! How many threads this process may use.

use std::num::NonZeroUsize;

/// The cores of this process: no more than rayon's threads, by which processes of one machine share them.
#[must_use]
pub fn threads() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    NonZeroUsize::new(rayon::current_num_threads()).map_or(cores, |threads| threads.min(cores))
}
