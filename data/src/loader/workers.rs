//! Worker threads that make batches ahead of time.
//!
//! Batches come in the plan's order whatever the number of workers, a fixed number at most waits in memory,
//! and an error in a worker is returned in place of its batch. No parallel iterator offers all three.

use super::order::{Plan, Position};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// Number of worker threads and of prefetched batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefetch {
    /// Worker threads. With 0, the calling thread makes each batch when it is needed.
    pub workers: usize,
    /// Maximum number of batches that are being made or wait; 0 counts as 1.
    pub ahead: usize,
}

impl Prefetch {
    /// This number of workers, and two batches that wait.
    #[must_use]
    pub fn of(workers: usize) -> Self {
        Self { workers, ahead: workers.saturating_add(2) }
    }
}

impl Default for Prefetch {
    /// Two workers and four batches: enough to keep a device busy with stored frames, with little memory.
    fn default() -> Self {
        Self::of(2)
    }
}

/// Why a batch could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E> {
    /// Making it failed.
    #[error("batch {batch} of epoch {epoch} could not be made: {source}", batch = at.batch, epoch = at.epoch)]
    Failed {
        /// Position of the batch.
        at: Position,
        /// The reason.
        source: E,
    },

    /// A worker panicked, which is a bug.
    #[error("a worker panicked over batch {batch} of epoch {epoch}: {reason}", batch = at.batch, epoch = at.epoch)]
    Panicked {
        /// Position of the batch.
        at: Position,
        /// The panic's message.
        reason: String,
    },

    /// The system cannot start another thread.
    #[error("no thread for a worker: {0}")]
    Thread(std::io::Error),
}

type Make<T, E> = dyn Fn(u64, &[usize]) -> Result<T, E> + Send + Sync;

/// The batches of one epoch from a position on. After an error there are no more.
pub struct Batches<T, E> {
    job: Arc<Job<T, E>>,
    /// Worker `w` of `n` makes batches `first + w`, `first + w + n`, ….
    workers: Vec<Worker<T, E>>,
    first: usize,
    next: usize,
    failed: bool,
}

struct Worker<T, E> {
    batches: Receiver<Result<T, LoadError<E>>>,
    thread: JoinHandle<()>,
}

struct Job<T, E> {
    order: Vec<usize>,
    batch_size: usize,
    epoch: u64,
    batches: usize,
    make: Arc<Make<T, E>>,
}

impl Plan {
    /// The batches of epoch `from.epoch` from `from.batch` on, made by `make(epoch, examples)`. If equal
    /// arguments give equal batches, an epoch is the same for every number of workers.
    ///
    /// # Errors
    /// [`LoadError::Thread`] where a worker cannot be started.
    pub fn load<T, E>(
        &self,
        from: Position,
        prefetch: Prefetch,
        make: Arc<Make<T, E>>,
    ) -> Result<Batches<T, E>, LoadError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let first = usize::try_from(from.batch).unwrap_or(usize::MAX).min(self.batches());
        let job = Arc::new(Job {
            order: self.epoch(from.epoch),
            batch_size: self.batch_size,
            epoch: from.epoch,
            batches: self.batches(),
            make,
        });
        let mut batches = Batches { job, workers: Vec::new(), first, next: first, failed: false };
        let ahead = prefetch.ahead.max(1);
        let count = prefetch.workers.min(ahead);
        for number in 0..count {
            // A worker holds the batch that it makes or waits to send; the rest of its share is in the
            // channel.
            let share = ahead / count + usize::from(number < ahead % count);
            let (sender, receiver) = sync_channel(share - 1);
            let job = batches.job.clone();
            let work = move || {
                for batch in (first + number..job.batches).step_by(count) {
                    if sender.send(job.make(batch)).is_err() {
                        return; // the iterator was dropped
                    }
                }
            };
            let thread = std::thread::Builder::new().name(format!("loader {number}")).spawn(work);
            batches.workers.push(Worker { batches: receiver, thread: thread.map_err(LoadError::Thread)? });
        }
        Ok(batches)
    }
}

impl<T, E> Job<T, E> {
    fn at(&self, batch: usize) -> Position {
        Position { epoch: self.epoch, batch: batch as u64 }
    }

    fn make(&self, batch: usize) -> Result<T, LoadError<E>> {
        let at = self.at(batch);
        let start = batch * self.batch_size;
        let examples = &self.order[start..(start + self.batch_size).min(self.order.len())];
        match catch_unwind(AssertUnwindSafe(|| (self.make)(self.epoch, examples))) {
            Ok(made) => made.map_err(|source| LoadError::Failed { at, source }),
            Err(panic) => Err(LoadError::Panicked { at, reason: crate::error::panic_message(&*panic) }),
        }
    }
}

impl<T, E> Batches<T, E> {
    /// The position after the last batch that was returned: what a checkpoint saves.
    #[must_use]
    pub fn position(&self) -> Position {
        self.job.at(self.next)
    }
}

