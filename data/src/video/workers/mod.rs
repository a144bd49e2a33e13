//! Decodes in worker processes, so that a crash, a hang or too much memory inside GStreamer or one of its
//! plug-ins costs one clip and not the run. A worker is this program, started once more.

mod child;
mod parent;
mod wire;

pub use child::serve_if_worker;
pub(crate) use parent::active;

use crate::error::{Error, Result};
use std::path::Path;

/// The environment variable that makes a process a worker.
const WORKER: &str = "RECAP_DECODING_WORKER";

/// Exit codes of a worker that has exceeded a limit.
const OUT_OF_TIME: i32 = 81;
const OUT_OF_MEMORY: i32 = 82;
const HANGS: i32 = 83;

/// Decodes videos in worker processes from now on, as many as [`super::limit_decoders`] allows. Images are
/// decoded in this process: their decoders are memory-safe.
///
/// The calling program must begin its `main` with [`serve_if_worker`].
///
/// # Errors
/// The program's own file cannot be found.
pub fn isolate_decoding() -> Result<()> {
    // Linux's link to the running program works after a new build has replaced its file.
    let link = Path::new("/proc/self/exe");
    let own = || std::env::current_exe().map_err(Error::io("find the program", Path::new(".")));
    let program = if link.exists() { link.to_path_buf() } else { own()? };
    parent::activate(program);
    Ok(())
}
