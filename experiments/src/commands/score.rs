//! `experiments score`: captions against references, as coco-caption scores them.

use std::iter::once;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use metrics::files::{join, read_predictions, read_references};
use metrics::meteor::MeteorTables;
use metrics::{Options, VideoScores, score};
use serde::Serialize;
use serde_json::{Map, Value};
use train::files;

use super::options::CacheOption;
use crate::runtime::Caches;
use crate::text::Table;

/// Arguments of `score`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// COCO results ([{"image_id": .., "caption": ".."}]), or an object of id to caption
    #[arg(long)]
    predictions: PathBuf,
    /// COCO annotations, or MSR-VTT's, MSVD's or VATEX's own file (zipped or not)
    #[arg(long)]
    references: PathBuf,
    /// Score this split only, where the file of references has splits (train, validate, test)
    #[arg(long)]
    split: Option<String>,
    /// Metrics to compute
    #[arg(long, value_delimiter = ',', default_values = ["bleu", "meteor", "rouge", "cider"])]
    metrics: Vec<Metric>,
    /// Save the scores of every video in this JSON file
    #[arg(long, value_name = "OUT.json")]
    per_video: Option<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Score the videos that both files have, and print how many were left out
    #[arg(long)]
    partial: bool,
    /// Folder of METEOR's tables; by default `meteor` in the cache folders
    #[arg(long, value_name = "DIR")]
    meteor_data: Option<PathBuf>,
    #[command(flatten)]
    cache: CacheOption,
}

/// A metric to be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Metric {
    /// BLEU-1 to BLEU-4
    Bleu,
    /// METEOR 1.5
    Meteor,
    /// ROUGE-L
    Rouge,
    /// CIDEr, which is CIDEr-D
    Cider,
}

impl Metric {
    /// The keys under which its scores are printed.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Bleu => &["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4"],
            Self::Meteor => &["METEOR"],
            Self::Rouge => &["ROUGE_L"],
            Self::Cider => &["CIDEr"],
        }
    }
}

/// Reads both files, scores, and prints.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let predictions = read_predictions(&arguments.predictions)?;
    let references = read_references(&arguments.references, arguments.split.as_deref())?;
    let joined = join(predictions, references, arguments.partial)?;
    let tables = meteor_tables(arguments)?;
    let scores = score(&joined.corpus, &Options { tokenized: false, meteor: tables.as_ref() })?;
    let is_chosen = |key: &str| arguments.metrics.iter().any(|metric| metric.keys().contains(&key));

    if let Some(path) = &arguments.per_video {
        let of_video = |video: &VideoScores| chosen(video, &|key| key == "image_id" || is_chosen(key));
        let videos = scores.per_video.iter().map(of_video).collect::<anyhow::Result<Vec<_>>>()?;
        files::replace_json(path, &videos)?;
    }
    for note in &scores.notes {
        eprintln!("note: {note}");
    }
    let (without_prediction, without_references) =
        (joined.without_prediction.len(), joined.without_references.len());
    if without_prediction + without_references > 0 {
        eprintln!(
            "note: {} videos were scored; {without_prediction} have no prediction and {without_references} no references",
            joined.corpus.len()
        );
    }
    if joined.renumbered {
        eprintln!(
            "note: the predictions number MSVD's clips from 0 (video0), the references from 1 (vid1); joined so"
        );
    }
    let chosen = chosen(&scores, &is_chosen)?;
    if arguments.json {
        println!("{}", serde_json::to_string(&chosen)?);
    } else {
        println!("{}", table(&chosen, joined.corpus.len()));
    }
    Ok(())
}

/// METEOR's tables, where METEOR is chosen and they are installed.
fn meteor_tables(arguments: &Arguments) -> anyhow::Result<Option<MeteorTables>> {
    if !arguments.metrics.contains(&Metric::Meteor) {
        return Ok(None);
    }
    match Caches::new(arguments.cache.cache.as_deref()).meteor_tables(arguments.meteor_data.as_deref()) {
        Ok(tables) => Ok(Some(tables)),
        // the other metrics are still useful; a folder that was named must have tables
        Err(error @ metrics::Error::NoMeteorTables { .. }) if arguments.meteor_data.is_none() => {
            eprintln!("METEOR: not computed: {error}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The chosen entries of scores.
fn chosen(scores: &impl Serialize, is_chosen: &dyn Fn(&str) -> bool) -> anyhow::Result<Map<String, Value>> {
    let all: Map<String, Value> = serde_json::from_value(serde_json::to_value(scores)?)?;
    Ok(all.into_iter().filter(|(key, _)| is_chosen(key)).collect())
}

fn table(scores: &Map<String, Value>, videos: usize) -> String {
    let mut table = Table::new(["metric", "score", "x 100"]);
    for (name, value) in scores {
        let cells = match value.as_f64() {
            Some(value) => [format!("{value:.6}"), format!("{:.2}", value * 100.0)],
            None => ["not computed".to_owned(), String::new()],
        };
        table.push(once(name.clone()).chain(cells));
    }
    format!("{}\n{videos} videos", table.to_text())
}
