//! The whole program: settings of the process, then the command.

use std::process::ExitCode;

use clap::Parser;

use crate::commands::Cli;
use crate::runtime::device;

/// Runs the command of the process's arguments. Called once, by `main`, before any other thread exists.
///
/// Exit codes: 0 success, 1 failure, 2 wrong usage, 130 stopped by Ctrl-C or SIGTERM.
pub fn main() -> ExitCode {
    end_on_a_closed_pipe();
    if let Some(code) = data::video::serve_if_worker() {
        return code;
    }
    // Everything here names its device. Library code that asks for Burn's default one gets the CPU, so that
    // it opens no accelerator that was not chosen.
    // SAFETY: no thread of this program exists yet.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("BURN_DEVICE", "flex");
    }
    if let Some(code) = device::serve_if_child() {
        return code;
    }
    data::video::keep_freed_memory();
    train::memory::keep_freed();
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            if !error.is_reported() {
                eprintln!("error: {}", error.message());
            }
            ExitCode::from(error.code)
        }
    }
}

/// Ends the program without a panic when the reader of a pipe ends, as in `experiments list | head`.
fn end_on_a_closed_pipe() {
    // SAFETY: the default action is set for one signal, before any other thread exists.
    #[cfg(unix)]
    #[allow(unsafe_code)]
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}
