//! How long the suite takes on MSR-VTT's test size (2,990 videos of 20 references), and the reward of a
//! batch.
//!
//! `cargo bench -p metrics`. The captions are those of `../shared/data` if it exists, else made from a small
//! grammar. `scripts/bench/metrics.sh` runs the reference beside it.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use std::hint::black_box;
use std::path::Path;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use metrics::files::{join, read_predictions, read_references};
use metrics::meteor::{MeteorTables, meteor};
use metrics::{
    Corpus, Options, Reward, RewardConfig, Tokenized, Video, best_constant_caption, score, score_tokenized,
    tokenize_all,
};

fn corpus() -> Corpus {
    let shared = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data"));
    let predictions = read_predictions(&shared.join("predictions/msrvtt_test_nacf.json.gz"));
    let references = read_references(&shared.join("annotations/msrvtt/test_videodatainfo.json.zip"), None);
    if let (Ok(predictions), Ok(references)) = (predictions, references)
        && let Ok(joined) = join(predictions, references, false)
    {
        return joined.corpus;
    }
    let line = |seed: usize| {
        let words = [
            "a", "man", "is", "playing", "the", "guitar", "on", "stage", "woman", "cooking", "food", "in",
            "kitchen",
        ];
        (0..8 + seed % 5)
            .map(|i| words[(seed * 31 + i * i * 7 + seed / 5) % words.len()])
            .collect::<Vec<_>>()
            .join(" ")
    };
    let videos = (0..2990).map(|video| Video {
        id: video.to_string(),
        hypothesis: line(video),
        references: (0..20).map(|reference| line(video * 20 + reference)).collect(),
    });
    Corpus::new(videos.collect()).expect("the made corpus is sound")
}

fn suite(criterion: &mut Criterion) {
    let corpus = corpus();
    let tokenized = Tokenized::of(&corpus).expect("captions without line ends");
    let tables = MeteorTables::find(&[concat!(env!("CARGO_MANIFEST_DIR"), "/../cache/meteor").into()]).ok();
    let mut group = criterion.benchmark_group("2990x20");
    group.sample_size(10);
    group.bench_function("ptb", |bencher| bencher.iter(|| Tokenized::of(black_box(&corpus))));
    group.bench_function("bleu, rouge_l, cider", |bencher| {
        bencher.iter(|| score_tokenized(black_box(&tokenized), &Options::default()));
    });
    match &tables {
        Some(tables) => {
            group.bench_function("meteor", |bencher| {
                bencher.iter(|| meteor(tables, black_box(tokenized.videos())));
            });
            let options = Options { meteor: Some(tables), ..Options::default() };
            group.bench_function("whole suite", |bencher| {
                bencher.iter(|| score(black_box(&corpus), &options));
            });
        }
        None => eprintln!("skipped: no METEOR tables; `make meteor-data` fetches them"),
    }
    let references: Vec<&[String]> =
        tokenized.videos()[..1000].iter().map(|video| video.references.as_slice()).collect();
    group.bench_function("best constant caption of 1000x20", |bencher| {
        bencher.iter(|| best_constant_caption(black_box(&references)));
    });
    group.finish();

    let training: Vec<&[String]> =
        tokenized.videos().iter().map(|video| video.references.as_slice()).collect();
    let reward = Reward::new(RewardConfig::standard(), &training).expect("references are there");
    let videos = &tokenized.videos()[..160];
    let generated: Vec<&str> = videos.iter().map(|video| video.hypothesis.as_str()).collect();
    let references: Vec<&[String]> = videos.iter().map(|video| video.references.as_slice()).collect();
    let mut group = criterion.benchmark_group("reward of 160 captions x 20 references");
    // Cold: no video was ever seen, as in the first epoch. A clone remembers nothing.
    group.sample_size(20).bench_function("cold", |bencher| {
        bencher.iter_batched_ref(
            || reward.clone(),
            |reward| reward.rewards(black_box(&generated), black_box(&references)),
            BatchSize::PerIteration,
        );
    });
    group.sample_size(100).bench_function("warm", |bencher| {
        bencher.iter(|| reward.rewards(black_box(&generated), black_box(&references)));
    });
    // What comes before it in a step: the generated captions are tokenised; the references were when training
    // began.
    let raw: Vec<&str> = corpus.videos()[..160].iter().map(|video| video.hypothesis.as_str()).collect();
    group.bench_function("tokenising the 160 captions", |bencher| {
        bencher.iter(|| tokenize_all(black_box(&raw)));
    });
    group.finish();
}

criterion_group!(benches, suite);
criterion_main!(benches);
