//! Which examples make up which batch. The order depends on (seed, epoch) only: a position in it is two
//! numbers, and a resumed run sees the same batches, whatever the number of workers.

use crate::error::{Error, Result};
use crate::random::RandomStream;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Number of batches that are sorted by length together. More give less padding, fewer a more random order.
const POOL: usize = 64;

/// The length of an example, `(epoch, example)`, such as its number of tokens.
pub type Lengths = Arc<dyn Fn(u64, usize) -> usize + Send + Sync>;

/// The order of an epoch's examples.
#[derive(Clone)]
pub enum Order {
    /// The examples' own order.
    Sequential,
    /// A random order, another one each epoch.
    Shuffled {
        /// Random seed.
        seed: u64,
    },
    /// A random order, another one each epoch, with similar lengths in a batch.
    Bucketed {
        /// Random seed.
        seed: u64,
        /// The length of each example.
        lengths: Lengths,
    },
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

impl Order {
    /// The order's name in saved positions. Checkpoints hold it: it must not change.
    fn name(&self) -> String {
        match self {
            Self::Sequential => "sequential".to_owned(),
            Self::Shuffled { seed } => format!("shuffled, seed {seed}"),
            Self::Bucketed { seed, .. } => format!("bucketed, seed {seed}"),
        }
    }
}

/// A position between two batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The epoch.
    pub epoch: u64,
    /// Number of batches of the epoch before the position.
    pub batch: u64,
}

/// A position, and a description of the plan that it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// The position.
    pub position: Position,
    /// Examples per epoch.
    pub examples: usize,
    /// Examples per batch.
    pub batch_size: usize,
    /// The order, with its seed.
    pub order: String,
}

/// The division of examples into batches.
#[derive(Clone, Debug)]
pub struct Plan {
    examples: usize,
    pub(super) batch_size: usize,
    order: Order,
}

impl Plan {
    /// Batches of `batch_size` examples; the last may be smaller. A batch size of 0 counts as 1.
    #[must_use]
    pub fn new(examples: usize, batch_size: usize, order: Order) -> Self {
        Self { examples, batch_size: batch_size.max(1), order }
    }

    /// Batches per epoch.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.examples.div_ceil(self.batch_size)
    }

    /// Every example of an epoch in order: batch `i` is the `i`-th chunk of the batch size.
    #[must_use]
    pub fn epoch(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.examples).collect();
        match &self.order {
            Order::Sequential => {}
            Order::Shuffled { seed } => RandomStream::new(*seed, "epoch: order", epoch).shuffle(&mut order),
            Order::Bucketed { seed, lengths } => {
                RandomStream::new(*seed, "epoch: order", epoch).shuffle(&mut order);
                for pool in order.chunks_mut(self.batch_size * POOL) {
                    // Stable: examples of one length stay in random order.
                    pool.sort_by_cached_key(|&example| lengths(epoch, example));
                }
                self.shuffle_batches(*seed, epoch, &mut order);
            }
        }
        order
    }

    /// Shuffles the batches, which sorting ordered by length. The last, smaller batch stays last.
    fn shuffle_batches(&self, seed: u64, epoch: u64, order: &mut Vec<usize>) {
        let whole = order.len() / self.batch_size;
        let mut places: Vec<usize> = (0..whole).collect();
        RandomStream::new(seed, "epoch: order of batches", epoch).shuffle(&mut places);
        let batch = |place: usize| &order[place * self.batch_size..(place + 1) * self.batch_size];
        let mut mixed: Vec<usize> = places.into_iter().flat_map(batch).copied().collect();
        mixed.extend(&order[whole * self.batch_size..]);
        *order = mixed;
    }

    /// The position after a batch; after the last batch, the start of the next epoch.
    #[must_use]
    pub fn after(&self, position: Position) -> Position {
        let batch = position.batch + 1;
        if batch < self.batches() as u64 {
            Position { batch, ..position }
        } else {
            Position { epoch: position.epoch + 1, batch: 0 }
        }
    }

    /// A position to be saved, with the description that [`Self::restore`] compares.
    #[must_use]
    pub fn save(&self, position: Position) -> Saved {
        Saved { position, examples: self.examples, batch_size: self.batch_size, order: self.order.name() }
    }

    /// A saved position of this plan.
    ///
    /// # Errors
    /// [`Error::Setting`] where it was saved with another number of examples, batch size, order or seed.
    pub fn restore(&self, saved: &Saved) -> Result<Position> {
        let here = self.save(saved.position);
        if here == *saved {
            return Ok(saved.position);
        }
        let description = |saved: &Saved| {
            format!("{} examples in batches of {}, {}", saved.examples, saved.batch_size, saved.order)
        };
        Err(Error::setting("the saved position's plan", description(&here), description(saved)))
    }
}

