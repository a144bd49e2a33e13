//! The whole suite once, from the files to the scores: what `scripts/bench/metrics.sh` times beside the reference.
//!
//! `cargo run -p metrics --example suite -- PREDICTIONS REFERENCES`

use std::path::Path;
use std::time::Instant;

use metrics::files::{join, read_predictions, read_references};
use metrics::meteor::MeteorTables;
use metrics::{Options, score};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [predictions, references] = &arguments[..] else {
        return Err("usage: suite PREDICTIONS REFERENCES".into());
    };
    let start = Instant::now();
    let joined = join(
        read_predictions(Path::new(predictions))?,
        read_references(Path::new(references), None)?,
        false,
    )?;
    let tables = MeteorTables::open(&MeteorTables::default_directory())?;
    let scores = score(&joined.corpus, &Options { meteor: Some(&tables), ..Options::default() })?;
    println!("{}", serde_json::to_string(&scores)?);
    eprintln!("{} videos in {:.3} s", scores.per_video.len(), start.elapsed().as_secs_f64());
    Ok(())
}
