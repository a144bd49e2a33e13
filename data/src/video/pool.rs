//! How many clips are decoded at once. Every decoder runs on one thread and holds some frames, so that one a
//! core keeps all cores busy and memory bounded, whoever calls and from however many threads.

use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The decoders of this process.
struct Pool {
    running: usize,
    /// `None` until somebody set it: the number of cores.
    limit: Option<NonZeroUsize>,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { running: 0, limit: None });
static FREED: Condvar = Condvar::new();

/// Sets how many clips this process decodes at once; as many as it has cores unless this is called. Decoders
/// that run already run on.
pub fn limit_decoders(decoders: NonZeroUsize) {
    pool().limit = Some(decoders);
    FREED.notify_all();
}

/// A decoder's turn, which ends where this goes out of scope.
pub(crate) struct Turn;

impl Drop for Turn {
    fn drop(&mut self) {
        pool().running -= 1;
        FREED.notify_one();
    }
}

/// Waits until a decoder may run.
pub(crate) fn turn() -> Turn {
    let mut pool = pool();
    loop {
        let limit = *pool
            .limit
            .get_or_insert_with(|| std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
        if pool.running < limit.get() {
            pool.running += 1;
            return Turn;
        }
        pool = FREED.wait(pool).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Nothing that holds this lock can panic half way through a change.
fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn no_more_decoders_run_than_there_are_cores() {
        let cores = std::thread::available_parallelism().unwrap().get();
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 * cores {
                scope.spawn(|| {
                    let _turn = turn();
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    running.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert!((1..=cores).contains(&most.load(Ordering::SeqCst)));
    }
}
