//! `experiments caption --out`: collections, in shards that a later call completes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use captioner::collection::{CaptionFolder, Counts, Job, Progress, Share, merge, summary};
use captioner::{Captioner, weights_hash};
use clap::Args;
use data::captioned::RowFormat;
use data::collection::Collection;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal as _;

use crate::runtime::processes;
use data::format::thousands as count;

/// Options of collections.
#[derive(Debug, Args)]
#[command(next_help_heading = "Collections")]
pub(super) struct CollectionOptions {
    /// Folder for captions of files, folders, lists (.txt, .csv, .tsv, .jsonl, .parquet with a column path)
    /// and webdataset shards (.tar), written in shards; the same command again completes what is missing.
    /// With --merge the file to write, .jsonl or .parquet
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Rows of a shard
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = at_least_one)]
    rows_per_shard: usize,
    /// Processes that caption the collection together, each a share of the shards, on any machines that see
    /// the folder
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    shards: Option<usize>,
    /// This process's share, from 0 [default: $SLURM_ARRAY_TASK_ID or $JOB_COMPLETION_INDEX, or the MPI rank]
    #[arg(long, value_name = "I", requires = "shards")]
    shard: Option<usize>,
    /// Caption clips again that could not be decoded
    #[arg(long)]
    retry_failed: bool,
    /// Stop after N clips, rounded up to whole batches; a later call goes on
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print how far the captions of a folder are, and caption nothing
    #[arg(long, value_name = "DIR", conflicts_with_all = ["inputs", "merge"])]
    pub(super) status: Option<PathBuf>,
    /// Write all captions of a finished folder in the file --out, and caption nothing
    #[arg(long, value_name = "DIR", requires = "out", conflicts_with = "inputs")]
    pub(super) merge: Option<PathBuf>,
}

fn at_least_one(word: &str) -> Result<usize, String> {
    word.parse().ok().filter(|number| *number > 0).ok_or_else(|| "expected a number of at least 1".to_owned())
}

/// Variables by which schedulers number the jobs of an array: Slurm, Kubernetes.
const ARRAYS: [&str; 2] = ["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"];

/// The share of this process, by its options, its scheduler, or its MPI rank.
///
/// # Errors
/// When the options do not fit each other, or a scheduler runs several jobs and `--shards` is missing.
pub(super) fn share(
    options: &CollectionOptions,
    variable: impl Fn(&str) -> Option<String>,
    (rank, size): (usize, usize),
) -> anyhow::Result<Share> {
    let array = ARRAYS.into_iter().find_map(|name| Some((name, variable(name)?)));
    let Some(count) = options.shards else {
        if size > 1 {
            return Ok(Share { index: rank, count: size });
        }
        if let Some((name, _)) = array {
            bail!("${name} is set, so that this is one of several jobs: give their number by --shards");
        }
        return Ok(Share::ALL);
    };
    ensure!(size == 1, "--shards with {size} MPI processes: leave it out, each process has its own share");
    let index = match (options.shard, array) {
        (Some(shard), _) => shard,
        (None, Some((name, value))) => {
            value.trim().parse().with_context(|| format!("${name} is {value}, expected a number"))?
        }
        (None, None) => bail!("--shards {count} needs --shard, ${} or ${}", ARRAYS[0], ARRAYS[1]),
    };
    ensure!(index < count, "share {index} of {count}: shares are numbered from 0 to {}", count - 1);
    Ok(Share { index, count })
}

/// The share of this process as it was started.
pub(super) fn own_share(options: &CollectionOptions) -> anyhow::Result<Share> {
    let group = processes::join()?.group;
    share(options, |name| std::env::var(name).ok(), (group.rank(), group.world_size()))
}

/// What is captioned, and how it is recorded.
pub(super) struct Request<'a> {
    pub(super) options: &'a CollectionOptions,
    pub(super) folder: &'a Path,
    pub(super) format: RowFormat,
    pub(super) share: Share,
    pub(super) checkpoint: &'a Path,
    /// How the weights are held.
    pub(super) weights: String,
}

/// Captions this process's share of a collection.
pub(super) fn caption(
    captioner: &Captioner,
    collection: &Collection,
    request: &Request<'_>,
) -> anyhow::Result<()> {
    let Request { options, folder, format, share, checkpoint, weights } = request;
    for problem in &collection.problems {
        eprintln!("problem: {problem}");
    }
    ensure!(!collection.is_empty(), "the inputs have no clip");
    if collection.duplicates() > 0 {
        eprintln!(
            "{} rows have the id of an earlier row and are not captioned again",
            count(collection.duplicates())
        );
    }
    let job = Job {
        captioner,
        collection,
        folder,
        checkpoint: format!("{} {weights}", weights_hash(checkpoint)?),
        format: *format,
        rows_per_shard: options.rows_per_shard,
        share: *share,
        retry_failed: options.retry_failed,
        limit: options.limit,
    };
    let mut display = Display::start();
    let made = job.run(|progress| display.update(progress))?;
    display.end();
    let seconds = display.started.elapsed().as_secs_f64();
    let speed = made.done.total() as f64 / seconds.max(1e-9);
    println!("made: {} in {seconds:.1} s, {speed:.1} clips/s", described(made.done));
    print_state(folder)?;
    if !collection.problems.is_empty() {
        bail!("{} problems with the inputs, printed above", collection.problems.len());
    }
    Ok(())
}

