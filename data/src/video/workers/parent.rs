//! The parent's side: idle workers, one file's work in one of them, and what its death means.

use super::super::colour::warn_once;
use super::super::limits::{ClipLimits, limits};
use super::super::probe::Probe;
use super::super::{FrameRequest, Frames};
use super::wire::{Answer, Job, Work, receive, send, send_path};
use super::{HANGS, OUT_OF_MEMORY, OUT_OF_TIME, WORKER};
use crate::error::{Error, Result};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// How often a file is given to a worker before its crash is the file's fault. Damaged files make GStreamer's
/// threads race, so that one crash may not repeat.
const CRASHES: usize = 2;

/// The same for workers that someone ended from outside, as the system does when memory runs out.
const KILLS: usize = 10;

/// Time beyond the clip's limit after which a worker that does not even end itself is ended.
const GRACE: Duration = Duration::from_secs(10);

/// Bytes of a worker's messages that are searched for its last one.
const MESSAGES: u64 = 64 << 10;

/// The workers of this process.
pub(crate) struct Workers {
    program: PathBuf,
    idle: Mutex<Vec<Worker>>,
}

static WORKERS: OnceLock<Workers> = OnceLock::new();

/// The workers, where decoding is isolated.
pub(crate) fn active() -> Option<&'static Workers> {
    WORKERS.get()
}

/// Uses workers from now on; they are started when they are needed. A second call changes nothing.
pub(super) fn activate(program: PathBuf) {
    WORKERS.get_or_init(|| Workers { program, idle: Mutex::default() });
}

impl Workers {
    /// Decodes the chosen frames of a video.
    pub(crate) fn decode(&self, path: &Path, request: &FrameRequest) -> Result<Frames> {
        let (answer, worker) = self.answer(path, Work::Decode(*request))?;
        match answer {
            Answer::Decoded { count, height, width, warning } => {
                warn_once(path, warning);
                let decoded = worker.frames(count, height, width);
                self.give_back(worker);
                decoded.map_err(Error::io("read decoded frames", path))
            }
            Answer::Failed(failure) => {
                self.give_back(worker);
                Err(failure.of(path))
            }
            Answer::Probed(_) => Err(Error::video(path, "a worker gave the answer to another question")),
        }
    }

    /// Describes a video.
    ///
    /// # Errors
    /// The worker ended.
    pub(crate) fn probe(&self, path: &Path) -> Result<Probe> {
        let (answer, worker) = self.answer(path, Work::Probe)?;
        self.give_back(worker);
        match answer {
            Answer::Probed(probe) => Ok(probe),
            Answer::Failed(failure) => Err(failure.of(path)),
            Answer::Decoded { .. } => Err(Error::video(path, "a worker gave the answer to another question")),
        }
    }

    /// A worker's answer, and the worker. The file is given to another worker where one died.
    fn answer(&self, path: &Path, work: Work) -> Result<(Answer, Worker)> {
        let job = Job { work, limits: limits() };
        let (mut crashes, mut kills) = (0, 0);
        loop {
            let mut worker = match self.take_idle() {
                Some(worker) => worker,
                None => Worker::start(&self.program)?,
            };
            if let Ok(answer) = worker.ask(job, path) {
                return Ok((answer, worker));
            }
            let death = worker.end(&job.limits);
            match death {
                Death::Killed => kills += 1,
                Death::Crashed(_) | Death::Silent => crashes += 1,
                Death::Limit(_) => crashes = CRASHES,
            }
            if crashes >= CRASHES || kills >= KILLS {
                return Err(Error::Video {
                    path: path.to_path_buf(),
                    reason: death.reason(&worker),
                    next: death.next().into(),
                });
            }
        }
    }

    fn take_idle(&self) -> Option<Worker> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give_back(&self, worker: Worker) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
    }
}

