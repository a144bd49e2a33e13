//! Finds the file of each annotated clip in a directory.

use super::{Annotated, Annotations, Clip, VideoSet, source};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use unicode_normalization::UnicodeNormalization;

/// Extensions of clips in the order of preference, where an annotation names a clip without its extension and
/// several files have this name. A file with any other extension, or none, comes after these.
const PREFERRED: [&str; 26] = [
    "mp4", "webm", "mkv", "avi", "mov", "m4v", "flv", "gif", "mpg", "mpeg", "wmv", "ts", "3gp", "3g2", "mts",
    "m2ts", "vob", "ogv", "ogg", "asf", "jpg", "jpeg", "png", "webp", "bmp", "mxf",
];

/// Whether a file's extension is that of a video, GIF or image.
pub(crate) fn is_clip(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    PREFERRED.contains(&extension.to_ascii_lowercase().as_str())
}

/// Maximum depth of subfolders that are searched; data sets have one to three levels.
const MAX_DEPTH: usize = 4;

/// The files in a directory and its subfolders, by path below the directory and by name, each with and
/// without extension. Names are compared in Unicode's composed form (NFC): macOS stores decomposed ones.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    exact: HashMap<String, Vec<Found>>,
    stems: HashMap<String, Vec<Found>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    // The order of fields matters: of two files with one name, the smaller is used.
    depth: usize,
    rank: usize,
    path: PathBuf,
}

impl Directory {
    /// Lists a directory. Of several files with one name, the one in the outer folder is used, then the
    /// alphabetically first path; of several with one name apart from the extension, see [`Self::find`].
    ///
    /// # Errors
    /// The directory is missing or cannot be read.
    pub fn list(path: &Path) -> Result<Self> {
        let mut directory = Self { path: path.to_path_buf(), exact: HashMap::new(), stems: HashMap::new() };
        directory.enter(path, 0)?;
        directory.exact.values_mut().chain(directory.stems.values_mut()).for_each(|files| files.sort());
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
            // Reading a pipe or a device would never end.
            let is_file = kind.is_file() || (kind.is_symlink() && path.is_file());
            if is_folder && depth < MAX_DEPTH {
                self.enter(&path, depth + 1)?;
            } else if is_file {
                self.add(path, depth);
            }
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf, depth: usize) {
        let below = path.strip_prefix(&self.path).ok().and_then(Path::to_str).map(composed);
        // A name that is not Unicode cannot be in an annotation file.
        let Some(below) = below.filter(|below| !source::is_macs(below)) else { return };
        let name = below.rsplit('/').next().unwrap_or(&below);
        let stem = |name: &str| {
            let extension = Path::new(name).extension().map_or(0, |extension| extension.len() + 1);
            name[..name.len() - extension].to_owned()
        };
        let keys = [(name.to_owned(), stem(name)), (below.clone(), stem(&below))];
        let found = Found { depth, rank: rank(&path), path };
        let all = if name.len() == below.len() { &keys[..1] } else { &keys[..] };
        for (exact, stem) in all.iter().cloned() {
            self.exact.entry(exact).or_default().push(found.clone());
            self.stems.entry(stem).or_default().push(found.clone());
        }
    }

    /// The file with this name: a path in the directory or a file name, with or without extension.
    ///
    /// With the extension, any file is found. Without it, a file with a usual extension of videos and images
    /// is used, `mp4` first; without one, any file whose content is not that of a file that accompanies
    /// clips: text, audio, an array or an archive.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        let (parts, separators) = (Path::new(name).components(), name.matches('/').count());
        // Annotations are not trusted: they may not name files outside the directory.
        if !parts.clone().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return None;
        }
        let parts: Vec<String> = parts
            .filter_map(|part| match part {
                Component::Normal(part) => part.to_str().map(composed),
                _ => None,
            })
            .collect();
        let last = parts.last()?;
        let found = self.exactly(&parts.join("/"), name).or_else(|| self.with_stem(&parts.join("/")));
        if found.is_some() || separators == 0 {
            return found;
        }
        let deep = self.path.join(name);
        if deep.is_file() {
            return Some(deep);
        }
        // The annotations' folders may be others than those here.
        self.exactly(last, name)
    }

    /// The file with this path in the directory, whatever its form of Unicode.
    pub(super) fn at(&self, name: &str) -> Option<PathBuf> {
        let found = self.exact.get(&composed(name))?;
        let is_whole = |file: &&Found| file.depth == name.matches('/').count();
        found.iter().find(is_whole).map(|file| file.path.clone())
    }

    fn exactly(&self, key: &str, name: &str) -> Option<PathBuf> {
        let files = self.exact.get(key)?;
        // Two names may differ in their Unicode form only.
        let same = files.iter().find(|file| file.path.ends_with(name));
        same.or_else(|| files.first()).map(|file| file.path.clone())
    }

    fn with_stem(&self, key: &str) -> Option<PathBuf> {
        let files = self.stems.get(key)?;
        let known = files.iter().find(|file| file.rank < PREFERRED.len());
        let found = known.or_else(|| files.iter().find(|file| may_be_clip(&file.path)));
        found.map(|file| file.path.clone())
    }

    /// The file of a clip, by the first of its names that has one.
    #[must_use]
    pub fn find_clip(&self, clip: &Annotated) -> Option<PathBuf> {
        std::iter::once(&clip.id).chain(&clip.names).find_map(|name| self.find(name))
    }
}

