//! `experiments data check|prepare|probe|synthesize`

use std::path::{Path, PathBuf};

use ::data::check::{self, Inspected};
use ::data::datasets::decodable::undecodable;
use ::data::datasets::{Clip, DataSet, Split, VideoSet, annotations, open};
use ::data::frames::prepare;
use ::data::probe::{Probe, probe};
use ::data::sampling::Sampling;
use ::data::video::FrameRequest;
use anyhow::ensure;
use clap::{Args, Subcommand};
use train::files;

use super::options::{ProfileOptions, parse_split};
use super::{Outcome, Usage, done, verdict};
use crate::config::{DatasetConfig, SKIP_LIST, resolve_plain};
use crate::runtime::{ProgressBars, synthesize};
use crate::text::{Table, thousands};

/// Commands on data sets.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Read a data set once: clips that are present, missing, corrupt or not in the official split, overlaps
    /// of splits; saves the list of clips that training leaves out
    Check(CheckArguments),
    /// Decode the sampled frames of every clip before training
    Prepare(PrepareArguments),
    /// Decode whole files and print their properties
    Probe(ProbeArguments),
    /// Make the tiny world: video files annotated like MSR-VTT, and image-text pairs
    Synthesize {
        /// Folder of the new world
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        #[command(flatten)]
        profile: ProfileOptions,
    },
}

pub(super) fn run(command: &Command) -> Outcome {
    match command {
        Command::Check(arguments) => check(arguments).failure().map(verdict),
        Command::Prepare(arguments) => prepare_frames(arguments).failure().map(done),
        Command::Probe(arguments) => probe_files(arguments).failure().map(verdict),
        Command::Synthesize { out, profile } => {
            let config = resolve_plain(profile.or_tiny(), &profile.sets).usage()?;
            let world = synthesize(&config.world, out).failure()?;
            println!("the tiny world {} is in {}", world.hash(), world.directory().display());
            Ok(done(()))
        }
    }
}

