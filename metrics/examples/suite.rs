//! The whole suite once, from the files to the scores: what `scripts/bench/metrics.sh` times beside the
//! reference.
//!
//! `cargo run -p metrics --example suite -- PREDICTIONS REFERENCES`

use std::path::Path;
use std::time::Instant;

use metrics::files::{join, read_predictions, read_references};
use metrics::meteor::{MeteorTables, meteor};
use metrics::{Options, Tokenized, score_tokenized};

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
    let read = start.elapsed();
    let tokenized = Tokenized::of(&joined.corpus)?;
    let ptb = start.elapsed();
    let tables = MeteorTables::find(&[concat!(env!("CARGO_MANIFEST_DIR"), "/../cache/meteor").into()])?;
    let meteor = meteor(&tables, tokenized.videos());
    let aligned = start.elapsed();
    let mut scores = score_tokenized(&tokenized, &Options::default());
    let total = start.elapsed();
    scores.meteor = Some(meteor.corpus);
    println!("{}", serde_json::to_string(&scores)?);
    eprintln!(
        "read {:.2} s ptb {:.2} s meteor {:.2} s bleu, rouge_l, cider {:.2} s total {:.2} s",
        read.as_secs_f64(),
        (ptb - read).as_secs_f64(),
        (aligned - ptb).as_secs_f64(),
        (total - aligned).as_secs_f64(),
        total.as_secs_f64()
    );
    Ok(())
}
