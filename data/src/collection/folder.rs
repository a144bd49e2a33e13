//! The clips of a folder.

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::datasets::files::is_clip;

/// The files of a folder and its subfolders whose extensions are those of videos, GIFs and images, by
/// alphabetical path. Links are followed. Ids are paths below the folder, or from it on where there are other
/// inputs.
///
/// Folders without permission and loops of links become problems.
pub(super) fn list(
    folder: &Path,
    is_one_of_many: bool,
    problems: &mut Vec<String>,
) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    for entry in WalkDir::new(folder).follow_links(true).sort_by_file_name() {
        match entry {
            Ok(entry) if entry.file_type().is_file() && is_clip(entry.path()) => {
                let below = entry.path().strip_prefix(folder).unwrap_or(entry.path());
                let id = if is_one_of_many { entry.path() } else { below };
                files.push((id.to_string_lossy().into_owned(), entry.into_path()));
            }
            Ok(_) => {}
            Err(error) => problems.push(match error.loop_ancestor() {
                Some(ancestor) => format!(
                    "a link leads back to the folder {}, and is not followed: {}",
                    ancestor.display(),
                    error.path().unwrap_or(folder).display()
                ),
                None => error.to_string(),
            }),
        }
    }
    files
}
