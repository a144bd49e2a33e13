//! What stored views save and cost: `frames.views`.

use super::Shape;
use crate::config::RunConfig;
use captioner::Storage;
use model::Blip2Config;

/// Stored views of the training clips of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StoredViews {
    /// Views of a clip.
    pub views: usize,
    /// Operations of the frozen ViT where every example has a view of its own in every epoch.
    pub work_without: f64,
    /// Those with stored views: one run of the ViT for each.
    pub work: f64,
    /// Bytes on disk of the views' frames.
    pub frames: usize,
    /// Bytes on disk of the features of a frozen ViT; 0 where they are kept in memory.
    pub features: usize,
}

impl StoredViews {
    /// Nothing is stored for a stage with this number of steps yet.
    pub(super) fn of(config: &RunConfig, sizes: &Blip2Config, clips: usize) -> Option<Self> {
        let views = config.frames.stored_views().filter(|_| config.frames.varies())?;
        let side = sizes.vision_config.image_size;
        let frames = clips * views * config.frames.count;
        Some(Self { views, work_without: 0.0, work: 0.0, frames: frames * 3 * side * side, features: 0 })
    }

    /// Adds a stage; its ViT is frozen where it has no graph.
    pub(super) fn add(&mut self, shape: &Shape<'_>, steps: usize, clips: usize) {
        let vit = shape.vit();
        if vit.has_graph {
            return;
        }
        let items = clips * self.views;
        self.work_without += vit.forward() * (steps * shape.train.batch_size) as f64;
        self.work += vit.forward() * items as f64;
        if shape.config.frames.storage == Storage::Disk {
            self.features = 2 * items * vit.input(); // bf16; all stages read the same
        }
    }
}
