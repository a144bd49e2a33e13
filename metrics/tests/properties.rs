//! What must hold for any captions, and that no input panics.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

mod common;

use std::path::Path;

use common::meteor_tables;
use metrics::files::{join, read_predictions, read_references};
use metrics::meteor::meteor;
use metrics::ptb::{tokenize_all, tokenize_raw};
use metrics::{Corpus, Options, Tokenized, Video, score, score_tokenized, vqa};
use proptest::prelude::*;

/// Captions of the words and marks the rules are about, and of anything at all.
fn caption() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "a", "the", "The", "man", "dog's", "isn't", "etc.", "no.", "2", "1/2", "c.", "U.S.", "Mr.", "3.5",
        "$5", ":)", "...", "--", "\"", "'", "’s", "(", ")", "<b>", "&amp;", "@you", "#tag", "a@b.com",
        "x-ray", "é", "中", "😀", "\u{a0}", "\u{ad}",
    ]);
    let glued = prop::collection::vec((pieces, prop::sample::select(vec!["", " ", "  "])), 0..12)
        .prop_map(|pieces| pieces.into_iter().map(|(piece, gap)| format!("{piece}{gap}")).collect());
    prop_oneof![3 => glued, 1 => any::<String>()].prop_map(|text: String| {
        text.replace(['\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'], " ")
    })
}

fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "a", "man", "woman", "dog", "is", "are", "playing", "plays", "guitar", "in", "the", "park", "runs",
        "running", "food", "cooking", "kitchen", "'s", "n't", "two", "people", "big", "large",
    ]);
    prop::collection::vec(word, 1..10).prop_map(|words| words.join(" "))
}

fn corpus() -> impl Strategy<Value = Vec<Video>> {
    prop::collection::vec((words(), prop::collection::vec(words(), 1..4)), 2..8).prop_map(|videos| {
        videos
            .into_iter()
            .enumerate()
            .map(|(place, (hypothesis, references))| Video {
                id: format!("v{place}"),
                hypothesis,
                references,
            })
            .collect()
    })
}

fn tokenized(videos: &[Video]) -> Tokenized {
    Tokenized::assume_tokenized(Corpus::new(videos.to_vec()).unwrap())
}

proptest! {
    #[test]
    fn tokenising_keeps_every_caption_in_its_place(captions in prop::collection::vec(caption(), 0..8)) {
        let tokens = tokenize_all(&captions).unwrap();
        prop_assert_eq!(tokens.captions.len(), captions.len());
        prop_assert!(tokens.captions.iter().all(|caption| !caption.contains('\n')));
    }

    #[test]
    fn tokens_are_lower_case(captions in prop::collection::vec(caption(), 0..4)) {
        for line in tokenize_raw(&captions).unwrap().captions {
            prop_assert!(!line.chars().any(|c| c.is_ascii_uppercase()), "{}", line);
        }
    }

    #[test]
    fn any_corpus_has_finite_scores(hypotheses in prop::collection::vec(caption(), 1..5), reference in caption()) {
        let videos = hypotheses.into_iter().enumerate().map(|(place, hypothesis)| Video {
            id: place.to_string(),
            hypothesis,
            references: vec![reference.clone(), String::new()],
        });
        let scores = score(&Corpus::new(videos.collect()).unwrap(), &Options::default()).unwrap();
        prop_assert!(scores.bleu.iter().chain([&scores.rouge_l, &scores.cider]).all(|score| score.is_finite()));
    }

    #[test]
    fn the_order_of_videos_changes_nothing(mut videos in corpus(), turn in 0_usize..8) {
        let before = score_tokenized(&tokenized(&videos), &Options::default());
        let turn = turn % videos.len();
        videos.rotate_left(turn);
        let after = score_tokenized(&tokenized(&videos), &Options::default());
        prop_assert_eq!(before.bleu, after.bleu);
        prop_assert!((before.cider - after.cider).abs() < 1e-12);
        prop_assert!((before.rouge_l - after.rouge_l).abs() < 1e-12);
    }

    #[test]
    fn another_reference_never_lowers_rouge(videos in corpus(), more in words()) {
        let before = score_tokenized(&tokenized(&videos), &Options::default());
        let mut videos = videos;
        for video in &mut videos {
            video.references.push(more.clone());
        }
        let after = score_tokenized(&tokenized(&videos), &Options::default());
        for (before, after) in before.per_video.iter().zip(&after.per_video) {
            prop_assert!(after.rouge_l >= before.rouge_l);
        }
    }

    #[test]
    fn readers_refuse_or_read_and_never_panic(text in prop_oneof![
        any::<String>(),
        r#"[\[\]{},:"a-z0-9\t\n ]{0,60}"#,
        r#"\[?\{"(image_id|video_id|caption|sentences|annotations|descs)": ?("a"|1|null|\[\]|\[\{"caption": "x"\}\])\}\]?"#,
    ]) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, &text).unwrap();
        let predictions = read_predictions(Path::new(&path));
        let references = read_references(Path::new(&path), None);
        if let (Ok(predictions), Ok(references)) = (predictions, references) {
            let _ = join(predictions, references, true);
        }
        let _ = read_references(Path::new(&path), Some("test"));
    }

    #[test]
    fn answers_normalise_once_and_for_all(answer in any::<String>()) {
        prop_assert!(vqa::accuracy(&answer, &[&answer]) == 1.0);
    }
}