/// Prints how far a folder is.
pub(super) fn print_state(path: &Path) -> anyhow::Result<()> {
    let folder = CaptionFolder::open(path)?;
    let state = summary(&folder)?;
    let missing = state.rows - state.counts.total();
    println!(
        "there: {} of {} clips: {}",
        count(state.counts.total()),
        count(state.rows),
        described(state.counts)
    );
    println!(
        "shards: {} of {} finished, {} begun: {}",
        count(state.finished),
        count(state.shards),
        count(state.begun),
        path.display()
    );
    if missing > 0 {
        println!("next: the same command captions the {} clips that are missing", count(missing));
    } else if state.counts.failed > 0 {
        println!("next: --retry-failed captions those again that failed; their rows have the reasons");
    }
    Ok(())
}

/// Writes all rows of a folder in one file.
pub(super) fn merge_to(path: &Path, out: &Path) -> anyhow::Result<()> {
    let counts = merge(&CaptionFolder::open(path)?, out)?;
    println!("{}: {}", out.display(), described(counts));
    Ok(())
}

fn described(counts: Counts) -> String {
    let parts =
        [(counts.failed, "failed"), (counts.duplicate, "duplicates"), (counts.malformed, "malformed")];
    let mut text = format!("{} captioned", count(counts.ok));
    for (number, name) in parts.into_iter().filter(|(number, _)| *number > 0) {
        text += &format!(", {} {name}", count(number));
    }
    text
}

/// Progress: a bar on a terminal, elsewhere a line now and then.
struct Display {
    bar: Option<ProgressBar>,
    started: Instant,
    printed: Instant,
}

/// Time between two lines.
const PAUSE: Duration = Duration::from_secs(30);

impl Display {
    fn start() -> Self {
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} clips, {per_sec}, {msg}{eta} left");
        let bar = std::io::stderr()
            .is_terminal()
            .then(|| ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())));
        Self { bar, started: Instant::now(), printed: Instant::now() }
    }

    fn update(&mut self, Progress { done, total }: Progress) {
        let failures = done.without_captions();
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            bar.set_position(done.total() as u64);
            bar.set_message(if failures > 0 { format!("{failures} failed, ") } else { String::new() });
        } else if self.printed.elapsed() >= PAUSE && done.total() > 0 {
            self.printed = Instant::now();
            let speed = done.total() as f64 / self.started.elapsed().as_secs_f64();
            let left = total.saturating_sub(done.total()) as f64 / speed;
            eprintln!(
                "{} of {total} clips, {speed:.1} clips/s, {failures} failed, {left:.0} s left",
                done.total()
            );
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: CollectionOptions,
        inputs: Vec<PathBuf>,
    }

    fn of(words: &str, variable: Option<(&str, &str)>, mpi: (usize, usize)) -> Result<Share, String> {
        let command = Command::try_parse_from(std::iter::once("x").chain(words.split_whitespace()));
        let command = command.map_err(|error| error.to_string())?;
        let get = |name: &str| variable.filter(|(own, _)| *own == name).map(|(_, value)| value.to_owned());
        share(&command.options, get, mpi).map_err(|error| error.to_string())
    }

    #[test]
    fn a_share_is_that_of_the_options_the_scheduler_or_the_mpi_rank() {
        let share = |index, count| Ok(Share { index, count });
        assert_eq!(of("", None, (0, 1)), share(0, 1));
        assert_eq!(of("--shards 4 --shard 3", None, (0, 1)), share(3, 4));
        assert_eq!(of("--shards 4", Some(("SLURM_ARRAY_TASK_ID", "2")), (0, 1)), share(2, 4));
        assert_eq!(of("--shards 4", Some(("JOB_COMPLETION_INDEX", "0")), (0, 1)), share(0, 4));
        assert_eq!(of("--shards 4 --shard 1", Some(("SLURM_ARRAY_TASK_ID", "2")), (0, 1)), share(1, 4));
        assert_eq!(of("", None, (1, 2)), share(1, 2));
    }

    #[test]
    fn shares_that_would_be_made_twice_or_never_are_refused() {
        let error = |words, variable, mpi| of(words, variable, mpi).unwrap_err();
        assert!(error("--shards 4", None, (0, 1)).contains("--shard"));
        assert!(error("--shards 4 --shard 4", None, (0, 1)).contains("from 0 to 3"));
        assert!(error("", Some(("SLURM_ARRAY_TASK_ID", "7")), (0, 1)).contains("--shards"));
        assert!(error("--shards 4", Some(("SLURM_ARRAY_TASK_ID", "x")), (0, 1)).contains("is x"));
        assert!(error("--shards 2 --shard 0", None, (1, 2)).contains("MPI"));
        assert!(error("--shards 0 --shard 0", None, (0, 1)).contains("at least 1"));
        assert!(error("--shard 0", None, (0, 1)).contains("--shards"));
    }
}
