//! Scores of captions: the published metrics, and for the tiny world the share of captions that are right in
//! each respect.

use std::collections::BTreeSet;

use data::datasets::Clip;
use data::tiny_world::{ChanceLevels, World, assess, assess_picture, parse_caption};
use metrics::meteor::MeteorTables;
use metrics::{Corpus, Options, Video, VideoScores};
use train::metrics::LOSS;
use train::{Metrics, Prediction, Scorer, TrainError};

use crate::text::metrics::{
    BLEU_4, CIDER, COLOUR, DIRECTION, DISTINCT, EVENT, METEOR, ORDER, ORDERED_CIDER, ROUGE_L, SHAPE,
    SHORTER_BLEUS, UNORDERED_CIDER,
};

/// Scores captions of the clips of a split.
pub(super) struct CaptionScorer {
    clips: Vec<Clip>,
    world: Option<World>,
    meteor: Option<MeteorTables>,
    /// Whether every published metric is computed.
    is_final: bool,
    /// Whether no clip has a caption, as in VATEX's private test set: captions are written and not scored.
    is_unreferenced: bool,
}

impl CaptionScorer {
    /// A scorer of captions of clips, in order. A final score has every published metric, METEOR where there
    /// are tables; other scores have only the metrics by which epochs are selected.
    pub(super) fn new(
        world: Option<&World>,
        clips: &[&Clip],
        is_final: bool,
        meteor: Option<MeteorTables>,
    ) -> Self {
        let clips: Vec<Clip> = clips.iter().map(|&clip| clip.clone()).collect();
        let is_unreferenced = clips.iter().all(|clip| clip.captions.is_empty());
        Self { clips, world: world.cloned(), meteor, is_final, is_unreferenced }
    }

    /// Scores one caption a clip, in order.
    pub(super) fn score(&self, captions: &[String]) -> Result<Metrics, metrics::Error> {
        let distinct: BTreeSet<&String> = captions.iter().collect();
        let distinct = distinct.len() as f64;
        if self.is_unreferenced {
            return Ok(Metrics::one(DISTINCT, distinct));
        }
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
        let shorter = SHORTER_BLEUS.iter().zip(scores.bleu).filter(|_| self.is_final);
        let metrics = shorter.fold(metrics, |metrics, (name, bleu)| metrics.with(name, bleu));
        let metrics = match &self.world {
            Some(world) => self.truths(world, captions, self.by_order(world, &scores.per_video, metrics)),
            None => metrics,
        };
        Ok(metrics.with(DISTINCT, distinct))
    }

    /// Adds CIDEr of either kind of clips, with the document frequencies of all, to a final score.
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
        let shares = [
            share(judged.iter().map(|judged| judged.shape)),
            share(judged.iter().map(|judged| judged.colour)),
            share(judged.iter().map(|judged| judged.event_kind)),
            share(judged.iter().filter_map(|judged| judged.direction)),
            share(judged.iter().filter_map(|judged| judged.order)),
        ];
        with_truths(metrics, shares)
    }
}

/// Share of true values; 0 of none.
fn share(values: impl Iterator<Item = bool>) -> f64 {
    let all: Vec<bool> = values.collect();
    all.iter().filter(|is_right| **is_right).count() as f64 / all.len().max(1) as f64
}

impl Scorer for CaptionScorer {
    fn names(&self) -> Vec<String> {
        if self.is_unreferenced {
            return vec![DISTINCT.to_owned()];
        }
        let has_truth = self.world.is_some();
        let published = [CIDER, BLEU_4, ROUGE_L].into_iter().chain(self.meteor.as_ref().map(|_| METEOR));
        let shorter = SHORTER_BLEUS.into_iter().filter(|_| self.is_final);
        let by_order = [ORDERED_CIDER, UNORDERED_CIDER].into_iter().filter(|_| self.is_final && has_truth);
        let truths = TRUTHS.into_iter().filter(|_| has_truth);
        let names = published.chain(shorter).chain(by_order).chain(truths).chain([DISTINCT]);
        names.map(str::to_owned).collect()
    }

    fn score_predictions(&self, predictions: &[Prediction]) -> Result<Metrics, TrainError> {
        let mut captions = vec![String::new(); self.clips.len()];
        for prediction in predictions {
            captions[prediction.item].clone_from(&prediction.caption);
        }
        Ok(self.score(&captions)?)
    }
}

/// Chance levels under the names of their metrics.
pub(super) fn chance_metrics(chance: &ChanceLevels) -> Metrics {
    let ChanceLevels { shape, colour, event_kind, direction, order } = *chance;
    with_truths(Metrics::default(), [shape, colour, event_kind, direction, order])
}

/// The metrics of the tiny world.
const TRUTHS: [&str; 5] = [SHAPE, COLOUR, EVENT, DIRECTION, ORDER];

fn with_truths(metrics: Metrics, values: [f64; 5]) -> Metrics {
    TRUTHS.iter().zip(values).fold(metrics, |metrics, (name, value)| metrics.with(name, value))
}

/// Scores captions of the held-out images of the tiny world by shape and colour. Only images of one object
/// count.
pub(crate) struct PictureScorer {
    pub world: World,
}

impl Scorer for PictureScorer {
    fn names(&self) -> Vec<String> {
        [LOSS, SHAPE, COLOUR].map(str::to_owned).to_vec()
    }

    fn score_predictions(&self, predictions: &[Prediction]) -> Result<Metrics, TrainError> {
        let pictures = self.world.held_out_pictures();
        let judged: Vec<(bool, bool)> = predictions
            .iter()
            .filter_map(|prediction| Some((pictures.get(prediction.item)?, &prediction.caption)))
            .filter(|(truth, _)| truth.picture.objects.len() == 1)
            .map(|(truth, caption)| assess_picture(&parse_caption(caption), &truth.picture))
            .collect();
        Ok(Metrics::one(SHAPE, share(judged.iter().map(|judged| judged.0)))
            .with(COLOUR, share(judged.iter().map(|judged| judged.1))))
    }
}
