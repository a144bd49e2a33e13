//! Limits of one clip: what a damaged or hostile file may cost.

use serde::{Deserialize, Serialize};
use std::num::NonZeroU64;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What decoding one clip may cost. A clip that exceeds a limit is an error of that clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipLimits {
    /// Seconds that a clip may take. Only worker processes can stop a decoder that hangs.
    pub seconds: NonZeroU64,
    /// MiB that a worker process may hold; only measured on Linux, and not in threads.
    pub memory_mib: NonZeroU64,
    /// Pixels of a frame.
    pub pixels: NonZeroU64,
}

/// 8K video: a damaged header can declare pictures that exceed all memory, and a decoder keeps a dozen of
/// them.
const PIXELS: NonZeroU64 = NonZeroU64::new(8192 * 4320).unwrap();

impl ClipLimits {
    /// Ten minutes, 4 GiB and pictures of 8192 x 4320 pixels.
    pub const DEFAULT: Self = Self {
        seconds: NonZeroU64::new(600).unwrap(),
        memory_mib: NonZeroU64::new(4096).unwrap(),
        pixels: PIXELS,
    };

    pub(super) fn time(&self) -> Duration {
        Duration::from_secs(self.seconds.get())
    }
}

impl Default for ClipLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

static LIMITS: RwLock<ClipLimits> = RwLock::new(ClipLimits::DEFAULT);

/// Sets the limits of every clip that this process decodes from now on.
pub fn limit_clips(limits: ClipLimits) {
    *LIMITS.write().unwrap_or_else(std::sync::PoisonError::into_inner) = limits;
}

/// The limits in force.
pub(super) fn limits() -> ClipLimits {
    *LIMITS.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

static PROGRESS: AtomicU64 = AtomicU64::new(0);

/// Notes that a decoder has returned a frame. A worker process that notes nothing for long hangs.
pub(super) fn note_progress() {
    PROGRESS.fetch_add(1, Ordering::Relaxed);
}

/// The number of notes so far.
pub(super) fn progress() -> u64 {
    PROGRESS.load(Ordering::Relaxed)
}
