//! What the fuzz targets share.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

/// The folder for the files of this process.
pub fn folder() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = std::env::temp_dir().join(format!("recap-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for temporary files");
        folder
    });
    &FOLDER
}

/// Where the last panic was, and why.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Runs one input. A panic ends the process, and libFuzzer keeps the input; a panic that the code under test
/// catches is no finding. libFuzzer's own hook does not tell these apart.
pub fn run(input: impl FnOnce()) {
    static HOOK: LazyLock<()> = LazyLock::new(|| {
        std::panic::set_hook(Box::new(|panic| {
            *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string();
        }));
    });
    LazyLock::force(&HOOK);
    if catch_unwind(AssertUnwindSafe(input)).is_err() {
        eprintln!("{}", PANIC.lock().unwrap_or_else(PoisonError::into_inner));
        std::process::abort();
    }
}
