//! Real files for development. They are not part of the project: without them a test prints a note and
//! passes.

use std::path::PathBuf;

/// A path below `shared/data`, next to the checkout or at `RECAP_SHARED_DATA`; `None` where
/// there is none.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data"));
    let root = std::env::var_os("RECAP_SHARED_DATA").map_or_else(beside, PathBuf::from);
    let path = root.join(path);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: no shared data at {}", path.display());
    None
}
