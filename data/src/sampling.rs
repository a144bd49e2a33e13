//! Rules that choose the frames of a clip.

use crate::random::RandomStream;
use serde::{Deserialize, Serialize};

/// A rule that chooses `frames` of a clip's `total` frames, in ascending order.
///
/// A clip with fewer frames than requested repeats frames: the segments below are then shorter than a frame,
/// so that frames are repeated as evenly as possible and none is omitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// The first frame of each of `frames` equal segments: LAVIS's `uniform`, in integer arithmetic, so that
    /// it never returns one index too many, as the original's floating-point step can.
    #[default]
    Uniform,
    /// Half of the frames drawn without replacement from the clip's first half, the rest from its second
    /// half: LAVIS's `headtail`. In a half with too few frames, all are repeated equally often.
    HeadTail,
    /// One random frame of each of `frames` equal segments.
    Random,
    /// The middle frame of each of `frames` equal segments. Only here, a clip played backwards gives the same
    /// frames.
    Middle,
}

impl Sampling {
    /// Whether the frames depend on the seed.
    #[must_use]
    pub fn is_random(self) -> bool {
        matches!(self, Self::HeadTail | Self::Random)
    }

    /// Indices of the chosen frames: `frames` numbers below `total`, ascending; none where `total` is 0.
    ///
    /// Only random rules ([`Self::is_random`]) use `seed`; mix the clip's id and the epoch into it.
    #[must_use]
    pub fn indices(self, total: usize, frames: usize, seed: u64) -> Vec<usize> {
        if total == 0 {
            return Vec::new();
        }
        let start = |segment: usize| (segment as u128 * total as u128 / frames as u128) as usize;
        match self {
            Self::Uniform => (0..frames).map(start).collect(),
            Self::Middle => {
                let middle = |i: usize| ((2 * i as u128 + 1) * total as u128 / (2 * frames as u128)) as usize;
                // A middle between two frames is rounded towards the clip's middle, on both sides of it.
                (0..frames)
                    .map(|i| if 2 * i < frames { middle(i) } else { total - 1 - middle(frames - 1 - i) })
                    .collect()
            }
            Self::Random => {
                let mut random = RandomStream::new(seed, "sampling: random", 0);
                (0..frames)
                    .map(|i| {
                        let (low, high) = (start(i), start(i + 1).max(start(i) + 1));
                        low + random.below(high - low)
                    })
                    .collect()
            }
            Self::HeadTail => {
                let mut random = RandomStream::new(seed, "sampling: head and tail", 0);
                // A single frame has no second half: both halves are the whole clip.
                let half = if total == 1 { 0 } else { total / 2 };
                let mut head = some_of(&mut random, half.max(1), frames / 2);
                let tail = some_of(&mut random, total - half, frames - frames / 2);
                head.extend(tail.into_iter().map(|i| half + i));
                head
            }
        }
    }
}

/// `count` numbers of `0..n` in ascending order, each equally often, or once more than others.
fn some_of(random: &mut RandomStream, n: usize, count: usize) -> Vec<usize> {
    let (rounds, rest) = (count / n, count % n);
    let mut chosen: Vec<usize> = (0..n).flat_map(|i| std::iter::repeat_n(i, rounds)).collect();
    chosen.extend(random.subset(n, rest));
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Sampling; 4] = [Sampling::Uniform, Sampling::HeadTail, Sampling::Random, Sampling::Middle];

    #[test]
    fn uniform_takes_segment_starts() {
        assert_eq!(Sampling::Uniform.indices(300, 8, 0), [0, 37, 75, 112, 150, 187, 225, 262]);
        // np.arange(0, 49, 49 / 45) has 46 items; ours has 45.
        assert_eq!(Sampling::Uniform.indices(49, 45, 0).len(), 45);
    }

    #[test]
    fn middle_takes_segment_middles() {
        assert_eq!(Sampling::Middle.indices(100, 4, 0), [12, 37, 62, 87]);
        assert_eq!(Sampling::Middle.indices(32, 8, 0), [2, 6, 10, 14, 17, 21, 25, 29]);
        assert_eq!(Sampling::Middle.indices(9, 1, 0), [4]);
    }

    #[test]
    fn short_clips_repeat_frames_evenly() {
        assert_eq!(Sampling::Uniform.indices(3, 8, 0), [0, 0, 0, 1, 1, 1, 2, 2]);
        assert_eq!(Sampling::HeadTail.indices(2, 8, 0), [0, 0, 0, 0, 1, 1, 1, 1]);
        for sampling in ALL {
            assert_eq!(sampling.indices(1, 5, 0), [0; 5]);
            assert!(sampling.indices(0, 5, 0).is_empty());
        }
    }

    proptest! {
        #[test]
        fn indices_are_in_range_and_ascending(total in 1usize..2000, frames in 1usize..70, seed: u64) {
            for sampling in ALL {
                let indices = sampling.indices(total, frames, seed);
                prop_assert_eq!(indices.len(), frames);
                prop_assert!(indices.iter().all(|&i| i < total));
                prop_assert!(indices.windows(2).all(|pair| pair[0] <= pair[1]));
                prop_assert_eq!(&indices, &sampling.indices(total, frames, seed));
                if sampling == Sampling::Middle && (frames % 2 == 0 || total % 2 == 1) {
                    let backwards: Vec<usize> = indices.iter().rev().map(|i| total - 1 - i).collect();
                    prop_assert_eq!(&indices, &backwards);
                }
                if frames <= total / 2 {
                    prop_assert!(indices.windows(2).all(|pair| pair[0] < pair[1]), "{:?} {:?}", sampling, indices);
                }
                if total <= frames && total > 1 {
                    let seen: std::collections::BTreeSet<_> = indices.iter().collect();
                    // HeadTail gives each half its share of frames, however uneven the halves.
                    if sampling != Sampling::HeadTail || frames / 2 >= total / 2 {
                        prop_assert_eq!(seen.len(), total, "{:?} {:?}", sampling, indices);
                    }
                }
            }
        }
    }
}
