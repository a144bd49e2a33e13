//! Decoding in worker processes: what kills, stops or overfeeds a worker costs at most the clip that it
//! decodes.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tests::{Desk, Ran};

/// Clips of the tiny world, made once for all tests of this file.
fn clips() -> Vec<String> {
    static WORLD: OnceLock<TempDir> = OnceLock::new();
    let folder = WORLD.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let out = folder.path().join("world").display().to_string();
        let ran = Desk::new().run(&["data", "synthesize", "--out", &out, "--profile", "smoke"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        folder
    });
    let (mut clips, mut folders) = (Vec::new(), vec![folder.path().to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.extension().is_some_and(|kind| kind == "webm") => {
                    clips.push(path.display().to_string());
                }
                _ => {}
            }
        }
    }
    clips.sort();
    clips
}

/// `caption` on the clips with the shipped checkpoint.
fn captioning(desk: &Desk, clips: &[String], more: &[&str]) -> Command {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/checkpoints/tiny");
    let tiny = tiny.display().to_string();
    let words =
        ["caption", "--checkpoint", &tiny, "--device", "cpu", "--format", "jsonl", "--batch-size", "1"];
    // long captions, so that the command lasts while workers are killed
    let long = ["--beams", "8", "--max-new-tokens", "32", "--min-new-tokens", "24"];
    let words = [&words[..], &long[..], more].concat();
    let mut command = desk.command(&words);
    command.args(clips).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The child processes of a process.
fn children(parent: u32) -> Vec<u32> {
    let stat = |process: &str| std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| {
            let process = entry.file_name().to_string_lossy().into_owned();
            // The name in parentheses may hold anything; state and parent follow it.
            let stat = stat(&process);
            let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
            let (state, its_parent) = (rest.next()?, rest.next()?);
            (its_parent == parent.to_string() && state != "Z").then(|| process.parse().ok())?
        })
        .collect()
}

fn signal(name: &str, process: u32) -> bool {
    let words = [format!("-{name}"), process.to_string()];
    Command::new("kill").args(words).stderr(Stdio::null()).status().unwrap().success()
}

/// Whether a worker has begun to decode: it has loaded VP8's decoder.
fn decodes(process: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/maps")).is_ok_and(|maps| maps.contains("libgstvpx"))
}

/// Sends a signal to random workers of a running command, `times` times or until the command ends, with
/// random pauses of up to `pause`. Returns the command's result and how often the signal was sent.
fn disturbed(mut command: Command, name: &str, times: usize, pause: Duration) -> (Ran, usize) {
    let running = command.spawn().unwrap();
    let parent = running.id();
    let ended = std::thread::spawn(move || running.wait_with_output().unwrap());
    let (mut sent, mut draw) = (0, 7usize);
    while sent < times && !ended.is_finished() {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(pause.mul_f64((draw >> 40) as f64 / (1u64 << 24) as f64));
        // One that is still starting has no clip to lose.
        let workers: Vec<u32> = children(parent).into_iter().filter(|&worker| decodes(worker)).collect();
        if let Some(&worker) = workers.get((draw >> 33) % workers.len().max(1)) {
            sent += usize::from(signal(name, worker));
        }
    }
    (Ran::from(ended.join().unwrap()), sent)
}

fn ok(ran: Ran) -> String {
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.out, ran.err);
    ran.out
}

#[test]
fn twenty_killed_workers_change_no_caption_of_two_hundred() {
    let clips: Vec<String> = clips().into_iter().cycle().take(200).collect();
    let desk = Desk::new();
    let expected = ok(Ran::from(captioning(&desk, &clips, &["--decode-in", "threads"]).output().unwrap()));
    assert_eq!(expected.lines().count(), 200);
    let command = captioning(&desk, &clips, &[]);
    let (ran, killed) = disturbed(command, "KILL", 20, Duration::from_millis(50));
    assert_eq!(ok(ran), expected, "the same captions as in threads of one process");
    assert_eq!(killed, 20);
}

#[test]
fn a_stopped_worker_is_replaced_after_the_time_limit() {
    let clips = clips();
    let desk = Desk::new();
    let expected = ok(Ran::from(captioning(&desk, &clips[..1], &[]).output().unwrap()));
    let started = Instant::now();
    let command = captioning(&desk, &clips[..1], &["--clip-seconds", "1"]);
    let (ran, stopped) = disturbed(command, "STOP", 1, Duration::from_millis(1));
    assert_eq!((ok(ran), stopped), (expected, 1));
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

#[test]
fn a_clip_beyond_a_limit_is_an_error_of_that_clip() {
    let clips = clips();
    let desk = Desk::new();
    for (limit, expected) in [("--clip-memory", "1 MiB"), ("--clip-pixels", "more than 1 pixels")] {
        let ran = Ran::from(captioning(&desk, &clips[..2], &[limit, "1"]).output().unwrap());
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        for clip in &clips[..2] {
            let line = ran.err.lines().find(|line| line.contains(clip.as_str()));
            assert!(line.is_some_and(|line| line.contains(expected) && line.contains(limit)), "{}", ran.err);
        }
    }
}

#[test]
fn damaged_clips_are_left_out_of_training_and_evaluation_and_named() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["data", "synthesize", "--profile", "smoke", "--out", "w"]).code, Some(0));
    let annotations: serde_json::Value = serde_json::from_str(&desk.read("w/videodatainfo.json")).unwrap();
    let first_of = |split: &str| {
        let videos = annotations["videos"].as_array().unwrap();
        videos.iter().find(|video| video["split"] == split).unwrap()["video_id"].as_str().unwrap().to_owned()
    };
    let damaged = [("train", first_of("train")), ("test", first_of("test"))];
    for (_, id) in &damaged {
        std::fs::write(desk.path(&format!("w/videos/{id}.webm")), b"no video at all").unwrap();
    }
    let own = ["data", "prepare", "w", "--dataset", "msrvtt", "--own-split", "--out", "frames"];
    let ran = desk.run(&own);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(damaged.iter().all(|(_, id)| ran.err.contains(&format!("left out: {id}: "))), "{}", ran.err);
    let data = ["--dataset", "msrvtt=w", "--profile", "smoke", "--set", "dataset.own_split=true"];
    // frames are drawn again in each epoch, or read once
    for frames in ["[frames]\ntrain_sampling = \"random\"\n", ""] {
        std::fs::write(desk.path("mine.toml"), format!("{frames}[train]\nepochs = 1\n")).unwrap();
        let ran = desk.run(&[&["train", "mine.toml", "--no-tui"][..], &data].concat());
        assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
        for (split, id) in &damaged {
            assert!(ran.err.contains(&format!("left out of {split}: {id}: ")), "{}", ran.err);
        }
        assert!(ran.err.contains("7 of 8 clips"), "{}", ran.err);
    }
    let best = ["evaluate", "--checkpoint", "runs/mine/mine/seed-1/best", "--json"];
    let ran = desk.run(&[&best[..], &data[..2], &data[4..]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let (_, tested) = &damaged[1];
    assert!(ran.err.contains(&format!("left out of test: {tested}")), "{}", ran.err);
    assert!(!ran.err.contains("left out of train"), "only the split that is read: {}", ran.err);
}
