//! Decodes 8 frames at 224 px of each file, repeatedly: Recap's part of `scripts/bench/video.sh`.
//!
//! `decode_clips PARALLEL processes|threads FILE...` reads lines from its input; for each line it decodes all
//! files, `PARALLEL` at once, and prints the time in seconds and the number of bytes. A file that cannot be
//! decoded is an error.

use data::video::{FrameRequest, decode, isolate_decoding, keep_freed_memory, serve_if_worker};
use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const USAGE: &str = "usage: decode_clips PARALLEL processes|threads FILE...";

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    if let Some(code) = serve_if_worker() {
        return Ok(code);
    }
    keep_freed_memory();
    let mut arguments = std::env::args().skip(1);
    let parallel: usize = arguments.next().ok_or(USAGE)?.parse()?;
    match arguments.next().as_deref() {
        Some("processes") => isolate_decoding()?,
        Some("threads") => {}
        _ => return Err(USAGE.into()),
    }
    let files: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    let request = FrameRequest::uniform(8, 224);
    for line in std::io::stdin().lock().lines() {
        line?;
        let start = Instant::now();
        let (next, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = || -> data::Result<()> {
            while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                bytes.fetch_add(decode(file, &request)?.data.len(), Ordering::Relaxed);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..parallel).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| {
                worker.join().map_err(|_| "a worker panicked")?.map_err(Box::<dyn std::error::Error>::from)
            })
        })?;
        println!("{} {}", start.elapsed().as_secs_f64(), bytes.into_inner());
    }
    Ok(ExitCode::SUCCESS)
}
