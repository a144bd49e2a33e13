//! `experiments evaluate`: a checkpoint's captions of a split, and their scores.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use data::datasets::Split;
use train::Captioner;

use crate::cli::Folders;
use crate::clips::Clips;
use crate::config::{RunConfig, dataset_sets, resolve_plain};
use crate::pretrained::Pretrained;
use crate::run::{Session, measure};
use crate::table::Table;

/// Arguments of `evaluate`.
#[derive(Debug, Args)]
pub struct EvaluateArguments {
    /// Folder of the checkpoint
    #[arg(long, value_name = "DIR")]
    pub checkpoint: PathBuf,
    /// The data set: tiny, or msrvtt, msvd, vatex, own, ... with its folder, as in msrvtt=MSRVTT/
    #[arg(long, default_value = "tiny", value_name = "NAME[=DIR]")]
    pub dataset: String,
    /// Which split: train, validate or test
    #[arg(long, default_value = "test", value_parser = crate::datasets::parse_split)]
    pub split: Split,
    /// Where frames, fusion and the settings of writing come from: tiny or smoke
    #[arg(long, default_value = "tiny")]
    pub profile: String,
    /// Change a setting, as in --set evaluate.num_beams=5
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Write the captions, as COCO results, to this file
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    /// Where to compute: auto, cpu, cuda, cuda:1, wgpu, vulkan, metal
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Where results and caches go
    #[command(flatten)]
    pub folders: Folders,
}

impl EvaluateArguments {
    /// The configuration that the arguments ask for.
    ///
    /// # Errors
    /// When a profile, key, value or data set is not known.
    pub fn config(&self) -> anyhow::Result<RunConfig> {
        let mut sets = vec![format!("checkpoint={}", self.checkpoint.display())];
        sets.extend(dataset_sets(&self.dataset)?);
        sets.extend(self.sets.clone());
        resolve_plain(&self.profile, &sets)
    }
}

/// Captions the split and prints the scores.
///
/// # Errors
/// When the checkpoint or a clip cannot be read, or the captions cannot be written or scored.
pub fn run(arguments: &EvaluateArguments, config: &RunConfig, session: &Session) -> anyhow::Result<()> {
    let pretrained = Pretrained::load(config, &session.device)?;
    let clips = Clips::load(config, pretrained.image_size(), &arguments.folders.cache)?;
    let captioner = Captioner::new(pretrained.model.clone(), pretrained.context(config)?);
    let judge = Arc::new(clips.judge(arguments.split)?);
    let split = clips.videos(arguments.split)?;
    let split = split.validation(arguments.split, judge, config.evaluate.batch_size);
    let measured = measure(&captioner, &split, arguments.predictions.as_deref())?;
    if arguments.json {
        println!("{}", serde_json::to_string(&measured.metrics)?);
        return Ok(());
    }
    let mut table = Table::new(&["figure", "value"]);
    for (name, value) in measured.metrics.iter() {
        table.push(vec![name.to_owned(), format!("{value:.4}")]);
    }
    println!("{}", table.to_text());
    Ok(())
}
