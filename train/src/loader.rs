//! Which examples make up a batch. The order is a function of (seed, epoch), so that a position is two numbers and a
//! resumed run sees the batches that it would have seen.

use std::sync::{Arc, Mutex};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::{Batch, TrainError};

/// Something that examples can be drawn from.
pub trait Examples: Send + Sync {
    /// Number of examples that an epoch visits.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes a batch. The same (epoch, items) always give the same batch.
    ///
    /// # Errors
    /// When an example cannot be had; it is never left out.
    fn batch(&self, epoch: usize, items: &[usize]) -> Result<Batch, TrainError>;
}

/// Batches of an epoch from a position on.
#[derive(Clone)]
pub struct Loader {
    examples: Arc<dyn Examples>,
    batch_size: usize,
    shuffle: Option<u64>,
    position: Arc<Mutex<Position>>,
}

/// Where a loader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    epoch: usize,
    batch: usize,
}

impl Loader {
    /// Batches in an order drawn anew each epoch.
    pub fn shuffled(examples: Arc<dyn Examples>, batch_size: usize, seed: u64) -> Self {
        Self { shuffle: Some(seed), ..Self::in_order(examples, batch_size) }
    }

    /// Batches in the examples' own order.
    pub fn in_order(examples: Arc<dyn Examples>, batch_size: usize) -> Self {
        let position = Arc::new(Mutex::new(Position { epoch: 1, batch: 0 }));
        Self { examples, batch_size: batch_size.max(1), shuffle: None, position }
    }

    /// Number of batches in an epoch; the last may be smaller.
    pub fn batches(&self) -> usize {
        self.examples.len().div_ceil(self.batch_size)
    }

    /// Lets the next iteration begin at the given batch (from 0) of the given epoch (from 1).
    pub fn seek(&self, epoch: usize, batch: usize) {
        *self.position.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Position { epoch, batch };
    }

    fn order(&self, epoch: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.examples.len()).collect();
        if let Some(seed) = self.shuffle {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            random.set_stream(epoch as u64);
            order.shuffle(&mut random);
        }
        order
    }
}

impl DataLoader<Batch> for Loader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        let Position { epoch, batch } =
            *self.position.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let done = (batch * self.batch_size).min(self.examples.len());
        Box::new(Batches { loader: self, epoch, order: self.order(epoch), done })
    }

    fn num_items(&self) -> usize {
        self.examples.len()
    }

    /// Batches are uploaded by the step that uses them, so a loader is the same for every device.
    fn to_device(&self, _device: &Device) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(self.clone())
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        let examples =
            Arc::new(Slice { of: self.examples.clone(), start, end: end.min(self.examples.len()) });
        Arc::new(Self { examples, ..self.clone() })
    }
}

struct Batches<'a> {
    loader: &'a Loader,
    epoch: usize,
    order: Vec<usize>,
    done: usize,
}

impl Iterator for Batches<'_> {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = (self.done + self.loader.batch_size).min(self.order.len());
        let items = self.order.get(self.done..end).filter(|items| !items.is_empty())?;
        self.done = end;
        Some(self.loader.examples.batch(self.epoch, items).map_err(DatasetError::new))
    }
}

impl DataLoaderIterator<Batch> for Batches<'_> {
    fn progress(&self) -> Progress {
        Progress::new(self.done, self.order.len(), Some("examples".to_owned()))
    }
}

struct Slice {
    of: Arc<dyn Examples>,
    start: usize,
    end: usize,
}

impl Examples for Slice {
    fn len(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    fn batch(&self, epoch: usize, items: &[usize]) -> Result<Batch, TrainError> {
        let items: Vec<usize> = items.iter().map(|item| item + self.start).collect();
        self.of.batch(epoch, &items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostTokens;

    struct Numbers(usize);

    impl Examples for Numbers {
        fn len(&self) -> usize {
            self.0
        }

        fn batch(&self, _epoch: usize, items: &[usize]) -> Result<Batch, TrainError> {
            let tokens = HostTokens::pad(&items.iter().map(|&item| vec![item as u32]).collect::<Vec<_>>());
            Ok(Batch::Text { source: tokens.clone(), target: tokens, items: items.to_vec() })
        }
    }

    fn items(loader: &Loader) -> Vec<Vec<usize>> {
        loader.iter().map(|batch| batch.unwrap().items().to_vec()).collect()
    }

    #[test]
    fn an_epoch_visits_every_example_once_in_an_order_of_its_own() {
        let loader = Loader::shuffled(Arc::new(Numbers(10)), 4, 7);
        let first = items(&loader);
        assert_eq!(first.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        let mut all = first.concat();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        loader.seek(2, 0);
        assert_ne!(items(&loader), first);
        loader.seek(1, 0);
        assert_eq!(items(&loader), first);
    }

    #[test]
    fn a_position_inside_an_epoch_gives_the_rest_of_it() {
        let loader = Loader::shuffled(Arc::new(Numbers(11)), 3, 9);
        loader.seek(4, 0);
        let whole = items(&loader);
        loader.seek(4, 2);
        assert_eq!(items(&loader), whole[2..]);
        loader.seek(4, 4);
        assert!(items(&loader).is_empty());
    }

    #[test]
    fn without_a_seed_the_order_is_the_examples_own() {
        assert_eq!(items(&Loader::in_order(Arc::new(Numbers(5)), 2)), [vec![0, 1], vec![2, 3], vec![4]]);
    }
}
