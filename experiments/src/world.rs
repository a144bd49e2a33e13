//! Making the tiny world, and showing how far that and the reading of clips is.

use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::Context;
use data::progress::Progress;
use data::tiny_world::{World, WorldConfig};
use indicatif::{ProgressBar, ProgressStyle};

/// Opens the world of a configuration in the cache, or makes it there.
///
/// # Errors
/// When files cannot be written or read.
pub fn make(config: &WorldConfig, cache: &Path) -> anyhow::Result<World> {
    let shown = Shown::default();
    let world = World::open_or_make(config, cache, &|progress| shown.update(progress))
        .with_context(|| format!("cannot make the tiny world in {}", cache.display()))?;
    shown.finish();
    Ok(world)
}

/// Makes a world in a folder of its own.
///
/// # Errors
/// When files cannot be written.
pub fn synthesize(config: &WorldConfig, out: &Path) -> anyhow::Result<World> {
    let shown = Shown::default();
    let world = data::tiny_world::synthesize(config, out, &|progress| shown.update(progress))
        .with_context(|| format!("cannot make the tiny world in {}", out.display()))?;
    shown.finish();
    Ok(world)
}

/// A progress bar a stage on a terminal; a line at each stage's end elsewhere.
#[derive(Default)]
pub struct Shown(Mutex<Option<Stage>>);

struct Stage {
    name: &'static str,
    bar: ProgressBar,
    started: Instant,
    total: usize,
}

impl Shown {
    /// Takes news of a stage, from any thread.
    pub fn update(&self, progress: Progress) {
        let mut stage = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if stage.as_ref().is_none_or(|stage| stage.name != progress.stage) {
            finish(stage.take());
            let style = ProgressStyle::with_template("{msg:<18} {wide_bar} {pos}/{len} {elapsed}");
            let bar = ProgressBar::new(progress.total as u64).with_message(progress.stage);
            let bar = style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style));
            let (name, total) = (progress.stage, progress.total);
            *stage = Some(Stage { name, bar, started: Instant::now(), total });
        }
        if let Some(stage) = stage.as_mut() {
            stage.total = stage.total.max(progress.total);
            stage.bar.set_length(stage.total as u64);
            stage.bar.set_position(stage.bar.position().max(progress.done as u64));
        }
    }

    /// Ends the last stage.
    pub fn finish(&self) {
        finish(self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take());
    }
}

fn finish(stage: Option<Stage>) {
    if let Some(Stage { name, bar, started, total }) = stage {
        bar.finish_and_clear();
        eprintln!("{name}: {total} in {:.1} s", started.elapsed().as_secs_f64());
    }
}