/// A decoding process.
struct Worker {
    process: Child,
    socket: UnixStream,
    /// Memory for the frames, which the worker writes and this process reads.
    shared: File,
    /// What the worker and its libraries print, where `GST_DEBUG` does not ask for it in the terminal.
    messages: Option<File>,
    /// Length of the messages about earlier files.
    said: u64,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Worker {
    fn start(program: &Path) -> Result<Self> {
        Self::started(program).map_err(Error::io("start a decoding process", program))
    }

    fn started(program: &Path) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let shared = memory_file()?;
        let messages = match std::env::var_os("GST_DEBUG") {
            Some(_) => None,
            None => Some(memory_file()?),
        };
        let errors =
            messages.as_ref().map_or(Ok(Stdio::inherit()), |file| file.try_clone().map(Stdio::from))?;
        let process = Command::new(program)
            .env(WORKER, "1")
            .stdin(Stdio::from(rustix::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::from(shared.try_clone()?))
            .stderr(errors)
            // Ctrl-C is for the parent, which then ends in order.
            .process_group(0)
            .spawn()?;
        Ok(Self { process, socket, shared, messages, said: 0 })
    }

    fn ask(&mut self, job: Job, path: &Path) -> io::Result<Answer> {
        if let Some(messages) = &self.messages {
            self.said = messages.metadata()?.len();
        }
        self.socket.set_read_timeout(Some(job.limits.time() + GRACE))?;
        send(&mut self.socket, &job)?;
        send_path(&mut self.socket, path)?;
        receive(&mut self.socket)
    }

    /// The frames in the shared memory.
    fn frames(&self, count: usize, height: usize, width: usize) -> io::Result<Frames> {
        let bytes = [height, width, 3].into_iter().try_fold(count, usize::checked_mul);
        let held = self.shared.metadata()?.len();
        let bytes = bytes.filter(|&bytes| bytes as u64 <= held);
        let mut data = vec![0; bytes.ok_or_else(|| io::Error::other("fewer frames than announced"))?];
        self.shared.read_exact_at(&mut data, 0)?;
        Ok(Frames { count, height, width, data })
    }

    /// Ends the worker after it failed to answer, and tells why it did.
    fn end(&mut self, limits: &ClipLimits) -> Death {
        let ended = match self.process.try_wait() {
            Ok(Some(status)) => Some(status),
            // The socket may close just before the process ends. A process that is still alive is silent.
            _ => {
                std::thread::sleep(Duration::from_millis(200));
                self.process.try_wait().ok().flatten()
            }
        };
        ended.map_or(Death::Silent, |status| Death::of(status, limits))
    }

    /// The last line that the worker printed about the current file.
    fn last_words(&self) -> Option<String> {
        let messages = self.messages.as_ref()?;
        let length = messages.metadata().ok()?.len();
        let from = self.said.max(length.saturating_sub(MESSAGES));
        let mut bytes = vec![0; (length - from) as usize];
        messages.read_exact_at(&mut bytes, from).ok()?;
        last_message(&String::from_utf8_lossy(&bytes))
    }
}

/// The last line of a text, without process and time, which GLib prints before it.
fn last_message(text: &str) -> Option<String> {
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    let message = match line.split_once(" **: ") {
        Some((_, message)) => message.split_once(": ").map_or(message, |(_time, message)| message),
        None => line,
    };
    Some(message.chars().take(200).collect())
}

/// Why a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// By a signal that a fault raises.
    Crashed(ExitStatus),
    /// By a signal that someone sends.
    Killed,
    /// By itself, as the clip exceeded this limit.
    Limit(Limit),
    /// It does not answer and does not end.
    Silent,
}

/// An exceeded limit, with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Seconds(u64),
    MemoryMib(u64),
    Hang,
}

impl Death {
    fn of(status: ExitStatus, limits: &ClipLimits) -> Self {
        match (status.code(), status.signal()) {
            (Some(OUT_OF_TIME), _) => Self::Limit(Limit::Seconds(limits.seconds.get())),
            (Some(OUT_OF_MEMORY), _) => Self::Limit(Limit::MemoryMib(limits.memory_mib.get())),
            (Some(HANGS), _) => Self::Limit(Limit::Hang),
            (_, Some(libc::SIGKILL | libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT)) => {
                Self::Killed
            }
            _ => Self::Crashed(status),
        }
    }

