//! `experiments report`

use std::path::PathBuf;

use clap::Args;

use super::options::CacheOption;
use crate::report;
use crate::runtime::Caches;
use crate::study::overview;

/// Arguments of `report`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Folder of a study, such as runs/freeze_vit
    #[arg(value_name = "RUN_DIR")]
    folder: PathBuf,
    /// Save no report, but print the state of the runs whenever it changes, until every run has ended
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    cache: CacheOption,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match arguments.watch {
        true => overview::watch(&arguments.folder),
        false => report::save(&arguments.folder, &Caches::new(arguments.cache.cache.as_deref())),
    }
}
