//! Limits the number of clips that are decoded at once. A decoder runs on one thread and holds some frames:
//! one decoder per core keeps all cores busy and memory bounded, whatever the number of calling threads.

use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The running decoders of this process, and their limit.
struct Pool {
    running: usize,
    /// `None` until first use: the number of cores, unless it is set.
    limit: Option<NonZeroUsize>,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { running: 0, limit: None });
static FREED: Condvar = Condvar::new();

/// Sets how many clips this process decodes at once; the default is the number of cores.
pub fn limit_decoders(decoders: NonZeroUsize) {
    pool().limit = Some(decoders);
    FREED.notify_all();
}

/// A permit to run a decoder, returned when dropped.
pub(crate) struct Permit;

impl Drop for Permit {
    fn drop(&mut self) {
        pool().running -= 1;
        FREED.notify_one();
    }
}

/// Waits until a decoder may run.
pub(crate) fn permit() -> Permit {
    let mut pool = pool();
    loop {
        let limit = *pool.limit.get_or_insert_with(crate::threads);
        if pool.running < limit.get() {
            pool.running += 1;
            return Permit;
        }
        pool = FREED.wait(pool).unwrap_or_else(PoisonError::into_inner);
    }
}

/// No code panics in the middle of a change while it holds this lock.
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
                    let _permit = permit();
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    running.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert!((1..=cores).contains(&most.load(Ordering::SeqCst)));
    }
}
