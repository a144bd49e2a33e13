//! The work that stored views save: `frames.views`. `Disk::training` has their size.

use captioner::Storage;

use super::Stage;
use super::step::Step;
use crate::config::RunConfig;

/// Stored views of the training clips of a run. Each seed has its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StoredViews {
    /// Views of a clip.
    pub views: usize,
    /// Operations of a frozen ViT that encodes a new view for every example and epoch.
    pub work_without: f64,
    /// Those with stored views: one run of the ViT for each view.
    pub work: f64,
}

impl StoredViews {
    /// The stored views of a configuration with this number of training clips; none where it has none, or
    /// where nothing is drawn.
    pub(super) fn of<'a>(
        config: &RunConfig,
        clips: usize,
        stages: impl Iterator<Item = (&'a Step<'a>, &'a Stage)>,
    ) -> Option<Self> {
        let views = config.frames.stored_views().filter(|_| config.frames.varies())?;
        let items = clips * views;
        let mut stored = Self { views, work_without: 0.0, work: 0.0 };
        for (step, stage) in stages {
            let vit = step.vit();
            if vit.has_graph {
                continue;
            }
            stored.work_without += vit.forward() * (stage.steps * step.train.batch_size) as f64;
            let work = vit.forward() * items as f64;
            match config.frames.storage {
                // every stage computes them again
                Storage::Memory => stored.work += work,
                Storage::Disk => stored.work = work,
            }
        }
        Some(stored)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::resolve_plain;
    use crate::plan::Plan;

    fn plan(sets: &[&str]) -> Plan {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Plan::of(&resolve_plain("paper", &sets).unwrap(), 1).unwrap()
    }

    #[test]
    fn stored_views_save_the_vits_runs_and_take_space() {
        let without = plan(&[]);
        assert_eq!(without.views, None, "off by default");
        let with = plan(&["frames.views=5"]);
        let views = with.views.unwrap();
        // 6,513 clips of 8 frames of 224 pixels, and of 257 tokens of 1,408 values in bf16
        assert_eq!(with.disk.training.frames, 6513 * 5 * 8 * 3 * 224 * 224);
        assert_eq!(with.disk.training.features, 6513 * 5 * 8 * 257 * 1408 * 2);
        let times = views.work_without / views.work;
        assert!((times - 32.0 * 130_272.0 / (5.0 * 6513.0)).abs() < 1e-6, "{times}");
        let saved = without.stages[0].work() - with.stages[0].work();
        assert!((saved / (views.work_without - views.work) - 1.0).abs() < 1e-9, "the plan's work has it");
        let trained = plan(&["frames.views=5", "train.parameters={}"]);
        let found = (trained.views.unwrap().work_without, trained.disk.training.features);
        assert_eq!(found, (0.0, 0), "a trained ViT runs every step");
        let plain =
            ["frames.views=5", "frames.train_sampling=uniform", "frames.augment={ scale = [1.0, 1.0] }"];
        assert!(plan(&plain).views.is_some(), "a flip is a view");
    }
}
