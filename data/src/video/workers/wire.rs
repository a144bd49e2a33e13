//! Messages between this process and a decoding worker: a length, JSON, and for paths their bytes. Frames do
//! not travel here, they lie in memory that both share.

use super::super::FrameRequest;
use super::super::limits::ClipLimits;
use super::super::probe::Probe;
use crate::error::Error;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// What a worker is to do with one file.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Work {
    /// Decode the chosen frames.
    Decode(FrameRequest),
    /// Decode and describe the whole file.
    Probe,
}

/// One file's work, and its limits. The file's path, which need not be UTF-8, follows it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) limits: ClipLimits,
}

/// A worker's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The frames lie at the start of the shared memory.
    Decoded { count: usize, height: usize, width: usize, warning: Option<String> },
    /// The description of the file.
    Probed(Probe),
    /// Why the file cannot be decoded.
    Failed(Failure),
}

/// An error of one file, without its path, which the parent knows.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    Video { reason: String, next: String },
    Truncated { declared: u64, length: u64 },
    MissingPlugin { needed: String, package: String },
    Stalled { frames: usize, seconds: u64 },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Video { reason, next, .. } => Self::Video { reason, next },
            Error::Truncated { declared, length, .. } => Self::Truncated { declared, length },
            Error::MissingPlugin { needed, package, .. } => Self::MissingPlugin { needed, package },
            Error::Stalled { frames, seconds, .. } => Self::Stalled { frames, seconds },
            other => Self::Video { reason: other.to_string(), next: "check the file and its folder".into() },
        }
    }
}

impl Failure {
    /// The error with the file's path.
    pub(super) fn of(self, path: &Path) -> Error {
        let path = path.to_path_buf();
        match self {
            Self::Video { reason, next } => Error::Video { path, reason, next },
            Self::Truncated { declared, length } => Error::Truncated { path, declared, length },
            Self::MissingPlugin { needed, package } => {
                Error::MissingPlugin { needed, package, path: Some(path) }
            }
            Self::Stalled { frames, seconds } => Error::Stalled { path, frames, seconds },
        }
    }
}

/// Longest message: a path, or a description with an error's text.
const LONGEST: u32 = 1 << 20;

/// Sends a message.
pub(super) fn send<T: Serialize>(to: &mut impl Write, message: &T) -> io::Result<()> {
    send_bytes(to, &serde_json::to_vec(message)?)
}

/// Receives a message.
///
/// # Errors
/// The other side has ended, or does not speak this protocol.
pub(super) fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    Ok(serde_json::from_slice(&receive_bytes(from)?)?)
}

/// Sends a path.
pub(super) fn send_path(to: &mut impl Write, path: &Path) -> io::Result<()> {
    send_bytes(to, path.as_os_str().as_bytes())
}

/// Receives a path.
pub(super) fn receive_path(from: &mut impl Read) -> io::Result<PathBuf> {
    Ok(PathBuf::from(OsString::from_vec(receive_bytes(from)?)))
}

fn send_bytes(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|&length| length <= LONGEST);
    let length = length.ok_or_else(|| io::Error::other("a message is too long"))?;
    let mut message = Vec::with_capacity(4 + bytes.len());
    message.extend_from_slice(&length.to_le_bytes());
    message.extend_from_slice(bytes);
    to.write_all(&message)
}

fn receive_bytes(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > LONGEST {
        return Err(io::Error::other("a message is too long"));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_error_is_the_same_on_the_other_side() {
        let path = Path::new("clips/a.mp4");
        let errors = [
            Error::video(path, "the stream is damaged"),
            Error::Truncated { path: path.into(), declared: 9, length: 4 },
            Error::MissingPlugin { needed: "x".into(), package: "y".into(), path: Some(path.into()) },
            Error::Stalled { path: path.into(), frames: 3, seconds: 6 },
        ];
        for error in errors {
            let text = error.to_string();
            let mut bytes = Vec::new();
            send(&mut bytes, &Answer::Failed(error.into())).unwrap();
            let Answer::Failed(failure) = receive(&mut bytes.as_slice()).unwrap() else { panic!() };
            assert_eq!(failure.of(path).to_string(), text);
        }
    }

    #[test]
    fn paths_need_not_be_utf_8() {
        let path = PathBuf::from(OsString::from_vec(vec![b'a', 0xFF, b'/', 0xC3]));
        let mut bytes = Vec::new();
        send_path(&mut bytes, &path).unwrap();
        assert_eq!(receive_path(&mut bytes.as_slice()).unwrap(), path);
    }

    proptest! {
        #[test]
        fn any_bytes_are_received_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = receive::<Answer>(&mut bytes.as_slice());
            let _ = receive_path(&mut bytes.as_slice());
        }
    }
}
