//! Batches of examples. Their order is a function of (seed, epoch), so that a position is two numbers and a
//! resumed run sees the same batches. `data::loader` loads them ahead of time.

use std::ops::Range;
use std::sync::Arc;

use data::loader::{Batches, Order, Plan, Position, Prefetch, Saved};

use crate::processes::{ProcessGroup, own_rows};
use crate::{Batch, TrainError};

/// A list of examples.
pub trait Examples: Send + Sync {
    /// Number of examples that an epoch visits.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Loads the rows `own` of a batch: all of it, or the share of a process. Texts are padded to the longest
    /// of the whole batch, so that shares are computed as the batch is. The same (epoch, items) always give
    /// the same batch.
    ///
    /// # Errors
    /// When an example cannot be loaded; it is never skipped.
    fn batch(&self, epoch: usize, items: &[usize], own: Range<usize>) -> Result<Batch, TrainError>;

    /// Name of an example, for messages.
    fn name(&self, item: usize) -> String {
        format!("example {item}")
    }

    /// Length of an example in an epoch, in any unit, for batches of similar length.
    fn length(&self, _epoch: usize, _item: usize) -> usize {
        0
    }
}

/// Another random order each epoch. With `group_by_length`, the examples of a batch have similar lengths, to
/// reduce padding.
pub fn shuffled(examples: &Arc<dyn Examples>, seed: u64, group_by_length: bool) -> Order {
    if !group_by_length {
        return Order::Shuffled { seed };
    }
    let examples = examples.clone();
    let lengths = move |epoch: u64, item| examples.length(epoch as usize, item);
    Order::Bucketed { seed, lengths: Arc::new(lengths) }
}

/// Batches of examples.
#[derive(Clone)]
pub struct Loader {
    examples: Arc<dyn Examples>,
    plan: Plan,
    prefetch: Prefetch,
    processes: Arc<dyn ProcessGroup>,
}

impl Loader {
    /// Batches of `batch_size` examples; a process loads its own rows only.
    pub fn new(
        examples: Arc<dyn Examples>,
        batch_size: usize,
        order: Order,
        processes: Arc<dyn ProcessGroup>,
    ) -> Self {
        let plan = Plan::new(examples.len(), batch_size, order);
        Self { examples, plan, prefetch: Prefetch::default(), processes }
    }

    /// The same batches, made by this number of threads.
    #[must_use]
    pub fn with_workers(self, workers: usize) -> Self {
        Self { prefetch: Prefetch::of(workers), ..self }
    }

    /// Number of batches in an epoch; the last may be smaller.
    pub fn batches(&self) -> usize {
        self.plan.batches()
    }

    /// The examples.
    pub fn examples(&self) -> &dyn Examples {
        &*self.examples
    }

    /// The position before the first batch of a run.
    pub fn start(&self) -> Position {
        Position { epoch: 1, batch: 0 }
    }

    /// A position in the form that a checkpoint stores.
    pub fn save(&self, position: Position) -> Saved {
        self.plan.save(position)
    }

    /// A stored position.
    ///
    /// # Errors
    /// When it belongs to other data or another order.
    pub fn restore(&self, saved: &Saved) -> Result<Position, TrainError> {
        Ok(self.plan.restore(saved)?)
    }

    /// Batches from a position on, epoch after epoch, without end.
    pub fn stream(&self, from: Position) -> Stream {
        Stream { loader: self.clone(), position: from, open: None, last_epoch: u64::MAX }
    }

    /// The batches of the first epoch.
    pub fn once(&self) -> impl Iterator<Item = Result<Batch, TrainError>> {
        let start = self.start();
        Stream { last_epoch: start.epoch, ..self.stream(start) }
    }
}

/// A stream of batches. The first batches of an epoch are loaded during the validation before it.
pub struct Stream {
    loader: Loader,
    position: Position,
    open: Option<Batches<Batch, TrainError>>,
    last_epoch: u64,
}

impl Stream {
    /// The position after the last batch.
    pub fn position(&self) -> Position {
        self.position
    }

    fn open(&self) -> Result<Batches<Batch, TrainError>, TrainError> {
        let Loader { examples, plan, prefetch, processes } = &self.loader;
        let (examples, processes) = (examples.clone(), processes.clone());
        let make = move |epoch: u64, items: &[usize]| {
            examples.batch(epoch as usize, items, own_rows(&*processes, items.len()))
        };
        Ok(plan.load(self.position, *prefetch, Arc::new(make))?)
    }
}

