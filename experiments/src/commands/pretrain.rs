//! `experiments pretrain`

use std::path::PathBuf;

use clap::Args;

use super::options::RunOptions;
use super::{Outcome, Usage, exit_code, session};
use crate::config::PretrainConfig;
use crate::pretrain;

/// Arguments of `pretrain`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of a pretraining (tiny or smoke), or path of a TOML file of your own
    name: String,
    /// Folder of the new checkpoint
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Change a setting, as in --set train.epochs=5
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    #[command(flatten)]
    pub(super) run: RunOptions,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let Arguments { name, out, sets, run } = arguments;
    let config = PretrainConfig::find(name, sets).usage()?;
    let session = session(&run.device, &run.cache, run.no_tui)?;
    let status = pretrain::run(name, &config, out, &run.runs, run.resume, &session).failure()?;
    Ok(exit_code(status, &session))
}
