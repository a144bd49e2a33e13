//! Which examples make up which batch. Order follows from (seed, epoch) alone: a position in it is two numbers, and a
//! resumed run sees the batches that it would have seen, whatever the number of workers.

use crate::error::{Error, Result};
use crate::random::RandomStream;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Batches that are sorted by length together; more give purer batches, fewer a more random order.
const POOL: usize = 64;

/// The length of an example in an epoch, such as the tokens of the caption that is drawn then.
pub type Lengths = Arc<dyn Fn(u64, usize) -> usize + Send + Sync>;

/// The order of an epoch's examples.
#[derive(Clone)]
pub enum Order {
    /// The examples' own.
    Kept,
    /// Drawn anew each epoch.
    Shuffled {
        /// Decides the draws.
        seed: u64,
    },
    /// Drawn anew each epoch, and then examples of similar length put together, so that little of a batch is padding.
    Bucketed {
        /// Decides the draws.
        seed: u64,
        /// The length of each example.
        lengths: Lengths,
    },
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kept => f.write_str("Kept"),
            Self::Shuffled { seed } => write!(f, "Shuffled {{ seed: {seed} }}"),
            Self::Bucketed { seed, .. } => write!(f, "Bucketed {{ seed: {seed} }}"),
        }
    }
}

/// A place between two batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The epoch.
    pub epoch: u64,
    /// Batches of it that are done.
    pub batch: u64,
}

/// A position with what it is a position in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// The position.
    pub position: Position,
    /// Examples of an epoch.
    pub examples: usize,
    /// Examples of a batch.
    pub batch_size: usize,
    /// The order, seed included.
    pub order: String,
}

/// How examples become batches.
#[derive(Clone, Debug)]
pub struct Plan {
    examples: usize,
    batch_size: usize,
    order: Order,
}

impl Plan {
    /// Batches of `batch_size` examples, the last perhaps smaller; a batch size of 0 counts as 1.
    #[must_use]
    pub fn new(examples: usize, batch_size: usize, order: Order) -> Self {
        Self { examples, batch_size: batch_size.max(1), order }
    }

    /// Examples of an epoch.
    #[must_use]
    pub fn examples(&self) -> usize {
        self.examples
    }

    /// Examples of a batch; the last of an epoch may have fewer.
    #[must_use]
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Batches of an epoch.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.examples.div_ceil(self.batch_size)
    }

    /// Every example of an epoch in order: batch `i` is the `i`-th chunk of [`Self::batch_size`].
    #[must_use]
    pub fn epoch(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.examples).collect();
        match &self.order {
            Order::Kept => {}
            Order::Shuffled { seed } => RandomStream::new(*seed, "epoch: order", epoch).shuffle(&mut order),
            Order::Bucketed { seed, lengths } => {
                RandomStream::new(*seed, "epoch: order", epoch).shuffle(&mut order);
                for pool in order.chunks_mut(self.batch_size * POOL) {
                    // Stable: examples of one length stay in their drawn order.
                    pool.sort_by_cached_key(|&example| lengths(epoch, example));
                }
                self.shuffle_batches(*seed, epoch, &mut order);
            }
        }
        order
    }

    /// Sorting put short batches before long ones; training wants them mixed. The last, smaller batch stays last.
    fn shuffle_batches(&self, seed: u64, epoch: u64, order: &mut Vec<usize>) {
        let whole = order.len() / self.batch_size;
        let mut places: Vec<usize> = (0..whole).collect();
        RandomStream::new(seed, "epoch: order of batches", epoch).shuffle(&mut places);
        let batch = |place: usize| &order[place * self.batch_size..(place + 1) * self.batch_size];
        let mut mixed: Vec<usize> = places.into_iter().flat_map(batch).copied().collect();
        mixed.extend(&order[whole * self.batch_size..]);
        *order = mixed;
    }

    /// The place after a batch, in the next epoch where this one ends.
    #[must_use]
    pub fn after(&self, position: Position) -> Position {
        let batch = position.batch + 1;
        if batch < self.batches() as u64 {
            Position { batch, ..position }
        } else {
            Position { epoch: position.epoch + 1, batch: 0 }
        }
    }

    /// A position with what [`Self::restore`] needs to know it again.
    #[must_use]
    pub fn save(&self, position: Position) -> Saved {
        Saved {
            position,
            examples: self.examples,
            batch_size: self.batch_size,
            order: format!("{:?}", self.order),
        }
    }

    /// A saved position, if it is one in this plan.
    ///
    /// # Errors
    /// It was saved with another number of examples, batch size, order or seed: its batches were other ones.
    pub fn restore(&self, saved: &Saved) -> Result<Position> {
        let here = self.save(saved.position);
        if here == *saved {
            return Ok(saved.position);
        }
        let tell = |saved: &Saved| {
            format!("{} examples in batches of {}, {}", saved.examples, saved.batch_size, saved.order)
        };
        Err(Error::Setting { key: "the saved position's plan", expected: tell(&here), got: tell(saved) })
    }
}

/// The caption of an example that an epoch uses, each of `captions` as likely, and a seed for whatever else is random
/// about the example then. It follows from (seed, epoch, example), not from the example's place in the order. `None`
/// where there is no caption.
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
    fn an_order_is_fixed_for_ever() {
        // A run that is resumed by a newer build must see the same batches: these values may never change.
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
            Plan::new(10, 4, Order::Kept),
        ] {
            assert!(other.restore(&saved).unwrap_err().to_string().contains("10 examples in batches of 4"));
        }
    }

    #[test]
    fn every_caption_has_its_turn() {
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
