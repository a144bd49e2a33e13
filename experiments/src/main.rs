//! The runner: `experiments ablation freeze_vit`.

use std::process::ExitCode;

use clap::Parser;

/// The CPU backend makes many large short-lived buffers, on which this allocator is up to twice as fast as the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit codes: 0 done, 1 failure, 2 wrong usage, 130 stopped by Ctrl-C.
fn main() -> ExitCode {
    end_quietly_when_the_reader_goes();
    data::video::keep_freed_memory();
    let cli = experiments::cli::Cli::parse();
    match experiments::commands::run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", error.message());
            ExitCode::from(error.code)
        }
    }
}

/// `experiments list | head` closes the pipe early. Rust turns that into a panic; other programs just end.
fn end_quietly_when_the_reader_goes() {
    // SAFETY: the default action is set for one signal, before any other thread exists.
    #[cfg(unix)]
    #[allow(unsafe_code)]
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}
