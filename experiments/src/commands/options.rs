//! Options that several commands have.

use std::num::NonZeroU64;
use std::path::PathBuf;

use ::data::datasets::Split;
use ::data::video::{ClipLimits, isolate_decoding, limit_clips};
use clap::{Args, ValueEnum};

use crate::config::study_sets;
use crate::runtime::device::WORDS;

/// `--device`
#[derive(Debug, Args)]
pub(super) struct DeviceOption {
    #[arg(long, default_value = "auto", help = format!("Device that computes: {WORDS}"))]
    pub(super) device: String,
}

/// `--cache`
#[derive(Debug, Args)]
pub(super) struct CacheOption {
    /// Folder of rendered worlds, decoded frames, features and METEOR's tables; by default $RECAP_CACHE,
    /// ./cache where it exists, or recap in the user's cache directory
    #[arg(long, value_name = "DIR")]
    pub(super) cache: Option<PathBuf>,
}

/// `--checkpoint`
#[derive(Debug, Args)]
pub(super) struct CheckpointOption {
    /// Folder of the checkpoint
    #[arg(long, value_name = "DIR")]
    pub(super) checkpoint: PathBuf,
}

/// `--profile` and the settings that change it.
#[derive(Debug, Args)]
pub(super) struct ProfileOptions {
    /// Size: tiny (minutes), smoke (seconds) or paper (days on a GPU)
    #[arg(long)]
    pub(super) profile: Option<String>,
    /// Change a setting, as in --set train.epochs=5
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) sets: Vec<String>,
}

impl ProfileOptions {
    /// The profile that was named, or the tiny one.
    pub(super) fn or_tiny(&self) -> &str {
        self.profile.as_deref().unwrap_or("tiny")
    }
}

/// The configuration of a study.
#[derive(Debug, Args)]
pub(super) struct ConfigOptions {
    #[command(flatten)]
    pub(super) profile: ProfileOptions,
    /// Data set: tiny, or msrvtt, msvd, vatex, own, ... with its folder, as in msrvtt=MSRVTT/
    #[arg(long, value_name = "NAME[=DIR]")]
    dataset: Option<String>,
    /// Hyper-parameters of the paper or of its released code: paper or released
    #[arg(long, value_name = "RECIPE")]
    recipe: Option<String>,
}

impl ConfigOptions {
    /// All settings, those of `--set` last.
    pub(super) fn sets(&self) -> anyhow::Result<Vec<String>> {
        study_sets(self.dataset.as_deref(), self.recipe.as_deref(), &self.profile.sets)
    }
}

/// How training runs.
#[derive(Debug, Args)]
pub(super) struct RunOptions {
    #[command(flatten)]
    pub(super) device: DeviceOption,
    #[command(flatten)]
    pub(super) cache: CacheOption,
    /// Print a line an epoch instead of the dashboard
    #[arg(long)]
    pub(super) no_tui: bool,
    /// Continue an earlier run: finished runs are skipped, an interrupted one continues
    #[arg(long)]
    pub(super) resume: bool,
    /// Folder of all runs
    #[arg(long, default_value = "runs", value_name = "DIR")]
    pub(super) runs: PathBuf,
}

/// A split by its name.
pub(super) fn parse_split(word: &str) -> Result<Split, String> {
    Split::named(word).ok_or_else(|| "expected train, validate or test".to_owned())
}

/// How videos are decoded, and what one clip may cost; for every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Decoding")]
pub(super) struct DecodingOptions {
    /// Decode in worker processes, so that a crash of a decoder costs one clip, or in threads of this process
    #[arg(long, global = true, hide_short_help = true, value_enum, default_value_t = DecodeIn::Processes, value_name = "WHERE")]
    decode_in: DecodeIn,
    /// Seconds that decoding a clip may take in a worker process
    #[arg(long, global = true, hide_short_help = true, default_value_t = ClipLimits::DEFAULT.seconds, value_name = "S")]
    clip_seconds: NonZeroU64,
    /// Memory in MiB that decoding a clip may take in a worker process
    #[arg(long, global = true, hide_short_help = true, default_value_t = ClipLimits::DEFAULT.memory_mib, value_name = "MIB")]
    clip_memory: NonZeroU64,
    /// Largest number of pixels of a video's frame
    #[arg(long, global = true, hide_short_help = true, default_value_t = ClipLimits::DEFAULT.pixels, value_name = "N")]
    clip_pixels: NonZeroU64,
}

/// Where videos are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DecodeIn {
    /// Worker processes
    Processes,
    /// Threads of this process
    Threads,
}

impl DecodingOptions {
    /// Applies the settings to this process.
    pub(super) fn apply(&self) -> anyhow::Result<()> {
        limit_clips(ClipLimits {
            seconds: self.clip_seconds,
            memory_mib: self.clip_memory,
            pixels: self.clip_pixels,
        });
        if self.decode_in == DecodeIn::Processes {
            isolate_decoding()?;
        }
        Ok(())
    }
}
