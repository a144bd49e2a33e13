//! How long the reward of 160 captions with 20 references each takes, cold and warm: the least and the median
//! of many rounds.
//!
//! `cargo run --release -p metrics --example reward -- PREDICTIONS REFERENCES [ROUNDS]`
//!
//! Cold: no video was seen before, as in the first step. Warm: all were, as in every epoch after the first.
//! The least is what the work takes where nothing else runs; on a machine that others use, too, the median
//! says little.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use metrics::files::{join, read_predictions, read_references};
use metrics::{Reward, RewardConfig, Tokenized, tokenize_all};

const CAPTIONS: usize = 160;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (predictions, references, rounds) = match &arguments[..] {
        [predictions, references] => (predictions, references, 50),
        [predictions, references, rounds] => (predictions, references, rounds.parse()?),
        _ => return Err("usage: reward PREDICTIONS REFERENCES [ROUNDS]".into()),
    };
    let predictions = read_predictions(Path::new(predictions))?;
    let corpus = join(predictions, read_references(Path::new(references), None)?, false)?.corpus;
    let tokenized = Tokenized::of(&corpus)?;
    let training: Vec<&[String]> =
        tokenized.videos().iter().map(|video| video.references.as_slice()).collect();
    let reward = Reward::new(RewardConfig::standard(), &training)?;
    let videos = tokenized.videos().get(..CAPTIONS).ok_or("too few videos")?;
    let generated: Vec<&str> = videos.iter().map(|video| video.hypothesis.as_str()).collect();
    let references: Vec<&[String]> = videos.iter().map(|video| video.references.as_slice()).collect();
    let raw: Vec<&str> = corpus.videos()[..CAPTIONS].iter().map(|video| video.hypothesis.as_str()).collect();
    let raw_references: Vec<&String> =
        corpus.videos()[..CAPTIONS].iter().flat_map(|video| &video.references).collect();

    let [mut cold, mut warm, mut tokens, mut reference_tokens] = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        let fresh = reward.clone(); // a clone remembers no video
        cold.push(timed(|| fresh.rewards(&generated, &references)));
        for _ in 0..10 {
            warm.push(timed(|| fresh.rewards(&generated, &references)));
        }
        tokens.push(timed(|| tokenize_all(&raw)));
        reference_tokens.push(timed(|| tokenize_all(&raw_references)));
    }
    for (what, times) in [
        ("cold reward", cold),
        ("warm reward", warm),
        ("tokenising 160 captions", tokens),
        ("tokenising 3,200 references", reference_tokens),
    ] {
        print(what, times);
    }
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    black_box(work());
    start.elapsed()
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    if let (Some(least), Some(median)) = (times.first(), times.get(times.len() / 2)) {
        println!("{what}: least {least:.2?}, median {median:.2?} of {}", times.len());
    }
}