#[test]
fn meteor_never_panics_and_a_caption_agrees_with_itself() {
    let Some(tables) = meteor_tables() else { return };
    let config = ProptestConfig { cases: 200, ..ProptestConfig::default() };
    proptest!(config, |(hypothesis in caption(), references in prop::collection::vec(caption(), 1..4), same in words())| {
        let video = Video { id: "v".into(), hypothesis, references };
        let twin = Video { id: "w".into(), hypothesis: same.clone(), references: vec![same] };
        let scores = meteor(&tables, &[video, twin]);
        prop_assert!((0.0..=1.0).contains(&scores.corpus));
        prop_assert!((scores.videos[1].score() - 1.0).abs() < 1e-12);
    });
}

#[test]
fn one_thread_and_many_give_the_same_bits() {
    let tables = meteor_tables();
    let options = Options { meteor: tables.as_ref(), ..Options::default() };
    let line = |seed: usize| {
        let words = [
            "a", "man", "is", "playing", "guitar", "on", "stage", "dogs", "run", "fast", "cooking", "Food.",
            "isn't",
        ];
        (0..5 + seed % 7)
            .map(|i| words[(seed * 7 + i * i + seed / 3) % words.len()])
            .collect::<Vec<_>>()
            .join(" ")
    };
    let videos = (0..300).map(|video| Video {
        id: video.to_string(),
        hypothesis: line(video),
        references: (1..6).map(|reference| line(video * 5 + reference)).collect(),
    });
    let corpus = Corpus::new(videos.collect()).unwrap();
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| score(&corpus, &options).unwrap())
    };
    let (one, many) = (with(1), with(4));
    assert_eq!(one, many);
    // Equality of floats hides the sign of zero; the bytes of the file don't.
    assert_eq!(
        serde_json::to_string(&one.per_video).unwrap(),
        serde_json::to_string(&many.per_video).unwrap()
    );
}

#[test]
fn a_single_video_gets_a_note_on_its_cider_of_zero() {
    let video = Video { id: "v".into(), hypothesis: "a dog".into(), references: vec!["a dog".into()] };
    let scores = score(&Corpus::new(vec![video]).unwrap(), &Options::default()).unwrap();
    assert_eq!(scores.cider, 0.0);
    assert!(scores.notes.iter().any(|note| note.contains("single video")), "{:?}", scores.notes);
    assert_eq!(scores.meteor, None, "without tables");
}
