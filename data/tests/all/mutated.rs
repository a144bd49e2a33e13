//! Copies of videos with bytes changed, cut off or zeroed: whatever is in a file, decoding ends in frames or
//! an error, soon, and leaves no thread, no open file and no unused memory.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use super::video::{RECIPES, installed, written};
use data::probe::probe;
use data::random::RandomStream;
use data::video::{FrameRequest, decode, limit_decoders};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

/// The most that one file may take. On a busy machine time on the clock says little, so a copy that took
/// longer beside others is read again alone, and then has [`LIMIT`] of the processor's time and
/// [`ALONE_LIMIT`] on the clock, which whatever else the machine does does not use up.
const LIMIT: Duration = Duration::from_secs(10);
const ALONE_LIMIT: Duration = Duration::from_secs(60);

/// A damaged copy.
fn mutated(bytes: &[u8], random: &mut RandomStream) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    // Half of the damage hits the first 2 KiB, where headers are.
    let reach = if random.chance(0.5) { bytes.len().min(2048) } else { bytes.len() };
    match random.below(4) {
        0 => bytes.truncate(random.below(bytes.len())),
        1 => {
            let from = random.below(reach);
            let to = (from + 1 + random.below(4096)).min(bytes.len());
            bytes[from..to].fill(0);
        }
        _ => {
            for _ in 0..1 + random.below(40) {
                let at = random.below(reach);
                bytes[at] = random.bits() as u8;
            }
        }
    }
    bytes
}

/// What became of the copies.
#[derive(Default)]
struct Outcomes {
    whole: AtomicUsize,
    errors: AtomicUsize,
    /// Copies that took longer than [`LIMIT`] beside others.
    repeated: AtomicUsize,
    /// Copies that broke their limit alone, too.
    slow: Mutex<Vec<String>>,
    /// The longest a copy took, beside others or, where that was over the limit, alone.
    slowest: Mutex<Duration>,
}

/// Decodes `count` damaged copies of the files, on `threads` threads.
fn decode_mutated(files: &[PathBuf], count: usize, seed: u64, threads: usize) -> Outcomes {
    let folder = tempfile::tempdir().unwrap();
    let (next, outcomes, alone) = (AtomicUsize::new(0), Outcomes::default(), RwLock::new(()));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return;
            }
            let mut random = RandomStream::new(seed, "mutation", index as u64);
            let source = random.pick(files).unwrap();
            let extension = source.extension().unwrap_or_default().to_string_lossy();
            let copy = folder.path().join(format!("{index}.{extension}"));
            std::fs::write(&copy, mutated(&std::fs::read(source).unwrap(), &mut random)).unwrap();
            let attempt = || {
                let start = Instant::now();
                let is_whole = if index % 2 == 0 {
                    decode(&copy, &FrameRequest::uniform(8, 64)).is_ok()
                } else {
                    probe(&copy).error.is_none()
                };
                (is_whole, start.elapsed())
            };
            let (is_whole, mut taken) = {
                let _beside = alone.read().unwrap();
                attempt()
            };
            if taken > LIMIT {
                let _alone = alone.write().unwrap();
                outcomes.repeated.fetch_add(1, Ordering::Relaxed);
                let before = processor_time();
                taken = attempt().1;
                let used = processor_time() - before;
                if used > LIMIT || taken > ALONE_LIMIT {
                    let kept = std::env::temp_dir().join(format!("slow-{seed}-{index}.{extension}"));
                    std::fs::copy(&copy, &kept).unwrap();
                    outcomes.slow.lock().unwrap().push(format!(
                        "{:.1} s, {:.1} s of them computing: mutation {index} of {}, kept as {}",
                        taken.as_secs_f64(),
                        used.as_secs_f64(),
                        source.display(),
                        kept.display()
                    ));
                }
            }
            let tally = if is_whole { &outcomes.whole } else { &outcomes.errors };
            tally.fetch_add(1, Ordering::Relaxed);
            let mut slowest = outcomes.slowest.lock().unwrap();
            *slowest = slowest.max(taken);
            std::fs::remove_file(copy).unwrap();
        }
    };
    // A panic in a worker is one of the test.
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    outcomes
}

/// Time that this process has computed so far; none where the system does not say.
fn processor_time() -> Duration {
    const TICKS_A_SECOND: u64 = 100; // the unit of /proc, whatever the clock of the kernel
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_A_SECOND)
}

/// Threads, open files and MiB of memory of this process.
fn held() -> (usize, usize, usize) {
    let entries = |path: &str| std::fs::read_dir(path).map_or(0, Iterator::count);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = memory.and_then(|value| value.split_whitespace().next()?.parse::<usize>().ok()).unwrap_or(0);
    (entries("/proc/self/task"), entries("/proc/self/fd"), kib / 1024)
}

#[test]
fn mutated_copies_of_small_clips_end_soon() {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = RECIPES
        .into_iter()
        .enumerate()
        .filter(|(_, (_, recipe))| installed(recipe))
        .map(|(index, (extension, recipe))| {
            written(folder.path(), &index.to_string(), extension, recipe, (96, 64))
        })
        .collect();
    let outcomes = decode_mutated(&files, 60, 1, 2);
    assert_eq!(outcomes.whole.into_inner() + outcomes.errors.into_inner(), 60);
    assert_eq!(outcomes.slow.into_inner().unwrap(), Vec::<String>::new());
}

/// `cargo test -p data --test all two_thousand -- --ignored --nocapture`; `MUTATIONS` and `SEED` change what
/// it does.
#[test]
#[ignore = "takes many minutes"]
fn two_thousand_mutated_copies_of_real_files_end_soon() {
    let number =
        |name: &str, otherwise| std::env::var(name).map_or(otherwise, |value| value.parse().unwrap());
    let (count, seed) = (number("MUTATIONS", 2000), number("SEED", 7));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let mut files: Vec<PathBuf> = ["videos", "clips"]
        .iter()
        .flat_map(|name| std::fs::read_dir(root.join(name)).into_iter().flatten())
        .map(|entry| entry.unwrap().path())
        .filter(|path| (1..2_000_000).contains(&path.metadata().unwrap().len()))
        .collect();
    if files.is_empty() {
        println!("skipped: no shared data");
        return;
    }
    files.sort();
    // Clips that stand still use no core, so more may run than there are cores.
    limit_decoders(NonZeroUsize::new(6).unwrap());
    decode_mutated(&files, 100, seed + 1, 6); // loads what is loaded once
    let before = held();
    let start = Instant::now();
    let outcomes = decode_mutated(&files, count as usize, seed, 6);
    std::thread::sleep(Duration::from_secs(20)); // GLib keeps idle threads for 15 s
    let after = held();
    println!(
        "{} whole, {} errors, {} repeated alone, slowest {:.1} s, {:.0} s in all; threads, open files, MiB: {before:?}, then {after:?}",
        outcomes.whole.into_inner(),
        outcomes.errors.into_inner(),
        outcomes.repeated.into_inner(),
        outcomes.slowest.into_inner().unwrap().as_secs_f64(),
        start.elapsed().as_secs_f64()
    );
    assert_eq!(outcomes.slow.into_inner().unwrap(), Vec::<String>::new());
    assert!(after.0 <= before.0 + 2 && after.1 <= before.1 + 2, "{before:?}, then {after:?}");
    assert!(after.2 < before.2 + 300, "{before:?}, then {after:?}");
}
