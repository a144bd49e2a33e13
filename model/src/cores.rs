//! Work on the cores of the CPU.
//!
//! An operation that is distributed over the cores waits for the slowest at its end, hundreds of times in a
//! step. Where there are independent parts (the micro-batches of a step, the frames of a batch), each core
//! takes a part through all operations.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// A number of lanes, and the threads of each.
type Shape = (usize, usize);

/// The pools of all lanes so far. Their threads stay: the memory that the allocator keeps for a thread is
/// then there for the next step.
static LANES: Mutex<BTreeMap<Shape, Arc<[ThreadPool]>>> = Mutex::new(BTreeMap::new());

/// Threads that share the cores of the calling thread equally.
#[derive(Debug, Clone)]
pub struct Lanes(Arc<[ThreadPool]>);

impl Lanes {
    /// So many lanes. Equal ones are the same threads.
    pub fn new(count: usize) -> Self {
        let share = (rayon::current_num_threads() / count.max(1)).max(1);
        let mut known = LANES.lock().unwrap_or_else(PoisonError::into_inner);
        let pools = known.entry((count, share)).or_insert_with(|| {
            let pool = |_| ThreadPoolBuilder::new().num_threads(share).build().ok();
            // without threads of their own the operations are only slower
            (0..count).map(pool).collect::<Option<Vec<_>>>().unwrap_or_default().into()
        });
        Self(pools.clone())
    }

    /// Runs `work` on one lane: operations within are distributed over its share of the cores only. Lanes run
    /// side by side where several threads call this, each with another index. `work` must not wait for
    /// another lane.
    pub fn run<R: Send>(&self, index: usize, work: impl FnOnce() -> R + Send) -> R {
        match self.0.get(index) {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }
}

/// Splits items into equal parts of at most so many. Their number is a power of two, which most numbers of
/// cores divide, and does not depend on that number, on which results must not depend.
pub(crate) fn parts(count: usize, most: usize) -> Vec<Range<usize>> {
    let parts = count.div_ceil(most.max(1)).next_power_of_two();
    let each = count.div_ceil(parts).max(1);
    (0..count).step_by(each).map(|start| start..(start + each).min(count)).collect()
}

/// The results of independent tasks in their order, computed side by side, each on its share of the cores.
/// They run one after the other in a lane of one core, and on a single core.
pub(crate) fn side_by_side<T: Send, R: Send>(tasks: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = rayon::current_num_threads().min(tasks.len());
    if threads <= 1 {
        return tasks.into_iter().map(work).collect();
    }
    let count = tasks.len();
    let queue = Mutex::new(tasks.into_iter().enumerate());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = || std::iter::from_fn(next).map(|(index, task)| (index, work(task))).collect::<Vec<_>>();
    let lanes = Lanes::new(threads);
    let mut results: Vec<Option<R>> = (0..count).map(|_| None).collect();
    std::thread::scope(|scope| {
        let (lanes, run) = (&lanes, &run);
        let running: Vec<_> = (0..threads).map(|lane| scope.spawn(move || lanes.run(lane, run))).collect();
        for lane in running {
            let done = lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            for (index, result) in done {
                results[index] = Some(result);
            }
        }
    });
    results.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_the_order_of_their_tasks_and_each_thread_its_share() {
        let found = side_by_side((0..37).collect(), |task: usize| (task, rayon::current_num_threads()));
        let cores = rayon::current_num_threads();
        for (index, (task, share)) in found.into_iter().enumerate() {
            assert_eq!((task, share), (index, (cores / cores.min(37)).max(1)));
        }
        assert!(side_by_side(Vec::<usize>::new(), |task| task).is_empty());
    }

    #[test]
    fn parts_cover_all_items_and_differ_by_little() {
        assert_eq!(parts(16, 15), [0..8, 8..16]);
        assert_eq!(parts(5, 4), [0..3, 3..5]);
        assert!(parts(0, 4).is_empty());
        for count in 1..50 {
            for most in 0..10 {
                let parts = parts(count, most);
                let ends: Vec<usize> = parts.iter().map(|part| part.end).collect();
                let starts: Vec<usize> = parts.iter().map(|part| part.start).collect();
                assert_eq!(
                    (starts[0], &starts[1..], ends[ends.len() - 1]),
                    (0, &ends[..ends.len() - 1], count)
                );
                assert!(parts.iter().all(|part| !part.is_empty() && part.len() <= most.max(1)));
            }
        }
    }

    #[test]
    fn a_lane_of_one_core_runs_its_tasks_itself() {
        let nested = side_by_side(vec![(); 2 * rayon::current_num_threads()], |()| {
            let outer = std::thread::current().id();
            let inner = side_by_side(vec![(); 3], |()| std::thread::current().id());
            rayon::current_num_threads() > 1 || inner.iter().all(|id| *id == outer)
        });
        assert!(nested.into_iter().all(|is_alone| is_alone));
    }
}
