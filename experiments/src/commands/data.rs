//! `experiments data check|prepare|probe`: what is in a data set, and in single files.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;
use data::check::{Inspected, check_with};
use data::datasets::{DataSet, Split, open};
use data::prepare::prepare;
use data::probe::{Probe, probe};
use data::progress::Progress;
use data::sampling::Sampling;
use data::video::FrameRequest;
use indicatif::{ProgressBar, ProgressStyle};
use train::files;

use crate::clips::{DatasetConfig, SKIP_LIST};
use crate::report::thousands;
use crate::table::Table;

/// Where a data set lies.
#[derive(Debug, Args)]
pub struct PlaceArguments {
    /// Folder of the data set: its videos, and its annotation files unless --annotations names them
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Which data set it is: msrvtt, msvd, vatex, msrvtt-qa, msvd-qa, coco, flickr8k, or own (a folder and a captions file)
    #[arg(long, value_parser = parse_dataset)]
    pub dataset: DataSet,
    /// The annotation file, or the folder of annotation files
    #[arg(long, value_name = "PATH")]
    pub annotations: Option<PathBuf>,
    /// The split is my own: take the annotations' as it is, whatever the official one
    #[arg(long)]
    pub own_split: bool,
}

fn parse_dataset(word: &str) -> Result<DataSet, String> {
    word.parse().map_err(|error: data::Error| error.to_string())
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
pub struct CheckArguments {
    /// Where the data set lies
    #[command(flatten)]
    pub place: PlaceArguments,
    /// Where to write the list of clips that training leaves out; DIR/skip.json unless given
    #[arg(long, value_name = "FILE")]
    pub skip_list: Option<PathBuf>,
    /// Also write everything that was found to this JSON file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Reads a data set once; gives back whether it is in order.
///
/// # Errors
/// When its annotations cannot be read or a list cannot be written.
pub fn check(arguments: &CheckArguments) -> anyhow::Result<bool> {
    let bar = Bar::default();
    let report = check_with(&arguments.place.config(None).place(), &inspect, &|progress| bar.show(progress))?;
    bar.finish();
    println!("{report}");
    if let Some(path) = &arguments.json {
        files::replace_json(path, &report)?;
    }
    let list = report.skip_list();
    let path = arguments.skip_list.clone().unwrap_or_else(|| arguments.place.directory.join(SKIP_LIST));
    list.write(&path)?;
    println!("training leaves out {} clips, listed in {}", thousands(list.clips.len()), path.display());
    Ok(report.is_sound())
}

/// What decoding a file whole tells about it.
fn inspect(path: &Path) -> Inspected {
    let Probe { width, height, frames, duration_s, error, .. } = probe(path);
    let size = |pixels: Option<u32>| pixels.unwrap_or(0) as usize;
    Inspected { frames, width: size(width), height: size(height), duration_s, error }
}

/// Arguments of `data prepare`.
#[derive(Debug, Args)]
pub struct PrepareArguments {
    /// Where the data set lies
    #[command(flatten)]
    pub place: PlaceArguments,
    /// Folder of the decoded frames
    #[arg(long)]
    pub out: PathBuf,
    /// Frames a clip
    #[arg(long, default_value_t = 8)]
    pub frames: usize,
    /// Height and width in pixels
    #[arg(long, default_value_t = 224)]
    pub size: u32,
    /// Which frames: uniform, headtail, random, middle
    #[arg(long, default_value = "uniform", value_parser = parse_sampling)]
    pub sampling: Sampling,
    /// Seed of the rules that draw
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Prepare this split only: train, validate, test
    #[arg(long, value_parser = parse_split)]
    pub split: Option<Split>,
    /// The list of clips to leave out, as `data check` wrote it; DIR/skip.json where there is one
    #[arg(long, value_name = "FILE")]
    pub skip_list: Option<PathBuf>,
}

/// A split by its name.
pub(crate) fn parse_split(word: &str) -> Result<Split, String> {
    Split::named(word).ok_or_else(|| "expected train, validate or test".to_owned())
}

fn parse_sampling(word: &str) -> Result<Sampling, String> {
    let word = if word == "headtail" { "head_tail".to_owned() } else { word.replace('-', "_") };
    serde_json::from_value(serde_json::Value::String(word))
        .map_err(|_| "expected uniform, headtail, random or middle".to_owned())
}

/// Decodes a data set's chosen frames ahead of training.
///
/// # Errors
/// When a clip that is not on the skip list cannot be decoded, or the folder cannot be written.
pub fn prepare_frames(arguments: &PrepareArguments) -> anyhow::Result<()> {
    let set = open(&arguments.place.config(arguments.skip_list.clone()).place())?;
    let clips: Vec<_> =
        set.clips.iter().filter(|clip| arguments.split.is_none_or(|split| clip.split == split)).collect();
    ensure!(!clips.is_empty(), "{} has no clips to prepare", arguments.place.directory.display());
    let request = FrameRequest {
        frames: arguments.frames,
        sampling: arguments.sampling,
        seed: arguments.seed,
        size: Some(arguments.size),
    };
    let bar = Bar::default();
    let prepared = prepare(&clips, &request, &arguments.out, &|progress| bar.show(progress)).context(
        "`experiments data check` lists every clip that cannot be decoded, and writes the list that leaves them out",
    )?;
    bar.finish();
    for split in Split::ALL.into_iter().filter(|split| arguments.split.is_none_or(|only| only == *split)) {
        println!("{:<9} {}", split.name(), set.account(split));
    }
    println!(
        "{} clips decoded, {} kept from before, {} MB in {}",
        thousands(prepared.decoded),
        thousands(prepared.kept),
        thousands((prepared.bytes / 1_000_000) as usize),
        prepared.folder.display()
    );
    Ok(())
}

/// Arguments of `data probe`.
#[derive(Debug, Args)]
pub struct ProbeArguments {
    /// Video, GIF or image files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Print one JSON object a line instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Decodes files whole and says what they hold; gives back whether all of them could be.
///
/// # Errors
/// When standard output is closed.
pub fn probe_files(arguments: &ProbeArguments) -> anyhow::Result<bool> {
    let mut table = Table::new(&["file", "codec", "size", "turned", "frames", "seconds", "error"]);
    let mut all_whole = true;
    for path in &arguments.files {
        let found = probe(path);
        all_whole &= found.error.is_none();
        if arguments.json {
            println!("{}", serde_json::to_string(&found)?);
            continue;
        }
        let size = match (found.width, found.height) {
            (Some(width), Some(height)) => format!("{width}x{height}"),
            _ => String::new(),
        };
        table.push(vec![
            found.path,
            found.codec.unwrap_or_default(),
            size,
            if found.rotation == 0 { String::new() } else { format!("{}", found.rotation) },
            thousands(found.frames),
            found.duration_s.map(|seconds| format!("{seconds:.2}")).unwrap_or_default(),
            found.error.unwrap_or_default(),
        ]);
    }
    if !arguments.json {
        println!("{}", table.to_text());
    }
    Ok(all_whole)
}

/// A bar on the terminal for work that tells how far it is; nothing where there is no terminal.
#[derive(Default)]
struct Bar(std::sync::Mutex<Option<ProgressBar>>);

impl Bar {
    fn show(&self, Progress { stage, done, total }: Progress) {
        let Ok(mut bar) = self.0.lock() else { return };
        let bar = bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
            ProgressBar::new(total as u64)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                .with_message(stage)
        });
        bar.set_position(done as u64);
    }

    fn finish(&self) {
        if let Ok(mut bar) = self.0.lock()
            && let Some(bar) = bar.take()
        {
            bar.finish_and_clear();
        }
    }
}
