//! The command line: one file a command, with its arguments and what it does. Options that several commands
//! have are declared once, in `options`.

mod ablation;
mod caption;
mod data;
mod doctor;
mod evaluate;
mod image_ids;
mod import;
mod list;
mod options;
mod pretrain;
mod report;
mod reproduce;
mod score;
mod show;
mod small_files;
pub mod verify;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use train::dashboard::Dashboard;

use crate::runtime::{Caches, Reported, Session, Status, device, processes};
use crate::text::error_chain;
use options::{CacheOption, DecodingOptions, DeviceOption};

/// Recap: a pretrained image captioner, recycled for video.
#[derive(Debug, Parser)]
#[command(name = "experiments", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    decoding: DecodingOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List ablations and profiles
    List,
    /// Print what this machine has and lacks: devices, video decoders, METEOR, MPI, caches, disk space
    Doctor(doctor::Arguments),
    /// Print the settings of an ablation and estimate parameters, memory, steps and work; needs neither data
    /// nor weights
    Show(show::Arguments),
    /// Run an ablation: train every variant, compare them on the test clips, save a report
    Ablation(ablation::Arguments),
    /// Pretrain a small BLIP-2 in two stages, on image-text pairs of the tiny world or your own
    Pretrain(pretrain::Arguments),
    /// Train one configuration: a TOML file of settings that replace those of a profile
    Train(ablation::TrainArguments),
    /// Evaluate a checkpoint on a split with the settings that its run saved; changed settings are printed
    Evaluate(evaluate::Arguments),
    /// Run a finished run again and compare every metric and caption
    Reproduce(reproduce::Arguments),
    /// Save the report of an ablation's folder again, finished or not
    Report(report::Arguments),
    /// Caption videos
    Caption(caption::Arguments),
    /// Score captions with BLEU, METEOR, ROUGE-L and CIDEr, as coco-caption computes them, without Java
    Score(score::Arguments),
    /// Convert files of transformers, LAVIS or torch.onnx to a checkpoint
    Import(import::ImportArguments),
    /// Convert a checkpoint to the layout and names that transformers loads
    Export(import::ExportArguments),
    /// Compare a checkpoint's outputs here with those of another program
    Verify(verify::Arguments),
    /// Data sets
    #[command(subcommand)]
    Data(data::Command),
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// Exit code: 1 for a failure, 2 for wrong usage.
    pub code: u8,
    reason: anyhow::Error,
}

impl Failure {
    /// Whether another process prints it.
    pub fn is_reported(&self) -> bool {
        self.reason.downcast_ref::<Reported>().is_some()
    }

    /// The error and its causes.
    pub fn message(&self) -> String {
        error_chain(&self.reason)
    }
}

type Outcome = Result<ExitCode, Failure>;

/// Exit code after Ctrl-C, once the training state was saved.
const INTERRUPTED: u8 = 130;

/// The exit code of a failed step.
trait Usage<T> {
    /// An error in the user's words: 2.
    fn usage(self) -> Result<T, Failure>;
    /// Any other: 1.
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

impl Cli {
    /// The word of `--device`, of commands that compute.
    fn device(&self) -> Option<&str> {
        let device = match &self.command {
            Command::Ablation(arguments) => &arguments.study.run.device,
            Command::Train(arguments) => &arguments.study.run.device,
            Command::Pretrain(arguments) => &arguments.run.device,
            Command::Evaluate(arguments) => &arguments.device,
            Command::Caption(arguments) => &arguments.device,
            Command::Verify(arguments) => &arguments.device,
            Command::Reproduce(arguments) => &arguments.device,
            _ => return None,
        };
        Some(&device.device)
    }

