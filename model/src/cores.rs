//! Work on the cores of the CPU.
//!
//! An operation that is distributed over the cores waits for the slowest at its end, hundreds of times in a
//! step. Where there are independent parts (the micro-batches of a step, the frames of a batch), each core
//! takes a part through all operations.

use std::ops::Range;
use std::sync::Mutex;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Limits the operations of the calling thread to its share of the cores, where so many threads work side by
/// side, until the result is dropped. To be called at the beginning of a thread.
///
/// # Errors
/// When threads cannot be started, or the thread has a share already.
pub fn share(threads: usize) -> Result<ThreadPool, ThreadPoolBuildError> {
    let cores = (rayon::current_num_threads() / threads.max(1)).max(1);
    ThreadPoolBuilder::new().num_threads(cores).use_current_thread().build()
}

/// Splits items into equal parts of at most so many. They do not depend on the number of cores, on which
/// results must not depend.
pub(crate) fn parts(count: usize, most: usize) -> Vec<Range<usize>> {
    let each = count.div_ceil(count.div_ceil(most.max(1)).max(1)).max(1);
    (0..count).step_by(each).map(|start| start..(start + each).min(count)).collect()
}

/// The results of independent tasks in their order, computed side by side, each on its share of the cores.
/// They run one after the other in a thread whose share is one core, and on a single core.
pub(crate) fn side_by_side<T: Send, R: Send>(tasks: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = rayon::current_num_threads().min(tasks.len());
    if threads <= 1 {
        return tasks.into_iter().map(work).collect();
    }
    let count = tasks.len();
    let queue = Mutex::new(tasks.into_iter().enumerate());
    let next = || queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    let mut results: Vec<Option<R>> = (0..count).map(|_| None).collect();
    std::thread::scope(|scope| {
        let run = || {
            // without a share the operations are only slower
            let _share = share(threads).ok();
            std::iter::from_fn(next).map(|(index, task)| (index, work(task))).collect::<Vec<_>>()
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        for thread in running {
            let done = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
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
    fn a_thread_with_a_share_of_one_core_runs_its_tasks_itself() {
        let nested = side_by_side(vec![(); 2 * rayon::current_num_threads()], |()| {
            let outer = std::thread::current().id();
            let inner = side_by_side(vec![(); 3], |()| std::thread::current().id());
            rayon::current_num_threads() > 1 || inner.iter().all(|id| *id == outer)
        });
        assert!(nested.into_iter().all(|is_alone| is_alone));
    }
}
