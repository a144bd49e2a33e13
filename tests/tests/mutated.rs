//! `data check` on thousands of damaged clips: a verdict for every clip, whatever its bytes do to a decoder.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use std::path::{Path, PathBuf};
use std::time::Instant;

use data::random::RandomStream;
use tests::Desk;

/// A copy with bytes changed, zeroed or cut off. Half of the damage hits the first 2 KiB, where headers are.
fn mutated(bytes: &[u8], random: &mut RandomStream) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let reach = if random.chance(0.5) { bytes.len().min(2048) } else { bytes.len() };
    match random.below(4) {
        0 => bytes.truncate(random.below(bytes.len())),
        1 => {
            let from = random.below(reach);
            let to = (from + 1 + random.below(4096)).min(bytes.len());
            bytes[from..to].fill(0);
        }
        _ => {
            for _ in 0..1 + random.below(40) {
                let at = random.below(reach);
                bytes[at] = random.bits() as u8;
            }
        }
    }
    bytes
}

/// The videos in some folders and their subfolders, of at most 2 MB.
fn videos(folders: &[PathBuf]) -> Vec<PathBuf> {
    const OTHER: [&str; 12] =
        ["json", "csv", "md", "txt", "tar", "gz", "safetensors", "model", "vocab", "py", "sh", "srt"];
    let (mut found, mut folders) = (Vec::new(), folders.to_vec());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
            let length = path.metadata().unwrap().len();
            if path.is_dir() {
                folders.push(path);
            } else if (1..2_000_000).contains(&length) && !OTHER.contains(&extension.as_str()) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// `cargo test --workspace --test mutated -- --ignored --nocapture`; `MUTATIONS` and `SEED` change it.
#[test]
#[ignore = "takes many minutes"]
fn every_one_of_two_thousand_five_hundred_damaged_clips_gets_a_verdict() {
    let number =
        |name: &str, otherwise| std::env::var(name).map_or(otherwise, |value| value.parse().unwrap());
    let (count, seed): (usize, u64) = (number("MUTATIONS", 2500) as usize, number("SEED", 7));
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let common = videos(&["videos", "clips"].map(|name| shared.join(name)));
    let rare = videos(&[shared.join("bugs")]);
    if common.is_empty() || rare.is_empty() {
        println!("skipped: no shared data");
        return;
    }
    let desk = Desk::new();
    std::fs::create_dir(desk.path("set")).unwrap();
    let mut captions = String::from("clip,caption\n");
    for index in 0..count {
        let mut random = RandomStream::new(seed, "mutation", index as u64);
        // One in five is a rare pixel format, a cut stream or another unusual clip.
        let sources = if index % 5 == 4 { &rare } else { &common };
        let source = random.pick(sources).unwrap();
        let extension = source.extension().unwrap_or_default().to_string_lossy();
        let name = format!("{index}.{extension}");
        std::fs::write(
            desk.path(&format!("set/{name}")),
            mutated(&std::fs::read(source).unwrap(), &mut random),
        )
        .unwrap();
        captions += &format!("{name},a clip\n");
    }
    std::fs::write(desk.path("set/captions.csv"), captions).unwrap();
    let start = Instant::now();
    let ran = desk.run(&["data", "check", "set", "--dataset", "own", "--own-split", "--json", "all.json"]);
    let seconds = start.elapsed().as_secs_f64();
    assert!(matches!(ran.code, Some(0 | 1)), "{:?} {}", ran.code, ran.err);
    let report: serde_json::Value = serde_json::from_str(&desk.read("all.json")).unwrap();
    let clips = report["clips"].as_array().unwrap();
    assert_eq!(clips.len(), count);
    let errors: Vec<&str> = clips.iter().filter_map(|clip| clip["found"]["error"].as_str()).collect();
    assert!(clips.iter().all(|clip| clip["found"].is_object()), "a verdict for every clip");
    let with = |words: &str| errors.iter().filter(|error| error.contains(words)).count();
    println!(
        "{count} clips in {seconds:.0} s: {} whole, {} with an error; {} crashed, {} hung, {} beyond a limit",
        count - errors.len(),
        errors.len(),
        with("crashed"),
        with("hung"),
        with("more than")
    );
    for error in errors.iter().filter(|error| error.contains("crashed") || error.contains("hung")) {
        println!("{error}");
    }
}