    /// Runs the command.
    pub fn run(self) -> Outcome {
        self.decoding.apply().failure()?;
        let trains = matches!(
            self.command,
            Command::Ablation(_) | Command::Train(_) | Command::Pretrain(_) | Command::Evaluate(_)
        );
        if !trains {
            processes::refuse_several().usage()?;
        }
        if self.device() == Some(doctor::LIST) {
            println!("{}", doctor::list_devices());
            return Ok(ExitCode::SUCCESS);
        }
        let outcome = self.run_command();
        if outcome.is_ok() {
            processes::leave();
        }
        outcome
    }

    fn run_command(self) -> Outcome {
        match self.command {
            Command::List => list::run(),
            Command::Doctor(arguments) => doctor::run(&arguments),
            Command::Show(arguments) => show::run(&arguments),
            Command::Ablation(arguments) => ablation::run(&arguments),
            Command::Pretrain(arguments) => pretrain::run(&arguments),
            Command::Train(arguments) => ablation::train(&arguments),
            Command::Evaluate(arguments) => evaluate::run(&arguments),
            Command::Reproduce(arguments) => reproduce::run(&arguments),
            Command::Report(arguments) => report::run(&arguments).failure().map(done),
            Command::Score(arguments) => score::run(&arguments).failure().map(done),
            Command::Caption(arguments) => caption::run(&arguments),
            Command::Data(command) => data::run(&command),
            Command::Import(arguments) => import::run(&arguments).failure().map(done),
            Command::Export(arguments) => import::export(&arguments).failure().map(done),
            Command::Verify(arguments) => verify::run(&arguments).failure().map(verdict),
        }
    }
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

/// Exit code 1 means that the command finished and found something wrong.
fn verdict(is_fine: bool) -> ExitCode {
    if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn exit_code(status: Status, session: &Session) -> ExitCode {
    match status {
        Status::Finished => ExitCode::SUCCESS,
        Status::Failed => ExitCode::FAILURE,
        Status::Interrupted => {
            if session.is_first() {
                eprintln!("stopped; the same command with --resume continues from here");
            }
            ExitCode::from(INTERRUPTED)
        }
    }
}

/// Selects the device and handles Ctrl-C: training stops at the next step whose state can be saved, and at
/// once when it is pressed again. Before training everything is written under temporary names, so that
/// stopping at once loses nothing.
///
/// Joins the other processes where a launcher started several; only the first shows and writes anything.
fn session(device: &DeviceOption, cache: &CacheOption, no_tui: bool) -> Result<Session, Failure> {
    let processes = processes::join().usage()?;
    let caches = Caches::new(cache.cache.as_deref());
    let word = device_of_process(device, &processes).usage()?;
    let device::Selected { device, word: device_word, memory: device_memory } =
        device::open(&word, caches.folder()).usage()?;
    let stop = Arc::new(AtomicBool::new(false));
    let pressed = stop.clone();
    let handler = move || {
        if pressed.swap(true, Ordering::Relaxed) || !train::is_training() {
            std::process::exit(i32::from(INTERRUPTED));
        }
    };
    ctrlc::set_handler(handler).context("cannot listen for Ctrl-C").failure()?;
    let is_first = processes.group.rank() == 0;
    let dashboard = if is_first { Dashboard::choose(no_tui) } else { Dashboard::Silent };
    Ok(Session { device, device_word, device_memory, stop, dashboard, caches, processes: processes.group })
}

/// The word of the device of this process, where several processes of a machine have one each.
fn device_of_process(option: &DeviceOption, processes: &processes::Processes) -> anyhow::Result<String> {
    let word = &option.device;
    if processes.size_on_node == 1 || device::is_cpu(word)? {
        return Ok(word.clone());
    }
    let adapters = device::adapters();
    let Some(chosen) = device::choose(word, &adapters)? else { return Ok("cpu".to_owned()) };
    let kind = &chosen.kind;
    let visible = adapters.iter().filter(|adapter| adapter.kind == *kind && !adapter.is_software).count();
    let named = if word == "auto" { kind } else { word };
    processes::device_of(named, processes, visible, option.share_devices)
}
