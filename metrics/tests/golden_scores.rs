//! BLEU, ROUGE-L and CIDEr against coco-caption on a small corpus of edge cases.
//!
//! `data/scores_small.json` was made with `pycocoevalcap==1.2` from PyPI under OpenJDK 17.0.15: `Bleu(4)`,
//! `Rouge()`, `Cider()` and `Meteor()`, each `compute_score(gts, res)` over our own sentences, which are
//! tokenised already. Tolerance 1e-12: the sums run in the reference's order, so only the last digit of ln,
//! exp and pow may differ.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use metrics::{Corpus, Idf, Options, Reward, RewardConfig, Roles, Tokenized, Video, score_tokenized};
use serde::Deserialize;

const TOLERANCE: f64 = 1e-12;

#[derive(Deserialize)]
struct Golden {
    corpus: Vec<Case>,
    scores: GoldenScores,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    hyp: String,
    refs: Vec<String>,
}

#[derive(Deserialize)]
struct GoldenScores {
    bleu: Reference<[f64; 4], Vec<Vec<f64>>>,
    rouge_l: Reference<f64, Vec<f64>>,
    cider: Reference<f64, Vec<f64>>,
    scst: Rewards,
}

#[derive(Deserialize)]
struct Rewards {
    #[serde(rename = "gen")]
    generated: Vec<String>,
    gt: Vec<String>,
    #[serde(rename = "released(gts=gen,res=gt)")]
    released: Vec<f64>,
    #[serde(rename = "intended(gts=gt,res=gen)")]
    intended: Vec<f64>,
}

#[derive(Deserialize)]
struct Reference<C, P> {
    corpus: C,
    per: P,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("data/scores_small.json")).unwrap()
}

fn tokenized(golden: &Golden) -> Tokenized {
    let videos = golden.corpus.iter().map(|case| Video {
        id: case.id.clone(),
        hypothesis: case.hyp.clone(),
        references: case.refs.clone(),
    });
    Tokenized::assume_tokenized(Corpus::new(videos.collect()).unwrap())
}

fn assert_near(what: &str, ours: f64, theirs: f64) {
    assert!((ours - theirs).abs() <= TOLERANCE, "{what}: ours {ours:?}, coco-caption's {theirs:?}");
}

#[test]
fn corpus_scores_equal_the_reference() {
    let golden = golden();
    let scores = score_tokenized(&tokenized(&golden), &Options::default());
    for n in 0..4 {
        assert_near(&format!("BLEU-{}", n + 1), scores.bleu[n], golden.scores.bleu.corpus[n]);
    }
    assert_near("ROUGE-L", scores.rouge_l, golden.scores.rouge_l.corpus);
    assert_near("CIDEr", scores.cider, golden.scores.cider.corpus);
}

#[test]
fn scores_of_each_video_equal_the_reference() {
    let golden = golden();
    let scores = score_tokenized(&tokenized(&golden), &Options::default());
    for (place, (video, case)) in scores.per_video.iter().zip(&golden.corpus).enumerate() {
        let what = |metric: &str| {
            format!("{metric} of {} (hypothesis {:?}, references {:?})", video.id, case.hyp, case.refs)
        };
        for n in 0..4 {
            assert_near(&what(&format!("BLEU-{}", n + 1)), video.bleu[n], golden.scores.bleu.per[n][place]);
        }
        assert_near(&what("ROUGE-L"), video.rouge_l, golden.scores.rouge_l.per[place]);
        assert_near(&what("CIDEr"), video.cider, golden.scores.cider.per[place]);
    }
}

#[test]
fn the_keys_of_the_json_are_in_the_papers_order() {
    let scores = score_tokenized(&tokenized(&golden()), &Options::default());
    let json = serde_json::to_value(&scores).unwrap();
    let keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr"]);
    let video = serde_json::to_value(&scores.per_video[0]).unwrap();
    assert_eq!(video["image_id"], "v0");
}

#[test]
fn rewards_equal_those_of_the_papers_code() {
    let rewards = golden().scores.scst;
    let references: Vec<[&str; 1]> = rewards.gt.iter().map(|reference| [reference.as_str()]).collect();
    let released = Reward::new::<[&str; 0], &str>(RewardConfig::released(), &[]).unwrap();
    for (ours, theirs) in released.rewards(&rewards.generated, &references).iter().zip(&rewards.released) {
        assert_near("released reward", *ours, *theirs);
    }
    let intended = RewardConfig { roles: Roles::Intended, idf: Idf::Batch, ..RewardConfig::released() };
    let intended = Reward::new::<[&str; 0], &str>(intended, &[]).unwrap();
    for (ours, theirs) in intended.rewards(&rewards.generated, &references).iter().zip(&rewards.intended) {
        assert_near("intended reward", *ours, *theirs);
    }
}
