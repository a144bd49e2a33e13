//! Reads damaged files for a given time.
//!
//! ```text
//! ulimit -v 4000000   # an absurd allocation fails instead of passing unseen
//! RECAP_FUZZ_SECONDS=600 RECAP_FUZZ_SEED=1 \
//!     cargo test -p model --lib checkpoint::layout::fuzz -- --ignored --nocapture
//! ```
//!
//! Every fixture is a seed. The current file is in `RECAP_FUZZ_FOLDER` (default: the system's
//! temporary folder), so that it is still there when the process dies; files that panic or take longer than
//! [`SLOW`] are kept there too, and fail the test at its end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::*;

/// The fixtures take about a millisecond each.
const SLOW: Duration = Duration::from_secs(2);

/// Numbers that lengths and offsets are set to.
const EXTREMES: &[u64] = &[
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    1 << 61,
    i64::MAX as u64,
    u64::MAX - 8,
    u64::MAX,
];

/// SplitMix64, so that a seed gives the same files on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn seeds(folder: &Path, into: &mut Vec<(PathBuf, Vec<u8>)>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            seeds(&path, into);
        } else if !path.ends_with("config.json") && !path.ends_with("transformers_names.json") {
            let bytes = std::fs::read(&path).unwrap();
            into.push((path, bytes));
        }
    }
}

/// Damages a file: bits, numbers of every width, digits, cuts, repeats, and pieces of another file.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(6) {
        let length = bytes.len();
        if length == 0 {
            return;
        }
        // headers, and the directories at the ends of archives, are the small part that matters
        let at = match random.below(4) {
            0 => random.below(length.min(512)),
            1 => length - 1 - random.below(length.min(512)),
            _ => random.below(length),
        };
        match random.below(9) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => {
                let number = EXTREMES[random.below(EXTREMES.len())].to_le_bytes();
                let width = [1, 2, 4, 8][random.below(4)].min(length - at);
                bytes[at..at + width].copy_from_slice(&number[..width]);
            }
            3 => bytes.truncate(at),
            4 => {
                let end = (at + random.below(64)).min(length);
                bytes.drain(at..end);
            }
            5 => {
                let end = (at + random.below(256)).min(length);
                let piece = bytes[at..end].repeat(1 + random.below(40));
                bytes.splice(at..at, piece);
            }
            6 if !other.is_empty() => {
                let start = random.below(other.len());
                let end = (start + random.below(256)).min(other.len());
                bytes.splice(at..at, other[start..end].iter().copied());
            }
            7 => {
                // a digit of a JSON number, or an instruction of a pickle
                const BYTES: &[u8] = b"0123456789-[]{}\",:.(tR}]e\x85\x86\x87QsubahqXKMJ\x8a\x93\x94\x81c";
                bytes[at] = BYTES[random.below(BYTES.len())];
            }
            _ => {
                let end = (at + 1 + random.below(16)).min(length);
                let byte = [0, 0xff, 0x80][random.below(3)];
                bytes[at..end].fill(byte);
            }
        }
    }
}

fn read_all(path: &Path) {
    let Ok(source) = Source::open(path) else { return };
    let names: Vec<_> = source.names().map(str::to_owned).collect();
    for name in &names {
        let _ = source.read_f32(name);
        let _ = source.read_bytes(name);
    }
    let Ok(mapped) = Mapped::new(source) else { return };
    let names: Vec<_> = mapped.names().map(str::to_owned).collect();
    for name in &names {
        let _ = mapped.read_f32(name);
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
#[ignore = "runs for RECAP_FUZZ_SECONDS (60)"]
fn damaged_files_of_every_format() {
    let seconds = number("RECAP_FUZZ_SECONDS").unwrap_or(60);
    let seed = number("RECAP_FUZZ_SEED").unwrap_or(1);
    let folder = std::env::var_os("RECAP_FUZZ_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("recap-fuzz-{seed}"));
    std::fs::create_dir_all(&folder).unwrap();
    let mut files = Vec::new();
    seeds(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints"), &mut files);
    // indices want their shards beside them
    for (path, bytes) in &files {
        if path.to_string_lossy().contains("sharded") {
            std::fs::write(folder.join(path.file_name().unwrap()), bytes).unwrap();
        }
    }
    std::panic::set_hook(Box::new(|_| {}));
    let mut random = Random(seed);
    let (start, mut runs, mut kept) = (Instant::now(), 0u64, Vec::new());
    while start.elapsed().as_secs() < seconds {
        let (path, bytes) = &files[random.below(files.len())];
        let (_, other) = &files[random.below(files.len())];
        let mut bytes = bytes.clone();
        mutate(&mut bytes, other, &mut random);
        let input = folder.join(format!("input-{}", path.file_name().unwrap().to_string_lossy()));
        std::fs::write(&input, &bytes).unwrap();
        let attempt = || {
            let began = Instant::now();
            catch_unwind(AssertUnwindSafe(|| read_all(&input))).map(|()| began.elapsed())
        };
        // on a busy machine a file may be slow once, not three times
        let outcome =
            (0..3).map(|_| attempt()).find(|outcome| !outcome.as_ref().is_ok_and(|time| *time > SLOW));
        let is_sound = matches!(outcome, Some(Ok(_)));
        let has_panicked = matches!(outcome, Some(Err(_)));
        if !is_sound {
            let what = if has_panicked { "panic" } else { "slow" };
            let keep = folder.join(format!("{what}-{runs}-{}", path.file_name().unwrap().to_string_lossy()));
            std::fs::copy(&input, &keep).unwrap();
            kept.push(keep);
        }
        std::fs::remove_file(&input).unwrap();
        runs += 1;
    }
    let _ = std::panic::take_hook();
    println!("{runs} files in {seconds} s, seed {seed}");
    assert_eq!(kept, [""; 0].map(PathBuf::from), "files that panicked or were slow");
}