    /// The reason, for the message.
    fn reason(self, worker: &Worker) -> String {
        match self {
            Self::Crashed(status) => {
                let words = worker.last_words().map(|words| format!("; its last message: {words}"));
                format!("the decoder crashed ({status}){}", words.unwrap_or_default())
            }
            Self::Killed => format!("the decoding process was killed {KILLS} times"),
            Self::Limit(Limit::Seconds(seconds)) => format!("decoding took more than {seconds} s"),
            Self::Limit(Limit::MemoryMib(mib)) => format!("decoding needed more than {mib} MiB of memory"),
            Self::Limit(Limit::Hang) => "the decoder hung".into(),
            Self::Silent => "the decoding process does not answer".into(),
        }
    }

    /// What to do about it.
    fn next(self) -> &'static str {
        match self {
            Self::Crashed(_) | Self::Silent | Self::Limit(Limit::Hang) => {
                "convert the file with FFmpeg or leave the clip out"
            }
            Self::Killed => "check that enough memory is free, and run again",
            Self::Limit(Limit::Seconds(_)) => "raise --clip-seconds or leave the clip out",
            Self::Limit(Limit::MemoryMib(_)) => "raise --clip-memory or leave the clip out",
        }
    }
}

/// A file in memory that has no name.
fn memory_file() -> io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        let file = rustix::fs::memfd_create("recap", rustix::fs::MemfdFlags::CLOEXEC)?;
        Ok(File::from(file))
    }
    #[cfg(not(target_os = "linux"))]
    tempfile::tempfile()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_is_told_apart_by_its_status() {
        let limits = ClipLimits::default();
        let exit = |code: i32| Death::of(ExitStatus::from_raw(code << 8), &limits);
        let signal = |signal: i32| Death::of(ExitStatus::from_raw(signal), &limits);
        assert_eq!(exit(OUT_OF_TIME), Death::Limit(Limit::Seconds(600)));
        assert_eq!(exit(OUT_OF_MEMORY), Death::Limit(Limit::MemoryMib(4096)));
        assert_eq!(exit(HANGS), Death::Limit(Limit::Hang));
        assert_eq!(signal(libc::SIGKILL), Death::Killed);
        assert!(matches!(signal(libc::SIGSEGV), Death::Crashed(_)));
        assert!(matches!(exit(1), Death::Crashed(_)));
    }

    #[test]
    fn messages_of_glib_lose_their_process_and_time() {
        let text = "first\n(exe:7656): GStreamer-CRITICAL **: 06:40:30.569: assertion 'x != NULL' failed\n\n";
        assert_eq!(last_message(text).as_deref(), Some("assertion 'x != NULL' failed"));
        assert_eq!(
            last_message("memory allocation of 9 bytes failed").as_deref(),
            Some("memory allocation of 9 bytes failed")
        );
        assert_eq!(last_message(" \n"), None);
    }

    #[test]
    fn a_crash_is_an_error_that_names_the_file_signal_and_last_message() {
        // A committed script: one that was just written may still be open in a process that a test starts.
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/crashing_worker.sh");
        let workers = Workers { program: script, idle: Mutex::default() };
        let error = workers.decode(Path::new("a.mp4"), &FrameRequest::uniform(1, 8)).unwrap_err().to_string();
        for part in ["a.mp4", "SIGSEGV", "broken"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_program_that_is_no_worker_is_an_error_not_a_hang() {
        let missing = Worker::start(Path::new("/no/such/program"));
        assert!(missing.is_err_and(|error| error.to_string().contains("start a decoding process")));
        let workers = Workers { program: "/bin/false".into(), idle: Mutex::default() };
        let error = workers.probe(Path::new("a.mp4")).unwrap_err().to_string();
        assert!(error.contains("a.mp4") && error.contains("crashed (exit status: 1)"), "{error}");
    }
}
