//! The PTB tokeniser against CoreNLP's, on 1,500 lines of fuzz and 29 lines of edge cases.
//!
//! `data/ptb_1500.jsonl` and the `ptb` part of `data/scores_small.json` were made with the jar of
//! `pycocoevalcap==1.2` under OpenJDK 17.0.15: `java -cp stanford-corenlp-3.4.1.jar
//! edu.stanford.nlp.process.PTBTokenizer -preserveLines -lowerCase FILE`, each list as one file in the order
//! given, since the tokeniser looks past line ends. Every line must be equal.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use metrics::ptb::{tokenize_all, tokenize_raw};
use serde::Deserialize;

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "in")]
    text: String,
    raw: String,
    kept: Option<String>,
}

#[derive(Deserialize)]
struct SmallGolden {
    ptb: Vec<Line>,
}

fn assert_equal(lines: &[Line]) {
    let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    let ours = tokenize_raw(&texts).unwrap().captions;
    let mut wrong = 0;
    for (place, (line, ours)) in lines.iter().zip(&ours).enumerate() {
        // The golden file shows no-break spaces inside tokens as they are.
        if *ours != line.raw {
            wrong += 1;
            eprintln!("line {place} {:?}\n  reference {:?}\n  ours      {ours:?}", line.text, line.raw);
        }
    }
    assert_eq!(wrong, 0, "{wrong} of {} lines differ from the reference", lines.len());
}

#[test]
fn fuzz_lines_equal_the_reference() {
    let lines: Vec<Line> = include_str!("data/ptb_1500.jsonl")
        .lines()
        .skip(1) // the note on where they come from
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 1500);
    assert_equal(&lines);
}

#[test]
fn edge_cases_equal_the_reference() {
    let golden: SmallGolden = serde_json::from_str(include_str!("data/scores_small.json")).unwrap();
    assert_equal(&golden.ptb);
    let texts: Vec<&str> = golden.ptb.iter().map(|line| line.text.as_str()).collect();
    let kept = tokenize_all(&texts).unwrap().captions;
    for (line, ours) in golden.ptb.iter().zip(&kept) {
        assert_eq!(Some(ours), line.kept.as_ref(), "punctuation of {:?}", line.text);
    }
}
