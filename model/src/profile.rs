//! Where the operations of the CPU spend their time.
//!
//! Off, an operation reads one flag. Times are those of the thread that computes an operation: they add up to
//! the time of a step where every thread computes its operations alone ([`crate::cores::Lanes`]).

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// A kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Matrix products, those of attention included.
    Product,
    /// Scores, softmax and dropout of attention.
    Attention,
    /// Activations, with the bias before them.
    Activation,
    /// Layer norm and RMS norm.
    Norm,
    /// Biases of dense layers, and the gradients of these.
    Bias,
    /// Softmax and cross-entropy over the vocabulary.
    Loss,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Product, Self::Attention, Self::Activation, Self::Norm, Self::Bias, Self::Loss];
}

/// Time and work of a kind.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Total {
    /// Seconds, without those of operations within.
    pub seconds: f64,
    /// Multiplications and additions of matrix products.
    pub operations: f64,
}

static IS_ON: AtomicBool = AtomicBool::new(false);
static NANOSECONDS: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];
static OPERATIONS: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];

thread_local! {
    /// Nanoseconds of the spans that ended within the current one.
    static WITHIN: Cell<u64> = const { Cell::new(0) };
}

/// Runs `work` and returns its result with the totals of all kinds, in the order of [`Kind::ALL`]. One at a
/// time in a process.
pub fn record<R>(work: impl FnOnce() -> R) -> (R, [Total; 6]) {
    for counter in NANOSECONDS.iter().chain(&OPERATIONS) {
        counter.store(0, Ordering::Relaxed);
    }
    IS_ON.store(true, Ordering::Relaxed);
    let result = work();
    IS_ON.store(false, Ordering::Relaxed);
    let total = |kind: Kind| Total {
        seconds: NANOSECONDS[kind as usize].load(Ordering::Relaxed) as f64 / 1e9,
        operations: OPERATIONS[kind as usize].load(Ordering::Relaxed) as f64,
    };
    (result, Kind::ALL.map(total))
}

/// Runs an operation, which is counted if a record is on.
pub(crate) fn span<R>(kind: Kind, operations: usize, work: impl FnOnce() -> R) -> R {
    if !IS_ON.load(Ordering::Relaxed) {
        return work();
    }
    let before = WITHIN.replace(0);
    let start = Instant::now();
    let result = work();
    let all = start.elapsed().as_nanos() as u64;
    let within = WITHIN.replace(before + all);
    NANOSECONDS[kind as usize].fetch_add(all.saturating_sub(within), Ordering::Relaxed);
    OPERATIONS[kind as usize].fetch_add(operations as u64, Ordering::Relaxed);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Other tests may run operations at the same time: only more is counted.
    #[test]
    fn an_operation_is_counted_without_those_within() {
        let sleep = |milliseconds| std::thread::sleep(Duration::from_millis(milliseconds));
        let ((), totals) = record(|| {
            span(Kind::Loss, 3, || {
                sleep(5);
                span(Kind::Bias, 7, || sleep(400));
            });
        });
        let [loss, bias] = [Kind::Loss, Kind::Bias].map(|kind| totals[kind as usize]);
        assert!(loss.operations >= 3.0 && bias.operations >= 7.0);
        assert!(loss.seconds >= 0.005 && bias.seconds >= 0.4 && loss.seconds < bias.seconds, "{totals:?}");
    }
}
