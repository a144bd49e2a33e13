//! Options that several commands have.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use ::data::datasets::Split;
use ::data::video::{ClipLimits, isolate_decoding, limit_clips};
use anyhow::ensure;
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use model::checkpoint::{Precision, load_config};

use crate::config::study_sets;
use crate::plan::Machine;
use crate::runtime::device::{self, Selected, WORDS};
use crate::runtime::{Caches, memory};

/// `--device`
#[derive(Debug, Args)]
pub(super) struct DeviceOption {
    #[arg(long, env = "RECAP_DEVICE", hide_env_values = true, default_value = "auto", help = format!("Device that computes: {WORDS}; list prints them and runs nothing"))]
    pub(super) device: String,
    /// Let several processes of one machine share a device
    #[arg(long, hide_short_help = true)]
    pub(super) share_devices: bool,
}

impl DeviceOption {
    /// The device, once it passed its self-test, which is kept in the caches.
    ///
    /// # Errors
    /// Those of [`device::open`].
    pub(super) fn open(&self, caches: &Caches) -> anyhow::Result<Selected> {
        device::open(&self.device, caches.folder())
    }
}

/// `--weights`: how the values of ViT and language model are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Weights {
    /// Four bytes a value
    #[default]
    F32,
    /// Two bytes a value; f16 on a device without bf16, and f32 for T5 there
    Bf16,
    /// One byte a value of a dense layer, with a scale for each output; on the CPU
    Int8,
}

impl std::fmt::Display for Weights {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

/// Values of a language model below which int8 saves no time: its weights in f32 are in the processor's
/// caches, and widening them costs more than reading them (docs/benchmarks/blip2-cpu.md).
const FEWEST_FOR_INT8: usize = 16_000_000;

impl Weights {
    /// [`precision`](Self::precision) for captions. Refuses int8 where it would be slower than f32.
    ///
    /// # Errors
    /// Those of [`precision`](Self::precision), and when the model is too small for int8.
    pub(super) fn for_captions(self, checkpoint: &Path, device: &Device) -> anyhow::Result<Precision> {
        if self == Self::Int8 {
            let model = load_config(checkpoint)?.init(device);
            let values = model::parameters::count(&model, |name| name.starts_with("language_model."));
            ensure!(
                values >= FEWEST_FOR_INT8,
                "--weights int8 is slower than f32 for a language model of {values} values; it saves time from {} \
                 million on: leave it out",
                FEWEST_FOR_INT8 / 1_000_000
            );
        }
        self.precision(checkpoint, device)
    }

    /// The number types of a checkpoint's weights on a device.
    ///
    /// # Errors
    /// When the checkpoint's configuration cannot be read, or the device has no such weights.
    pub fn precision(self, checkpoint: &Path, device: &Device) -> anyhow::Result<Precision> {
        match self {
            Self::F32 => Ok(Precision::default()),
            Self::Bf16 => Ok(Precision::half(device, &load_config(checkpoint)?.text_config)),
            Self::Int8 => {
                ensure!(
                    *device == Device::flex(),
                    "--weights int8 computes on the CPU only; use --weights bf16, or --device cpu"
                );
                Ok(Precision::int8())
            }
        }
    }
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

/// `--device-memory`
#[derive(Debug, Args)]
pub(super) struct MemoryOption {
    /// Memory to plan for, as in 48GB; by default this machine's
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    device_memory: Option<usize>,
}

impl MemoryOption {
    /// The device to plan for, when studies run on the device of this word, whose memory is `reported`.
    pub(super) fn machine(&self, device_word: &str, reported: Option<usize>) -> Machine {
        let is_cpu = device_word == "cpu";
        let own = if is_cpu { Some(memory::of_machine()) } else { reported.map(memory::plannable) };
        Machine {
            memory: self.device_memory.or(own),
            parallel: if is_cpu { train::gradients::threads() } else { 1 },
        }
    }

    /// The device to plan for without running anything: a size that is given is that of a GPU.
    pub(super) fn planned(&self) -> Machine {
        match self.device_memory {
            Some(memory) => Machine { memory: Some(memory), parallel: 1 },
            None => self.machine("cpu", None),
        }
    }
}

/// A number of bytes with a unit: `48GB`, `24 GiB`, `500MB`.
fn parse_bytes(text: &str) -> Result<usize, String> {
    let units = [("kb", 1e3), ("mb", 1e6), ("gb", 1e9), ("tb", 1e12)];
    let binary =
        [("kib", 1024.0), ("mib", 1_048_576.0), ("gib", 1_073_741_824.0), ("tib", 1_099_511_627_776.0)];
    let lower = text.trim().to_ascii_lowercase();
    let place = lower.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(place);
    let scale = units.iter().chain(&binary).find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
    let number = number.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    let bytes = scale.zip(number).map(|(scale, number)| (scale * number) as usize);
    bytes.ok_or_else(|| "expected a size with its unit, as in 48GB or 24GiB".to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accelerator_is_planned_for_what_its_driver_reports_and_a_given_size_is_kept() {
        let memory =
            |given, word, reported| MemoryOption { device_memory: given }.machine(word, reported).memory;
        assert_eq!(memory(None, "cuda:0", Some(80_000_000_000)), Some(72_000_000_000));
        assert_eq!(memory(None, "metal:0", None), None);
        assert_eq!(memory(Some(48_000_000_000), "cuda:0", Some(80_000_000_000)), Some(48_000_000_000));
        assert_eq!(memory(None, "cpu", None), Some(memory::of_machine()));
    }

    #[test]
    fn sizes_have_decimal_and_binary_units_and_anything_else_is_refused() {
        assert_eq!(parse_bytes("48GB"), Ok(48_000_000_000));
        assert_eq!(parse_bytes(" 1.5 gib "), Ok(1_610_612_736));
        assert_eq!(parse_bytes("500MB"), Ok(500_000_000));
        for wrong in ["48", "GB", "-1GB", "0GB", "nanGB", "1e400GB", "48 giga", ""] {
            assert!(parse_bytes(wrong).unwrap_err().contains("48GB"), "{wrong}");
        }
    }
}
