//! What several tests need: METEOR's tables, and the path of the shared data.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test
#![allow(dead_code, unreachable_pub)] // each test binary uses its part

use std::path::{Path, PathBuf};
use std::process::Command;

use metrics::Error;
use metrics::meteor::MeteorTables;

/// The workspace's root.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// METEOR's tables, fetched with pip where they are missing. Where pip can't, the test says that it was
/// skipped.
pub fn meteor_tables() -> Option<MeteorTables> {
    let directory =
        std::env::var_os("RECAP_METEOR").map_or_else(|| root().join("cache/meteor"), PathBuf::from);
    match MeteorTables::find(std::slice::from_ref(&directory)) {
        Err(Error::NoMeteorTables { .. }) => {
            let script = root().join("scripts/meteor-data.sh");
            let fetched = Command::new("sh").arg(script).arg(&directory).status();
            if !fetched.is_ok_and(|status| status.success()) {
                eprintln!("skipped: no METEOR tables in {} and pip can't fetch them", directory.display());
                return None;
            }
            Some(MeteorTables::find(&[directory]).unwrap())
        }
        tables => Some(tables.unwrap()),
    }
}

/// A file of the shared data, or `None` and a word that the test was skipped.
pub fn shared(file: &str) -> Option<PathBuf> {
    let path = root().join("../shared/data").join(file);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: no shared data ({} is missing)", path.display());
    None
}
