//! `experiments doctor`: what the machine has, and how to install what it lacks.

use std::path::Path;
use std::process::{Command, ExitCode};

use clap::Args;
use data::video::support;
use serde::Serialize;

use super::options::CacheOption;
use super::{Outcome, Usage};
use crate::records::Provenance;
use crate::runtime::device::{self, Adapter, Report};
use crate::runtime::{Caches, memory};
use crate::text::Table;
use crate::text::numbers::bytes;

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    cache: CacheOption,
    /// Folder of the runs
    #[arg(long, default_value = "runs")]
    runs: std::path::PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Whether something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Found,
    /// Not needed for everything.
    Absent,
    /// Nothing works without it.
    Missing,
}

/// One thing that was looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    what: String,
    state: State,
    found: String,
    /// How to get it, where it is not there.
    next: String,
}

impl Finding {
    fn found(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what: what.into(), state: State::Found, found: found.into(), next: String::new() }
    }

    fn lacking(what: impl Into<String>, state: State, found: &str, next: impl Into<String>) -> Self {
        Self { what: what.into(), state, found: found.to_owned(), next: next.into() }
    }
}

/// The word of `--device` that prints the devices, and runs nothing.
pub(super) const LIST: &str = "list";

/// The devices of this machine. They are not tested.
pub(super) fn list_devices() -> String {
    table(&devices(None)).to_text()
}

fn table(findings: &[Finding]) -> Table {
    let mut table = Table::new(["", "found", "to install it"]);
    for Finding { what, found, next, .. } in findings {
        table.push([what.clone(), found.clone(), next.clone()]);
    }
    table
}

/// Exit code 1: video cannot be read.
pub(super) fn run(arguments: &Arguments) -> Outcome {
    let caches = Caches::new(arguments.cache.cache.as_deref());
    let mut findings = vec![Finding::found("program", Provenance::program())];
    findings.extend(devices(Some(caches.folder())));
    findings.extend(video());
    findings.push(meteor(&caches));
    findings.push(mpi());
    findings.extend(folders(&caches, &arguments.runs).failure()?);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&findings).map_err(anyhow::Error::from).failure()?);
    } else {
        println!("{}", table(&findings).to_text());
    }
    let is_missing = findings.iter().any(|finding| finding.state == State::Missing);
    Ok(if is_missing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The devices, each accelerator with the result of its self-test where there is a cache to keep it in.
fn devices(tested: Option<&Path>) -> Vec<Finding> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpu = format!("{cores} cores, {} of memory for a study", bytes(memory::of_machine()));
    let mut findings = vec![Finding::found("device cpu", cpu)];
    findings.extend(accelerators(&device::list(), tested));
    findings
}

/// Every kind of accelerator: its adapters, or what it takes to have one.
fn accelerators(adapters: &anyhow::Result<Vec<Adapter>>, tested: Option<&Path>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (kind, is_built) in device::KINDS {
        let what = format!("device {kind}");
        if !is_built {
            let build = format!("cargo build -p experiments --features {kind}");
            findings.push(Finding::lacking(what, State::Absent, "not built in", build));
            continue;
        }
        let next = "a driver for the device";
        match adapters {
            Err(error) => findings.push(Finding::lacking(what, State::Absent, &error.to_string(), next)),
            Ok(adapters) => {
                let own: Vec<&Adapter> = adapters.iter().filter(|adapter| adapter.kind == kind).collect();
                if own.is_empty() {
                    findings.push(Finding::lacking(what, State::Absent, "built in, no device", next));
                }
                findings.extend(own.into_iter().map(|adapter| accelerator(adapter, tested)));
            }
        }
    }
    findings
}

fn accelerator(adapter: &Adapter, tested: Option<&Path>) -> Finding {
    let what = format!("device {}", adapter.word());
    let described = adapter.description();
    let Some(cache) = tested else { return Finding::found(what, described) };
    match device::examine(&adapter.word(), cache) {
        Ok(report) if report.measured.is_empty() => {
            Finding::found(what, format!("{described}, passed its self-test earlier"))
        }
        Ok(Report { measured, seconds, .. }) => {
            let count = measured.len();
            Finding::found(
                what,
                format!("{described}, passed its self-test: {count} operations in {seconds:.1} s"),
            )
        }
        Err(error) => {
            let next = "its newest driver; until then another --device";
            Finding::lacking(what, State::Absent, &format!("{described}: {error:#}"), next)
        }
    }
}

