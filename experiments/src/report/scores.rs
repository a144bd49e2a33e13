//! Scores of a run's test captions for each clip, as sums over clips for the bootstrap.

use anyhow::Context as _;
use data::tiny_world::scene::Scene;
use data::tiny_world::{assess, parse_caption};
use metrics::bleu::BleuStatistics;
use metrics::meteor::{MeteorStatistics, MeteorTables, meteor};
use metrics::{Corpus, Options, Tokenized, Video, score_tokenized, vqa};

use crate::records::TestClip;
use crate::text::metrics::{
    ACCURACY, BLEU_4, CIDER, COLOUR, DIRECTION, EVENT, METEOR, ORDER, ORDERED_CIDER, ROUGE_L, SHAPE,
    UNORDERED_CIDER,
};

/// A metric that is computed from captions and references, for each clip and for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// CIDEr, document frequencies from the whole test split.
    Cider,
    /// CIDEr of the clips whose captions depend on the frames' order.
    OrderedCider,
    /// CIDEr of the clips that look the same backwards.
    UnorderedCider,
    /// BLEU-4 of counts summed over clips; one clip's is smoothed.
    Bleu4,
    /// METEOR 1.5 of counts summed over clips.
    Meteor,
    RougeL,
    /// The VQA challenge's accuracy of an answer.
    Accuracy,
    /// The main object's shape is right.
    Shape,
    Colour,
    /// The kinds of events are right, all of them and no others.
    Event,
    /// The direction is right, of captions that state one.
    Direction,
    /// The order is right, of captions that state two events of two.
    Order,
}

impl Measure {
    /// Its name among a run's metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cider => CIDER,
            Self::OrderedCider => ORDERED_CIDER,
            Self::UnorderedCider => UNORDERED_CIDER,
            Self::Bleu4 => BLEU_4,
            Self::Meteor => METEOR,
            Self::RougeL => ROUGE_L,
            Self::Accuracy => ACCURACY,
            Self::Shape => SHAPE,
            Self::Colour => COLOUR,
            Self::Event => EVENT,
            Self::Direction => DIRECTION,
            Self::Order => ORDER,
        }
    }

    /// Whether it is shown for a single clip.
    pub(crate) fn is_shown_for_clips(self) -> bool {
        !matches!(self, Self::OrderedCider | Self::UnorderedCider)
    }

    /// Columns of a clip's row.
    fn columns(self) -> usize {
        match self {
            Self::Bleu4 => 10,
            Self::Meteor => 23,
            Self::Direction | Self::Order | Self::OrderedCider | Self::UnorderedCider => 2,
            Self::Cider | Self::RougeL | Self::Accuracy | Self::Shape | Self::Colour | Self::Event => 1,
        }
    }

    /// The metric of summed columns. NaN where no caption states what is counted.
    fn of(self, sums: &[f64], clips: f64) -> f64 {
        match self {
            Self::Bleu4 => bleu_of(sums).scores()[3],
            Self::Meteor => meteor_of(sums).score(),
            _ if self.columns() == 2 => sums[0] / sums[1],
            _ => sums[0] / clips,
        }
    }
}

/// Metrics of one run, or of several, from sums over `clips` clips.
///
/// # Shapes
/// `sums`: `[runs * columns]`; result: `[runs * measures]`
pub(crate) fn metrics_of(measures: &[Measure], sums: &[f64], clips: usize) -> Vec<f64> {
    let width: usize = measures.iter().map(|measure| measure.columns()).sum();
    let mut metrics = Vec::with_capacity(sums.len() / width.max(1) * measures.len());
    for run in sums.chunks_exact(width.max(1)) {
        let mut rest = run;
        for measure in measures {
            let (own, others) = rest.split_at(measure.columns());
            metrics.push(measure.of(own, clips as f64));
            rest = others;
        }
    }
    metrics
}

/// The metrics that can be computed on these clips. METEOR needs its tables.
pub(crate) fn measures(clips: &[TestClip], has_meteor: bool) -> Vec<Measure> {
    if clips.iter().any(|clip| clip.question.is_some()) {
        return vec![Measure::Accuracy];
    }
    let mut measures = vec![Measure::Cider, Measure::Bleu4];
    measures.extend(has_meteor.then_some(Measure::Meteor));
    measures.push(Measure::RougeL);
    if clips.iter().all(|clip| clip.truth.is_some()) {
        measures.extend([
            Measure::OrderedCider,
            Measure::UnorderedCider,
            Measure::Shape,
            Measure::Colour,
            Measure::Event,
            Measure::Direction,
            Measure::Order,
        ]);
    }
    measures
}

