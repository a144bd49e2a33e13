//! Files that a run writes: its best weights, its saved states, and what it caches of clips.

use captioner::Storage;
use model::Blip2Config;
use model::parameters::Parameter;

use super::step::Step;
use crate::config::RunConfig;

/// Bytes on disk, without the files' headers and the small files beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Best weights of every stage: trained tensors in f32; the whole model, if all are trained. A run that
    /// starts from the first stage of another run has only those of its last stage.
    pub best: usize,
    /// States of every stage: `keep_checkpoints` times trained parameters and both moments, and the
    /// parameters of the best evaluation. While a state is written there is one more.
    pub states: usize,
    /// Cached clips of validation and test, which all runs with the same ViT share.
    pub held_out: Cached,
    /// Cached training clips; each seed has its own, if views are drawn.
    pub training: Cached,
}

/// Bytes of cached clips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cached {
    /// Decoded frames, a byte a value.
    pub frames: usize,
    /// Output of a frozen ViT in bf16; 0 where it is trained, or features are kept in memory.
    pub features: usize,
}

impl Disk {
    /// The files of a run with these numbers of clips of train, validate and test.
    pub(super) fn of(
        config: &RunConfig,
        sizes: &Blip2Config,
        parameters: &[Parameter],
        [train, validate, test]: [usize; 3],
        steps: &[Step<'_>],
    ) -> Self {
        let trained_by = |trains: &dyn Fn(&str) -> bool| -> usize {
            parameters.iter().filter(|own| trains(&own.name)).map(Parameter::len).sum()
        };
        // what an earlier stage trained is saved with what the last one trains
        let so_far =
            |stage: usize| trained_by(&|name| steps[..=stage].iter().any(|step| step.is_trained(name)));
        let state = |step: &Step<'_>| {
            let kept = step.train.keep_checkpoints.max(1);
            let trained = trained_by(&|name| step.is_trained(name));
            let with_moments = trained_by(&|name| step.has_gradient(name));
            4 * (trained * (kept + 1) + 2 * with_moments * kept)
        };
        let is_vit_frozen = steps.iter().any(|step| !step.vit().has_graph);
        let is_on_disk = config.frames.storage == Storage::Disk;
        let cached = |items: usize| {
            let pixels = 3 * sizes.vision_config.image_size.pow(2);
            let features = 2 * steps.first().map_or(0, |step| step.vit().input());
            Cached {
                frames: items * config.frames.count * pixels,
                features: if is_vit_frozen && is_on_disk { items * features } else { 0 },
            }
        };
        Self {
            best: (0..steps.len()).map(|stage| 4 * so_far(stage)).sum(),
            states: steps.iter().map(state).sum(),
            held_out: cached(validate + test),
            training: cached(train * config.frames.stored_views().unwrap_or(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve_plain;
    use crate::plan::Plan;

    fn disk(sets: &[&str]) -> Disk {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Plan::of(&resolve_plain("paper", &sets).unwrap(), 1).unwrap().disk
    }

    const FROZEN: &str =
        "train.parameters={ \"vision_model.*\" = \"frozen\", \"language_model.*\" = \"frozen\" }";

    #[test]
    fn held_out_features_take_20_gb_and_a_run_what_it_trains() {
        let plain = disk(&[FROZEN]);
        // 497 and 2,990 clips of 8 frames of 257 tokens of 1,408 values in bf16
        assert_eq!(plain.held_out.features, (497 + 2990) * 8 * 257 * 1408 * 2);
        assert_eq!(format!("{:.1}", plain.held_out.features as f64 / 1e9), "20.2");
        assert_eq!(plain.held_out.frames, (497 + 2990) * 8 * 3 * 224 * 224);
        assert_eq!(plain.training, Cached { frames: 0, features: 0 }, "drawn for every example");
        let trained = 106_739_968;
        assert_eq!(plain.best, 4 * trained);
        assert_eq!(disk(&[FROZEN, "train.keep_checkpoints=2"]).states, 4 * trained * (2 * 3 + 1));
        assert_eq!(disk(&[FROZEN, "frames.count=16"]).held_out.features, 2 * plain.held_out.features);
        let views = disk(&[FROZEN, "frames.views=5"]).training;
        assert_eq!(views.features, 6513 * 5 * 8 * 257 * 1408 * 2);
    }

    #[test]
    fn a_run_that_trains_everything_saves_everything_and_caches_no_features() {
        let all = disk(&["train.parameters={}"]);
        assert_eq!(all.best, 4 * (985_894_528 + 106_739_968 + 2_849_757_184));
        assert_eq!(all.held_out.features, 0);
    }

    #[test]
    fn the_text_path_of_a_qformer_without_an_instruction_has_no_moments() {
        let states = |prompt: &str| {
            let prompt = format!("text.prompt=\"{prompt}\"");
            disk(&[
                FROZEN,
                "checkpoint=Salesforce/instructblip-vicuna-7b",
                &prompt,
                "train.keep_checkpoints=1",
            ])
        };
        // word and position embeddings, and the two matrices of 12 blocks with biases and norm
        let text = (30_523 + 512) * 768 + 12 * (2 * 768 * 3072 + 3072 + 3 * 768);
        let (plain, instructed) = (states(""), states("a video of"));
        assert_eq!(instructed.states - plain.states, 4 * 2 * text);
        assert_eq!(instructed.best, plain.best, "its weights are saved all the same");
    }

    #[test]
    fn both_stages_of_self_critical_training_leave_files() {
        let reward = "scst.reward={ mode = \"standard\", candidates = 5, baseline = \"greedy\" }";
        assert_eq!(disk(&[FROZEN, reward]).best, 2 * disk(&[FROZEN]).best);
    }
}
