//! Entry points of the fuzz targets in `fuzz/` for files of videos and images.

use super::{FrameRequest, bitstream, container, still};
use std::path::Path;

/// A file of any container: it has a kind, or an error that names it.
pub fn containers(folder: &Path, input: &[u8]) {
    let path = folder.join("video.bmp");
    std::fs::write(&path, input).expect("a file");
    if let Err(error) = container::inspect(&path) {
        assert!(error.to_string().contains("video.bmp"), "no file in {error}");
    }
}

/// An image or animation: two frames of the requested size, or an error that names the file.
pub fn images(folder: &Path, input: &[u8]) {
    let path = folder.join("image.bmp");
    std::fs::write(&path, input).expect("a file");
    if !matches!(container::inspect(&path), Ok(container::Kind::Still)) {
        return;
    }
    let request = FrameRequest::uniform(2, 8);
    let choose = |total: usize| request.sampling.indices(total, request.frames, request.seed);
    match still::decode(&path, request.target(), &choose) {
        Ok(frames) => {
            assert_eq!((frames.count, frames.height, frames.width), (2, 8, 8));
            assert_eq!(frames.data.len(), 2 * 8 * 8 * 3);
        }
        Err(error) => assert!(error.to_string().contains("image.bmp"), "no file in {error}"),
    }
    let examined = still::examine(&path);
    assert!(examined.failure.is_some() || examined.frames > 0, "no frames and no failure");
    assert!(examined.seconds >= 0.0 && examined.seconds.is_finite(), "{} seconds", examined.seconds);
}

/// A compressed frame of each codec.
pub fn bitstreams(input: &[u8]) {
    bitstream::look_at_all(input);
}
