//! The self-test of an accelerator in a separate process, because a driver may end the process: Mesa's
//! lavapipe 22.3 and 25.0 does so with cubecl's SPIR-V. What passed is kept in the cache, per adapter, driver
//! and program.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use captioner::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Adapter, Measured, Selected, adapters, choose, has_accelerators, is_cpu, self_test};
use crate::runtime::note;

/// Environment variables that make a process of this program the tester of a device: its word, and the cache.
const WORD: &str = "RECAP_TEST_OF_DEVICE";
const CACHE: &str = "RECAP_TEST_OF_DEVICE_CACHE";

/// The word with which a tester lists the accelerators and tests none.
const LIST: &str = "list";

/// Time after which a driver that never returns is ended. A software driver takes minutes.
const LONGEST: Duration = Duration::from_secs(900);

/// A line that the tester prints.
#[derive(Debug, Serialize, Deserialize)]
enum Line {
    /// All accelerators of this machine.
    Adapters(Vec<Adapter>),
    /// The one that the word names; none is the CPU.
    Chosen(Option<Adapter>),
    /// An operation begins.
    Begins(String),
    /// It ended.
    Measured(Measured),
    /// It is the last line.
    Ended,
    /// The word names no device; the last line.
    Refused(String),
}

/// What a test of a device found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// All accelerators of this machine.
    pub adapters: Vec<Adapter>,
    /// The one that was tested; none is the CPU.
    pub chosen: Option<Adapter>,
    /// Every operation in every type that the device has. Empty where an earlier test passed.
    pub measured: Vec<Measured>,
    /// Duration of the test, with the start of the process, seconds.
    pub seconds: f64,
}

impl Report {
    /// The error of a device that computes wrong numbers.
    fn check(self) -> anyhow::Result<Self> {
        let Some(wrong) = self.measured.iter().find(|measured| !measured.passes()) else { return Ok(self) };
        let Measured { operation, difference, tolerance } = wrong;
        bail!(
            "it computes wrong numbers: {operation} differs from the CPU by {difference:.1e} of its largest value, \
             {tolerance:.0e} is accepted"
        )
    }
}

/// The device of a word, once it passed its test, with its name printed. The CPU is not tested.
///
/// # Errors
/// When the word names no device, or the device computes wrong numbers, or its driver crashes.
pub fn open(word: &str, cache: &Path) -> anyhow::Result<Selected> {
    is_cpu(word)?;
    let refused =
        || format!("--device {word}: not used; try its newest driver, another --device, or --device cpu");
    let report = examine(word, cache).with_context(refused)?;
    let Some(adapter) = report.chosen else { return Ok(Selected::cpu()) };
    note(&format!("device {adapter}"));
    Ok(adapter.select())
}

/// Tests the device of a word in another process, unless its test passed before.
///
/// # Errors
/// When the word names no device, or the device computes wrong numbers, or its driver crashes.
pub fn examine(word: &str, cache: &Path) -> anyhow::Result<Report> {
    if is_cpu(word)? {
        return Ok(Report::default());
    }
    let report = ask(word, cache)?.check()?;
    if let Some(adapter) = report.chosen.as_ref().filter(|_| !report.measured.is_empty()) {
        keep(adapter, cache);
    }
    Ok(report)
}

/// All accelerators of this machine, from another process.
///
/// # Errors
/// When a driver crashes.
pub fn list() -> anyhow::Result<Vec<Adapter>> {
    if !has_accelerators() {
        return Ok(Vec::new());
    }
    Ok(ask(LIST, Path::new(""))?.adapters)
}

fn ask(word: &str, cache: &Path) -> anyhow::Result<Report> {
    let begin = Instant::now();
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let child = Command::new(program)
        .env(WORD, word)
        .env(CACHE, cache)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the test of the device")?;
    let report = transcribe(child, LONGEST)?.report()?;
    Ok(Report { seconds: begin.elapsed().as_secs_f64(), ..report })
}

/// What a tester printed, and how it ended.
struct Transcript {
    lines: Vec<Line>,
    messages: String,
    status: ExitStatus,
    is_late: bool,
}

