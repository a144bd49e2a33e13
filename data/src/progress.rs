//! Progress of long work.

/// Progress of one stage of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The stage, as a participle: "rendering clips".
    pub stage: &'static str,
    /// Finished items.
    pub done: usize,
    /// All items.
    pub total: usize,
}

/// A callback for progress, called from any thread and in any order within a stage; `&|_| {}` ignores it.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Sync);

/// Counts the items of a stage across threads.
pub(crate) struct Counter<'a> {
    stage: &'static str,
    total: usize,
    done: std::sync::atomic::AtomicUsize,
    on_progress: OnProgress<'a>,
}

impl<'a> Counter<'a> {
    pub(crate) fn new(stage: &'static str, total: usize, on_progress: OnProgress<'a>) -> Self {
        on_progress(Progress { stage, done: 0, total });
        Self { stage, total, done: 0.into(), on_progress }
    }

    pub(crate) fn add(&self, items: usize) {
        let done = self.done.fetch_add(items, std::sync::atomic::Ordering::Relaxed) + items;
        (self.on_progress)(Progress { stage: self.stage, done, total: self.total });
    }
}