/// The files of a data set.
#[derive(Debug, Args)]
struct PlaceArguments {
    /// Folder of the data set: its videos, and its annotation files unless --annotations names them
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Data set: msrvtt, msvd, vatex, msrvtt-qa, msvd-qa, coco, flickr8k, or own (a folder and a captions
    /// file)
    #[arg(long)]
    dataset: DataSet,
    /// The annotation file, or the folder of annotation files
    #[arg(long, value_name = "PATH")]
    annotations: Option<PathBuf>,
    /// Use the split of the annotations although it is not the official one
    #[arg(long)]
    own_split: bool,
}

impl PlaceArguments {
    fn config(&self, skip_list: Option<PathBuf>) -> DatasetConfig {
        DatasetConfig {
            name: self.dataset,
            directory: self.directory.clone(),
            annotations: self.annotations.clone(),
            own_split: self.own_split,
            skip_list,
        }
    }
}

/// Arguments of `data check`.
#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// The data set
    #[command(flatten)]
    place: PlaceArguments,
    /// List of clips that training leaves out [default: DIR/skip.json]
    #[arg(long, value_name = "FILE")]
    skip_list: Option<PathBuf>,
    /// Save all findings in this JSON file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Reads a data set once; returns whether it is complete and correct.
fn check(arguments: &CheckArguments) -> anyhow::Result<bool> {
    let bar = ProgressBars::default();
    let place = arguments.place.config(None).place();
    // Reading the annotations once more takes little beside decoding every clip.
    print_notes(&annotations(place.dataset, &place.annotations)?.notes);
    let report = check::check(&place, &inspect, &|progress| bar.update(progress))?;
    drop(bar);
    println!("{report}");
    if let Some(path) = &arguments.json {
        files::replace_json(path, &report)?;
    }
    let list = report.skip_list();
    let path = arguments.skip_list.clone().unwrap_or_else(|| arguments.place.directory.join(SKIP_LIST));
    list.save(&path)?;
    println!("training leaves out {} clips, listed in {}", thousands(list.clips.len()), path.display());
    Ok(report.is_valid())
}

fn print_notes(notes: &[String]) {
    notes.iter().for_each(|note| eprintln!("note: {note}"));
}

/// Properties of a file that was decoded as a whole.
fn inspect(path: &Path) -> Inspected {
    let Probe { width, height, frames, duration_s, warning, error, .. } = probe(path);
    let size = |pixels: Option<u32>| pixels.unwrap_or(0) as usize;
    Inspected { frames, width: size(width), height: size(height), duration_s, warning, error }
}

/// Arguments of `data prepare`.
#[derive(Debug, Args)]
pub(super) struct PrepareArguments {
    /// The data set
    #[command(flatten)]
    place: PlaceArguments,
    /// Folder of the decoded frames
    #[arg(long)]
    out: PathBuf,
    /// Frames a clip
    #[arg(long, default_value_t = 8)]
    frames: usize,
    /// Height and width in pixels
    #[arg(long, default_value_t = 224)]
    size: u32,
    /// Sampling of the frames: uniform, headtail, random, middle
    #[arg(long, default_value = "uniform", value_parser = parse_sampling)]
    sampling: Sampling,
    /// Random seed of sampling
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Prepare this split only: train, validate, test
    #[arg(long, value_parser = parse_split)]
    split: Option<Split>,
    /// List of clips to leave out, from `data check` [default: DIR/skip.json where it exists]
    #[arg(long, value_name = "FILE")]
    skip_list: Option<PathBuf>,
}

fn parse_sampling(word: &str) -> Result<Sampling, String> {
    let word = if word == "headtail" { "head_tail".to_owned() } else { word.replace('-', "_") };
    serde_json::from_value(serde_json::Value::String(word))
        .map_err(|_| "expected uniform, headtail, random or middle".to_owned())
}

/// Decodes the sampled frames of a data set before training.
fn prepare_frames(arguments: &PrepareArguments) -> anyhow::Result<()> {
    let mut set = open(&arguments.place.config(arguments.skip_list.clone()).place())?;
    print_notes(&set.notes);
    let is_chosen = |split: Split| arguments.split.is_none_or(|only| only == split);
    let request = FrameRequest {
        sampling: arguments.sampling,
        seed: arguments.seed,
        ..FrameRequest::uniform(arguments.frames, arguments.size)
    };
    let bar = ProgressBars::default();
    let show = |progress| bar.update(progress);
    let chosen = |set: &VideoSet| -> Vec<Clip> {
        set.clips.iter().filter(|clip| is_chosen(clip.split)).cloned().collect()
    };
    let decoded =
        |clips: &[Clip]| prepare(&clips.iter().collect::<Vec<_>>(), &request, &arguments.out, &show);
    let clips = chosen(&set);
    ensure!(!clips.is_empty(), "{} has no clips to prepare", arguments.place.directory.display());
    let prepared = match decoded(&clips) {
        Ok(prepared) => prepared,
        Err(error) => {
            let found = undecodable(&clips.iter().collect::<Vec<_>>(), &request, &arguments.out, &show)?;
            if found.is_empty() || found.len() == clips.len() {
                return Err(error.into());
            }
            for clip in &found {
                eprintln!("warning: left out: {}: {}", clip.id, clip.error);
            }
            set.leave_out(found);
            decoded(&chosen(&set))?
        }
    };
    drop(bar);
    for split in Split::ALL.into_iter().filter(|split| is_chosen(*split)) {
        println!("{:<9} {}", split.name(), set.usage(split));
    }
    println!(
        "{} clips decoded, {} kept from before, {} MB in {}",
        thousands(prepared.decoded),
        thousands(prepared.kept),
        thousands((prepared.bytes / 1_000_000) as usize),
        arguments.out.display()
    );
    Ok(())
}

/// Arguments of `data probe`.
#[derive(Debug, Args)]
pub(super) struct ProbeArguments {
    /// Video, GIF or image files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print one JSON object a line instead of a table
    #[arg(long)]
    json: bool,
}

/// Prints the properties of files; returns whether all could be decoded.
fn probe_files(arguments: &ProbeArguments) -> anyhow::Result<bool> {
    let mut table = Table::new(["file", "codec", "size", "rotation", "frames", "seconds", "error"]);
    let mut all_whole = true;
    for path in &arguments.files {
        let found = probe(path);
        all_whole &= found.error.is_none();
        if arguments.json {
            println!("{}", serde_json::to_string(&found)?);
            continue;
        }
        let size = found.width.zip(found.height).map(|(width, height)| format!("{width}x{height}"));
        table.push(vec![
            found.path,
            found.codec.unwrap_or_default(),
            size.unwrap_or_default(),
            if found.rotation == 0 { String::new() } else { format!("{}", found.rotation) },
            thousands(found.frames),
            found.duration_s.map(|seconds| format!("{seconds:.2}")).unwrap_or_default(),
            found.error.or(found.warning.map(|warning| format!("warning: {warning}"))).unwrap_or_default(),
        ]);
    }
    if !arguments.json {
        println!("{}", table.to_text());
    }
    Ok(all_whole)
}
