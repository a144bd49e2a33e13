//! Kinds of clips that were once read wrongly: unusual pixel formats, colours, and streams that were cut. The
//! clips in `fixtures/video` and FFmpeg's account of them are made by `scripts/reference/video_fixtures.py`.

use data::probe::{Probe, probe};
use data::video::{FrameRequest, Frames, decode};
use serde_json::Value;
use std::path::{Path, PathBuf};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/video");

/// Largest difference from FFmpeg's mean red, green or blue, of 255.
const LIMIT: f64 = 3.0;

/// The clips of a kind: path, FFmpeg's pixel format, and FFmpeg's mean colour of each frame.
fn clips(kind: &str) -> Vec<(PathBuf, String, Vec<[f64; 3]>)> {
    let truth: serde_json::Map<String, Value> =
        serde_json::from_str(&std::fs::read_to_string(Path::new(FOLDER).join("truth.json")).unwrap())
            .unwrap();
    let found: Vec<_> = truth
        .into_iter()
        .filter(|(name, _)| name.starts_with(kind))
        .map(|(name, account)| {
            let means = serde_json::from_value(account["means"].clone()).unwrap();
            (Path::new(FOLDER).join(name), account["pixels"].as_str().unwrap().to_string(), means)
        })
        .collect();
    assert!(!found.is_empty(), "no clips of kind {kind}");
    found
}

fn all_frames(path: &Path, count: usize, size: Option<u32>) -> Frames {
    let request = FrameRequest { size, ..FrameRequest::uniform(count, 32) };
    decode(path, &request).unwrap()
}

fn means(frames: &Frames) -> Vec<[f64; 3]> {
    let mean = |frame: &[u8], channel| {
        let values = frame.iter().skip(channel).step_by(3);
        values.map(|&value| f64::from(value)).sum::<f64>() * 3.0 / frame.len() as f64
    };
    frames.iter().map(|frame| [0, 1, 2].map(|channel| mean(frame, channel))).collect()
}

/// Checks that all clips of a kind have FFmpeg's number of frames and FFmpeg's mean colours.
fn check(kind: &str) -> Vec<Probe> {
    let mut wrong = Vec::new();
    let mut probes = Vec::new();
    for (path, pixels, expected) in clips(kind) {
        let found = probe(&path);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if found.frames != expected.len() || found.error.is_some() {
            wrong.push(format!("{name}: {} frames for {}, {:?}", found.frames, expected.len(), found.error));
            continue;
        }
        // A square of planes and the whole picture take different ways.
        for size in [None, Some(48)] {
            let got = means(&all_frames(&path, expected.len(), size));
            let far = got.iter().flatten().zip(expected.iter().flatten()).map(|(a, b)| (a - b).abs());
            let far = far.fold(0.0, f64::max);
            println!("{name} ({pixels}), {size:?}: {far:.1}");
            // Resized pictures have other means.
            if far > if size.is_none() { LIMIT } else { 2.0 * LIMIT } {
                wrong
                    .push(format!("{name} ({pixels}), {size:?}: {far:.1} of 255 away, first {:.1?}", got[0]));
            }
        }
        probes.push(found);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    probes
}

#[test]
fn monochrome_is_grey_in_every_codec_and_depth() {
    check("gray");
    for (path, _, expected) in clips("gray") {
        for frame in means(&all_frames(&path, expected.len(), None)) {
            assert!((frame[0] - frame[1]).abs() < 1.5 && (frame[2] - frame[1]).abs() < 1.5, "{frame:?}");
        }
    }
}

#[test]
fn pixel_formats_that_gstreamer_does_not_know_are_errors_that_name_them() {
    for (path, pixels, _) in clips("unknown") {
        let request = FrameRequest::uniform(2, 32);
        let errors = [decode(&path, &request).unwrap_err().to_string(), probe(&path).error.unwrap()];
        for error in errors {
            assert!(error.contains(&format!("pixel format {pixels};")), "{pixels}: {error}");
            assert!(error.contains("ffmpeg -i") && error.contains(path.to_str().unwrap()), "{error}");
        }
    }
}

#[test]
fn a_clip_of_an_unknown_pixel_format_does_not_disturb_others() {
    let (good, _, expected) = clips("depth-h264").remove(0);
    let first = all_frames(&good, expected.len(), None);
    let bad = clips("unknown");
    std::thread::scope(|scope| {
        for (path, pixels, _) in &bad {
            scope.spawn(move || {
                let error = decode(path, &FrameRequest::uniform(2, 32)).unwrap_err().to_string();
                assert!(error.contains(pixels.as_str()), "{pixels}: {error}");
            });
        }
        for _ in 0..bad.len() {
            scope.spawn(|| assert!(all_frames(&good, expected.len(), None) == first));
        }
    });
}

#[test]
fn rgb_in_every_codec_keeps_its_channels() {
    check("rgb");
}

#[test]
fn depths_chroma_and_alpha_are_converted_as_in_ffmpeg() {
    check("depth");
}

#[test]
fn matrices_are_those_that_the_stream_states_and_otherwise_bt_601() {
    check("matrix");
}

#[test]
fn full_and_limited_range_are_told_apart() {
    check("range");
}

#[test]
fn high_dynamic_range_is_a_warning() {
    let warnings: Vec<String> = check("hdr").into_iter().map(|found| found.warning.unwrap()).collect();
    assert!(warnings[0].contains("HLG") && warnings[1].contains("PQ"), "{warnings:?}");
    assert!(check("matrix").iter().all(|found| found.warning.is_none()));
}

#[test]
fn streams_cut_at_open_gops_edits_and_refreshes_have_ffmpegs_frames() {
    check("cut");
}

#[test]
fn codecs_that_a_demuxer_does_not_pass_on_are_named() {
    let names = [("dnxhr", "DNxHR"), ("magicyuv", "MagicYUV"), ("utvideo", "UT Video"), ("v410", "v410")];
    for ((path, ..), (word, name)) in clips("codec").into_iter().zip(names) {
        assert!(path.to_string_lossy().contains(word));
        let error = decode(&path, &FrameRequest::uniform(2, 32)).unwrap_err().to_string();
        assert!(error.contains(name) && !error.contains("install"), "{error}");
    }
}
