//! Scoring captions: the published metrics, and for the tiny world what a caption gets right.

use std::path::{Path, PathBuf};

use data::datasets::Clip;
use data::tiny_world::{ChanceLevels, World, assess, parse_caption};
use metrics::meteor::MeteorTables;
use metrics::{Corpus, Options, Video, VideoScores};
use train::metrics::{BLEU_4, CIDER};
use train::{Metrics, Prediction, Scorer, TrainError};

/// The directories that are searched for METEOR's tables: `$RECAP_METEOR`, or `cache/meteor` in the working directory and in
/// every directory above it.
pub fn meteor_directories() -> Vec<PathBuf> {
    match std::env::var_os("RECAP_METEOR") {
        Some(directory) => vec![directory.into()],
        None => {
            let here = std::env::current_dir().unwrap_or_default();
            here.ancestors().map(|directory| directory.join(Path::new("cache/meteor"))).collect()
        }
    }
}

/// Names of BLEU-1 to BLEU-3 among the figures.
pub const SHORTER_BLEUS: [&str; 3] = ["BLEU-1", "BLEU-2", "BLEU-3"];
/// Name of METEOR among the figures; it is not computed where its tables are not there.
pub const METEOR: &str = "METEOR";
/// Name of ROUGE-L among the figures.
pub const ROUGE_L: &str = "ROUGE-L";
/// CIDEr of the clips whose captions depend on the frames' order.
pub const ORDERED_CIDER: &str = "CIDEr, order";
/// CIDEr of the clips that look the same backwards.
pub const UNORDERED_CIDER: &str = "CIDEr, no order";
/// Share of captions that name the right shape.
pub const SHAPE: &str = "shape";
/// Share of captions that name the right colour.
pub const COLOUR: &str = "colour";
/// Share of captions that name the right kinds of events, all of them and no others.
pub const EVENT: &str = "event";
/// Share with the right direction, among captions that state one.
pub const DIRECTION: &str = "direction";
/// Share with the right order, among captions that state both events of two.
pub const ORDER: &str = "order";
/// Number of different captions.
pub const DISTINCT: &str = "different";

/// A split, ready to score captions of it.
pub struct CaptionScorer {
    clips: Vec<Clip>,
    world: Option<World>,
    meteor: Option<MeteorTables>,
    /// Whether every published metric is computed, or only those that training is steered by.
    is_final: bool,
}

impl CaptionScorer {
    /// Scores captions of these clips, which are in the order of the examples and may be of the tiny world. A final score
    /// has every published metric, METEOR where its tables are there; others are quick.
    ///
    /// # Errors
    /// When METEOR's tables are there and damaged.
    pub fn new(world: Option<&World>, clips: &[&Clip], is_final: bool) -> Result<Self, metrics::Error> {
        let clips = clips.iter().map(|&clip| clip.clone()).collect();
        let meteor = match is_final.then(|| MeteorTables::find(&meteor_directories())) {
            Some(Ok(tables)) => Some(tables),
            Some(Err(metrics::Error::NoMeteorTables { .. })) | None => None,
            Some(Err(error)) => return Err(error),
        };
        Ok(Self { clips, world: world.cloned(), meteor, is_final })
    }

    /// Scores one caption a clip, in the clips' order.
    ///
    /// # Errors
    /// When there is not one caption a clip.
    pub fn score(&self, captions: &[String]) -> Result<Metrics, metrics::Error> {
        let videos = self.clips.iter().zip(captions).map(|(clip, caption)| Video {
            id: clip.id.clone(),
            hypothesis: caption.clone(),
            references: clip.captions.clone(),
        });
        let options = Options { meteor: self.meteor.as_ref(), ..Options::default() };
        let scores = metrics::score(&Corpus::new(videos.collect())?, &options)?;
        let metrics =
            Metrics::one(CIDER, scores.cider).with(BLEU_4, scores.bleu[3]).with(ROUGE_L, scores.rouge_l);
        let metrics = scores.meteor.into_iter().fold(metrics, |metrics, meteor| metrics.with(METEOR, meteor));
        let metrics = if self.is_final {
            let shorter = SHORTER_BLEUS.iter().zip(scores.bleu);
            shorter.fold(metrics, |metrics, (name, bleu)| metrics.with(name, bleu))
        } else {
            metrics
        };
        let metrics = match &self.world {
            Some(world) => self.truths(world, captions, self.by_order(world, &scores.per_video, metrics)),
            None => metrics,
        };
        let distinct: std::collections::BTreeSet<&String> = captions.iter().collect();
        Ok(metrics.with(DISTINCT, distinct.len() as f64))
    }

