//! The normalisation of answers against the VQA challenge's own code, on 3,000 answers.
//!
//! `data/vqa_3000.jsonl` was made with `scripts/reference/vqa_answers.py` from `vqa_eval.py` of
//! salesforce-lavis 1.0.2 under Python 3.11. Every answer must be equal.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use metrics::vqa::normalize;

#[test]
fn answers_are_normalised_as_the_challenge_does() {
    let mut wrong = 0;
    let lines: Vec<&str> = include_str!("data/vqa_3000.jsonl").lines().collect();
    for line in &lines {
        let (answer, theirs): (String, String) = serde_json::from_str(line).unwrap();
        let ours = normalize(&answer);
        if ours != theirs {
            wrong += 1;
            eprintln!("{answer:?}\n  reference {theirs:?}\n  ours      {ours:?}");
        }
    }
    assert_eq!((lines.len(), wrong), (3000, 0), "answers, and how many differ");
}
