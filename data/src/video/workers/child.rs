//! A worker: decodes one file after another until its parent ends.

use super::super::colour::take_warning;
use super::super::limits::{limit_clips, progress};
use super::super::probe::probe_here;
use super::super::{decode_here, keep_freed_memory};
use super::wire::{Answer, Job, Work, receive, receive_path, send};
use super::{HANGS, OUT_OF_MEMORY, OUT_OF_TIME, WORKER};
use rustix::fd::OwnedFd;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Interval at which a worker checks its limits.
const WATCH: Duration = Duration::from_millis(50);

/// Longest time without a new frame, longer than any pipeline's own limit. Only a decoder that never returns
/// exceeds it.
const HANG: Duration = Duration::from_secs(30);

/// Serves as a decoding worker where this process was started as one; `None` in any other process.
///
/// A program that calls [`super::isolate_decoding`] must call this first in `main` and end with the returned
/// code, because a worker is the same program once more.
#[must_use]
pub fn serve_if_worker() -> Option<ExitCode> {
    std::env::var_os(WORKER)?;
    keep_freed_memory();
    Some(match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: decoding worker: {error}");
            ExitCode::FAILURE
        }
    })
}

/// The file that is being decoded.
struct Current {
    since: Instant,
    job: Job,
    /// Number and time of the last progress.
    progress: (u64, Instant),
}

static CURRENT: Mutex<Option<Current>> = Mutex::new(None);

fn set_current(current: Option<Current>) {
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = current;
}

fn serve() -> io::Result<()> {
    let (mut parent, frames) = take_standard_streams()?;
    let parent_process = parent_id();
    std::thread::spawn(move || watch(parent_process));
    loop {
        let job: Job = match receive(&mut parent) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            received => received?,
        };
        let path = receive_path(&mut parent)?;
        limit_clips(job.limits);
        let now = Instant::now();
        set_current(Some(Current { since: now, job, progress: (progress(), now) }));
        let answer = match job.work {
            Work::Decode(request) => match decode_here(&path, &request) {
                Ok(decoded) => {
                    frames.write_all_at(&decoded.data, 0)?;
                    Answer::Decoded {
                        count: decoded.count,
                        height: decoded.height,
                        width: decoded.width,
                        warning: take_warning(),
                    }
                }
                Err(error) => Answer::Failed(error.into()),
            },
            Work::Probe => Answer::Probed(probe_here(&path)),
        };
        // A short clip may end between two looks of the watching thread.
        if let Some(code) = exceeded() {
            std::process::exit(code);
        }
        set_current(None);
        send(&mut parent, &answer)?;
    }
}

/// The parent's socket and the shared memory, which a worker is given as its standard input and output. Both
/// streams are then empty: a library may print.
fn take_standard_streams() -> io::Result<(UnixStream, File)> {
    let socket: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let frames: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    // A crash is expected here; its core file would have the size of the frames.
    let _ = rustix::process::setrlimit(
        rustix::process::Resource::Core,
        rustix::process::Rlimit { current: Some(0), maximum: Some(0) },
    );
    Ok((UnixStream::from(socket), File::from(frames)))
}

/// Ends this process when its file exceeds a limit, or when its parent has ended. A decoder that hangs cannot
/// be stopped otherwise.
fn watch(parent: u32) {
    loop {
        std::thread::sleep(WATCH);
        if parent_id() != parent {
            std::process::exit(0);
        }
        if let Some(code) = exceeded() {
            std::process::exit(code);
        }
    }
}

/// The exit code for the limit that the current file exceeds.
fn exceeded() -> Option<i32> {
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    let Current { since, job, progress: last } = current.as_mut()?;
    let done = progress();
    if done != last.0 {
        *last = (done, Instant::now());
    }
    if resident().is_some_and(|bytes| bytes > job.limits.memory_mib.get() << 20) {
        return Some(OUT_OF_MEMORY);
    }
    if since.elapsed() > job.limits.time() {
        return Some(OUT_OF_TIME);
    }
    (last.1.elapsed() > HANG).then_some(HANGS)
}

/// Bytes of this process that lie in memory; `None` where the system does not tell.
fn resident() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