fn video() -> Vec<Finding> {
    let install = "scripts/setup.sh";
    let support = match support() {
        Ok(support) => support,
        Err(error) => {
            return vec![Finding::lacking("GStreamer", State::Missing, &error.to_string(), install)];
        }
    };
    let mut findings = vec![Finding::found("GStreamer", support.version)];
    for (codec, decoder) in support.decoders {
        let what = format!("decoder of {codec}");
        // every data set of the paper has H.264, and the tiny world VP8
        let state = if ["H.264", "VP8"].contains(&codec) { State::Missing } else { State::Absent };
        findings.push(match decoder {
            Some(decoder) => Finding::found(what, decoder),
            None => Finding::lacking(what, state, "none", install),
        });
    }
    findings
}

fn meteor(caches: &Caches) -> Finding {
    match caches.meteor_tables(None) {
        Ok(_) => Finding::found("METEOR's tables", "installed"),
        Err(metrics::Error::NoMeteorTables { .. }) => {
            let next = "scripts/meteor-data.sh";
            Finding::lacking("METEOR's tables", State::Absent, "none: METEOR is not computed", next)
        }
        Err(error) => {
            Finding::lacking("METEOR's tables", State::Absent, &error.to_string(), "scripts/meteor-data.sh")
        }
    }
}

fn mpi() -> Finding {
    let version = Command::new("mpirun").arg("--version").output();
    let version = version.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    let launcher = version.as_deref().and_then(|text| text.lines().next()).unwrap_or("no mpirun");
    if cfg!(feature = "mpi") {
        return Finding::found("MPI", format!("built in; {launcher}"));
    }
    Finding::lacking("MPI", State::Absent, &format!("not built in; {launcher}"), "make mpi")
}

fn folders(caches: &Caches, runs: &Path) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (what, folder) in [("caches", caches.folder()), ("runs", runs)] {
        let size = if folder.exists() { size(folder)? } else { 0 };
        let shown = std::path::absolute(folder)?;
        let free = free(&shown).map_or_else(|| "unknown".to_owned(), bytes);
        findings.push(Finding::found(what, format!("{}: {}, {free} free", shown.display(), bytes(size))));
    }
    Ok(findings)
}

/// Bytes of the files in a folder. Links are not followed.
fn size(folder: &Path) -> anyhow::Result<usize> {
    let mut total = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // a file of another process may be gone by now
        let Ok(found) = entry.metadata() else { continue };
        total +=
            if found.is_dir() { size(&entry.path())? } else { usize::try_from(found.len()).unwrap_or(0) };
    }
    Ok(total)
}

/// Free bytes where a folder is, or will be.
fn free(folder: &Path) -> Option<usize> {
    let existing = folder.ancestors().find(|folder| folder.exists())?;
    let found = rustix::fs::statvfs(existing).ok()?;
    usize::try_from(found.f_bavail.saturating_mul(found.f_frsize)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_folder_is_that_of_its_files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        std::fs::write(folder.path().join("inner/a"), [0; 300]).unwrap();
        std::fs::write(folder.path().join("b"), [0; 5]).unwrap();
        assert_eq!(size(folder.path()).unwrap(), 305);
        assert!(free(&folder.path().join("not/yet")).unwrap() > 0);
    }

    #[test]
    fn each_accelerator_is_listed_whether_it_is_built_in_or_not() {
        let findings = accelerators(&Ok(Vec::new()), None);
        let names: Vec<&str> = findings.iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(names, ["device cuda", "device metal", "device vulkan", "device wgpu"]);
        for (finding, (kind, is_built)) in findings.iter().zip(device::KINDS) {
            let next =
                if is_built { "a driver for the device".to_owned() } else { format!("--features {kind}") };
            assert!(finding.next.contains(&next), "{finding:?}");
        }
    }
}
