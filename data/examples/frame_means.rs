//! `frame_means FILE...` prints a line for each file: a JSON object with the mean red, green and blue of
//! every frame, or the reason why there are none. `scripts/reference/video_matrix.py` compares them with
//! FFmpeg's.

use data::video::{FrameRequest, decode};
use data::{probe::probe, sampling::Sampling};
use std::path::Path;

fn main() {
    for file in std::env::args().skip(1) {
        println!("{}", line(Path::new(&file)));
    }
}

/// The description of one file.
fn line(path: &Path) -> serde_json::Value {
    let probe = probe(path);
    let request = FrameRequest { size: None, ..FrameRequest::uniform(probe.frames.max(1), 32) };
    let request = FrameRequest { sampling: Sampling::Uniform, ..request };
    match decode(path, &request) {
        Ok(frames) => {
            let means: Vec<[f64; 3]> = frames.iter().map(mean).collect();
            serde_json::json!({ "file": path, "means": means, "probe": probe })
        }
        Err(error) => serde_json::json!({ "file": path, "error": error.to_string(), "probe": probe }),
    }
}

/// The mean of each channel.
fn mean(frame: &[u8]) -> [f64; 3] {
    let mut sums = [0u64; 3];
    for pixel in frame.chunks_exact(3) {
        for (sum, &value) in sums.iter_mut().zip(pixel) {
            *sum += u64::from(value);
        }
    }
    sums.map(|sum| sum as f64 * 3.0 / frame.len().max(1) as f64)
}
