//! Views of training clips, from a run's configuration and seed to its batches.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Device;
use captioner::{Context, HostVisual, Shown};
use train::loader::{Loader, shuffled};
use train::processes::SingleProcess;
use train::{Batch, Examples};

use super::*;
use crate::config::{find_checkpoint, image_size, open_checkpoint, resolve_plain};
use crate::tasks::{self, Inputs};

const FROZEN: &str = "train.parameters={ \"vision_model.*\" = \"frozen\" }";
const CROPS: &str = "frames.augment={ flip = 0.0 }";

/// Three training clips with their captions, of which an epoch visits all.
struct Desk {
    config: RunConfig,
    clips: Clips,
    model: Blip2,
    context: Context,
}

impl Desk {
    fn new(cache: &Path, sets: &[&str]) -> Self {
        let shared = ["captions=every", "world.clips={ train = 3, validate = 2, test = 2 }"];
        let sets: Vec<String> = shared.iter().chain(sets).map(|&set| set.to_owned()).collect();
        let config = resolve_plain("smoke", &sets).unwrap();
        let task = tasks::of(&config);
        let (caches, size) = (Caches::new(Some(cache)), image_size(&config).unwrap());
        let clips = Clips::open(&config, &*task, size, &caches, None).unwrap();
        let directory = find_checkpoint(&config.checkpoint).unwrap();
        let checkpoint = open_checkpoint(&directory, &config, None, &Device::flex()).unwrap();
        let context = task.context(&checkpoint).unwrap();
        Self { config, clips, model: checkpoint.model, context }
    }

    fn videos(&self, seed: Option<u64>) -> Videos {
        self.clips.videos(Split::Train, &self.model, &self.config.train, seed).unwrap()
    }

    /// The training examples of a run.
    fn training(&self, seed: u64) -> Arc<dyn Examples> {
        let Self { config, clips, context, .. } = self;
        let inputs = Inputs { clips, split: Split::Train, videos: self.videos(Some(seed)), context };
        tasks::of(config).training(inputs, seed).unwrap()
    }
}

/// Each row as bytes.
fn rows(visual: &HostVisual) -> Vec<Vec<u8>> {
    let (b, bytes) = match visual {
        HostVisual::Pixels { bytes, shape, .. } => (shape[0], bytes.clone()),
        HostVisual::Features { values, shape } => {
            (shape[0], values.iter().flat_map(|value| value.to_le_bytes()).collect())
        }
        HostVisual::HalfFeatures { values, shape } => {
            (shape[0], values.iter().flat_map(|value| value.to_le_bytes()).collect())
        }
        HostVisual::Frames { .. } => panic!("batches hold bytes"),
    };
    bytes.chunks_exact(bytes.len() / b).map(<[u8]>::to_vec).collect()
}

/// Clip and frames, or features, of every example of an epoch.
fn epoch(examples: &dyn Examples, epoch: usize) -> Vec<(usize, Vec<u8>)> {
    let items: Vec<usize> = (0..examples.len()).collect();
    let Batch::Caption { visual, clips, .. } = examples.batch(epoch, &items, 0..items.len()).unwrap() else {
        panic!("captions")
    };
    clips.into_iter().zip(rows(&visual)).collect()
}

#[test]
fn every_caption_seed_and_epoch_has_a_view_of_its_own() {
    let cache = tempfile::tempdir().unwrap();
    for drawn in [CROPS, "frames.train_sampling=random"] {
        let desk = Desk::new(cache.path(), &["frames.count=2", drawn]);
        let (first, second) = (desk.training(1), desk.training(2));
        let seen: Vec<_> = [epoch(&*first, 1), epoch(&*first, 2), epoch(&*second, 1)].concat();
        assert!(seen.len() > 3 * 3 * 2, "a clip has several captions");
        let views: BTreeSet<_> = seen.iter().collect();
        // a clip has few pairs of frames, and few of 180 crops of 32 pixels may be equal by chance
        let percent = if drawn == CROPS { 95 } else { 66 };
        assert!(
            views.len() * 100 >= percent * seen.len(),
            "{drawn}: {} views of {} examples",
            views.len(),
            seen.len()
        );
        assert_ne!(epoch(&*first, 1), epoch(&*second, 1), "{drawn}: seeds");
        assert_eq!(epoch(&*first, 1), epoch(&*desk.training(1), 1), "{drawn}");
    }
}

#[test]
fn a_replica_draws_other_views() {
    let cache = tempfile::tempdir().unwrap();
    let desk = Desk::new(cache.path(), &[CROPS, "replica=1"]);
    let seed = desk.config.drawn_seed(1);
    assert_ne!(epoch(&*desk.training(seed), 1), epoch(&*desk.training(1), 1));
}

