//! Finds the clips of a data set that cannot be decoded, so that a run can leave them out and go on.

use crate::cache::FRAMES_VERSION;
use crate::datasets::Clip;
use crate::digest::sha256_of_files;
use crate::error::{Error, Result};
use crate::files;
use crate::progress::{Counter, OnProgress};
use crate::video::{FrameRequest, decode};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A clip that cannot be decoded.
#[derive(Debug)]
pub struct Undecodable {
    /// The clip's id.
    pub id: String,
    /// Its file.
    pub path: PathBuf,
    /// Why it cannot be decoded.
    pub error: Error,
}

/// The files that were decoded before, by content.
#[derive(Default, Serialize, Deserialize)]
struct Decoded {
    version: u32,
    sha256: BTreeSet<String>,
}

const DECODED: &str = "decoded.json";

/// Decodes every clip on all cores, keeps no frames, and returns the clips that cannot be decoded. Files that
/// were decoded before are listed in `folder` and are not decoded again; failures are not listed, as they may
/// be those of a full disk or of too little memory.
///
/// # Errors
/// A file that cannot be read; a folder that cannot be written.
pub fn undecodable(
    clips: &[&Clip],
    request: &FrameRequest,
    folder: &Path,
    on_progress: OnProgress<'_>,
) -> Result<Vec<Undecodable>> {
    let paths: Vec<&Path> = clips.iter().map(|clip| clip.path.as_path()).collect();
    let digests = sha256_of_files(&paths, folder)?;
    let list = folder.join(DECODED);
    let mut decoded = read(&list);
    let unknown: Vec<(&Clip, &String)> = clips
        .iter()
        .zip(&digests)
        .filter(|(_, digest)| !decoded.sha256.contains(*digest))
        .map(|(clip, digest)| (*clip, digest))
        .collect();
    let counter = Counter::new("looking for damaged clips", unknown.len(), on_progress);
    let failures: Vec<Option<Error>> = unknown
        .par_iter()
        .map(|(clip, _)| {
            let failure = decode(&clip.path, request).err();
            counter.add(1);
            failure
        })
        .collect();
    let mut found = Vec::new();
    for ((clip, digest), failure) in unknown.iter().zip(failures) {
        match failure {
            None => {
                decoded.sha256.insert((*digest).clone());
            }
            Some(error) => found.push(Undecodable { id: clip.id.clone(), path: clip.path.clone(), error }),
        }
    }
    if found.len() < unknown.len() {
        files::replace_json(&list, &decoded)?;
    }
    Ok(found)
}

/// The list of an earlier call; an empty one where it is damaged or of another version.
fn read(list: &Path) -> Decoded {
    let text = std::fs::read(list).unwrap_or_default();
    let decoded: Option<Decoded> = serde_json::from_slice(&text).ok();
    decoded
        .filter(|decoded| decoded.version == FRAMES_VERSION)
        .unwrap_or(Decoded { version: FRAMES_VERSION, sha256: BTreeSet::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::Split;

    #[test]
    fn failures_are_named_and_tried_again_and_successes_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let clip = |id: &str, content: &[u8]| {
            let path = folder.path().join(id);
            std::fs::write(&path, content).unwrap();
            let (captions, questions) = (Vec::new(), Vec::new());
            Clip { id: id.into(), path, captions, questions, split: Split::Train }
        };
        let mut picture = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(4, 4).write_to(&mut picture, image::ImageFormat::Png).unwrap();
        let (good, bad) = (clip("good", picture.get_ref()), clip("bad", b"no video"));
        let (cache, request) = (folder.path().join("cache"), FrameRequest::uniform(1, 4));
        let decodings = std::sync::atomic::AtomicUsize::new(0);
        let find = || {
            let count = |progress: crate::progress::Progress| {
                decodings.store(progress.total, std::sync::atomic::Ordering::Relaxed);
            };
            let found = undecodable(&[&good, &bad], &request, &cache, &count).unwrap();
            (found, decodings.load(std::sync::atomic::Ordering::Relaxed))
        };
        for expected in [2, 1] {
            let (found, decoded) = find();
            assert_eq!((found.len(), found[0].id.as_str(), decoded), (1, "bad", expected));
            assert!(found[0].error.to_string().contains("bad"));
        }
    }
}
