//! The program `experiments` for several processes. It has another name so that a build of one does not
//! replace the other.

use std::process::ExitCode;

/// As in `main.rs`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    experiments::program::main()
}
