//! `experiments caption` and `experiments data check|prepare|probe` as a user runs them, on clips of the
//! tiny world.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use std::path::Path;
use std::sync::OnceLock;

use tempfile::TempDir;
use tests::{Desk, Ran};

fn tiny() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/checkpoints/tiny").display().to_string()
}

/// A small world, made once for all tests of this file.
fn world() -> &'static Path {
    static WORLD: OnceLock<TempDir> = OnceLock::new();
    let folder = WORLD.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let out = folder.path().join("world").display().to_string();
        let ran = Desk::new().run(&["data", "synthesize", "--out", &out, "--profile", "smoke"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        folder
    });
    folder.path()
}

/// Copies the world's videos and annotations onto a desk.
fn copy(desk: &Desk) -> Vec<String> {
    let mut videos = Vec::new();
    let mut folders = vec![world().join("world")];
    std::fs::create_dir_all(desk.path("set")).unwrap();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".webm") || name.ends_with("videodatainfo.json") {
                std::fs::copy(&path, desk.path(&format!("set/{name}"))).unwrap();
                if name.ends_with(".webm") {
                    videos.push(format!("set/{name}"));
                }
            }
        }
    }
    videos.sort();
    assert!(videos.len() >= 6, "the smoke world has clips: {videos:?}");
    videos
}

fn ok(ran: Ran) -> String {
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.out, ran.err);
    ran.out
}

#[test]
fn clips_are_captioned_in_every_format_and_a_broken_one_stops_nothing() {
    let desk = Desk::new();
    let videos = copy(&desk);
    std::fs::write(desk.path("broken.mp4"), b"this is no video").unwrap();
    let tiny = tiny();
    let words = ["caption", "--checkpoint", &tiny, "--device", "cpu", &videos[0], &videos[1]];
    let text = ok(desk.run(&words));
    assert_eq!(text.lines().count(), 2);
    assert!(
        text.lines()
            .all(|line| line.split(": ").nth(1).is_some_and(|caption| caption.split(' ').count() > 2)),
        "{text}"
    );
    // beams find something at least as likely as greedy search does
    let log_probability = |beams: &str| {
        let out = ok(desk
            .run(&[&words[..], &["--format", "jsonl", "--beams", beams, "--length-penalty", "0"]].concat()));
        out.lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["log_probability"].as_f64().unwrap()
            })
            .collect::<Vec<_>>()
    };
    for (greedy, beam) in log_probability("1").into_iter().zip(log_probability("5")) {
        assert!(beam >= greedy - 1e-4, "{beam} {greedy}");
    }
    let mixed = desk.run(&[
        "caption",
        "--checkpoint",
        &tiny,
        "--format",
        "coco",
        "broken.mp4",
        &videos[0],
        "absent.mp4",
    ]);
    assert_eq!(mixed.code, Some(1), "not all could be captioned");
    assert!(mixed.err.contains("broken.mp4") && mixed.err.contains("absent.mp4"), "{}", mixed.err);
    let results: serde_json::Value = serde_json::from_str(&mixed.out).unwrap();
    assert_eq!(results.as_array().unwrap().len(), 1);
    // what is drawn hangs on the seed, not on how clips are batched
    let draw = |seed: &str, batch: &str| {
        ok(desk.run(
            &[&words[..], &["--sample", "1.0", "--seed", seed, "--batch-size", batch, "--captions", "2"]]
                .concat(),
        ))
    };
    assert_eq!(draw("7", "1"), draw("7", "2"));
    assert_ne!(draw("7", "2"), draw("8", "2"));
}

#[test]
fn wrong_settings_of_a_caption_are_told() {
    let desk = Desk::new();
    let tiny = tiny();
    for (words, expected) in [
        (vec!["--checkpoint", "absent", "x.mp4"], "absent"),
        (vec!["--checkpoint", &tiny, "x.mp4", "--beams", "0"], "beams"),
        (vec!["--checkpoint", &tiny, "x.mp4", "--fusion", "sum"], "concat_queries"),
        (vec!["--checkpoint", &tiny, "x.mp4", "--sample", "-1"], "temperature"),
    ] {
        let ran = desk.run(&[&["caption", "--device", "cpu"], &words[..]].concat());
        assert_ne!(ran.code, Some(0), "{words:?}");
        assert!(ran.err.to_lowercase().contains(expected), "{words:?}: {}", ran.err);
    }
}

#[test]
fn files_are_probed_by_decoding_them() {
    let desk = Desk::new();
    let videos = copy(&desk);
    std::fs::write(desk.path("cut.webm"), &std::fs::read(desk.path(&videos[0])).unwrap()[..700]).unwrap();
    let whole = ok(desk.run(&["data", "probe", &videos[0]]));
    assert!(whole.contains("vp8") || whole.contains("vp9"), "{whole}");
    let output = desk.run(&["data", "probe", "--json", &videos[0], "cut.webm"]);
    assert_eq!(output.code, Some(1));
    let lines: Vec<serde_json::Value> =
        output.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0]["frames"].as_u64().unwrap() > 0 && lines[0]["error"].is_null(), "{}", lines[0]);
    assert_eq!(lines[1]["path"], "cut.webm");
    assert!(lines[1]["error"].is_string(), "{}", lines[1]);
    for key in ["path", "codec", "width", "height", "rotation", "frames", "duration_s", "error"] {
        assert!(lines[0].get(key).is_some(), "{key} is missing: {}", lines[0]);
    }
}

#[test]
fn a_data_set_is_checked_and_prepared_without_what_is_broken() {
    let desk = Desk::new();
    let videos = copy(&desk);
    std::fs::remove_file(desk.path(&videos[1])).unwrap();
    std::fs::write(desk.path(&videos[2]), b"cut short").unwrap();
    let place = ["set", "--dataset", "msrvtt"];
    // the tiny world is annotated like MSR-VTT, but its split is not the official one
    let official = desk.run(&[&["data", "check"], &place[..]].concat());
    assert_eq!(official.code, Some(1));
    assert!(official.out.contains("6,513") || official.out.contains("6513"), "{}", official.out);
    let prepare = |more: &[&str]| {
        desk.run(
            &[
                &["data", "prepare"],
                &place[..],
                &["--own-split", "--out", "frames", "--frames", "4", "--size", "32"],
                more,
            ]
            .concat(),
        )
    };
    std::fs::remove_file(desk.path("set/skip.json")).unwrap();
    let refused = prepare(&[]);
    assert_eq!(refused.code, Some(1), "a missing clip is not left out silently");
    let checked =
        desk.run(&[&["data", "check"], &place[..], &["--own-split", "--json", "all.json"]].concat());
    assert_eq!(checked.code, Some(1), "two clips are not in order");
    assert!(checked.out.contains("missing   1") && checked.out.contains("undecodable 1"), "{}", checked.out);
    assert!(checked.out.contains("training leaves out 2 clips"), "{}", checked.out);
    let first = ok(prepare(&[]));
    let kept = videos.len() - 2;
    assert!(first.contains(&format!("{kept} clips decoded")), "{first}");
    let second = ok(prepare(&[]));
    assert!(second.contains("0 clips decoded") && second.contains(&format!("{kept} kept")), "{second}");
}