/// The index of the caption that an example uses in an epoch, uniform in `0..captions`, and a seed for the
/// example's other random choices. Both depend on (seed, epoch, example). `None` without captions.
#[must_use]
pub fn draw_caption(seed: u64, epoch: u64, example: usize, captions: usize) -> Option<(usize, u64)> {
    let own = RandomStream::new(seed, "epoch: item", epoch).seed();
    let mut random = RandomStream::new(own, "clip", example as u64);
    let caption = random.below(captions);
    (captions > 0).then(|| (caption, random.seed()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bucketed(examples: usize, batch: usize, seed: u64) -> Plan {
        Plan::new(examples, batch, Order::Bucketed { seed, lengths: Arc::new(|_, example| example % 17) })
    }

    #[test]
    fn an_order_never_changes() {
        // A run that a newer build resumes must see the same batches: these values must never change.
        let plan = Plan::new(10, 4, Order::Shuffled { seed: 7 });
        assert_eq!((plan.epoch(1), plan.epoch(2)), (FIRST.to_vec(), SECOND.to_vec()));
        assert_eq!(draw_caption(7, 1, 3, 20), Some(CAPTION));
    }
    const FIRST: [usize; 10] = [7, 4, 8, 6, 2, 0, 1, 9, 5, 3];
    const SECOND: [usize; 10] = [8, 3, 0, 1, 6, 9, 7, 5, 4, 2];
    const CAPTION: (usize, u64) = (9, 11_779_135_422_246_742_926);

    #[test]
    fn buckets_waste_little_padding() {
        let padding = |plan: &Plan| {
            let waste = |batch: &[usize]| {
                let longest = batch.iter().map(|example| example % 17).max().unwrap_or(0);
                batch.iter().map(|example| longest - example % 17).sum::<usize>()
            };
            plan.epoch(0).chunks(16).map(waste).sum::<usize>()
        };
        let shuffled = padding(&Plan::new(2000, 16, Order::Shuffled { seed: 1 }));
        let sorted = padding(&bucketed(2000, 16, 1));
        assert!(sorted * 8 < shuffled, "{sorted} against {shuffled}");
        let lengths: Vec<usize> =
            bucketed(2000, 16, 1).epoch(0).chunks(16).map(|batch| batch[0] % 17).collect();
        assert!(lengths.windows(2).any(|pair| pair[0] > pair[1]), "short batches don't come first");
    }

    #[test]
    fn a_position_of_another_plan_is_refused() {
        let plan = Plan::new(10, 4, Order::Shuffled { seed: 7 });
        let saved = plan.save(Position { epoch: 3, batch: 2 });
        assert_eq!(plan.restore(&saved).unwrap(), Position { epoch: 3, batch: 2 });
        let text = serde_json::to_string(&saved).unwrap();
        assert_eq!(serde_json::from_str::<Saved>(&text).unwrap(), saved);
        for other in [
            Plan::new(11, 4, Order::Shuffled { seed: 7 }),
            Plan::new(10, 5, Order::Shuffled { seed: 7 }),
            Plan::new(10, 4, Order::Shuffled { seed: 8 }),
            Plan::new(10, 4, Order::Sequential),
        ] {
            assert!(other.restore(&saved).unwrap_err().to_string().contains("10 examples in batches of 4"));
        }
    }

    #[test]
    fn every_caption_is_equally_likely() {
        let mut counts = [0; 5];
        for epoch in 0..1000 {
            counts[draw_caption(3, epoch, 0, 5).unwrap().0] += 1;
        }
        assert!(counts.iter().all(|count| (140..260).contains(count)), "{counts:?}");
        assert_eq!(draw_caption(3, 0, 0, 0), None);
        assert_ne!(draw_caption(3, 0, 0, 5).unwrap().1, draw_caption(3, 0, 1, 5).unwrap().1);
    }

    proptest! {
        #[test]
        fn an_epoch_visits_every_example_once(examples in 0usize..400, batch in 0usize..9, seed: u64, epoch in 0u64..5) {
            for plan in [bucketed(examples, batch, seed), Plan::new(examples, batch, Order::Shuffled { seed })] {
                let order = plan.epoch(epoch);
                prop_assert_eq!(&order, &plan.epoch(epoch));
                let mut sorted = order.clone();
                sorted.sort_unstable();
                prop_assert_eq!(sorted, (0..examples).collect::<Vec<_>>());
                if examples > 20 {
                    prop_assert_ne!(order, plan.epoch(epoch + 1));
                }
                let mut position = Position { epoch, batch: 0 };
                for _ in 0..plan.batches().max(1) {
                    position = plan.after(position);
                }
                prop_assert_eq!(position, Position { epoch: epoch + 1, batch: 0 });
            }
        }
    }
}
