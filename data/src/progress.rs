//! How long work tells how far it is.

/// How far a piece of long work has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, as a participle: "rendering clips".
    pub stage: &'static str,
    /// Items done.
    pub done: usize,
    /// Items in all.
    pub total: usize,
}

/// Hears of progress, from any thread and in any order within a stage; `&|_| {}` listens to nothing.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Sync);

/// Counts items of a stage across threads.
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
