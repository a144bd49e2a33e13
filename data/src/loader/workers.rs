//! Workers that make batches ahead of time. Batches come in the plan's order whatever the number of workers, no more
//! than a fixed number wait in memory, and what goes wrong in a worker comes out where its batch would have.

use super::order::{Plan, Position};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// How many threads make batches, and how many batches may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefetch {
    /// Threads. With 0 each batch is made when it is asked for, on the thread that asks.
    pub workers: usize,
    /// The most batches in the making or ready; at least one a worker is of use. 0 counts as 1.
    pub ahead: usize,
}

impl Default for Prefetch {
    /// Two workers and four batches: enough to hide the making of batches from a device, little memory.
    fn default() -> Self {
        Self { workers: 2, ahead: 4 }
    }
}

/// Why a batch could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E> {
    /// Making it failed.
    #[error("batch {batch} of epoch {epoch} could not be made: {source}", batch = at.batch, epoch = at.epoch)]
    Failed {
        /// Which batch.
        at: Position,
        /// The reason.
        source: E,
    },

    /// A worker panicked over it, which is a bug.
    #[error("a worker panicked over batch {batch} of epoch {epoch}: {reason}", batch = at.batch, epoch = at.epoch)]
    Panicked {
        /// Which batch.
        at: Position,
        /// What it said.
        reason: String,
    },

    /// The system gives no more threads.
    #[error("no thread for a worker: {0}")]
    Thread(std::io::Error),
}

type Make<T, E> = dyn Fn(u64, &[usize]) -> Result<T, E> + Send + Sync;

/// The batches of one epoch from a position on. After an error there are no more.
pub struct Batches<T, E> {
    shared: Arc<Shared<T, E>>,
    workers: Vec<JoinHandle<()>>,
    failed: bool,
}

struct Shared<T, E> {
    order: Vec<usize>,
    batch_size: usize,
    epoch: u64,
    batches: usize,
    ahead: usize,
    make: Arc<Make<T, E>>,
    state: Mutex<State<T, E>>,
    /// Told when a batch is ready.
    made: Condvar,
    /// Told when one was taken, which makes room for another, and when all is over.
    taken: Condvar,
}

struct State<T, E> {
    /// The next batch to be made.
    begun: usize,
    /// The next batch to be given.
    given: usize,
    ready: BTreeMap<usize, Result<T, LoadError<E>>>,
    over: bool,
}

impl Plan {
    /// The batches of `from.epoch` from `from.batch` on, made by `make(epoch, examples)`. The same (epoch, examples)
    /// must always give the same batch; then a run is the same for every number of workers.
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
        let shared = Arc::new(Shared {
            order: self.epoch(from.epoch),
            batch_size: self.batch_size(),
            epoch: from.epoch,
            batches: self.batches(),
            ahead: prefetch.ahead.max(1),
            make,
            state: Mutex::new(State { begun: first, given: first, ready: BTreeMap::new(), over: false }),
            made: Condvar::new(),
            taken: Condvar::new(),
        });
        let mut batches = Batches { shared, workers: Vec::new(), failed: false };
        for number in 0..prefetch.workers.min(batches.shared.ahead) {
            let shared = batches.shared.clone();
            let name = format!("loader {number}");
            let worker = std::thread::Builder::new().name(name).spawn(move || shared.work());
            batches.workers.push(worker.map_err(LoadError::Thread)?);
        }
        Ok(batches)
    }
}

impl<T, E> Shared<T, E> {
    fn lock(&self) -> MutexGuard<'_, State<T, E>> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn make(&self, batch: usize) -> Result<T, LoadError<E>> {
        let at = Position { epoch: self.epoch, batch: batch as u64 };
        let start = batch * self.batch_size;
        let examples = &self.order[start..(start + self.batch_size).min(self.order.len())];
        match catch_unwind(AssertUnwindSafe(|| (self.make)(self.epoch, examples))) {
            Ok(made) => made.map_err(|source| LoadError::Failed { at, source }),
            Err(panic) => {
                let said = panic.downcast_ref::<String>().map(String::as_str);
                let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
                Err(LoadError::Panicked { at, reason: said.unwrap_or("without a reason").to_owned() })
            }
        }
    }

    fn work(&self) {
        loop {
            let batch = {
                let mut state = self.lock();
                while !state.over && state.begun < self.batches && state.begun >= state.given + self.ahead {
                    state = self.taken.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
                }
                if state.over || state.begun >= self.batches {
                    return;
                }
                state.begun += 1;
                state.begun - 1
            };
            let made = self.make(batch);
            self.lock().ready.insert(batch, made);
            self.made.notify_one();
        }
    }
}

impl<T, E> Batches<T, E> {
    /// The place after the last batch that was given: what a checkpoint saves.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { epoch: self.shared.epoch, batch: self.shared.lock().given as u64 }
    }

    /// Examples that were given, and those of the whole epoch.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        let examples = self.shared.order.len();
        ((self.shared.lock().given * self.shared.batch_size).min(examples), examples)
    }
}

impl<T, E> Iterator for Batches<T, E> {
    type Item = Result<T, LoadError<E>>;

    fn next(&mut self) -> Option<Self::Item> {
        let shared = &self.shared;
        let mut state = shared.lock();
        if self.failed || state.given >= shared.batches {
            return None;
        }
        let wanted = state.given;
        let made = if self.workers.is_empty() {
            drop(state);
            let made = shared.make(wanted);
            state = shared.lock();
            made
        } else {
            loop {
                match state.ready.remove(&wanted) {
                    Some(made) => break made,
                    None => {
                        state = shared.made.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
                    }
                }
            }
        };
        match made {
            Ok(batch) => {
                state.given += 1;
                drop(state);
                shared.taken.notify_one();
                Some(Ok(batch))
            }
            Err(error) => {
                // The position stays before the batch that failed.
                state.over = true;
                drop(state);
                shared.taken.notify_all();
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

impl<T, E> Drop for Batches<T, E> {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.taken.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches every panic of what it runs, so there is nothing to hear here.
            let _ = worker.join();
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
        let alone = load(0, 1);
        assert_eq!(alone.len(), 26);
        for (workers, ahead) in [(1, 1), (1, 5), (2, 3), (7, 4), (4, 50)] {
            assert_eq!(load(workers, ahead), alone, "{workers} workers, {ahead} ahead");
        }
    }

    #[test]
    fn no_more_batches_wait_than_were_asked_for() {
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
        drop(batches); // must not hang on workers that wait for room
    }

    #[test]
    fn a_failing_worker_is_an_error_where_its_batch_would_be() {
        for workers in [0, 1, 4] {
            let make: Arc<Make<usize, String>> = Arc::new(|_, items: &[usize]| match items[0] {
                7 => Err("clip 7 is broken".into()),
                item => Ok(item),
            });
            let plan = Plan::new(12, 1, Order::Kept);
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
            let plan = Plan::new(5, 1, Order::Kept);
            let batches = plan.load(Position::default(), Prefetch { workers, ahead: 3 }, make).unwrap();
            let made: Vec<_> = batches.collect();
            assert_eq!(made.len(), 3);
            let error = made[2].as_ref().unwrap_err().to_string();
            assert!(error.contains("panicked over batch 2 of epoch 0: no third item"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_resumed_epoch_goes_on_where_it_stopped(examples in 0usize..60, batch in 1usize..9, done in 0u64..70) {
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
            prop_assert_eq!(rest.progress(), (examples, examples));
        }
    }
}
