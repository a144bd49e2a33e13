//! Runs that studies share: the same program, configuration, seed, data and weights give the same run, so a
//! finished one is copied instead of trained again. Most studies share the variant to compare with.

use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use train::{STATES, files};

use crate::records::{PROVENANCE, Provenance, RESULT, read_json, run_folder};

/// Start of the extension of a study's folder that was moved aside.
const ASIDE: &str = "old-";

/// A free name for a study's folder that is moved aside.
pub(super) fn free_name_aside(folder: &Path) -> PathBuf {
    let names = (1u64..).map(|n| folder.with_extension(format!("{ASIDE}{n}")));
    names.into_iter().find(|path| !path.exists()).unwrap_or_else(|| folder.with_extension(ASIDE))
}

/// A finished run of another study with the same identity as `wanted`. Studies that were moved aside do not
/// count: their user wanted new runs.
pub(super) fn find(runs: &Path, study: &Path, wanted: &Provenance) -> anyhow::Result<Option<PathBuf>> {
    if !wanted.is_reproducible() {
        return Ok(None);
    }
    for other in folders(runs)? {
        if other == study || other.extension().is_some_and(|end| end.to_string_lossy().starts_with(ASIDE)) {
            continue;
        }
        for variant in folders(&other)? {
            let name = variant.file_name().unwrap_or_default().to_string_lossy();
            let run = run_folder(&other, &name, wanted.seed);
            // a folder of other files, or of another version, is no equal run
            let known = read_json::<Provenance>(&run.join(PROVENANCE)).ok().flatten();
            if run.join(RESULT).is_file() && known.is_some_and(|known| known.is_equal_run(wanted)) {
                return Ok(Some(run));
            }
        }
    }
    Ok(None)
}

/// Copies a finished run without its training states, and records its origin in the provenance.
pub(super) fn copy_run(from: &Path, to: &Path) -> anyhow::Result<()> {
    let unfinished = to.with_extension("copying");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| failed("remove", &unfinished))?;
    }
    copy(from, &unfinished)?;
    let path = unfinished.join(PROVENANCE);
    let mut provenance: Provenance = read_json(&path)?.with_context(|| failed("find", &path))?;
    provenance.made_in.get_or_insert_with(|| from.display().to_string());
    files::replace_json(&path, &provenance)?;
    fs::rename(&unfinished, to).with_context(|| failed("move the copied run to", to))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| failed("make", to))?;
    for entry in fs::read_dir(from).with_context(|| failed("read", from))? {
        let entry = entry.with_context(|| failed("read", from))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if !path.is_dir() {
            fs::copy(&path, &target).with_context(|| failed("copy", &path))?;
        } else if entry.file_name() != STATES {
            copy(&path, &target)?;
        }
    }
    Ok(())
}

fn failed(what: &str, path: &Path) -> String {
    format!("cannot {what} {}", path.display())
}

/// The folders in a folder, by name; none where it does not exist.
fn folders(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.with_context(|| failed("read", folder))?;
    let mut found: Vec<PathBuf> = entries.iter().map(DirEntry::path).filter(|path| path.is_dir()).collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn provenance() -> Provenance {
        Provenance {
            command: "experiments ablation fusion".into(),
            commit: "0123456789ab".into(),
            version: "0.1.0".into(),
            machine: "a machine".into(),
            device: "cpu".into(),
            config_hash: "c".into(),
            data_hash: "d".into(),
            weights_hash: Some("w".into()),
            seed: 2,
            date: "2026-11-25T00:00:00Z".into(),
            made_in: None,
        }
    }

    fn write(run: &Path, provenance: &Provenance) {
        fs::create_dir_all(run.join("checkpoints/step-1")).unwrap();
        fs::create_dir_all(run.join("best")).unwrap();
        fs::write(run.join("checkpoints/step-1/state"), "large").unwrap();
        fs::write(run.join("best/model"), "weights").unwrap();
        files::replace_json(&run.join(PROVENANCE), provenance).unwrap();
        files::replace_json(&run.join(RESULT), &json!({})).unwrap();
    }

    #[test]
    fn only_an_equal_finished_run_of_another_study_is_found() {
        let desk = tempfile::tempdir().unwrap();
        let runs = desk.path();
        let study = runs.join("temporal");
        let find = |wanted: &Provenance| find(runs, &study, wanted).unwrap();
        assert_eq!(find(&provenance()), None, "nothing is there");
        write(&study.join("blind/seed-2"), &provenance());
        write(&runs.join("fusion.old-1/concat/seed-2"), &provenance());
        fs::create_dir_all(runs.join("fusion/average/seed-2")).unwrap();
        fs::write(runs.join("notes.txt"), "mine").unwrap();
        assert_eq!(find(&provenance()), None, "neither one's own nor one that was moved aside");
        let equal = runs.join("fusion/concat/seed-2");
        write(&equal, &Provenance { date: "earlier".into(), command: "another".into(), ..provenance() });
        assert_eq!(find(&provenance()), Some(equal.clone()));
        for other in [
            Provenance { config_hash: "x".into(), ..provenance() },
            Provenance { data_hash: "x".into(), ..provenance() },
            Provenance { weights_hash: Some("x".into()), ..provenance() },
            Provenance { weights_hash: None, ..provenance() },
            Provenance { commit: "x".into(), ..provenance() },
            Provenance { version: "x".into(), ..provenance() },
            Provenance { machine: "x".into(), ..provenance() },
            Provenance { device: "x".into(), ..provenance() },
            Provenance { seed: 1, ..provenance() },
        ] {
            assert_eq!(find(&other), None, "{other:?}");
        }
        fs::remove_file(equal.join(RESULT)).unwrap();
        assert_eq!(find(&provenance()), None, "it is not finished");
    }

    #[test]
    fn a_program_that_cannot_be_named_shares_nothing() {
        let desk = tempfile::tempdir().unwrap();
        for commit in ["unknown", "0123456789ab+changes"] {
            let unnamed = Provenance { commit: commit.into(), ..provenance() };
            write(&desk.path().join("fusion/concat/seed-2"), &unnamed);
            assert_eq!(find(desk.path(), &desk.path().join("temporal"), &unnamed).unwrap(), None, "{commit}");
        }
    }

    #[test]
    fn a_copied_run_records_its_origin() {
        let desk = tempfile::tempdir().unwrap();
        let (first, second, third) =
            (desk.path().join("a/x/seed-2"), desk.path().join("b/y/seed-2"), desk.path().join("c/z/seed-2"));
        write(&first, &provenance());
        for (from, to) in [(&first, &second), (&second, &third)] {
            fs::create_dir_all(to.with_extension("copying").join("left behind")).unwrap();
            copy_run(from, to).unwrap();
            assert_eq!(fs::read_to_string(to.join("best/model")).unwrap(), "weights");
            assert!(!to.join("checkpoints").exists() && !to.join("left behind").exists());
            let taken: Provenance = read_json(&to.join(PROVENANCE)).unwrap().unwrap();
            assert_eq!(taken.made_in, Some(first.display().to_string()));
            assert_eq!(Provenance { made_in: None, ..taken }, provenance());
        }
    }
}
