//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::caption::CaptionArguments;
use crate::datasets::{CheckArguments, PrepareArguments, ProbeArguments};
use crate::evaluate::EvaluateArguments;
use crate::import::{ExportArguments, ImportArguments};
use crate::score::ScoreArguments;
use crate::verify::VerifyArguments;

/// Recap: a pretrained image captioner, recycled for video.
#[derive(Debug, Parser)]
#[command(name = "experiments", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List ablations and profiles
    List,
    /// Print what an ablation would run and take, without its data or weights: parameters, memory, steps, work, settings
    Show(ShowArguments),
    /// Run an ablation: train every variant, compare them on the test clips, write a report
    Ablation(AblationArguments),
    /// Pretrain a small BLIP-2 in its two stages, on the tiny world's or your own image-text pairs
    Pretrain(PretrainArguments),
    /// Train one configuration: a TOML file of settings, laid over a profile
    Train(TrainArguments),
    /// Caption a split with a checkpoint and score the captions
    Evaluate(EvaluateArguments),
    /// Make an ablation's report anew from its folder, finished or not
    Report(ReportArguments),
    /// Caption videos
    Caption(CaptionArguments),
    /// Score captions with BLEU, METEOR, ROUGE-L and CIDEr, as coco-caption computes them, without Java
    Score(ScoreArguments),
    /// Make a checkpoint out of files of transformers, LAVIS or torch.onnx
    Import(ImportArguments),
    /// Write a checkpoint in the layout and names that transformers loads
    Export(ExportArguments),
    /// Compare what a checkpoint computes here with what it computed elsewhere
    Verify(VerifyArguments),
    /// Data sets
    #[command(subcommand)]
    Data(DataCommand),
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// An ablation's name, or the path of a TOML file of your own
    pub name: String,
    /// How large: tiny, smoke or paper
    #[arg(long, default_value = "tiny")]
    pub profile: String,
    /// Whose recipe, where the paper and its code differ: paper or released
    #[arg(long, value_name = "RECIPE")]
    pub recipe: Option<String>,
    /// The data set whose official sizes count: msrvtt, msvd, vatex, ...; the profile's where it is not given
    #[arg(long, value_name = "NAME")]
    pub dataset: Option<String>,
    /// Change a setting, as in --set train.epochs=5
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

/// Arguments of `ablation`.
#[derive(Debug, Args)]
pub struct AblationArguments {
    /// An ablation's name, or the path of a TOML file of your own
    pub name: String,
    /// Run this variant only; may be given several times
    #[arg(long, value_name = "VARIANT")]
    pub only: Vec<String>,
    /// How the study is run
    #[command(flatten)]
    pub study: StudyArguments,
}

/// Arguments of `train`.
#[derive(Debug, Args)]
pub struct TrainArguments {
    /// A TOML file of settings, which are laid over the profile's
    pub config: PathBuf,
    /// How the study of this one variant is run
    #[command(flatten)]
    pub study: StudyArguments,
}

/// How a study is run, of an ablation's variants or of a single configuration.
#[derive(Debug, Args)]
pub struct StudyArguments {
    /// How large: tiny (minutes), smoke (seconds) or paper (days on a GPU)
    #[arg(long, default_value = "tiny")]
    pub profile: String,
    /// Whose recipe, where the paper and its code differ: paper or released
    #[arg(long, value_name = "RECIPE")]
    pub recipe: Option<String>,
    /// The data set: tiny, or msrvtt, msvd, vatex, own, ... with its folder, as in msrvtt=MSRVTT/; the profile's where it is not given
    #[arg(long, value_name = "NAME[=DIR]")]
    pub dataset: Option<String>,
    /// Run with seeds 1 to N
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub seeds: u64,
    /// Where to compute: auto, cpu, cuda, cuda:1, wgpu, vulkan, metal
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Change a setting, as in --set train.epochs=5
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Print a line an epoch instead of the dashboard
    #[arg(long)]
    pub no_tui: bool,
    /// Go on with an earlier run: finished variants are skipped, an interrupted one continues
    #[arg(long)]
    pub resume: bool,
    /// Train every run, also where another study has an equal one that could be copied
    #[arg(long)]
    pub no_reuse: bool,
    /// Where results and caches go
    #[command(flatten)]
    pub folders: Folders,
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArguments {
    /// Folder of an ablation's runs, such as runs/freeze_vit
    #[arg(value_name = "RUN_DIR")]
    pub folder: PathBuf,
    /// Write no report, but show how far the runs are, again and again until the last has ended
    #[arg(long)]
    pub watch: bool,
}

/// Arguments of `pretrain`.
#[derive(Debug, Args)]
pub struct PretrainArguments {
    /// A pretraining's name (tiny or smoke), or the path of a TOML file of your own
    pub name: String,
    /// Folder of the checkpoint to write
    #[arg(long)]
    pub out: PathBuf,
    /// Where to compute: auto, cpu, cuda, cuda:1, wgpu, vulkan, metal
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Change a setting, as in --set second_stage.train.epochs=2
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Print a line an epoch instead of the dashboard
    #[arg(long)]
    pub no_tui: bool,
    /// Go on with an earlier run
    #[arg(long)]
    pub resume: bool,
    /// Where results and caches go
    #[command(flatten)]
    pub folders: Folders,
}

/// Where results and caches go.
#[derive(Debug, Args)]
pub struct Folders {
    /// Folder of all runs
    #[arg(long, default_value = "runs")]
    pub runs: PathBuf,
    /// Folder of rendered worlds and decoded frames
    #[arg(long, default_value = "cache")]
    pub cache: PathBuf,
}

/// What to do with data sets.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Read a data set once: clips found, missing and broken, splits, overlaps; writes the list that training leaves out
    Check(CheckArguments),
    /// Decode the chosen frames of every clip ahead of training
    Prepare(PrepareArguments),
    /// Decode files whole and say what they hold
    Probe(ProbeArguments),
    /// Make the tiny world: video files annotated like MSR-VTT, and image-text pairs
    Synthesize {
        /// Folder to write
        #[arg(long)]
        out: PathBuf,
        /// How large: tiny or smoke
        #[arg(long, default_value = "tiny")]
        profile: String,
        /// Change a setting, as in --set world.seed=7
        #[arg(long = "set", value_name = "KEY=VALUE")]
        sets: Vec<String>,
    },
}
