//! The scores of a corpus and of each of its videos.

use rayon::prelude::*;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::Error;
use crate::bleu::BleuStatistics;
use crate::cider::cider_of_grams;
use crate::corpus::{Corpus, Tokenized};
use crate::grams::Grams;
use crate::meteor::{MeteorTables, meteor};
use crate::ngram::{MAX_N, numpy_mean};
use crate::rouge::rouge_l;

/// The scores of a corpus as in papers. CIDEr is 0 to 10, all others are 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// BLEU-1 to BLEU-4 from counts summed over the corpus.
    pub bleu: [f64; MAX_N],
    /// METEOR 1.5 from statistics summed over the corpus, not the mean of the videos; `None` when it was not
    /// computed.
    pub meteor: Option<f64>,
    /// ROUGE-L, the mean over videos.
    pub rouge_l: f64,
    /// CIDEr, the mean over videos.
    pub cider: f64,
    /// Each video's scores in the order of the corpus.
    pub per_video: Vec<VideoScores>,
    /// Notes for the reader, one sentence each.
    pub notes: Vec<String>,
}

/// The scores of one video.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoScores {
    /// The video's id.
    pub id: String,
    /// BLEU-1 to BLEU-4 of this video alone, smoothed: their mean is not the corpus BLEU.
    pub bleu: [f64; MAX_N],
    /// METEOR of this video; `None` when it was not computed.
    pub meteor: Option<f64>,
    /// ROUGE-L.
    pub rouge_l: f64,
    /// CIDEr, with document frequencies of the whole corpus.
    pub cider: f64,
}

/// Options of [`score`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// Whether the captions are tokenised.
    pub tokenized: bool,
    /// METEOR's tables; without them METEOR is not computed.
    pub meteor: Option<&'a MeteorTables>,
}

/// Tokenises and scores a corpus as coco-caption does.
///
/// # Errors
/// [`Error::LineEnd`] for a caption with a line end of the reference tokeniser.
pub fn score(corpus: &Corpus, options: &Options<'_>) -> Result<Scores, Error> {
    let tokenized =
        if options.tokenized { Tokenized::assume_tokenized(corpus.clone()) } else { Tokenized::of(corpus)? };
    Ok(score_tokenized(&tokenized, options))
}

/// Scores tokenised captions. The result is the same, bit for bit, with any number of threads.
pub fn score_tokenized(corpus: &Tokenized, options: &Options<'_>) -> Scores {
    let videos = corpus.videos();
    let hypotheses: Vec<&str> = videos.iter().map(|video| video.hypothesis.as_str()).collect();
    let references: Vec<&[String]> = videos.iter().map(|video| video.references.as_slice()).collect();

    let grams = Grams::new(&hypotheses, &references);
    let bleu = BleuStatistics::of_videos(&grams);
    let mut bleu_of_corpus = BleuStatistics::default();
    for statistics in &bleu {
        bleu_of_corpus.add(statistics);
    }
    let rouge: Vec<f64> =
        videos.par_iter().map(|video| rouge_l(&video.hypothesis, &video.references)).collect();
    let (cider_of_corpus, cider) = cider_of_grams(&grams);
    drop(grams);
    let meteor = options.meteor.map(|tables| meteor(tables, videos));

    let per_video = videos
        .iter()
        .enumerate()
        .map(|(place, video)| VideoScores {
            id: video.id.clone(),
            bleu: bleu[place].scores(),
            meteor: meteor.as_ref().map(|meteor| meteor.videos[place].score()),
            rouge_l: rouge[place],
            cider: cider[place],
        })
        .collect();
    Scores {
        bleu: bleu_of_corpus.scores(),
        meteor: meteor.as_ref().map(|meteor| meteor.corpus),
        rouge_l: numpy_mean(&rouge),
        cider: cider_of_corpus,
        per_video,
        notes: notes(corpus),
    }
}

/// What a reader of the numbers should know.
fn notes(corpus: &Tokenized) -> Vec<String> {
    let mut notes = Vec::new();
    if let [_] = corpus.videos() {
        notes.push("CIDEr of a single video is 0 by construction: every n-gram weighs ln(1)".to_owned());
    }
    let empty: Vec<&str> = corpus
        .videos()
        .iter()
        .filter(|video| video.hypothesis.is_empty())
        .map(|video| video.id.as_str())
        .collect();
    if let Some(first) = empty.first() {
        notes.push(format!("{} hypotheses have no word and score 0, the first {first:?}", empty.len()));
    }
    if !corpus.deleted().is_empty() {
        let total: usize = corpus.deleted().values().sum();
        let kinds: Vec<String> =
            corpus.deleted().iter().take(8).map(|(c, n)| format!("U+{:04X} x{n}", u32::from(*c))).collect();
        let more = if corpus.deleted().len() > kinds.len() { ", ..." } else { "" };
        notes.push(format!(
            "{total} characters were deleted, as the reference tokeniser deletes them: {}{more}",
            kinds.join(", ")
        ));
    }
    notes
}

/// One object with the keys `Bleu_1 Bleu_2 Bleu_3 Bleu_4 METEOR ROUGE_L CIDEr` in this order; METEOR is null
/// when it was not computed. The videos' scores are left out: serialise `per_video` for those.
impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(7))?;
        serialize_scores(&mut map, &self.bleu, self.meteor, self.rouge_l, self.cider)?;
        map.end()
    }
}

/// As [`Scores`], with `image_id` first.
impl Serialize for VideoScores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(8))?;
        map.serialize_entry("image_id", &self.id)?;
        serialize_scores(&mut map, &self.bleu, self.meteor, self.rouge_l, self.cider)?;
        map.end()
    }
}

fn serialize_scores<M: SerializeMap>(
    map: &mut M,
    bleu: &[f64; MAX_N],
    meteor: Option<f64>,
    rouge_l: f64,
    cider: f64,
) -> Result<(), M::Error> {
    for (n, score) in bleu.iter().enumerate() {
        map.serialize_entry(&format!("Bleu_{}", n + 1), score)?;
    }
    map.serialize_entry("METEOR", &meteor)?;
    map.serialize_entry("ROUGE_L", &rouge_l)?;
    map.serialize_entry("CIDEr", &cider)
}
