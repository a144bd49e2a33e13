//! What each command does, and with which exit code it ends.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use train::dashboard::Dashboard;

use crate::ablation::{self, Ended, Request};
use crate::cli::{
    AblationArguments, Command, DataCommand, Folders, PretrainArguments, ReportArguments, StudyArguments,
    TrainArguments,
};
use crate::config::{
    Ablation, ablations, find_ablation, profiles, resolve_all, resolve_plain, single, study_sets,
};
use crate::run::Session;
use crate::table::Table;
use crate::{
    caption, datasets, device, evaluate, import, overview, pretrain, report, score, show, verify, world,
};

/// Why a command ended badly.
#[derive(Debug)]
pub struct Failure {
    /// Exit code: 1 for a failure, 2 for wrong usage.
    pub code: u8,
    /// What to tell.
    pub reason: anyhow::Error,
}

impl Failure {
    /// The error and its causes, those left out that the error's own text already tells.
    pub fn message(&self) -> String {
        self.reason.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
            "" => cause,
            _ if told.contains(&cause) => told,
            _ => format!("{told}: {cause}"),
        })
    }
}

type Outcome = Result<ExitCode, Failure>;

/// Ctrl-C once training has begun: the state was saved.
const INTERRUPTED: u8 = 130;

/// With which exit code a failed step ends the program.
pub trait Usage<T> {
    /// An error that the user's words caused.
    fn usage(self) -> Result<T, Failure>;
    /// Any other.
    fn failure(self) -> Result<T, Failure>;
}

impl<T> Usage<T> for anyhow::Result<T> {
    fn usage(self) -> Result<T, Failure> {
        self.map_err(|reason| Failure { code: 2, reason })
    }

    fn failure(self) -> Result<T, Failure> {
        self.map_err(|reason| Failure { code: 1, reason })
    }
}

/// Runs a command.
///
/// # Errors
/// With the exit code that the error deserves.
pub fn run(command: Command) -> Outcome {
    match command {
        Command::List => list(),
        Command::Show(arguments) => {
            let ablation = find_ablation(&arguments.name).usage()?;
            show::run(&ablation, &arguments).map(|()| ExitCode::SUCCESS)
        }
        Command::Ablation(arguments) => run_ablation(arguments),
        Command::Pretrain(arguments) => run_pretrain(&arguments),
        Command::Train(arguments) => run_training(arguments),
        Command::Evaluate(arguments) => {
            let config = arguments.config().usage()?;
            let session = session(&arguments.device, true)?;
            evaluate::run(&arguments, &config, &session).failure().map(|()| ExitCode::SUCCESS)
        }
        Command::Report(ReportArguments { folder, watch }) => {
            let told = if watch { overview::watch(&folder) } else { report::write(&folder) };
            told.failure().map(|()| ExitCode::SUCCESS)
        }
        Command::Score(arguments) => score::run(&arguments).failure().map(|()| ExitCode::SUCCESS),
        Command::Caption(arguments) => caption::run(&arguments).failure().map(verdict),
        Command::Data(DataCommand::Check(arguments)) => datasets::check(&arguments).failure().map(verdict),
        Command::Data(DataCommand::Prepare(arguments)) => {
            datasets::prepare_frames(&arguments).failure().map(|()| ExitCode::SUCCESS)
        }
        Command::Data(DataCommand::Probe(arguments)) => {
            datasets::probe_files(&arguments).failure().map(verdict)
        }
        Command::Import(arguments) => import::run(&arguments).failure().map(|()| ExitCode::SUCCESS),
        Command::Export(arguments) => import::export(&arguments).failure().map(|()| ExitCode::SUCCESS),
        Command::Verify(arguments) => verify::run(&arguments).failure().map(verdict),
        Command::Data(DataCommand::Synthesize { out, profile, sets }) => {
            let config = resolve_plain(&profile, &sets).usage()?;
            let world = world::synthesize(&config.world, &out).failure()?;
            println!("the tiny world {} lies in {}", world.hash(), world.directory().display());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Exit code 1 says that the command did its work and found something wrong.
fn verdict(is_fine: bool) -> ExitCode {
    if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn list() -> Outcome {
    let mut table = Table::new(&["ablation", "variants", "paper", "question"]);
    for ablation in ablations().failure()? {
        let names: Vec<&str> = ablation.variants.iter().map(|variant| variant.name.as_str()).collect();
        table.push(vec![ablation.name, names.join(", "), ablation.paper, ablation.question]);
    }
    println!("{}\n", table.to_text());
    let mut table = Table::new(&["profile", "what"]);
    for profile in profiles().failure()? {
        table.push(vec![profile.name, profile.summary]);
    }
    println!("{}\n\nrun one: experiments ablation NAME [--profile PROFILE]", table.to_text());
    Ok(ExitCode::SUCCESS)
}

/// A single configuration runs as a study of one variant.
fn run_training(arguments: TrainArguments) -> Outcome {
    run_study(single(&arguments.config).usage()?, Vec::new(), arguments.study)
}

fn run_ablation(arguments: AblationArguments) -> Outcome {
    run_study(find_ablation(&arguments.name).usage()?, arguments.only, arguments.study)
}

fn run_study(ablation: Ablation, only: Vec<String>, arguments: StudyArguments) -> Outcome {
    let StudyArguments { profile, recipe, dataset, seeds, device, sets, no_tui, resume, no_reuse, folders } =
        arguments;
    let sets = study_sets(dataset.as_deref(), recipe.as_deref(), sets).usage()?;
    resolve_all(&profile, &ablation, &sets).usage()?;
    ablation::check_only(&ablation, &only).usage()?;
    let session = session(&device, no_tui)?;
    let Folders { runs, cache } = folders;
    let request = Request { ablation, profile, only, seeds, sets, resume, reuse: !no_reuse, runs, cache };
    Ok(exit_code(&ablation::run(&request, &session).failure()?))
}

fn run_pretrain(arguments: &PretrainArguments) -> Outcome {
    let config = pretrain::find(&arguments.name, &arguments.sets).usage()?;
    let session = session(&arguments.device, arguments.no_tui)?;
    Ok(exit_code(&pretrain::run(&arguments.name, &config, arguments, &session).failure()?))
}

fn exit_code(ended: &Ended) -> ExitCode {
    match ended {
        Ended::Finished => ExitCode::SUCCESS,
        Ended::Failed => ExitCode::FAILURE,
        Ended::Interrupted => {
            eprintln!("stopped; the same command with --resume goes on from here");
            ExitCode::from(INTERRUPTED)
        }
    }
}

/// Chooses the device and lets Ctrl-C stop a run: at the next step where there is a state to save, and at once when it
/// is pressed again. What is made before training is written under temporary names, so stopping there loses nothing.
fn session(device_word: &str, no_tui: bool) -> Result<Session, Failure> {
    let device = device::select(device_word).usage()?;
    let stop = Arc::new(AtomicBool::new(false));
    let pressed = stop.clone();
    let handler = move || {
        if pressed.swap(true, Ordering::Relaxed) || !train::is_running() {
            std::process::exit(i32::from(INTERRUPTED));
        }
    };
    ctrlc::set_handler(handler).context("cannot listen for Ctrl-C").failure()?;
    // a run is told from an equal one by it, so that "auto" would not do
    let device_word = device::resolve(device_word).to_owned();
    Ok(Session { device, device_word, stop, dashboard: Dashboard::choose(no_tui) })
}