/// Reads the output of a tester until it ends.
fn transcribe(mut child: Child, longest: Duration) -> anyhow::Result<Transcript> {
    let stdout = child.stdout.take().ok_or_else(|| anyhow!("the test of the device has no output"))?;
    let stderr = child.stderr.take().ok_or_else(|| anyhow!("the test of the device has no messages"))?;
    let (messages, lines) = (lines_of(stderr), lines_of(stdout));
    let begin = Instant::now();
    let mut is_late = false;
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait for the test of the device")? {
            break status;
        }
        if begin.elapsed() > longest && !is_late {
            is_late = true;
            child.kill().ok();
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    // drivers print there too
    let lines = rest_of(&lines).iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    Ok(Transcript { lines, messages: rest_of(&messages).join("\n"), status, is_late })
}

/// Reads lines in a thread, which may last longer than the tester: a process that a driver started can hold
/// its end of the pipe.
fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line);
            if sender.send(text.trim_end_matches('\n').to_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
    lines
}

/// The lines of a tester that has ended.
fn rest_of(lines: &Receiver<String>) -> Vec<String> {
    std::iter::from_fn(|| lines.recv_timeout(Duration::from_secs(1)).ok()).collect()
}

impl Transcript {
    fn report(self) -> anyhow::Result<Report> {
        let mut report = Report::default();
        let mut under_way = None;
        let mut has_ended = false;
        for line in self.lines {
            match line {
                Line::Adapters(adapters) => report.adapters = adapters,
                Line::Chosen(chosen) => report.chosen = chosen,
                Line::Begins(operation) => under_way = Some(operation),
                Line::Measured(measured) => {
                    under_way = None;
                    report.measured.push(measured);
                }
                Line::Ended => has_ended = true,
                Line::Refused(reason) => bail!(reason),
            }
        }
        let name = report.chosen.as_ref().map_or_else(|| "a driver".to_owned(), Adapter::to_string);
        let at = under_way.map_or_else(|| "when it was opened".to_owned(), |at| format!("at {at}"));
        ensure!(
            has_ended && self.status.success(),
            "{name}: it {} {at}: {}",
            if self.is_late { "did not answer for 15 minutes".to_owned() } else { ended(self.status) },
            last_message(&self.messages)
        );
        Ok(report)
    }
}

/// The last message of a process in one line: that of a panic, else its last line.
fn last_message(messages: &str) -> String {
    let lines = messages.lines().map(str::trim);
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty() && !line.starts_with("note: ")).collect();
    let panic = lines.iter().rposition(|line| line.contains("panicked at"));
    let begin = panic.map_or(lines.len().saturating_sub(1), |at| at + 1);
    let message = lines[begin..].join(" ");
    if message.is_empty() { "no message".to_owned() } else { message.chars().take(400).collect() }
}

/// How a process ended.
fn ended(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("crashed its process (signal {signal})");
    }
    format!("ended its process ({status})")
}

/// Tests a device where this process was started for it; `None` in any other process. Called first in `main`.
#[must_use]
pub fn serve_if_child() -> Option<ExitCode> {
    let word = std::env::var(WORD).ok()?;
    let cache = std::env::var_os(CACHE).map(PathBuf::from).unwrap_or_default();
    serve(&word, &cache);
    Some(ExitCode::SUCCESS)
}

fn serve(word: &str, cache: &Path) {
    let adapters = adapters();
    say(&Line::Adapters(adapters.clone()));
    if word == LIST {
        return say(&Line::Ended);
    }
    let chosen = match choose(word, &adapters) {
        Ok(chosen) => chosen,
        Err(error) => return say(&Line::Refused(format!("{error:#}"))),
    };
    say(&Line::Chosen(chosen.cloned()));
    if let Some(adapter) = chosen.filter(|adapter| !passed(adapter, cache).is_file()) {
        let device = adapter.select().device;
        self_test::run(
            &device,
            |operation| say(&Line::Begins(operation.to_owned())),
            |measured| say(&Line::Measured(measured)),
        );
    }
    say(&Line::Ended);
}

fn say(line: &Line) {
    let mut out = std::io::stdout().lock();
    // a reader that is gone needs no answer
    if let Ok(text) = serde_json::to_string(line) {
        writeln!(out, "{text}").and_then(|()| out.flush()).ok();
    }
}

