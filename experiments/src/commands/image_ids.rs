//! The `image_id` of each clip in COCO results: its file's name without extension, and where several clips
//! have the same one, their paths below the folder that all clips share.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};

/// A different id for each of the files.
///
/// # Errors
/// A file that is given twice.
pub(super) fn image_ids(files: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let places = files.iter().map(|file| place(file)).collect::<anyhow::Result<Vec<_>>>()?;
    let folder = common(&places);
    let paths: Vec<String> = places.iter().map(|place| place[folder..].join("/")).collect();
    let mut seen = HashMap::new();
    for (file, place) in files.iter().zip(&places) {
        if let Some(first) = seen.insert(place, file) {
            bail!(
                "{} and {} are the same file, and COCO results have one caption a clip; give it once",
                first.display(),
                file.display()
            );
        }
    }
    let mut ids: Vec<String> = files.iter().map(|file| stem(file)).collect();
    loop {
        let repeated = repeated(&ids);
        if repeated.is_empty() {
            return Ok(ids);
        }
        // A path may be the name of a third clip: that one gets its path in the next round.
        let mut is_changed = false;
        for (id, path) in ids.iter_mut().zip(&paths) {
            if repeated.contains(id.as_str()) && id != path {
                id.clone_from(path);
                is_changed = true;
            }
        }
        if !is_changed {
            let id = repeated.into_iter().next().unwrap_or_default();
            bail!("two clips would have the id {id:?} in COCO results; rename one of the files");
        }
    }
}

fn repeated(ids: &[String]) -> HashSet<String> {
    let mut seen = HashSet::new();
    ids.iter().filter(|id| !seen.insert(id.as_str())).cloned().collect()
}

fn stem(file: &Path) -> String {
    file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The parts of a file's absolute path.
fn place(file: &Path) -> anyhow::Result<Vec<String>> {
    let whole = std::path::absolute(file).with_context(|| format!("cannot find {}", file.display()))?;
    let mut parts = Vec::new();
    for part in whole.components() {
        match part {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            _ => {}
        }
    }
    Ok(parts)
}

/// Number of folders that all paths share.
fn common(places: &[Vec<String>]) -> usize {
    let Some((first, others)) = places.split_first() else { return 0 };
    let shared = |other: &Vec<String>| first.iter().zip(other).take_while(|(one, two)| one == two).count();
    let folders = first.len().saturating_sub(1);
    others.iter().map(shared).fold(folders, usize::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(files: &[&str]) -> anyhow::Result<Vec<String>> {
        image_ids(&files.iter().map(PathBuf::from).collect::<Vec<_>>())
    }

    #[test]
    fn an_id_is_the_name_where_names_differ() {
        assert_eq!(ids(&["in/video1.mp4", "in/deep/video2.webm"]).unwrap(), ["video1", "video2"]);
        assert_eq!(ids(&["one.mp4"]).unwrap(), ["one"]);
        assert!(ids(&[]).unwrap().is_empty());
    }

    #[test]
    fn equal_names_get_their_paths_below_the_common_folder() {
        assert_eq!(
            ids(&["in/one.mp4", "in/one.webm", "in/two.mp4"]).unwrap(),
            ["one.mp4", "one.webm", "two"]
        );
        assert_eq!(
            ids(&["in/a/x.mp4", "in/b/x.mp4", "in/b/y.mp4", "in/./b/../c/x.mp4"]).unwrap(),
            ["a/x.mp4", "b/x.mp4", "y", "c/x.mp4"]
        );
    }

    #[test]
    fn a_path_that_is_another_clips_name_is_no_second_id() {
        let found = ids(&["in/one.mp4", "in/one.webm", "in/one.mp4.avi"]).unwrap();
        assert_eq!(found, ["one.mp4", "one.webm", "one.mp4.avi"]);
        assert_eq!(found.iter().collect::<HashSet<_>>().len(), 3);
    }

    #[test]
    fn a_clip_that_is_given_twice_is_refused() {
        for twice in [["a/one.mp4", "a/one.mp4"], ["one.mp4", "./one.mp4"], ["a/../one.mp4", "one.mp4"]] {
            assert!(ids(&twice).unwrap_err().to_string().contains("same file"), "{twice:?}");
        }
    }
}