    /// Of a final score, CIDEr of either kind of clips, with the document frequencies of both.
    fn by_order(&self, world: &World, scores: &[VideoScores], metrics: Metrics) -> Metrics {
        if !self.is_final {
            return metrics;
        }
        let is_ordered = |clip: &Clip| Some(world.truth(&clip.id)?.scene.depends_on_order());
        let of = |ordered| {
            let those = self.clips.iter().zip(scores).filter(|(clip, _)| is_ordered(clip) == Some(ordered));
            let (sum, count) = those.fold((0.0, 0usize), |(sum, n), (_, score)| (sum + score.cider, n + 1));
            sum / count.max(1) as f64
        };
        metrics.with(ORDERED_CIDER, of(true)).with(UNORDERED_CIDER, of(false))
    }

    fn truths(&self, world: &World, captions: &[String], metrics: Metrics) -> Metrics {
        let judged = self.clips.iter().zip(captions).filter_map(|(clip, caption)| {
            Some(assess(&parse_caption(caption), &world.truth(&clip.id)?.scene))
        });
        let judged: Vec<_> = judged.collect();
        metrics
            .with(SHAPE, share(judged.iter().map(|judged| judged.shape)))
            .with(COLOUR, share(judged.iter().map(|judged| judged.colour)))
            .with(EVENT, share(judged.iter().map(|judged| judged.event_kind)))
            .with(DIRECTION, share(judged.iter().filter_map(|judged| judged.direction)))
            .with(ORDER, share(judged.iter().filter_map(|judged| judged.order)))
    }
}

/// Share of trues; 0 of nothing.
fn share(values: impl Iterator<Item = bool>) -> f64 {
    let (mut right, mut all) = (0usize, 0usize);
    for value in values {
        right += usize::from(value);
        all += 1;
    }
    right as f64 / all.max(1) as f64
}

impl Scorer for CaptionScorer {
    fn names(&self) -> Vec<String> {
        let truths: &[&str] =
            if self.world.is_some() { &[SHAPE, COLOUR, EVENT, DIRECTION, ORDER] } else { &[] };
        let published = [CIDER, BLEU_4, ROUGE_L].into_iter().chain(self.meteor.as_ref().map(|_| METEOR));
        published
            .chain(SHORTER_BLEUS.into_iter().filter(|_| self.is_final))
            .chain(
                [ORDERED_CIDER, UNORDERED_CIDER]
                    .into_iter()
                    .filter(|_| self.is_final && self.world.is_some()),
            )
            .chain(truths.iter().copied())
            .chain([DISTINCT])
            .map(str::to_owned)
            .collect()
    }

    fn score_predictions(&self, written: &[Prediction]) -> Result<Metrics, TrainError> {
        let mut captions = vec![String::new(); self.clips.len()];
        for written in written {
            captions[written.item].clone_from(&written.caption);
        }
        Ok(self.score(&captions)?)
    }
}

/// Chance levels under the names of the figures they belong to.
pub fn chance_metrics(chance: &ChanceLevels) -> Metrics {
    Metrics::one(SHAPE, chance.shape)
        .with(COLOUR, chance.colour)
        .with(EVENT, chance.event_kind)
        .with(DIRECTION, chance.direction)
        .with(ORDER, chance.order)
}