/// The file that says that an adapter passed its test with this program.
fn passed(adapter: &Adapter, cache: &Path) -> PathBuf {
    let program = concat!(env!("CARGO_PKG_VERSION"), " ", env!("RECAP_COMMIT"));
    let named = format!("{program}\n{}\n{}\n{}", adapter.kind, adapter.name, adapter.driver);
    cache.join("devices").join(hex(&Sha256::digest(named)))
}

/// Remembers that an adapter passed. A cache that cannot be written costs the next run a test.
fn keep(adapter: &Adapter, cache: &Path) {
    let path = passed(adapter, cache);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).ok();
    }
    std::fs::write(path, format!("{adapter}\n")).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report_of(script: &str) -> anyhow::Result<Report> {
        let child = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        transcribe(child, Duration::from_millis(800)).unwrap().report()
    }

    fn line(line: &Line) -> String {
        format!("echo '{}'; ", serde_json::to_string(line).unwrap())
    }

    fn beginning() -> String {
        let adapter = Adapter { kind: "wgpu".to_owned(), name: "Card".to_owned(), ..Adapter::default() };
        line(&Line::Adapters(vec![adapter.clone()])) + &line(&Line::Chosen(Some(adapter)))
    }

    #[test]
    fn a_driver_that_crashes_is_named_with_the_operation() {
        let begins = line(&Line::Begins("softmax in f32".to_owned()));
        let error =
            report_of(&format!("{}{begins}echo 'bad opcode' >&2; kill -SEGV $$", beginning())).unwrap_err();
        let error = error.to_string();
        for part in ["wgpu:0: Card", "signal 11", "softmax in f32", "bad opcode"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        let error = report_of(&format!("{}exit 3", beginning())).unwrap_err().to_string();
        assert!(error.contains("when it was opened") && error.contains("3"), "{error}");
        let error = report_of(&format!("{}{begins}sleep 60", beginning())).unwrap_err().to_string();
        assert!(error.contains("did not answer"), "{error}");
    }

    #[test]
    fn a_device_that_computes_wrong_numbers_is_refused_with_the_operation() {
        let measured = |difference| {
            line(&Line::Measured(Measured {
                operation: "softmax in f32".to_owned(),
                difference,
                tolerance: 1e-4,
            }))
        };
        let end = line(&Line::Ended);
        let fine =
            report_of(&format!("{}{}echo a driver prints; {end}", beginning(), measured(1e-6))).unwrap();
        assert_eq!(fine.adapters.len(), 1);
        fine.check().unwrap();
        let wrong = report_of(&format!("{}{}{end}", beginning(), measured(0.97))).unwrap();
        let error = wrong.check().unwrap_err().to_string();
        for part in ["wrong numbers", "softmax in f32", "9.7e-1"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        let refused = report_of(&line(&Line::Refused("no such device".to_owned()))).unwrap_err();
        assert_eq!(refused.to_string(), "no such device");
    }

    #[test]
    fn a_panic_is_reported_by_its_message() {
        let messages = "warning\n\nthread 'main' panicked at a.rs:1:\nno such\n  buffer\nnote: run with `RUST_BACKTRACE=1`\n";
        assert_eq!(last_message(messages), "no such buffer");
        assert_eq!(
            (last_message(""), last_message("one\ntwo\n")),
            ("no message".to_owned(), "two".to_owned())
        );
    }

    #[test]
    fn a_test_is_repeated_for_another_driver_and_kept_otherwise() {
        let cache = tempfile::tempdir().unwrap();
        let adapter = Adapter { name: "Card".to_owned(), driver: "1.0".to_owned(), ..Adapter::default() };
        assert!(!passed(&adapter, cache.path()).is_file());
        keep(&adapter, cache.path());
        assert!(passed(&adapter, cache.path()).is_file());
        let newer = Adapter { driver: "1.1".to_owned(), ..adapter };
        assert!(!passed(&newer, cache.path()).is_file());
    }

    #[test]
    fn the_cpu_needs_no_test() {
        assert_eq!(examine("cpu", Path::new("/nowhere")).unwrap(), Report::default());
    }
}
