//! The scores of a corpus and of each of its videos.

use rayon::prelude::*;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::bleu::BleuStatistics;
use crate::cider::corpus_cider;
use crate::corpus::Tokenized;
use crate::ngram::{MAX_N, numpy_mean};
use crate::rouge::rouge_l;

/// The scores papers report, of a whole corpus. All run from 0 to 1 but CIDEr, which runs from 0 to 10.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// BLEU-1 to BLEU-4 from counts summed over the corpus.
    pub bleu: [f64; MAX_N],
    /// METEOR 1.5 from statistics summed over the corpus, not the mean of the videos; `None` when it was not computed.
    pub meteor: Option<f64>,
    /// ROUGE-L, the mean over videos.
    pub rouge_l: f64,
    /// CIDEr, the mean over videos.
    pub cider: f64,
    /// Each video's scores in the order of the corpus.
    pub per_video: Vec<VideoScores>,
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

/// Scores captions that are tokenised already. METEOR is left out.
pub fn score_tokenized(corpus: &Tokenized) -> Scores {
    let videos = corpus.videos();
    let hypotheses: Vec<&str> = videos.iter().map(|video| video.hypothesis.as_str()).collect();
    let references: Vec<&[String]> = videos.iter().map(|video| video.references.as_slice()).collect();

    let bleu: Vec<BleuStatistics> =
        videos.par_iter().map(|video| BleuStatistics::of(&video.hypothesis, &video.references)).collect();
    let mut bleu_of_corpus = BleuStatistics::default();
    for statistics in &bleu {
        bleu_of_corpus.add(statistics);
    }
    let rouge: Vec<f64> =
        videos.par_iter().map(|video| rouge_l(&video.hypothesis, &video.references)).collect();
    let (cider_of_corpus, cider) = corpus_cider(&hypotheses, &references);

    let per_video = videos
        .iter()
        .zip(&bleu)
        .zip(rouge.iter().zip(&cider))
        .map(|((video, bleu), (&rouge_l, &cider))| VideoScores {
            id: video.id.clone(),
            bleu: bleu.scores(),
            meteor: None,
            rouge_l,
            cider,
        })
        .collect();
    Scores {
        bleu: bleu_of_corpus.scores(),
        meteor: None,
        rouge_l: numpy_mean(&rouge),
        cider: cider_of_corpus,
        per_video,
    }
}

/// One object with the keys `Bleu_1 Bleu_2 Bleu_3 Bleu_4 METEOR ROUGE_L CIDEr` in this order; METEOR is null when it
/// was not computed. The videos' scores are left out: serialise `per_video` for those.
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
