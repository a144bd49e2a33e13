//! `provenance.json`: program, machine and inputs of a result or checkpoint.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The program, machine and inputs of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Provenance {
    pub command: String,
    /// Git commit that the program was built from, with "+changes" where its sources differed; "unknown"
    /// outside a checkout.
    pub commit: String,
    pub version: String,
    /// Processor and number of cores.
    pub machine: String,
    pub device: String,
    /// Hash of the resolved configuration and the seed.
    pub config_hash: String,
    pub data_hash: String,
    /// Hash of the checkpoint's files that the run starts from; none in runs of older versions.
    #[serde(default)]
    pub weights_hash: Option<String>,
    pub seed: u64,
    /// UTC, to the second.
    pub date: String,
    /// The equal run of another study that this run was copied from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_in: Option<String>,
}

/// Hashes of everything that decides the result of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Hash of the resolved configuration and the seed.
    pub config_hash: String,
    pub data_hash: String,
    /// Hash of the checkpoint's files, where there is one.
    pub weights_hash: Option<String>,
    pub seed: u64,
}

impl Provenance {
    /// The provenance of a result that this process computes.
    pub(crate) fn of(device: &str, identity: Identity) -> Self {
        let Identity { config_hash, data_hash, weights_hash, seed } = identity;
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Self {
            command: format!("experiments {}", arguments.join(" ")),
            commit: env!("RECAP_COMMIT").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: machine(),
            device: device.to_owned(),
            config_hash,
            data_hash,
            weights_hash,
            seed,
            date: date(OffsetDateTime::now_utc()),
            made_in: None,
        }
    }

    /// Version and commit of this program.
    pub(crate) fn program() -> String {
        format!("{} {}", env!("CARGO_PKG_VERSION"), env!("RECAP_COMMIT"))
    }

    /// Whether the program was built from a commit without changes, so that it can be built again.
    pub(crate) fn is_reproducible(&self) -> bool {
        self.commit != UNKNOWN && !self.commit.ends_with(CHANGED)
    }

    /// Whether both are the same run: the same program on the same machine, the same configuration, seed,
    /// data and weights.
    pub(crate) fn is_equal_run(&self, other: &Self) -> bool {
        let Self { command, date, made_in, .. } = other.clone();
        self.weights_hash.is_some() && Self { command, date, made_in, ..self.clone() } == *other
    }
}

/// The commit of a build outside a checkout.
const UNKNOWN: &str = "unknown";
/// The suffix of the commit where source files differed from it.
const CHANGED: &str = "+changes";

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name =
        line.and_then(|line| line.split_once(':')).map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    format!("{name}, {cores} cores, {}", std::env::consts::OS)
}

/// UTC, as `2026-11-22T09:41:00Z`.
fn date(time: OffsetDateTime) -> String {
    let whole = time.replace_nanosecond(0).unwrap_or(time);
    whole.format(&Rfc3339).unwrap_or_else(|_| UNKNOWN.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_printed_in_utc_to_the_second() {
        let date = |seconds| date(OffsetDateTime::from_unix_timestamp(seconds).unwrap());
        assert_eq!(date(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00Z");
        let now = super::date(OffsetDateTime::now_utc());
        assert!(now.len() == 20 && now.ends_with('Z'), "{now}");
    }
}
