//! The program `experiments`.

use std::process::ExitCode;

/// The CPU backend allocates many large short-lived buffers, for which this allocator is up to twice as fast
/// as the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    experiments::program::main()
}
