//! One published system's predictions on MSR-VTT and MSVD, against the scores coco-caption gave them.
//!
//! `../shared/data/predictions` holds the captions, the corpus scores (`expected.json`) and, for MSR-VTT,
//! each video's scores. The videos' CIDEr there comes from annotations in which "languarge" was corrected to
//! "language" in two captions of video9931; so it is compared with ours after the same change. Tolerance
//! 1e-9, as everything there was printed with all digits and ours differs by rounding in the last ones.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

mod common;

use std::collections::HashMap;
use std::io::Read;

use common::{meteor_tables, shared};
use flate2::read::GzDecoder;
use metrics::files::{join, read_predictions, read_references};
use metrics::{Corpus, Options, Scores, score};

const TOLERANCE: f64 = 1e-9;

fn expected(name: &str) -> Option<HashMap<String, f64>> {
    let text = std::fs::read_to_string(shared("predictions/expected.json")?).unwrap();
    let mut all: HashMap<String, HashMap<String, f64>> = serde_json::from_str(&text).unwrap();
    all.remove(name)
}

fn assert_scores(scores: &Scores, expected: &HashMap<String, f64>) {
    let ours = serde_json::to_value(scores).unwrap();
    for (metric, theirs) in expected {
        let ours = ours[metric].as_f64().unwrap();
        println!("{metric}: {ours} (published {theirs}, difference {:e})", (ours - theirs).abs());
        assert!((ours - theirs).abs() <= TOLERANCE, "{metric}: ours {ours:?}, published {theirs:?}");
    }
}

#[test]
fn msrvtt_test_split() {
    let (Some(expected), Some(tables)) = (expected("msrvtt_test_nacf"), meteor_tables()) else { return };
    let predictions = read_predictions(&shared("predictions/msrvtt_test_nacf.json.gz").unwrap()).unwrap();
    let annotations = shared("annotations/msrvtt/test_videodatainfo.json.zip").unwrap();
    let joined = join(predictions, read_references(&annotations, None).unwrap(), false).unwrap();
    let scores = score(&joined.corpus, &Options { meteor: Some(&tables), ..Options::default() }).unwrap();
    assert_eq!(scores.per_video.len(), 2990);
    assert_scores(&scores, &expected);

    let mut text = String::new();
    let file =
        std::fs::File::open(shared("predictions/msrvtt_test_nacf.per_video.json.gz").unwrap()).unwrap();
    GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let theirs: HashMap<String, HashMap<String, serde_json::Value>> = serde_json::from_str(&text).unwrap();
    let mut worst = HashMap::new();
    for video in &scores.per_video {
        let ours = serde_json::to_value(video).unwrap();
        for metric in ["Bleu_4", "METEOR", "ROUGE_L"] {
            let theirs = theirs[&video.id][metric].as_f64().unwrap();
            let difference = (ours[metric].as_f64().unwrap() - theirs).abs();
            assert!(difference <= TOLERANCE, "{metric} of {}: {} {theirs}", video.id, ours[metric]);
            let worst = worst.entry(metric).or_insert(0.0_f64);
            *worst = worst.max(difference);
        }
    }
    println!("largest differences of a video: {worst:?}");

    let corrected = joined.corpus.videos().iter().cloned().map(|mut video| {
        for reference in video.references.iter_mut().filter(|_| video.id == "video9931") {
            *reference = reference.replace("languarge", "language");
        }
        video
    });
    let corrected = score(&Corpus::new(corrected.collect()).unwrap(), &Options::default()).unwrap();
    for video in &corrected.per_video {
        let theirs = theirs[&video.id]["CIDEr"].as_f64().unwrap();
        assert!((video.cider - theirs).abs() <= TOLERANCE, "CIDEr of {}: {} {theirs}", video.id, video.cider);
    }
}

#[test]
fn msvd_test_split() {
    let (Some(expected), Some(tables)) = (expected("msvd_test_nacf"), meteor_tables()) else { return };
    let predictions = read_predictions(&shared("predictions/msvd_test_nacf.json.gz").unwrap()).unwrap();
    let annotations = shared("annotations/msvd/msvd_sents_test_lc_nopunc.txt.gz").unwrap();
    let joined = join(predictions, read_references(&annotations, None).unwrap(), false).unwrap();
    assert!(joined.renumbered, "the system counts videos from 0, the data set from 1");
    let scores = score(&joined.corpus, &Options { meteor: Some(&tables), ..Options::default() }).unwrap();
    assert_eq!(scores.per_video.len(), 670);
    assert_scores(&scores, &expected);
}