impl Iterator for Stream {
    type Item = Result<Batch, TrainError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.loader.batches() == 0 || self.position.epoch > self.last_epoch {
            return None;
        }
        let batches = match self.open.take() {
            Some(open) => Ok(open),
            None => self.open(),
        };
        let batch = batches.and_then(|mut batches| {
            let batch = batches.next();
            self.open = Some(batches);
            batch.transpose().map_err(TrainError::from)
        });
        match batch {
            Ok(None) => None,
            Err(error) => Some(Err(error)),
            Ok(Some(batch)) => {
                let next = self.loader.plan.after(self.position);
                let is_new = next.epoch != self.position.epoch;
                self.position = next;
                if is_new {
                    // a failure is repeated, and returned, when the next batch is asked for
                    self.open = (next.epoch <= self.last_epoch).then(|| self.open().ok()).flatten();
                }
                Some(Ok(batch))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use captioner::HostTokens;

    use crate::processes::SingleProcess;

    struct Numbers(usize);

    impl Examples for Numbers {
        fn len(&self) -> usize {
            self.0
        }

        fn batch(&self, epoch: usize, items: &[usize], own: Range<usize>) -> Result<Batch, TrainError> {
            if items.contains(&99) {
                return Err(TrainError::Data(format!("99 is gone in epoch {epoch}")));
            }
            let tokens = HostTokens::pad(&items.iter().map(|&item| vec![item as u32]).collect::<Vec<_>>());
            let tokens = tokens.rows(&own);
            Ok(Batch::Text { source: tokens.clone(), target: tokens, items: items[own].to_vec() })
        }
    }

    fn loader(examples: usize, batch: usize, order: Order) -> Loader {
        Loader::new(Arc::new(Numbers(examples)), batch, order, Arc::new(SingleProcess))
    }

    fn items(stream: Stream, batches: usize) -> Vec<Vec<usize>> {
        stream.take(batches).map(|batch| batch.unwrap().items().to_vec()).collect()
    }

    const SHUFFLED: Order = Order::Shuffled { seed: 7 };

    #[test]
    fn epochs_follow_each_other_and_each_visits_every_example_once_in_an_order_of_its_own() {
        let loader = loader(10, 4, SHUFFLED);
        let batches = items(loader.stream(loader.start()), 6);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2, 4, 4, 2]);
        for epoch in batches.chunks(3) {
            let mut all = epoch.concat();
            all.sort_unstable();
            assert_eq!(all, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(batches[..3], batches[3..]);
    }

    #[test]
    fn a_stream_from_a_kept_position_goes_on_where_the_other_stopped() {
        let loader = loader(11, 3, SHUFFLED);
        let whole = items(loader.stream(loader.start()), 12);
        for stop in 0..12 {
            let mut first = loader.stream(loader.start());
            assert_eq!(first.by_ref().take(stop).count(), stop);
            let kept = loader.save(first.position());
            let rest = items(loader.stream(loader.restore(&kept).unwrap()), 12 - stop);
            assert_eq!(rest, whole[stop..], "stopped after {stop}");
        }
        let other = self::loader(12, 3, SHUFFLED);
        assert!(other.restore(&loader.save(loader.start())).is_err(), "other data");
    }

    #[test]
    fn the_next_epoch_is_begun_before_it_is_asked_for_unless_there_is_to_be_none() {
        struct Counted(AtomicUsize);
        impl Examples for Counted {
            fn len(&self) -> usize {
                4
            }

            fn batch(&self, epoch: usize, items: &[usize], own: Range<usize>) -> Result<Batch, TrainError> {
                self.0.fetch_add(usize::from(epoch == 2), Ordering::SeqCst);
                Numbers(4).batch(epoch, items, own)
            }
        }
        let examples = Arc::new(Counted(AtomicUsize::new(0)));
        let loader = Loader::new(examples.clone(), 2, SHUFFLED, Arc::new(SingleProcess));
        assert_eq!(loader.once().count(), 2);
        assert_eq!(examples.0.load(Ordering::SeqCst), 0, "one epoch only");
        let mut stream = loader.stream(loader.start());
        assert_eq!(stream.by_ref().take(2).count(), 2);
        let begun = Instant::now();
        while examples.0.load(Ordering::SeqCst) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "the second epoch is never begun");
            std::thread::yield_now();
        }
        assert_eq!(stream.position(), Position { epoch: 2, batch: 0 }, "as nothing of it was given");
    }

    #[test]
    fn an_example_that_cannot_be_had_is_an_error_in_its_place() {
        let loader = loader(100, 30, Order::Sequential);
        let batches: Vec<_> = loader.once().collect();
        assert!(batches[..3].iter().all(Result::is_ok));
        let error = batches[3].as_ref().unwrap_err().to_string();
        assert!(error.contains("99 is gone in epoch 1"), "{error}");
    }

    #[test]
    fn no_examples_give_no_batches() {
        assert_eq!(loader(0, 3, Order::Sequential).once().count(), 0);
    }

    #[derive(Debug)]
    struct Second;

    impl ProcessGroup for Second {
        fn rank(&self) -> usize {
            1
        }
        fn world_size(&self) -> usize {
            2
        }
        fn sum(&self, _: &mut [f64]) -> Result<(), TrainError> {
            Ok(())
        }
        fn sum_floats(&self, _: &mut [f32]) -> Result<(), TrainError> {
            Ok(())
        }
        fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, TrainError> {
            Ok(vec![bytes])
        }
    }

    #[test]
    fn a_process_makes_its_own_rows_of_every_batch() {
        let loader = Loader::new(Arc::new(Numbers(10)), 4, Order::Sequential, Arc::new(Second));
        assert_eq!(items(loader.stream(loader.start()), 3), [vec![2, 3], vec![6, 7], vec![9]]);
    }
}
