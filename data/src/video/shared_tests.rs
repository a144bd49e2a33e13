//! Decodes real files of many formats and compares them with FFmpeg. The files are not part of the project;
//! without them the tests print a note and pass.

use super::probe::probe;
use super::{Kind, Resizing, Target, inspect, packets, sequential, still};
use crate::sampling::Sampling;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// FFmpeg's description of one file.
#[derive(Deserialize)]
struct Golden {
    codec: Option<String>,
    w: Option<u32>,
    h: Option<u32>,
    #[serde(default)]
    frames: usize,
    rotation: Option<i32>,
    /// Frame index, then each plane's hash and mean.
    #[serde(default)]
    planes: Vec<(usize, Vec<(String, f64)>)>,
    error: Option<String>,
    open_error: Option<String>,
}

/// Differences from FFmpeg (through PyAV, which stops at the first error): file, our number of frames, and
/// reason. `docs/video.md` has the same list.
const DIFFERENCES: [(&str, usize, &str); 4] = [
    (
        "videos__Vanilagy+mediabunny__annex-b.mp4",
        5,
        "the file ends inside its sixth frame, which FFmpeg shows half grey",
    ),
    (
        "videos__dmlc+decord__corrupted.mp4",
        49,
        "damaged in its middle: PyAV stops at frame 28, decoding goes on",
    ),
    (
        "videos__mozilla+mp4parse-rust__av1-clearkey-cbcs-video.mp4",
        0,
        "encrypted: what FFmpeg decodes is noise",
    ),
    (
        "videos__mozilla+mp4parse-rust__no_timescale.mp4",
        0,
        "a header full of wrong values: FFmpeg has 8 frames, then an error",
    ),
];

/// Files whose pictures may differ from FFmpeg's, and the reason.
const OTHER_PIXELS: [(&str, &str); 2] = [
    (
        "videos2__exiftool+exiftool__Flash.flv",
        "VP6's crop, which the FLV header holds, is not passed on: 160 rows for 154",
    ),
    ("videos__Vanilagy+mediabunny__annex-b.mp4", "see above"),
];

/// Time limit for a damaged file.
const LIMIT: Duration = Duration::from_secs(10);

fn shared() -> Option<(PathBuf, BTreeMap<String, Golden>)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let Ok(text) = std::fs::read_to_string(root.join("videos_golden.json")) else {
        println!("skipped: no shared data");
        return None;
    };
    Some((root, serde_json::from_str(&text).unwrap()))
}

#[test]
fn real_files_decode_as_in_ffmpeg() {
    let Some((root, golden)) = shared() else { return };
    let mut wrong = Vec::new();
    let mut slowest = (Duration::ZERO, "");
    let (mut same_count, mut same_planes, mut planes) = (0, 0, 0);
    for (name, golden) in &golden {
        let path = root.join(name);
        let start = Instant::now();
        let found = probe(&path);
        let taken = start.elapsed();
        let is_damaged = golden.error.is_some() || golden.open_error.is_some() || golden.frames == 0;
        if is_damaged {
            slowest = slowest.max((taken, name));
        }
        let short = name.split('/').next_back().unwrap();
        let expected = DIFFERENCES.iter().find(|(file, ..)| *file == short);
        let frames = expected.map_or(golden.frames, |(_, frames, _)| *frames);
        let mut check = |what: &str, ours: String, theirs: String| {
            if ours != theirs {
                wrong.push(format!("{name}: {what} {ours}, expected {theirs}; {:?}", found.error));
            }
        };
        check("frames", found.frames.to_string(), frames.to_string());
        same_count += usize::from(found.frames == golden.frames);
        if found.frames == 0 {
            check("error", found.error.is_some().to_string(), true.to_string());
        }
        if found.frames == 0 || is_damaged {
            continue;
        }
        let codec = golden.codec.as_deref().map(|codec| if codec == "libdav1d" { "av1" } else { codec });
        check("codec", format!("{:?}", found.codec.as_deref()), format!("{codec:?}"));
        check("rotation", found.rotation.to_string(), golden.rotation.unwrap_or(0).to_string());
        if OTHER_PIXELS.iter().any(|(file, _)| *file == short) {
            continue;
        }
        check("size", format!("{:?}", (found.width, found.height)), format!("{:?}", (golden.w, golden.h)));
        planes += golden.planes.len();
        let same = equal_planes(&path, golden);
        same_planes += same;
        if found.codec.as_deref() != Some("mjpeg") {
            check("equal planes", same.to_string(), golden.planes.len().to_string());
        }
    }
    println!(
        "{} files: {same_count} with FFmpeg's frame count, {same_planes} of {planes} pictures equal; slowest damaged one {:.1} s, {}",
        golden.len(),
        slowest.0.as_secs_f64(),
        slowest.1
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(slowest.0 < LIMIT, "{slowest:?}");
}

/// The number of pictures whose first plane equals FFmpeg's.
fn equal_planes(path: &Path, golden: &Golden) -> usize {
    let wanted: Vec<usize> = golden.planes.iter().map(|(index, _)| *index).collect();
    let ours: Vec<(usize, Vec<u8>)> = match inspect(path) {
        Ok(Kind::Still) => still::native_frames(path, &wanted).unwrap(),
        _ => sequential::native_frames(path, &wanted)
            .unwrap()
            .into_iter()
            .filter_map(|(index, planes)| Some((index, planes.into_iter().next()?)))
            .collect(),
    };
    let hash = |bytes: &[u8]| {
        Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let is_equal = |(index, planes): &&(usize, Vec<(String, f64)>)| {
        let theirs = planes.first().map(|(hash, _)| hash.clone());
        ours.iter().find(|(ours, _)| ours == index).map(|(_, plane)| hash(plane)) == theirs
    };
    golden.planes.iter().filter(is_equal).count()
}

#[test]
fn feeding_chosen_packets_gives_the_frames_of_decoding_everything() {
    let Some((root, golden)) = shared() else { return };
    let target = Target { size: Some(32), resizing: Resizing::Blip };
    let mut quick_count = 0;
    for (name, golden) in &golden {
        let path = root.join(name);
        let Ok(Kind::Video(container)) = inspect(&path) else { continue };
        let choose = |total: usize| Sampling::Uniform.indices(total, 8, 0);
        let quick = packets::decode(&path, container, target, &choose).unwrap_or(None);
        let Some(quick) = quick else { continue };
        quick_count += 1;
        let promised = packets::promised(&path, container).unwrap();
        assert_eq!(promised, Some(golden.frames), "{name}");
        let slow = sequential::decode(&path, target, &choose).unwrap();
        assert!(quick == slow, "{name}: {quick:?} {slow:?}");
    }
    println!("{quick_count} files were decoded on the fast path");
}
