//! `experiments ablation` and `experiments train`: a single configuration is a study of one variant.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::options::{ConfigOptions, MemoryOption, RunOptions};
use super::{Outcome, Usage, exit_code, session};
use crate::config::{Ablation, choices, find_ablation, resolve_all, single};
use crate::report;
use crate::runtime::Status;
use crate::study::{self, Request};

/// Arguments of `ablation`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of an ablation, or path of a TOML file of your own
    name: String,
    /// Run this variant only; may be given several times
    #[arg(long, value_name = "VARIANT")]
    only: Vec<String>,
    #[command(flatten)]
    pub(super) study: StudyArguments,
}

/// Arguments of `train`.
#[derive(Debug, Args)]
pub(super) struct TrainArguments {
    /// TOML file of settings that replace those of the profile
    config: PathBuf,
    #[command(flatten)]
    pub(super) study: StudyArguments,
}

/// How a study is run.
#[derive(Debug, Args)]
pub(super) struct StudyArguments {
    #[command(flatten)]
    config: ConfigOptions,
    /// Run with seeds 1 to N
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// Run this seed only, as one of several jobs that share the folder of the study: a finished run is kept,
    /// an interrupted one continues, and `report` merges the jobs
    #[arg(long, value_name = "N", conflicts_with = "seeds", value_parser = clap::value_parser!(u64).range(1..=100))]
    seed: Option<u64>,
    /// Retrain even if another study has an identical finished run
    #[arg(long)]
    no_reuse: bool,
    #[command(flatten)]
    memory: MemoryOption,
    #[command(flatten)]
    pub(super) run: RunOptions,
}

/// Runs an ablation.
pub(super) fn run(arguments: &Arguments) -> Outcome {
    run_study(&find_ablation(&arguments.name).usage()?, &arguments.only, &arguments.study)
}

/// Runs a single configuration.
pub(super) fn train(arguments: &TrainArguments) -> Outcome {
    run_study(&single(&arguments.config).usage()?, &[], &arguments.study)
}

fn run_study(ablation: &Ablation, only: &[String], arguments: &StudyArguments) -> Outcome {
    let StudyArguments { config, seeds, seed, no_reuse, memory, run } = arguments;
    let profile = config.profile.or_tiny();
    let mut variants = resolve_all(profile, ablation, &config.sets().usage()?).usage()?;
    check_only(ablation, only).usage()?;
    variants.retain(|(variant, _)| only.is_empty() || only.contains(&variant.name));
    let session = session(&run.device, &run.cache, run.no_tui)?;
    let (seeds, is_part) = (seed.map_or(1..=*seeds, |seed| seed..=seed), seed.is_some());
    let (resume, reuse, runs) = (run.resume || is_part, !no_reuse, run.runs.as_path());
    let machine = memory.machine(&session.device_word, session.device_memory);
    let request = Request { ablation, profile, variants, seeds, is_part, resume, reuse, runs, machine };
    let status = study::run(&request, &session).failure()?;
    if status != Status::Interrupted {
        session.once(|| report::save(&request.folder(), &session.caches)).failure()?;
    }
    Ok(exit_code(status, &session))
}

/// Refuses `--only` with a name that no variant has.
fn check_only(ablation: &Ablation, only: &[String]) -> anyhow::Result<()> {
    let names: Vec<&str> = ablation.variants.iter().map(|variant| variant.name.as_str()).collect();
    let Some(stray) = only.iter().find(|only| !names.contains(&only.as_str())) else { return Ok(()) };
    let next = format!("experiments show {}", ablation.name);
    bail!("--only {stray}: no variant of {}{}", ablation.name, choices(stray, &names, &next))
}
