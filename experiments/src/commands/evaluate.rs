//! `experiments evaluate`: predictions of a checkpoint for a split, and their scores.

use std::path::PathBuf;

use ::data::datasets::Split;
use clap::Args;

use super::options::{CacheOption, CheckpointOption, DeviceOption, ProfileOptions, Weights, parse_split};
use super::{Outcome, Usage, done, session};
use crate::config::{
    Evaluated, find_checkpoint, image_size, open_checkpoint, open_checkpoint_in, study_sets,
};
use crate::runtime::{Session, note};
use crate::study;
use crate::tasks::{self, Clips};
use crate::text::Table;

/// Evaluate a checkpoint as its run did: the settings that the run saved in recap.toml are used, and every
/// change of them by an option is printed
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    checkpoint: CheckpointOption,
    /// Data set: tiny, or msrvtt, msvd, vatex, own, ... with its folder, as in msrvtt=MSRVTT/
    #[arg(long, value_name = "NAME[=DIR]")]
    dataset: Option<String>,
    /// Split: train, validate or test
    #[arg(long, default_value = "test", value_parser = parse_split)]
    split: Split,
    #[command(flatten)]
    profile: ProfileOptions,
    /// Save the predictions, as COCO or VQA results, in this file
    #[arg(long, value_name = "FILE")]
    predictions: Option<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Number type of the values of ViT and language model [default: as in the run]
    #[arg(long, value_enum, value_name = "TYPE")]
    weights: Option<Weights>,
    #[command(flatten)]
    pub(super) device: DeviceOption,
    #[command(flatten)]
    cache: CacheOption,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let ProfileOptions { profile, sets } = &arguments.profile;
    let sets = study_sets(arguments.dataset.as_deref(), None, sets).usage()?;
    let directory = &arguments.checkpoint.checkpoint;
    let evaluated = Evaluated::of(directory, profile.as_deref(), &sets).usage()?;
    let session = session(&arguments.device, &arguments.cache, true)?;
    evaluate(arguments, &evaluated, &session).failure().map(done)
}

fn evaluate(arguments: &Arguments, evaluated: &Evaluated, session: &Session) -> anyhow::Result<()> {
    let Evaluated { config, changes } = evaluated;
    let directory = find_checkpoint(&config.checkpoint)?;
    let (dropout, device) = (config.model.dropout, &session.device);
    let checkpoint = match arguments.weights {
        Some(weights) => {
            note(&format!("changed: weights in {weights}"));
            open_checkpoint_in(&directory, config, dropout, weights.precision(&directory, device)?, device)?
        }
        None => open_checkpoint(&directory, config, dropout, device)?,
    };
    for change in changes.iter().cloned().chain(checkpoint.changes.iter().map(ToString::to_string)) {
        note(&format!("changed: {change}"));
    }
    let task = tasks::of(config);
    let size = image_size(config)?;
    let clips = Clips::open_together(config, &*task, size, session, Some(arguments.split))?;
    let context = task.context(&checkpoint)?;
    let predictions = arguments.predictions.as_deref();
    let (split, model) = (arguments.split, &checkpoint.model);
    let metrics = study::evaluate(config, &clips, split, model, &context, predictions, session)?;
    if !session.is_first() {
        return Ok(());
    }
    if arguments.json {
        println!("{}", serde_json::to_string(&metrics)?);
        return Ok(());
    }
    let mut table = Table::new(["metric", "value"]);
    for (name, value) in metrics.iter() {
        table.push(vec![name.to_owned(), format!("{value:.4}")]);
    }
    println!("{}", table.to_text());
    Ok(())
}
