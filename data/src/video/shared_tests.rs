//! Decoding of real files of many kinds, beside FFmpeg's account of them. The files are not part of the project; where
//! they are absent the tests say so and pass.

use super::sequential::native_frames;
use crate::probe::probe;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// FFmpeg's account of one file.
#[derive(Deserialize)]
struct Golden {
    codec: Option<String>,
    w: Option<u32>,
    h: Option<u32>,
    #[serde(default)]
    frames: Option<usize>,
    rotation: Option<i64>,
    #[serde(default)]
    planes: Vec<(usize, Vec<(String, f64)>)>,
    error: Option<String>,
}

fn shared() -> Option<(PathBuf, BTreeMap<String, Golden>)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let Ok(text) = std::fs::read_to_string(root.join("videos_golden.json")) else {
        println!("skipped: no shared data");
        return None;
    };
    Some((root, serde_json::from_str(&text).unwrap()))
}

#[test]
fn survey() {
    let Some((root, golden)) = shared() else { return };
    for (name, golden) in &golden {
        let start = std::time::Instant::now();
        let found = probe(&root.join(name));
        let seconds = start.elapsed().as_secs_f64();
        let expected = golden.frames.unwrap_or(0);
        let mut notes = Vec::new();
        if found.frames != expected {
            notes.push(format!("FRAMES {} expected {expected}", found.frames));
        }
        if (found.codec != golden.codec) && expected > 0 {
            notes.push(format!("codec {:?} expected {:?}", found.codec, golden.codec));
        }
        if (found.width, found.height) != (golden.w, golden.h) && expected > 0 {
            notes.push(format!(
                "size {:?} {:?} expected {:?} {:?}",
                found.width, found.height, golden.w, golden.h
            ));
        }
        if i64::from(found.rotation) != golden.rotation.unwrap_or(0) {
            notes.push(format!("rotation {} expected {:?}", found.rotation, golden.rotation));
        }
        if found.error.is_some() != (golden.error.is_some() || expected == 0) {
            notes.push(format!("error {:?} expected {:?}", found.error, golden.error));
        }
        if expected > 0 && !golden.planes.is_empty() {
            let wanted: Vec<usize> = golden.planes.iter().map(|(index, _)| *index).collect();
            match native_frames(&root.join(name), &wanted) {
                Err(error) => notes.push(format!("planes: {error}")),
                Ok(frames) => {
                    let mut same = 0;
                    for (index, planes) in &golden.planes {
                        let Some((_, ours)) = frames.iter().find(|(i, _)| i == index) else { continue };
                        let hash = |bytes: &Vec<u8>| {
                            let digest = Sha256::digest(bytes);
                            digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>()
                        };
                        let equal = planes.first().zip(ours.first()).is_some_and(|((a, _), b)| *a == hash(b));
                        same += usize::from(equal);
                    }
                    if same != golden.planes.len() {
                        notes.push(format!("PLANES {same} of {}", golden.planes.len()));
                    }
                }
            }
        }
        if let Ok(super::Kind::Video(container)) = super::inspect(&root.join(name)) {
            let choose = |total: usize| crate::sampling::Sampling::Uniform.indices(total, 8, 0);
            let start = std::time::Instant::now();
            let quick = super::packets::decode(&root.join(name), container, &choose);
            let quick_s = start.elapsed().as_secs_f64();
            let start = std::time::Instant::now();
            let slow = super::sequential::decode(&root.join(name), &choose);
            let slow_s = start.elapsed().as_secs_f64();
            match (quick, slow) {
                (Ok(Some(quick)), Ok(slow)) => {
                    let promised = super::packets::promised(&root.join(name), container).unwrap();
                    println!("      quick {quick_s:.3} s, slow {slow_s:.3} s");
                    if promised != Some(found.frames) {
                        notes.push(format!("PROMISED {promised:?}"));
                    }
                    if quick != slow {
                        let first = quick.iter().zip(slow.iter()).position(|(a, b)| a != b);
                        notes.push(format!("QUICK DIFFERS {quick:?} {slow:?} {first:?}"));
                    }
                }
                (Ok(None), _) => {}
                (quick, slow) => notes.push(format!("QUICK {quick:?} SLOW {slow:?}")),
            }
        }
        if seconds > 5.0 {
            notes.push(format!("SLOW {seconds:.1}"));
        }
        let codec = golden.codec.as_deref().unwrap_or("-");
        println!(
            "{name} [{codec}] {seconds:.2} s {} {}",
            if notes.is_empty() { "ok" } else { "--" },
            notes.join("; ")
        );
        if !notes.is_empty() && found.error.is_some() {
            println!("      {}", found.error.unwrap_or_default());
        }
    }
}