/// A run's captions with their scores, in the clips' order.
#[derive(Debug, Clone)]
pub(crate) struct Scored {
    pub captions: Vec<String>,
    /// A row of columns a clip, measure by measure.
    pub rows: Vec<Vec<f64>>,
    /// The metrics of each clip, one a measure; NaN where the caption does not state what is counted.
    pub of_clips: Vec<Vec<f64>>,
    /// The metrics of all clips, one a measure.
    pub metrics: Vec<f64>,
}

impl Scored {
    /// Scores one caption a clip.
    pub(crate) fn new(
        captions: Vec<String>,
        clips: &[TestClip],
        measures: &[Measure],
        tables: Option<&MeteorTables>,
    ) -> anyhow::Result<Self> {
        let videos = clips.iter().zip(&captions).map(|(clip, caption)| Video {
            id: clip.id.clone(),
            hypothesis: caption.clone(),
            references: clip.references.clone(),
        });
        let tokenized = Tokenized::of(&Corpus::new(videos.collect())?)?;
        let scores = score_tokenized(&tokenized, &Options::default());
        let meteors = match tables {
            Some(tables) if measures.contains(&Measure::Meteor) => meteor(tables, tokenized.videos()).videos,
            _ => Vec::new(),
        };
        let row = |at: usize| -> anyhow::Result<Vec<f64>> {
            let (clip, scored) = (&clips[at], &scores.per_video[at]);
            let judged = clip.truth.as_ref().map(|scene| assess(&parse_caption(&captions[at]), scene));
            let count = |is: bool| f64::from(u8::from(is));
            let right = |value: Option<bool>| vec![count(value == Some(true))];
            let stated = |value: Option<bool>| vec![count(value == Some(true)), count(value.is_some())];
            let is_ordered = clip.truth.as_ref().map(Scene::depends_on_order);
            let of_those = |score: f64, ordered: bool| match is_ordered == Some(ordered) {
                true => vec![score, 1.0],
                false => vec![0.0, 0.0],
            };
            let mut row = Vec::new();
            for measure in measures {
                row.extend(match measure {
                    Measure::Cider => vec![scored.cider],
                    Measure::OrderedCider => of_those(scored.cider, true),
                    Measure::UnorderedCider => of_those(scored.cider, false),
                    Measure::RougeL => vec![scored.rouge_l],
                    Measure::Accuracy => vec![vqa::accuracy(&captions[at], &clip.references)],
                    Measure::Bleu4 => {
                        let video = &tokenized.videos()[at];
                        bleu_columns(&BleuStatistics::of(&video.hypothesis, &video.references))
                    }
                    Measure::Meteor => {
                        meteor_columns(meteors.get(at).context("METEOR has no counts of a clip")?)
                    }
                    Measure::Shape => right(judged.map(|judged| judged.shape)),
                    Measure::Colour => right(judged.map(|judged| judged.colour)),
                    Measure::Event => right(judged.map(|judged| judged.event_kind)),
                    Measure::Direction => stated(judged.and_then(|judged| judged.direction)),
                    Measure::Order => stated(judged.and_then(|judged| judged.order)),
                });
            }
            Ok(row)
        };
        let rows = (0..clips.len()).map(row).collect::<anyhow::Result<Vec<_>>>()?;
        let of_clips = rows.iter().map(|row| metrics_of(measures, row, 1)).collect();
        let columns = rows.first().map_or(0, Vec::len);
        let sums: Vec<f64> =
            (0..columns).map(|column| rows.iter().map(|row| row[column]).sum::<f64>()).collect();
        let metrics = metrics_of(measures, &sums, clips.len());
        Ok(Self { captions, rows, of_clips, metrics })
    }
}

fn bleu_columns(statistics: &BleuStatistics) -> Vec<f64> {
    let lengths = [statistics.hypothesis_length, statistics.reference_length];
    let counts = lengths.iter().chain(&statistics.guessed).chain(&statistics.correct);
    counts.map(|&count| count as f64).collect()
}

fn bleu_of(sums: &[f64]) -> BleuStatistics {
    let count = |at: usize| sums[at] as u64; // sums of whole numbers far below 2^53 are whole
    BleuStatistics {
        hypothesis_length: count(0),
        reference_length: count(1),
        guessed: std::array::from_fn(|n| count(2 + n)),
        correct: std::array::from_fn(|n| count(6 + n)),
    }
}

/// The counts that a clip adds to the corpus, which differ from its own: a complete match adds no chunk.
fn meteor_columns(statistics: &MeteorStatistics) -> Vec<f64> {
    let mut added = MeteorStatistics::default();
    added += statistics;
    added.to_array().map(|count| count as f64).to_vec()
}

