//! The runner: `experiments ablation freeze_vit`.

use std::process::ExitCode;

use clap::Parser;

/// The CPU backend makes many large short-lived buffers, on which this allocator is up to twice as fast as the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit codes: 0 done, 1 failure, 2 wrong usage, 130 stopped by Ctrl-C.
fn main() -> ExitCode {
    let cli = experiments::cli::Cli::parse();
    match experiments::commands::run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", error.message());
            ExitCode::from(error.code)
        }
    }
}