#[test]
fn a_resumed_run_sees_the_batches_that_it_would_have_seen() {
    let cache = tempfile::tempdir().unwrap();
    let desk = Desk::new(cache.path(), &["frames.train_sampling=head_tail", CROPS]);
    let loader = || {
        let examples = desk.training(5);
        let order = shuffled(&examples, 5, false);
        Loader::new(examples, 4, order, Arc::new(SingleProcess)).with_workers(3)
    };
    let batch = |batch: Result<Batch, train::TrainError>| match batch.unwrap() {
        Batch::Caption { visual, items, .. } => (items, rows(&visual)),
        _ => panic!("captions"),
    };
    let whole = loader();
    let count = 2 * whole.batches();
    let expected: Vec<_> = whole.stream(whole.start()).take(count).map(batch).collect();
    for stop in [1, count / 2 + 1] {
        let mut before = whole.stream(whole.start());
        assert_eq!(before.by_ref().take(stop).count(), stop);
        let (resumed, saved) = (loader(), whole.save(before.position()));
        let rest = resumed.stream(resumed.restore(&saved).unwrap()).take(count - stop);
        assert_eq!(rest.map(batch).collect::<Vec<_>>(), expected[stop..], "after {stop} batches");
    }
}

#[test]
fn where_nothing_varies_a_clip_has_one_view_which_a_frozen_vit_reads_once() {
    let cache = tempfile::tempdir().unwrap();
    for sets in [&["frames.train_sampling=middle"][..], &["frames.views=4"]] {
        let desk = Desk::new(cache.path(), sets);
        let training = desk.training(1);
        let all = [epoch(&*training, 1), epoch(&*training, 2), epoch(&*desk.training(2), 1)].concat();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 3, "{sets:?}");
        let frozen = Desk::new(cache.path(), &[sets, &[FROZEN]].concat());
        let visual = frozen.videos(Some(1)).visual(1, &Shown::once(&[0, 1, 2])).unwrap();
        assert!(matches!(visual, HostVisual::Features { .. }), "{sets:?}");
    }
}

#[test]
fn the_training_split_is_evaluated_on_the_frames_of_evaluation() {
    let cache = tempfile::tempdir().unwrap();
    let shown = Shown::once(&[0, 1, 2]);
    let frames =
        |sets: &[&str], seed| rows(&Desk::new(cache.path(), sets).videos(seed).visual(1, &shown).unwrap());
    let plain = frames(&[], None);
    for drawn in [CROPS, "frames.train_sampling=head_tail", "frames.train_sampling=middle"] {
        assert_eq!(frames(&[drawn], None), plain, "{drawn}");
        assert_ne!(frames(&[drawn], Some(1)), plain, "{drawn}");
    }
}

#[test]
fn stored_views_are_drawn_once_and_a_frozen_vit_reads_each_once() {
    let cache = tempfile::tempdir().unwrap();
    let (clips, views) = (3, 4);
    for storage in ["disk", "memory"] {
        let storage = format!("frames.storage={storage}");
        let desk = Desk::new(cache.path(), &[CROPS, FROZEN, "frames.views=4", &storage]);
        let training = desk.training(1);
        let epochs: Vec<_> = (1..=2 * views).map(|number| epoch(&*training, number)).collect();
        for clip in 0..clips {
            let of_clip = |epoch: &[(usize, Vec<u8>)]| -> Vec<Vec<u8>> {
                epoch.iter().filter(|(own, _)| *own == clip).map(|(_, row)| row.clone()).collect()
            };
            let seen: Vec<Vec<Vec<u8>>> = epochs.iter().map(|epoch| of_clip(epoch)).collect();
            assert_eq!(seen.concat().iter().collect::<BTreeSet<_>>().len(), views, "{storage}, clip {clip}");
            let captions = seen[0].len();
            let first: BTreeSet<_> = seen[0].iter().collect();
            assert_eq!(first.len(), captions.min(views), "the captions of an epoch share the views");
            for caption in 0..captions {
                let turns: BTreeSet<_> = seen[..views].iter().map(|epoch| &epoch[caption]).collect();
                assert_eq!(turns.len(), views, "a caption goes through all views");
            }
            assert_eq!(seen[..views], seen[views..], "and begins again");
        }
        assert_ne!(epoch(&*desk.training(2), 1), epochs[0], "another seed has other views");
    }
}

/// The number of features that are computed for stored views, in a first run and in its next stage.
#[test]
fn the_vit_runs_once_for_each_stored_view() {
    let cache = tempfile::tempdir().unwrap();
    let desk = Desk::new(cache.path(), &[CROPS, FROZEN, "frames.views=4", "frames.storage=disk"]);
    let (frames, size) = (&desk.config.frames, image_size(&desk.config).unwrap());
    let clips = desk.clips.split(Split::Train);
    let computed = || {
        let (drawn, encoded) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let count = |progress: data::progress::Progress| match progress.stage {
            "drawing views" => drawn.fetch_max(progress.done, Ordering::Relaxed),
            "computing features" => encoded.fetch_max(progress.done, Ordering::Relaxed),
            stage => panic!("{stage}"),
        };
        let count = |progress| {
            count(progress);
        };
        let source = FrameSource::open(&clips, frames, size, Some(9), cache.path(), &count).unwrap();
        let videos = Videos::new(Arc::new(source), frames.clone(), size);
        let videos = videos.with_frozen_vit(&desk.model, |_| false, 2, cache.path(), &count).unwrap();
        for epoch in 1..=10 {
            let visual = videos.visual(epoch, &Shown::once(&[0, 1, 2])).unwrap();
            assert!(matches!(visual, HostVisual::HalfFeatures { .. }), "the ViT does not run again");
        }
        (drawn.into_inner(), encoded.into_inner())
    };
    assert_eq!(computed(), (3 * 4, 3 * 4));
    assert_eq!(computed(), (0, 0), "both are in the cache");
}
