//! `experiments reproduce`: a recorded run, run again and compared.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::options::{CacheOption, DeviceOption};
use super::{Outcome, Usage, exit_code, session, verdict};
use crate::records::Summary;
use crate::report::statistics::print_all;
use crate::runtime::{FolderLock, Status};
use crate::study::repeat::Recorded;
use crate::text::numbers::NumberFormat;

/// Arguments of `reproduce`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Folder of a finished run, such as runs/freeze_vit/qformer_only/seed-1
    run: PathBuf,
    /// Folder of the repetition; by default beside the run, with `.again` after its name. An interrupted
    /// repetition continues there
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Run it even if data, weights or settings are not those that were recorded
    #[arg(long)]
    anyway: bool,
    #[command(flatten)]
    pub(super) device: DeviceOption,
    #[command(flatten)]
    cache: CacheOption,
    /// Print a line an epoch instead of the dashboard
    #[arg(long)]
    no_tui: bool,
}

/// Differences that are printed; the others are counted.
const SHOWN: usize = 20;

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let recorded = Recorded::read(&arguments.run).usage()?;
    let session = session(&arguments.device, &arguments.cache, arguments.no_tui)?;
    let out = arguments.out.clone().unwrap_or_else(|| {
        let name = arguments.run.file_name().unwrap_or_default().to_string_lossy();
        arguments.run.with_file_name(format!("{name}.again"))
    });
    std::fs::create_dir_all(&out).map_err(anyhow::Error::from).failure()?;
    let _lock = FolderLock::or_fail(&out).failure()?;
    let repeated = recorded.repeat(&out, arguments.anyway, &session).failure()?;
    let Some((result, provenance)) = repeated else { return Ok(exit_code(Status::Interrupted, &session)) };
    let differences = recorded.differences(&result, &out).failure()?;
    if differences.is_empty() {
        println!("identical: every metric and caption of {}", arguments.run.display());
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} values differ (recorded -> here):", differences.len());
    differences.iter().take(SHOWN).for_each(|line| println!("{line}"));
    if let Some(more) = differences.len().checked_sub(SHOWN).filter(|&more| more > 0) {
        println!("... and {more} more");
    }
    let was = &recorded.provenance;
    for (what, was, here) in [
        ("machine", &was.machine, &provenance.machine),
        ("device", &was.device, &provenance.device),
        ("program", &was.commit, &provenance.commit),
    ] {
        if was != here {
            println!("another {what}: {here}; recorded: {was}");
        }
    }
    if was.machine != provenance.machine || was.device != provenance.device {
        println!("{}", expected_spread(&recorded));
    }
    Ok(verdict(false))
}

/// What to expect on another processor: sums in another order, which is as another seed.
fn expected_spread(recorded: &Recorded) -> String {
    let study = recorded.directory.parent().and_then(std::path::Path::parent);
    let summary = study.and_then(|study| Summary::read(study).ok());
    let variant = summary.iter().flat_map(|summary| &summary.variants);
    let variant = variant.filter(|variant| variant.name == recorded.variant).find(|own| own.runs.len() > 1);
    let metric = if recorded.config.answering.is_some() { "accuracy" } else { "CIDEr" };
    let scores: Vec<f64> =
        variant.iter().flat_map(|variant| &variant.runs).filter_map(|run| run.test.get(metric)).collect();
    let order = "sums in another order give other digits, as another seed does";
    if scores.len() < 2 {
        return format!(
            "{order}: nine runs of the tiny world that differ only in their random numbers have test CIDEr \
             212.8 ± 7.4 (docs/results/seeds-tiny.md)"
        );
    }
    let spread = print_all(scores.iter().copied(), &NumberFormat::of(metric));
    format!("{order}: the {} seeds of this variant have test {metric} {spread}", scores.len())
}