impl<T, E> Iterator for Batches<T, E> {
    type Item = Result<T, LoadError<E>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.next >= self.job.batches {
            return None;
        }
        let made = if self.workers.is_empty() {
            self.job.make(self.next)
        } else {
            let worker = &self.workers[(self.next - self.first) % self.workers.len()];
            worker.batches.recv().unwrap_or_else(|_| {
                Err(LoadError::Panicked {
                    at: self.job.at(self.next),
                    reason: "the worker ended early".into(),
                })
            })
        };
        // After an error, the position stays before the batch that failed.
        self.failed = made.is_err();
        self.next += usize::from(made.is_ok());
        Some(made)
    }
}

impl<T, E> Drop for Batches<T, E> {
    fn drop(&mut self) {
        for Worker { batches, thread } in self.workers.drain(..) {
            drop(batches); // a worker that waits to send ends
            let _ = thread.join(); // workers catch panics, so there is no result to check
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::order::Order;
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    type Made = Result<(u64, Vec<usize>), String>;

    fn plan(examples: usize, batch: usize) -> Plan {
        Plan::new(examples, batch, Order::Shuffled { seed: 5 })
    }

    fn echo() -> Arc<Make<(u64, Vec<usize>), String>> {
        Arc::new(|epoch, items: &[usize]| -> Made { Ok((epoch, items.to_vec())) })
    }

    fn uneven() -> Arc<Make<(u64, Vec<usize>), String>> {
        Arc::new(|epoch, items: &[usize]| -> Made {
            std::thread::sleep(Duration::from_micros((items[0] as u64 * 37) % 300));
            Ok((epoch, items.to_vec()))
        })
    }

    #[test]
    fn batches_are_the_same_for_every_number_of_workers() {
        let load = |workers, ahead| -> Vec<_> {
            let from = Position { epoch: 3, batch: 0 };
            let batches = plan(103, 4).load(from, Prefetch { workers, ahead }, uneven()).unwrap();
            batches.map(Result::unwrap).collect()
        };
        let expected = load(0, 1);
        assert_eq!(expected.len(), 26);
        for (workers, ahead) in [(1, 1), (1, 5), (2, 3), (7, 4), (4, 50)] {
            assert_eq!(load(workers, ahead), expected, "{workers} workers, {ahead} ahead");
        }
    }

    #[test]
    fn no_more_batches_wait_than_allowed() {
        let made = Arc::new(AtomicUsize::new(0));
        let count = made.clone();
        let make: Arc<Make<(), String>> = Arc::new(move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        let mut batches =
            plan(100, 1).load(Position::default(), Prefetch { workers: 3, ahead: 5 }, make).unwrap();
        for given in 0..20 {
            std::thread::sleep(Duration::from_millis(3));
            assert!(made.load(Ordering::SeqCst) <= given + 5);
            batches.next().unwrap().unwrap();
        }
        drop(batches); // must not hang on workers that wait to send
    }

    #[test]
    fn a_failing_worker_is_an_error_where_its_batch_would_be() {
        for workers in [0, 1, 4] {
            let make: Arc<Make<usize, String>> = Arc::new(|_, items: &[usize]| match items[0] {
                7 => Err("clip 7 is broken".into()),
                item => Ok(item),
            });
            let plan = Plan::new(12, 1, Order::Sequential);
            let mut batches = plan.load(Position::default(), Prefetch { workers, ahead: 6 }, make).unwrap();
            for expected in 0..7 {
                assert_eq!(batches.next().unwrap().unwrap(), expected);
            }
            let message = batches.next().unwrap().unwrap_err().to_string();
            assert_eq!(message, "batch 7 of epoch 0 could not be made: clip 7 is broken");
            assert!(batches.next().is_none());
            assert_eq!(batches.position(), Position { epoch: 0, batch: 7 });
        }
    }

    #[test]
    fn a_panicking_worker_is_an_error_too() {
        for workers in [0, 3] {
            let make: Arc<Make<usize, String>> = Arc::new(|_, items: &[usize]| {
                assert!(items[0] != 2, "no third item");
                Ok(items[0])
            });
            let plan = Plan::new(5, 1, Order::Sequential);
            let batches = plan.load(Position::default(), Prefetch { workers, ahead: 3 }, make).unwrap();
            let made: Vec<_> = batches.collect();
            assert_eq!(made.len(), 3);
            let error = made[2].as_ref().unwrap_err().to_string();
            assert!(error.contains("panicked over batch 2 of epoch 0: no third item"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_resumed_epoch_continues_where_it_stopped(examples in 0usize..60, batch in 1usize..9, done in 0u64..70) {
            let plan = plan(examples, batch);
            let whole: Vec<_> = plan.load(Position { epoch: 1, batch: 0 }, Prefetch { workers: 0, ahead: 1 }, echo())
                .unwrap().map(Result::unwrap).collect();
            let from = Position { epoch: 1, batch: done };
            let mut rest = plan.load(from, Prefetch { workers: 2, ahead: 3 }, echo()).unwrap();
            let done = whole.len().min(done as usize);
            for (index, expected) in whole[done..].iter().enumerate() {
                prop_assert_eq!(rest.position(), Position { epoch: 1, batch: (done + index) as u64 });
                prop_assert_eq!(&rest.next().unwrap().unwrap(), expected);
            }
            prop_assert!(rest.next().is_none());
        }
    }
}
