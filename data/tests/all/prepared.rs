//! Checking a data set, leaving out what is broken, and preparing the rest, on a small world that the tests make.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use data::check::{Inspected, Shared, check, check_with};
use data::datasets::skip::Reason;
use data::datasets::splits::Splits;
use data::datasets::synthetic::config::{ClipCounts, PairCounts};
use data::datasets::synthetic::{World, WorldConfig, synthesize};
use data::datasets::{Clip, DataSet, Place, Split, open};
use data::loader::FrameStore;
use data::prepare::{PreparedFrames, prepare};
use data::video::FrameRequest;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

fn world(folder: &Path, train: usize) -> World {
    let config = WorldConfig {
        clips: ClipCounts { train, validate: 3, test: 4 },
        pairs: PairCounts { train: 4, validate: 4 },
        ..WorldConfig::default()
    };
    synthesize(&config, folder, &|_| {}).unwrap()
}

/// The world's own files, as a data set in MSR-VTT's format with splits of one's own.
fn place(folder: &Path) -> Place {
    let find = |wanted: &dyn Fn(&Path) -> bool| {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.into_iter().find(|path| wanted(path)).unwrap()
    };
    Place {
        dataset: DataSet::Msrvtt,
        annotations: find(&|path| path.to_str().unwrap().contains("videodatainfo")),
        videos: find(&|path| path.is_dir() && path.ends_with("videos")),
        splits: Splits::own(),
        skip: None,
    }
}

#[test]
fn a_check_finds_what_is_missing_broken_and_shared() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(folder.path(), 6);
    let place = place(folder.path());
    let clips = world.videos().unwrap().clips;
    let of = |split: Split| -> Vec<&Clip> { clips.iter().filter(|clip| clip.split == split).collect() };
    let (train, test) = (of(Split::Train), of(Split::Test));
    std::fs::remove_file(&train[1].path).unwrap();
    std::fs::write(&train[2].path, b"").unwrap();
    let whole = std::fs::read(&train[3].path).unwrap();
    std::fs::write(&train[3].path, &whole[..whole.len() / 3]).unwrap();
    std::fs::copy(&train[0].path, &test[0].path).unwrap();

    let told = Mutex::new(Vec::new());
    let report = check(&place, &|progress| told.lock().unwrap().push(progress.done)).unwrap();
    assert_eq!(told.into_inner().unwrap().into_iter().max(), Some(13));
    assert_eq!(report.account(Split::Train).to_string(), "3 of 6 clips");
    assert_eq!(report.account(Split::Test).to_string(), "4 of 4 clips");
    let bad: Vec<String> = report.skip_list().clips.into_iter().map(|skipped| skipped.id).collect();
    assert_eq!(bad, [1, 2, 3].map(|clip| train[clip].id.clone()));
    assert!(matches!(report.skip_list().clips[0].reason, Reason::Missing));
    assert_eq!(report.overlaps.len(), 1);
    assert_eq!(report.overlaps[0].what, Shared::File);
    assert!(!report.is_sound());
    let text = report.to_string();
    for expected in
        ["train     3 of 6 clips", "missing   1:", "undecodable 2", "train and test are the same file"]
    {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    serde_json::to_string(&report).unwrap();

    // Without the list the data set is refused; with it, what is left out is told.
    assert!(open(&place).is_err());
    let list = folder.path().join("skip.json");
    report.skip_list().write(&list).unwrap();
    let set = open(&Place { skip: Some(list), ..place }).unwrap();
    assert_eq!(set.account(Split::Train).to_string(), "3 of 6 clips");
    assert_eq!(set.clips.len() + set.skipped.len(), 13);
}

#[test]
fn a_check_tells_durations_sizes_and_wrong_splits() {
    let folder = tempfile::tempdir().unwrap();
    world(folder.path(), 3);
    let inspect =
        |_: &Path| Inspected { frames: 20, width: 320, height: 240, duration_s: Some(12.5), error: None };
    let place = Place { splits: Splits::official(), ..place(folder.path()) };
    let report = check_with(&place, &inspect, &|_| {}).unwrap();
    let text = report.to_string();
    assert!(text.contains("durations 12.5 to 12.5 s, median 12.5 s"), "{text}");
    assert!(text.contains("sizes     320x240 (10)"), "{text}");
    assert!(text.contains("msrvtt's split train has 6,513 clips, got 3"), "{text}");
}

