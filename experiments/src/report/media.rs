//! The files of the clips in a page: embedded where they are small, else linked.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::records::TestClip;
use crate::text::escape::url;

/// Clips of more bytes in total are linked.
const MOST_EMBEDDED: u64 = 15 << 20;

/// A clip in a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Media {
    Video(String),
    Image(String),
    Missing(String),
}

/// The media of all clips, in their order.
pub(super) fn of_clips(folder: &Path, clips: &[TestClip]) -> Vec<Media> {
    let paths: Vec<PathBuf> = clips.iter().map(|clip| folder.join(&clip.video)).collect();
    let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |file| file.len());
    let is_embedded = paths.iter().map(size).sum::<u64>() <= MOST_EMBEDDED;
    clips.iter().zip(paths).map(|(clip, path)| of(&clip.video, &path, is_embedded)).collect()
}

fn of(link_path: &Path, path: &Path, is_embedded: bool) -> Media {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    let kind = match extension.as_deref() {
        Some("webm") => "video/webm",
        Some("mkv") => "video/x-matroska",
        Some("mov") => "video/quicktime",
        Some("avi") => "video/x-msvideo",
        Some("gif") => "image/gif",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("png") => "image/png",
        Some("webp") => "image/webp",
        Some("bmp") => "image/bmp",
        _ => "video/mp4",
    };
    let wrap = if kind.starts_with("image/") { Media::Image } else { Media::Video };
    if !is_embedded {
        return match path.is_file() {
            true => wrap(link(link_path)),
            false => Media::Missing(format!("there is no file {}", path.display())),
        };
    }
    match std::fs::read(path) {
        Ok(bytes) => wrap(format!("data:{kind};base64,{}", STANDARD.encode(&bytes))),
        Err(error) => Media::Missing(format!("cannot read {}: {error}", path.display())),
    }
}

/// The link from a page in the study's folder to a path.
fn link(path: &Path) -> String {
    let text = path.to_string_lossy().replace('\\', "/");
    if path.is_absolute() { format!("file://{}", url(&text)) } else { url(&text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(video: &str) -> TestClip {
        TestClip {
            id: video.to_owned(),
            references: Vec::new(),
            video: video.into(),
            question: None,
            truth: None,
        }
    }

    #[test]
    fn small_clips_are_embedded_large_ones_linked_and_missing_ones_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a b.webm"), b"foo").unwrap();
        std::fs::write(folder.path().join("c.PNG"), b"foo").unwrap();
        let clips = [clip("a b.webm"), clip("c.PNG"), clip("none.mp4")];
        let [video, image, missing] = of_clips(folder.path(), &clips).try_into().unwrap();
        assert_eq!(video, Media::Video("data:video/webm;base64,Zm9v".to_owned()));
        assert_eq!(image, Media::Image("data:image/png;base64,Zm9v".to_owned()));
        assert!(matches!(missing, Media::Missing(why) if why.contains("none.mp4")));

        std::fs::write(folder.path().join("c.PNG"), vec![0; MOST_EMBEDDED as usize]).unwrap();
        let media = of_clips(folder.path(), &clips);
        assert_eq!(media[0], Media::Video("a%20b.webm".to_owned()));
        assert!(matches!(&media[2], Media::Missing(why) if why.contains("none.mp4")));
    }
}
