//! Records the commit that the program is built from in `RECAP_COMMIT`, with "+changes" where tracked source
//! files differ from it, and "unknown" outside a checkout.

use std::path::Path;
use std::process::Command;

/// Every crate that the program is linked from, and what decides versions and features.
const SOURCES: [&str; 8] =
    ["Cargo.lock", "Cargo.toml", "captioner", "data", "experiments", "metrics", "model", "train"];

fn main() {
    for source in SOURCES.into_iter().filter(|source| Path::new("..").join(source).exists()) {
        println!("cargo::rerun-if-changed=../{source}");
    }
    println!("cargo::rustc-env=RECAP_COMMIT={}", commit().unwrap_or_else(|| "unknown".to_owned()));
}

fn commit() -> Option<String> {
    // a copy of the sources inside another repository is no checkout of this one
    git(&["ls-files", "--error-unmatch", "Cargo.toml"])?;
    let head = git(&["rev-parse", "--short=12", "HEAD"])?;
    let branch = git(&["symbolic-ref", "-q", "HEAD"]);
    for name in ["HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        let path = Path::new("..").join(git(&["rev-parse", "--git-path", name])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    let mut status = vec!["status", "--porcelain", "--untracked-files=no", "--"];
    status.extend(SOURCES);
    let changes = git(&status)?;
    Some(if changes.is_empty() { head } else { head + "+changes" })
}

/// The output of a git command in the workspace; none where it fails.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir("..").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