/// A name in Unicode's composed form.
pub(super) fn composed(name: &str) -> String {
    name.nfc().collect()
}

/// The place of a file's extension in [`PREFERRED`]; its length for any other.
fn rank(path: &Path) -> usize {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let extension = extension.to_ascii_lowercase();
    PREFERRED.iter().position(|known| *known == extension).unwrap_or(PREFERRED.len())
}

/// Whether the start of a file is not one of the kinds that lie beside clips under the same name: texts
/// (subtitles, metadata), audio, arrays of features and archives.
fn may_be_clip(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(512).read_to_end(&mut head));
    let is_text = match std::str::from_utf8(&head) {
        Ok(text) => !text.contains(|c: char| c.is_control() && !c.is_whitespace()),
        // The last character may be cut.
        Err(error) => error.error_len().is_none() && !head.contains(&0),
    };
    let beside: [&[u8]; 12] = [
        b"ID3",
        b"\xff\xfb",
        b"fLaC",
        b"MThd", // audio
        b"\x93NUMPY",
        b"\x89HDF",
        b"\x80\x02",
        b"\x80\x04", // arrays and pickles
        b"PK\x03\x04",
        b"\x1f\x8b",
        b"%PDF",
        b"SQLite format",
    ];
    let is_wave = head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WAVE");
    let is_sound = is_wave || (head.get(4..8) == Some(b"ftyp") && head.get(8..11) == Some(b"M4A"));
    read.is_ok() && !is_text && !is_sound && !beside.iter().any(|start| head.starts_with(start))
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
    let Annotations { name, notes, .. } = annotations;
    Ok((VideoSet { name, clips, skipped: Vec::new(), notes }, missing))
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
    let pattern = "ID with any extension, as listed or without it".into();
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
        assert_eq!(directory.find("deep/y"), Some(folder.path().join("deep/y.mp4")));
        assert_eq!(directory.find("./y.avi"), Some(folder.path().join("y.avi")));
        assert_eq!(directory.find("notes"), None);
        assert_eq!(directory.find("deep"), None);
        assert_eq!(directory.find(""), None);
    }

    #[test]
    fn a_clip_is_found_whatever_its_extension() {
        let names =
            ["a.bmp", "blu.m2ts", "c.asf", "D.3GP", "e.ogv", "f.vob", "g.webp", "h.y4m", "i.nut", "j"];
        let folder = folder(&names);
        let directory = Directory::list(folder.path()).unwrap();
        for name in names {
            assert_eq!(directory.find(name), Some(folder.path().join(name)), "{name}");
        }
        for name in &names[..7] {
            let stem = name.split('.').next().unwrap();
            assert_eq!(directory.find(stem), Some(folder.path().join(name)), "{name}");
        }
    }

    #[test]
    fn files_beside_a_clip_are_not_taken_for_it() {
        let folder = folder(&["a.mp4", "a.json"]);
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        write("b.srt", "1\n00:00 --> 00:01\né".as_bytes());
        write("b.npy", b"\x93NUMPY\x01\0");
        write("b.wav", b"RIFF\0\0\0\0WAVEfmt ");
        write("b.zip", b"PK\x03\x04\0\0");
        write("c.json", b"{}");
        write("c.nut", b"nut/multimedia container\0N");
        write("._d.mp4", b"\0\x05\x16\x07");
        let directory = Directory::list(folder.path()).unwrap();
        assert_eq!(directory.find("a"), Some(folder.path().join("a.mp4")));
        assert_eq!(directory.find("b"), None);
        assert_eq!(directory.find("c"), Some(folder.path().join("c.nut")), "by its content");
        assert_eq!(directory.find("._d"), None);
    }

    #[test]
    fn names_may_be_composed_or_decomposed() {
        let [composed, decomposed] = ["caf\u{e9}", "cafe\u{301}"];
        for (disk, annotated) in [(composed, decomposed), (decomposed, composed)] {
            let folder = folder(&[
                &format!("{disk}.mp4"),
                &format!("{disk}/one.mp4"),
                &format!("a/{disk}/two.mp4"),
                &format!("b/{disk}/two.mp4"),
            ]);
            let directory = Directory::list(folder.path()).unwrap();
            let found = |name: &str| directory.find(&name.replace('@', annotated));
            let expected = |name: &str| Some(folder.path().join(name.replace('@', disk)));
            assert_eq!(found("@"), expected("@.mp4"));
            assert_eq!(found("@.mp4"), expected("@.mp4"));
            assert_eq!(found("@/one.mp4"), expected("@/one.mp4"));
            assert_eq!(found("b/@/two.mp4"), expected("b/@/two.mp4"), "not the one in another folder");
            assert_eq!(found("b/@/two"), expected("b/@/two.mp4"));
        }
        let both = folder(&[&format!("{composed}.mp4"), &format!("{decomposed}.mp4")]);
        let directory = Directory::list(both.path()).unwrap();
        for name in [composed, decomposed] {
            let name = format!("{name}.mp4");
            assert_eq!(directory.find(&name), Some(both.path().join(&name)), "the very name counts first");
        }
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
