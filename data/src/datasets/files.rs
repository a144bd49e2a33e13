//! Finds the file of each annotated clip in a directory.

use super::{Annotated, Annotations, Clip, VideoSet};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Extensions of clip files; of several files with one name, the first extension here is used.
pub const EXTENSIONS: [&str; 15] = [
    "mp4", "webm", "mkv", "avi", "mov", "m4v", "flv", "gif", "mpg", "mpeg", "wmv", "ts", "jpg", "jpeg", "png",
];

/// Maximum depth of subfolders that are searched; data sets have one to three levels.
const MAX_DEPTH: usize = 4;

/// The files in a directory and its subfolders, by name with and without extension.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    by_stem: HashMap<String, Found>,
    by_name: HashMap<String, Found>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    // The order of fields matters: of two files with one name, the smaller is used.
    depth: usize,
    rank: usize,
    path: PathBuf,
}

impl Directory {
    /// Lists a directory. Of two files with one name, the one in the outer folder is used, then the one whose
    /// extension comes first in [`EXTENSIONS`], then the alphabetically first path.
    ///
    /// # Errors
    /// The directory is missing or cannot be read.
    pub fn list(path: &Path) -> Result<Self> {
        let mut directory =
            Self { path: path.to_path_buf(), by_stem: HashMap::new(), by_name: HashMap::new() };
        directory.enter(path, 0)?;
        Ok(directory)
    }

    fn enter(&mut self, folder: &Path, depth: usize) -> Result<()> {
        let (what, next) = ("directory of videos", "give the directory that holds the clips");
        let entries =
            std::fs::read_dir(folder).map_err(Error::open("list the videos", folder, what, next))?;
        for entry in entries {
            let entry = entry.map_err(Error::io("list the videos", folder))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(Error::io("list the videos", &path))?;
            // A link may point to a file or to a folder.
            let is_folder = kind.is_dir() || (kind.is_symlink() && path.is_dir());
            if is_folder {
                if depth < MAX_DEPTH {
                    self.enter(&path, depth + 1)?;
                }
                continue;
            }
            let Some(rank) = rank(&path) else { continue };
            let found = Found { depth, rank, path };
            let (stem, name) = (found.path.file_stem(), found.path.file_name());
            for (key, index) in [(stem, &mut self.by_stem), (name, &mut self.by_name)] {
                let Some(key) = key.and_then(|key| key.to_str()) else { continue };
                let best = index.entry(key.to_owned()).or_insert_with(|| found.clone());
                if found < *best {
                    best.clone_from(&found);
                }
            }
        }
        Ok(())
    }

    /// The file with this name: a path in the directory, a file name, or a file name without extension.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        if let Some(found) = self.by_name.get(name).or_else(|| self.by_stem.get(name)) {
            return Some(found.path.clone());
        }
        let relative = Path::new(name);
        // Annotations are not trusted: they may not name files outside the directory.
        let inside = relative.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if inside && relative.components().count() > 1 {
            let path = self.path.join(relative);
            if path.is_file() {
                return Some(path);
            }
            let last = relative.file_name()?.to_str()?;
            return self.by_name.get(last).map(|found| found.path.clone());
        }
        None
    }

    /// The file of a clip, by the first of its names that has one.
    #[must_use]
    pub fn find_clip(&self, clip: &Annotated) -> Option<PathBuf> {
        std::iter::once(&clip.id).chain(&clip.names).find_map(|name| self.find(name))
    }
}

fn rank(path: &Path) -> Option<usize> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    EXTENSIONS.iter().position(|known| *known == extension)
}

/// The annotated clips with their files, and the clips without one.
///
/// # Errors
/// The directory is missing or cannot be read.
pub(crate) fn locate(annotations: Annotations, videos: &Path) -> Result<(VideoSet, Vec<Annotated>)> {
    let directory = Directory::list(videos)?;
    let mut clips = Vec::with_capacity(annotations.clips.len());
    let mut missing = Vec::new();
    for clip in annotations.clips {
        match directory.find_clip(&clip) {
            None => missing.push(clip),
            Some(path) => {
                let Annotated { id, captions, questions, split, .. } = clip;
                clips.push(Clip { id, path, captions, questions, split });
            }
        }
    }
    Ok((VideoSet { name: annotations.name, clips, skipped: Vec::new() }, missing))
}

/// As [`locate`]; every clip must have a file.
///
/// # Errors
/// [`Error::MissingClips`] with the clips without one.
pub(crate) fn locate_all(annotations: Annotations, videos: &Path) -> Result<VideoSet> {
    let (total, source) = (annotations.clips.len(), annotations.source.clone());
    let (set, missing) = locate(annotations, videos)?;
    if missing.is_empty() {
        return Ok(set);
    }
    Err(missing_clips(source, videos, total, missing.into_iter().map(|clip| clip.id).collect()))
}

pub(super) fn missing_clips(annotations: PathBuf, videos: &Path, total: usize, ids: Vec<String>) -> Error {
    let pattern = format!("ID.{{{}}}", EXTENSIONS.join(",")).into();
    Error::MissingClips { annotations, videos: videos.to_path_buf(), pattern, total, ids }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"x").unwrap();
        }
        folder
    }

    #[test]
    fn the_choice_among_files_of_one_name_is_fixed() {
        let folder = folder(&["b/x.mp4", "a/x.mp4", "a/x.webm", "y.avi", "deep/y.mp4", "notes.txt"]);
        let directory = Directory::list(folder.path()).unwrap();
        assert_eq!(directory.find("x"), Some(folder.path().join("a/x.mp4")));
        assert_eq!(directory.find("x.webm"), Some(folder.path().join("a/x.webm")));
        assert_eq!(directory.find("y"), Some(folder.path().join("y.avi")));
        assert_eq!(directory.find("deep/y.mp4"), Some(folder.path().join("deep/y.mp4")));
        assert_eq!(directory.find("elsewhere/y.mp4"), Some(folder.path().join("deep/y.mp4")));
        assert_eq!(directory.find("notes"), None);
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        let folder = folder(&["in/a.mp4", "out.mp4"]);
        let directory = Directory::list(&folder.path().join("in")).unwrap();
        for name in ["../out.mp4", "x/../../out.mp4", folder.path().join("out.mp4").to_str().unwrap()] {
            assert_eq!(directory.find(name), None, "{name}");
        }
    }
}
