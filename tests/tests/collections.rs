//! `experiments caption --out`: killed processes, several processes, and wrong use.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::Desk;

/// Rows of the list that the tests caption.
const ROWS: usize = 240;

/// A small picture, as a BMP file.
fn picture(colour: u8) -> Vec<u8> {
    const SIDE: u32 = 16;
    let mut bytes = b"BM".to_vec();
    for number in [54 + SIDE * SIDE * 3, 0, 54, 40, SIDE, SIDE, 1 | 24 << 16, 0, SIDE * SIDE * 3, 0, 0, 0, 0]
    {
        bytes.extend(number.to_le_bytes());
    }
    for at in 0..SIDE * SIDE {
        bytes.extend([colour, (at % 256) as u8, colour.wrapping_mul(7)]);
    }
    bytes
}

/// Eight pictures and a file that is none, under many ids.
fn desk() -> Desk {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("clips")).unwrap();
    for at in 0..8u8 {
        std::fs::write(desk.path(&format!("clips/{at}.bmp")), picture(at * 30)).unwrap();
    }
    std::fs::write(desk.path("clips/8.bmp"), b"no picture").unwrap();
    let lines: Vec<String> =
        (0..ROWS).map(|row| format!("{{\"path\":\"clips/{}.bmp\",\"id\":\"row {row}\"}}", row % 9)).collect();
    std::fs::write(desk.path("list.jsonl"), lines.join("\n")).unwrap();
    desk
}

fn words<'a>(checkpoint: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let words = ["caption", "--checkpoint", checkpoint, "list.jsonl", "--out", out, "--rows-per-shard", "50"];
    let sampled = ["--sample", "1", "--captions", "2", "--frames", "1", "--max-new-tokens", "8"];
    [&words[..], &sampled, more].concat()
}

fn tiny() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../experiments/checkpoints/tiny").to_owned()
}

/// All rows in their order, without the time that each took.
fn rows(desk: &Desk, out: &str) -> Vec<Value> {
    let mut files: Vec<_> =
        std::fs::read_dir(desk.path(out)).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let rows = text.lines().map(|line| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        row["seconds"] = Value::Null;
        row
    });
    rows.collect()
}

/// `RECAP_KILLS` sets how often; four times by default.
#[test]
fn processes_that_are_killed_leave_every_row_once_and_unchanged() {
    let kills: u32 = std::env::var("RECAP_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(4);
    let (desk, tiny) = (desk(), tiny());
    let started = Instant::now();
    let ran = desk.run(&words(&tiny, "whole", &[]));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let length = started.elapsed();
    assert!(
        ran.out.contains("214 captioned, 26 failed") && ran.out.contains("5 of 5 finished"),
        "{}",
        ran.out
    );

    // a linear congruential generator: the moments differ, and are the same each time the test runs
    let mut state = 20_261_127_u64;
    let mut killed = 0;
    for attempt in 0..20 * kills {
        let shares: &[&[&str]] = &[&["--shards", "2", "--shard", "0"], &["--shards", "2", "--shard", "1"]];
        let start = |share: &[&str]| {
            let mut command = desk.command(&words(&tiny, "killed", share));
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let mut children = [start(shares[0]), start(shares[1])];
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let moment = (state >> 40) as f64 / (1u64 << 24) as f64;
        std::thread::sleep(Duration::from_millis(50) + length.mul_f64(moment * 0.7));
        let at_work = children[attempt as usize % 2].try_wait().unwrap().is_none();
        children[attempt as usize % 2].kill().unwrap();
        for child in children {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!said.contains("panicked") && !said.contains("error"), "{said}");
        }
        killed += u32::from(at_work);
        if killed == kills {
            break;
        }
    }
    println!("killed {killed} times");
    assert!(killed > 0, "no process was at work when it was killed");
    let ran = desk.run(&words(&tiny, "killed", &[]));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("240 of 240 clips"), "{}", ran.out);
    assert_eq!(rows(&desk, "killed"), rows(&desk, "whole"));
    let ids: Vec<String> =
        rows(&desk, "killed").iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, (0..ROWS).map(|row| format!("row {row}")).collect::<Vec<_>>());
}

#[test]
fn a_folder_is_captioned_shown_and_merged() {
    let (desk, tiny) = (desk(), tiny());
    let caption =
        ["caption", "--checkpoint", &tiny, "clips", "--out", "out", "--frames", "1", "--format", "parquet"];
    let ran = desk.run(&[&caption[..], &["--limit", "8"]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("next: the same command captions the 1 clips"), "{}", ran.out);
    assert_eq!(desk.run(&["caption", "--merge", "out", "--out", "all.jsonl"]).code, Some(1));
    let ran = desk.run(&caption);
    assert!(ran.out.contains("made: 0 captioned, 1 failed"), "{}", ran.out);
    let status = desk.run(&["caption", "--status", "out"]);
    assert!(
        status.code == Some(0) && status.out.contains("9 of 9 clips: 8 captioned, 1 failed"),
        "{}",
        status.out
    );
    assert!(status.out.contains("--retry-failed"), "{}", status.out);
    let merged = desk.run(&["caption", "--merge", "out", "--out", "all.jsonl"]);
    assert_eq!(merged.code, Some(0), "{}", merged.err);
    assert_eq!(desk.read("all.jsonl").lines().count(), 9);
}

#[test]
fn wrong_use_is_refused_with_what_to_do() {
    let (desk, tiny) = (desk(), tiny());
    let caption = ["caption", "--checkpoint", &tiny];
    let refused = |code: i32, more: &[&str], said: &str| {
        let ran = desk.run(&[&caption[..], more].concat());
        assert_eq!(ran.code, Some(code), "{more:?}: {}", ran.err);
        assert!(ran.err.contains(said), "{more:?}: {}", ran.err);
    };
    refused(2, &["clips"], "--out DIR");
    refused(2, &["list.jsonl"], "--out DIR");
    refused(2, &["clips/0.bmp", "--format", "parquet"], "--out DIR");
    refused(2, &["clips", "--out", "o", "--format", "coco"], "jsonl, parquet or webdataset");
    refused(2, &["clips", "--out", "o", "--shards", "2"], "--shard");
    refused(2, &["clips", "--out", "o", "--shards", "2", "--shard", "2"], "from 0 to 1");
    refused(2, &["nowhere", "--out", "o"], "nowhere");
    refused(2, &["clips", "--out", "o", "--rows-per-shard", "0"], "at least 1");
    refused(2, &[], "INPUT");
    refused(1, &["clips/0.bmp", "--weights", "int8"], "slower than f32");
    std::fs::create_dir(desk.path("empty")).unwrap();
    refused(1, &["empty", "--out", "o"], "no clip");
    let status = desk.run(&["caption", "--status", "clips"]);
    assert!(status.code == Some(1) && status.err.contains("run.json"), "{}", status.err);
}
