//! Scoring captions of the tiny world: the published metrics, and what a caption gets right.

use data::datasets::Clip;
use data::datasets::synthetic::{ChanceLevels, World, judge, read};
use metrics::{Corpus, Options, Video};
use train::TrainError;
use train::captioner::Written;
use train::dashboard::{CIDER, Figures};
use train::strategy::Judge;

/// Name of BLEU-4 among the figures.
pub const BLEU_4: &str = "BLEU-4";
/// Name of ROUGE-L among the figures.
pub const ROUGE_L: &str = "ROUGE-L";
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

/// A split of the tiny world, ready to score captions of it.
pub struct WorldJudge {
    clips: Vec<Clip>,
    world: World,
}

impl WorldJudge {
    /// Scores captions of these clips, which are in the order of the examples.
    pub fn new(world: &World, clips: &[&Clip]) -> Self {
        Self { clips: clips.iter().map(|&clip| clip.clone()).collect(), world: world.clone() }
    }

    /// Scores one caption a clip, in the clips' order.
    ///
    /// # Errors
    /// When there is not one caption a clip.
    pub fn score(&self, captions: &[String]) -> Result<Figures, metrics::Error> {
        let videos = self.clips.iter().zip(captions).map(|(clip, caption)| Video {
            id: clip.id.clone(),
            hypothesis: caption.clone(),
            references: clip.captions.clone(),
        });
        let scores = metrics::score(&Corpus::new(videos.collect())?, &Options::default())?;
        let figures =
            Figures::one(CIDER, scores.cider).with(BLEU_4, scores.bleu[3]).with(ROUGE_L, scores.rouge_l);
        Ok(self.truths(captions, figures))
    }

    fn truths(&self, captions: &[String], figures: Figures) -> Figures {
        let judged =
            self.clips.iter().zip(captions).filter_map(|(clip, caption)| {
                Some(judge(&read(caption), &self.world.truth(&clip.id)?.scene))
            });
        let judged: Vec<_> = judged.collect();
        let distinct: std::collections::BTreeSet<&String> = captions.iter().collect();
        figures
            .with(SHAPE, share(judged.iter().map(|judged| judged.shape)))
            .with(COLOUR, share(judged.iter().map(|judged| judged.colour)))
            .with(EVENT, share(judged.iter().map(|judged| judged.event_kind)))
            .with(DIRECTION, share(judged.iter().filter_map(|judged| judged.direction)))
            .with(ORDER, share(judged.iter().filter_map(|judged| judged.order)))
            .with(DISTINCT, distinct.len() as f64)
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

impl Judge for WorldJudge {
    fn names(&self) -> Vec<String> {
        [CIDER, BLEU_4, ROUGE_L, SHAPE, COLOUR, EVENT, DIRECTION, ORDER, DISTINCT].map(str::to_owned).to_vec()
    }

    fn judge(&self, written: &[Written]) -> Result<Figures, TrainError> {
        let mut captions = vec![String::new(); self.clips.len()];
        for written in written {
            captions[written.item].clone_from(&written.caption);
        }
        Ok(self.score(&captions)?)
    }
}

/// Chance levels under the names of the figures they belong to.
pub fn chance_figures(chance: &ChanceLevels) -> Figures {
    Figures::one(SHAPE, chance.shape)
        .with(COLOUR, chance.colour)
        .with(EVENT, chance.event_kind)
        .with(DIRECTION, chance.direction)
        .with(ORDER, chance.order)
}
