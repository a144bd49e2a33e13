//! Where a number comes from: command, machine, commit, hashes, seed, date.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The file beside every result and checkpoint.
pub const FILE: &str = "provenance.json";

/// What is written beside every result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The program's arguments.
    pub command: String,
    /// Git commit of the source, with "+changes" where the work tree differed; "unknown" outside a checkout.
    pub commit: String,
    /// This program's version.
    pub version: String,
    /// Processor and number of cores.
    pub machine: String,
    /// Device that computed.
    pub device: String,
    /// Hash of the resolved configuration and the seed.
    pub config_hash: String,
    /// Hash that names the data.
    pub data_hash: String,
    /// Hash of the checkpoint's files that the run starts from; none in runs of older versions.
    #[serde(default)]
    pub weights_hash: Option<String>,
    /// The run's seed.
    pub seed: u64,
    /// UTC, to the second.
    pub date: String,
    /// The equal run of another study that this one was taken from, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_in: Option<String>,
}

/// What a run computes with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Hash of the resolved configuration and the seed.
    pub config_hash: String,
    /// Hash that names the data.
    pub data_hash: String,
    /// Hash of the checkpoint's files, where there is one.
    pub weights_hash: Option<String>,
    /// The run's seed.
    pub seed: u64,
}

impl Provenance {
    /// Gathers what the machine tells.
    pub fn gather(device: &str, named: Named) -> Self {
        let Named { config_hash, data_hash, weights_hash, seed } = named;
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Self {
            command: format!("experiments {}", arguments.join(" ")),
            commit: commit(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: machine(),
            device: device.to_owned(),
            config_hash,
            data_hash,
            weights_hash,
            seed,
            date: date(SystemTime::now()),
            made_in: None,
        }
    }

    /// Whether the program can be had again as it was: it was built from a commit without changes.
    pub fn is_reproducible(&self) -> bool {
        self.commit != UNKNOWN && !self.commit.ends_with(CHANGED)
    }

    /// Whether both are the same run: the same program on the same machine, the same configuration, seed, data and weights.
    pub fn is_equal_run(&self, other: &Self) -> bool {
        let Self { command, date, made_in, .. } = other.clone();
        self.weights_hash.is_some() && Self { command, date, made_in, ..self.clone() } == *other
    }
}

/// Outside a checkout.
const UNKNOWN: &str = "unknown";
/// Behind the commit where the work tree differed.
const CHANGED: &str = "+changes";

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match git(&["rev-parse", "--short=12", "HEAD"]) {
        None => UNKNOWN.to_owned(),
        Some(commit) => match git(&["status", "--porcelain", "--untracked-files=no"]) {
            Some(changes) if changes.is_empty() => commit,
            _ => commit + CHANGED,
        },
    }
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let name = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?.to_owned();
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    format!(
        "{}, {cores} cores, {}",
        name.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        std::env::consts::OS
    )
}

/// `2026-11-22T09:41:00Z` (days to date by Howard Hinnant's algorithm).
fn date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hours, minutes, seconds) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_right_around_leap_days_and_years() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_795_338_060, "2026-11-22T09:01:00Z"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