#[test]
fn prepared_frames_are_those_that_decoding_gives() {
    let folder = tempfile::tempdir().unwrap();
    let videos = world(folder.path(), 6).videos().unwrap();
    let clips: Vec<&Clip> = videos.clips.iter().collect();
    let request = FrameRequest { seed: 3, ..FrameRequest::uniform(4, 24) };
    let out = folder.path().join("prepared");
    assert!(PreparedFrames::open(&out, &request).unwrap_err().to_string().contains("data prepare"));
    let made = prepare(&clips, &request, &out, &|_| {}).unwrap();
    assert_eq!((made.decoded, made.kept, made.bytes), (13, 0, 13 * 4 * 24 * 24 * 3));
    let prepared = PreparedFrames::open(&out, &request).unwrap();
    prepared.verify().unwrap();
    let decoded = FrameStore::of_clips(&clips, &request, None, &|_| {}).unwrap();
    for (index, clip) in clips.iter().enumerate() {
        assert_eq!(prepared.clip(&clip.id).unwrap(), decoded.clip(index), "{}", clip.id);
    }
    assert_eq!((prepared.len(), prepared.frames(), prepared.size()), (13, 4, 24));
    assert!(prepared.clip("video999").unwrap_err().to_string().contains("video999"));

    let again = prepare(&clips, &request, &out, &|_| {}).unwrap();
    assert_eq!((again.decoded, again.kept), (0, 13));
    let other = FrameRequest::uniform(2, 24);
    assert_eq!(prepare(&clips[..2], &other, &out, &|_| {}).unwrap().decoded, 2);
    assert_eq!(prepare(&clips, &request, &out, &|_| {}).unwrap().kept, 13);
}

#[test]
fn a_broken_clip_or_shard_stops_or_mends_preparing() {
    let folder = tempfile::tempdir().unwrap();
    let videos = world(folder.path(), 2).videos().unwrap();
    let clips: Vec<&Clip> = videos.clips.iter().collect();
    let request = FrameRequest::uniform(2, 16);
    let out = folder.path().join("prepared");
    let made = prepare(&clips, &request, &out, &|_| {}).unwrap();
    let shard = made.folder.join("frames-00000.shard");
    let mut bytes = std::fs::read(&shard).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&shard, &bytes).unwrap();
    assert!(PreparedFrames::open(&out, &request).unwrap().verify().is_err());
    assert_eq!(prepare(&clips, &request, &out, &|_| {}).unwrap().decoded, 9);
    PreparedFrames::open(&out, &request).unwrap().verify().unwrap();

    std::fs::write(&clips[1].path, b"no video").unwrap();
    let message = prepare(&clips, &request, &out, &|_| {}).unwrap_err().to_string();
    assert!(message.contains(clips[1].path.to_str().unwrap()), "{message}");
    let unfinished: Vec<PathBuf> = std::fs::read_dir(&made.folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_none_or(|extension| extension != "shard" && extension != "json"))
        .collect();
    assert!(unfinished.is_empty(), "{unfinished:?}");
}

/// Seconds of processor time that this process has used; other work on the machine does not count.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks =
        |field: usize| after_name.split_whitespace().nth(field).and_then(|text| text.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}

/// Measures preparing at growing numbers of clips: `cargo test -p data --test all -- --ignored --nocapture linear`.
#[test]
#[ignore = "takes minutes; prints time and memory"]
fn preparing_takes_linear_time_and_flat_memory() {
    let folder = tempfile::tempdir().unwrap();
    let videos = world(folder.path(), 993).videos().unwrap();
    let clips: Vec<&Clip> = videos.clips.iter().collect();
    let request = FrameRequest::uniform(8, 224);
    for count in [125, 250, 500, 1000] {
        let out = tempfile::tempdir().unwrap();
        let (started, worked) = (Instant::now(), processor_seconds());
        let made = prepare(&clips[..count], &request, out.path(), &|_| {}).unwrap();
        let worked = processor_seconds() - worked;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let memory = status.lines().filter(|line| line.starts_with("VmHWM") || line.starts_with("RssAnon"));
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{count} clips: {seconds:.1} s, {worked:.1} s of processor time, {:.1} ms of it a clip, {} MB on disk, {}",
            1e3 * worked / count as f64,
            made.bytes >> 20,
            memory.collect::<Vec<_>>().join(" ")
        );
    }
}
