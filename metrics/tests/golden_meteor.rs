//! METEOR against the jar: 400 pairs with their 23 counts and scores, and the small corpus.
//!
//! `data/meteor_400.jsonl` was made with `java -jar -Xmx2G meteor-1.5.jar - - -stdio -l en -norm` of
//! `pycocoevalcap==1.2` under OpenJDK 17.0.15 over sentences of our own; its first line holds the corpus
//! score. The counts must be equal; the scores to 1e-12, since Java's pow and ours may differ in the last
//! digit.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

mod common;

use common::meteor_tables;
use metrics::Video;
use metrics::meteor::meteor;
use serde::Deserialize;

const TOLERANCE: f64 = 1e-12;

#[derive(Deserialize)]
struct Segment {
    hyp: String,
    refs: Vec<String>,
    stats: Vec<u64>,
    score: f64,
}

#[test]
fn counts_and_scores_of_400_segments_equal_the_jars() {
    let Some(tables) = meteor_tables() else { return };
    let mut lines = include_str!("data/meteor_400.jsonl").lines();
    let head: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    let segments: Vec<Segment> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(segments.len(), 400);
    let videos: Vec<Video> = segments
        .iter()
        .enumerate()
        .map(|(place, segment)| Video {
            id: place.to_string(),
            hypothesis: segment.hyp.clone(),
            references: segment.refs.clone(),
        })
        .collect();

    let scores = meteor(&tables, &videos);
    let mut wrong = 0;
    for (place, (ours, segment)) in scores.videos.iter().zip(&segments).enumerate() {
        let counts = ours.to_array();
        if counts[..] != segment.stats || (ours.score() - segment.score).abs() > TOLERANCE {
            wrong += 1;
            let differs = counts.iter().zip(&segment.stats).position(|(a, b)| a != b);
            eprintln!(
                "segment {place} {:?} {:?}\n  reference {:?} {}\n  ours      {counts:?} {}\n  first differing count: {differs:?}",
                segment.hyp,
                segment.refs,
                segment.stats,
                segment.score,
                ours.score()
            );
        }
    }
    assert_eq!(wrong, 0, "{wrong} of 400 segments differ");
    let corpus = head["corpus_score"].as_f64().unwrap();
    assert!(
        (scores.corpus - corpus).abs() <= TOLERANCE,
        "corpus: ours {:?}, jar's {corpus:?}",
        scores.corpus
    );
}

#[test]
fn the_small_corpus_equals_the_jar() {
    let Some(tables) = meteor_tables() else { return };
    let golden: serde_json::Value = serde_json::from_str(include_str!("data/scores_small.json")).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let videos: Vec<Video> = golden["corpus"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| Video {
            id: text(&case["id"]),
            hypothesis: text(&case["hyp"]),
            references: case["refs"].as_array().unwrap().iter().map(text).collect(),
        })
        .collect();
    let scores = meteor(&tables, &videos);
    let golden = &golden["scores"]["meteor"];
    for (place, ours) in scores.videos.iter().enumerate() {
        let counts: Vec<f64> = ours.to_array().iter().map(|&count| count as f64).collect();
        let line: Vec<String> = counts.iter().map(|count| format!("{count:?}")).collect();
        assert_eq!(line.join(" "), text(&golden["stats"][place]), "{:?}", videos[place]);
        let score = golden["per"][place].as_f64().unwrap();
        assert!((ours.score() - score).abs() <= TOLERANCE, "{:?}: {} {score}", videos[place], ours.score());
    }
    let corpus = golden["corpus"].as_f64().unwrap();
    assert!((scores.corpus - corpus).abs() <= TOLERANCE, "{} {corpus}", scores.corpus);
}

#[test]
fn two_pairs_with_published_scores() {
    let Some(tables) = meteor_tables() else { return };
    let video = |hypothesis: &str, reference: &str| Video {
        id: "pair".into(),
        hypothesis: hypothesis.into(),
        references: vec![reference.into()],
    };
    // The example of METEOR's Wikipedia article.
    let scores = meteor(&tables, &[video("the cat was sat on the mat", "the cat sat on the mat")]);
    assert!((scores.corpus - 0.511_955_617_722_332_4).abs() <= TOLERANCE, "{}", scores.corpus);
}

#[test]
fn the_first_of_equal_references_counts() {
    let Some(tables) = meteor_tables() else { return };
    let video = Video {
        id: "v".into(),
        hypothesis: "zebra".into(),
        references: vec!["a b c d".into(), "one two".into()],
    };
    // Both score 0; the first one's four words are what enters the corpus.
    assert_eq!(meteor(&tables, &[video]).videos[0].lengths, [1, 4]);
}

#[test]
fn the_separator_is_cleaned_from_the_hypothesis_only() {
    let Some(tables) = meteor_tables() else { return };
    let video = |hypothesis: &str, reference: &str| Video {
        id: "v".into(),
        hypothesis: hypothesis.into(),
        references: vec![reference.into()],
    };
    let scores = meteor(&tables, &[video("a ||| dog", "a dog"), video("a dog", "a ||| a dog")]);
    // Each time "a dog" is compared with "a dog": in the second, the reference counts as two, and the second
    // one is better.
    assert_eq!(scores.videos[0].score(), 1.0);
    assert_eq!(scores.videos[1].score(), 1.0);
    assert_eq!(scores.videos[1].lengths, [2, 2]);
}

/// The search once kept every path of such captions, which took minutes and all memory; counts and score are
/// the jar's.
#[test]
fn captions_that_repeat_two_words_a_hundred_times_are_counted_as_the_jar_counts() {
    let Some(tables) = meteor_tables() else { return };
    let video = Video {
        id: "repeated".to_owned(),
        hypothesis: ["the dog"; 150].join(" "),
        references: vec![["a dog runs"; 60].join(" ")],
    };
    let scores = meteor(&tables, &[video]);
    let mut expected = [0u64; 23];
    expected[..6].copy_from_slice(&[300, 180, 150, 60, 60, 60]);
    expected[20..].copy_from_slice(&[60, 60, 60]);
    assert_eq!(scores.videos[0].to_array(), expected);
    assert!((scores.videos[0].score() - 0.161_073_825_503_355_7).abs() < TOLERANCE);
}
