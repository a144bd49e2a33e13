//! Notes and progress bars, which the first process shows for all, and the making of tiny worlds.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use data::progress::Progress;
use data::tiny_world::{self, World, WorldConfig};
use indicatif::{ProgressBar, ProgressStyle};

static IS_SILENT: AtomicBool = AtomicBool::new(false);

/// Shows no more notes and progress of this process.
pub(super) fn silence() {
    IS_SILENT.store(true, Ordering::Relaxed);
}

/// Prints a line that no other program reads, if this is the first process.
pub fn note(line: &str) {
    if !IS_SILENT.load(Ordering::Relaxed) {
        eprintln!("{line}");
    }
}

/// Opens the world of a configuration in the cache folder, or makes it there.
///
/// # Errors
/// When files cannot be written or read.
pub fn open_world(config: &WorldConfig, cache: &Path) -> anyhow::Result<World> {
    let bars = ProgressBars::default();
    World::open_or_make(config, cache, &|progress| bars.update(progress))
        .with_context(|| format!("cannot make the tiny world in {}", cache.display()))
}

/// Makes a world in a folder.
///
/// # Errors
/// When files cannot be written.
pub fn synthesize(config: &WorldConfig, out: &Path) -> anyhow::Result<World> {
    let bars = ProgressBars::default();
    tiny_world::synthesize(config, out, &|progress| bars.update(progress))
        .with_context(|| format!("cannot make the tiny world in {}", out.display()))
}

/// A progress bar for each stage of some work on a terminal; elsewhere a line at the end of each stage. The
/// last bar ends when this value is dropped.
#[derive(Default)]
pub struct ProgressBars(Mutex<Option<Stage>>);

struct Stage {
    name: &'static str,
    bar: ProgressBar,
    started: Instant,
    total: usize,
}

impl ProgressBars {
    /// Shows the progress of a stage; may be called from any thread.
    pub fn update(&self, progress: Progress) {
        if IS_SILENT.load(Ordering::Relaxed) {
            return;
        }
        let mut stage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if stage.as_ref().is_none_or(|stage| stage.name != progress.stage) {
            let style = ProgressStyle::with_template("{msg:<18} {wide_bar} {pos}/{len} {eta}");
            let bar = ProgressBar::new(progress.total as u64)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                .with_message(progress.stage);
            *stage =
                Some(Stage { name: progress.stage, bar, started: Instant::now(), total: progress.total });
        }
        if let Some(stage) = stage.as_mut() {
            stage.total = stage.total.max(progress.total);
            stage.bar.set_length(stage.total as u64);
            stage.bar.set_position(stage.bar.position().max(progress.done as u64));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        eprintln!("{}: {} in {:.1} s", self.name, self.total, self.started.elapsed().as_secs_f64());
    }
}
