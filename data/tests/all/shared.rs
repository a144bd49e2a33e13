//! Real material for development. It is never part of the project, so that a test that uses it passes where
//! it is absent, and says so.

use std::path::PathBuf;

/// A path below `shared/data`, which lies beside the checkout or where `RECAP_SHARED_DATA` says; `None` where
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