fn meteor_of(sums: &[f64]) -> MeteorStatistics {
    let pair = |at: usize| [sums[at] as u64, sums[at + 1] as u64];
    MeteorStatistics {
        lengths: pair(0),
        function_words: pair(2),
        content_matches: std::array::from_fn(|module| pair(4 + 4 * module)),
        function_matches: std::array::from_fn(|module| pair(6 + 4 * module)),
        chunks: sums[20] as u64,
        matches: pair(21),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data::random::RandomStream;
    use data::tiny_world::config::SceneOdds;
    use data::tiny_world::draw::Combinations;
    use data::tiny_world::scene::Event;
    use std::path::PathBuf;

    fn clip(id: &str, references: &[&str]) -> TestClip {
        TestClip {
            id: id.to_owned(),
            references: references.iter().map(ToString::to_string).collect(),
            video: PathBuf::new(),
            question: None,
            truth: None,
        }
    }

    fn three() -> (Vec<TestClip>, Vec<String>) {
        let clips = vec![
            clip("a", &["a man plays a guitar on stage", "someone plays guitar"]),
            clip("b", &["a dog runs on the beach", "a brown dog runs"]),
            clip("c", &["two women slice an onion in a kitchen"]),
        ];
        let captions = ["A man plays a guitar.", "a dog is running on a beach", "a woman cuts an onion"];
        (clips, captions.map(str::to_owned).to_vec())
    }

    #[test]
    fn sums_of_rows_give_the_corpus_scores_of_the_metrics() {
        let (clips, captions) = three();
        let measures = measures(&clips, false);
        let ours = Scored::new(captions.clone(), &clips, &measures, None).unwrap();
        let videos = clips.iter().zip(captions).map(|(clip, hypothesis)| Video {
            id: clip.id.clone(),
            hypothesis,
            references: clip.references.clone(),
        });
        let theirs = metrics::score(&Corpus::new(videos.collect()).unwrap(), &Options::default()).unwrap();
        assert_eq!(measures, [Measure::Cider, Measure::Bleu4, Measure::RougeL]);
        for (ours, theirs) in ours.metrics.iter().zip([theirs.cider, theirs.bleu[3], theirs.rouge_l]) {
            assert!((ours - theirs).abs() < 1e-12, "{ours} {theirs}");
        }
        for (at, video) in theirs.per_video.iter().enumerate() {
            assert_eq!(ours.of_clips[at][0], video.cider);
            assert_eq!(ours.of_clips[at][2], video.rouge_l);
        }
    }

    #[test]
    fn ciders_of_both_kinds_of_clips_are_means_over_their_own() {
        let (mut clips, captions) = three();
        let mut random = RandomStream::new(0, "scores", 0);
        let odds = SceneOdds::default();
        for (clip, events) in clips.iter_mut().zip([vec![Event::Left], vec![Event::Still], vec![Event::Grow]])
        {
            let scene = Scene::draw(&mut random, &odds, Combinations::Any, (24, 36));
            clip.truth = Some(Scene { events, ..scene });
        }
        let measures = measures(&clips, false);
        let ours = Scored::new(captions, &clips, &measures, None).unwrap();
        let place = |wanted| measures.iter().position(|&measure| measure == wanted).unwrap();
        let cider = |clip: usize| ours.of_clips[clip][0];
        let (ordered, unordered) = (place(Measure::OrderedCider), place(Measure::UnorderedCider));
        assert!((ours.metrics[ordered] - f64::midpoint(cider(0), cider(2))).abs() < 1e-12);
        assert_eq!(ours.metrics[unordered], cider(1));
        assert!(ours.of_clips[1][ordered].is_nan() && cider(1) > 0.0 && cider(0) != cider(1));
    }

    #[test]
    fn meteors_counts_survive_being_columns() {
        let statistics = MeteorStatistics {
            lengths: [7, 8],
            function_words: [3, 4],
            content_matches: [[2, 2], [1, 1], [0, 0], [0, 1]],
            function_matches: [[1, 1], [0, 0], [0, 0], [1, 0]],
            chunks: 3,
            matches: [5, 5],
        };
        assert_eq!(meteor_of(&meteor_columns(&statistics)), statistics);
    }

    #[test]
    fn answers_are_right_or_wrong() {
        let clips = vec![TestClip { question: Some("what?".to_owned()), ..clip("a", &["A dog"]) }];
        let measures = measures(&clips, true);
        assert_eq!(measures, [Measure::Accuracy]);
        let scored = Scored::new(vec!["dog".to_owned()], &clips, &measures, None).unwrap();
        assert_eq!(scored.metrics, [1.0]);
    }
}
