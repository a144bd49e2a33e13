//! Checks a small world, skips its damaged clips and prepares the frames of the others.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use data::check::{Inspected, Shared, check};
use data::datasets::skip::Reason;
use data::datasets::splits::Splits;
use data::datasets::{Clip, DataSet, DatasetPaths, Split, open};
use data::frames::{FrameStore, prepare};
use data::probe::probe;
use data::tiny_world::config::{ClipCounts, PairCounts};
use data::tiny_world::{World, WorldConfig, synthesize};
use data::video::{FrameRequest, Resizing, decode, resize};
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

/// The world's files as a data set in MSR-VTT's format, with own splits.
fn paths(folder: &Path) -> DatasetPaths {
    let find = |wanted: &dyn Fn(&Path) -> bool| {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.into_iter().find(|path| wanted(path)).unwrap()
    };
    DatasetPaths {
        dataset: DataSet::Msrvtt,
        annotations: find(&|path| path.to_str().unwrap().contains("videodatainfo")),
        videos: find(&|path| path.is_dir() && path.ends_with("videos")),
        splits: Splits { own: true, ..Splits::default() },
        skip: None,
    }
}

/// Decodes a file completely.
fn inspect(path: &Path) -> Inspected {
    let found = probe(path);
    let size = |pixels: Option<u32>| pixels.unwrap_or(0) as usize;
    let (width, height) = (size(found.width), size(found.height));
    Inspected {
        frames: found.frames,
        width,
        height,
        duration_s: found.duration_s,
        warning: found.warning,
        error: found.error,
    }
}

#[test]
fn a_check_finds_what_is_missing_broken_and_shared() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(folder.path(), 6);
    let paths = paths(folder.path());
    let clips = world.videos().unwrap().clips;
    let of = |split: Split| -> Vec<&Clip> { clips.iter().filter(|clip| clip.split == split).collect() };
    let (train, test) = (of(Split::Train), of(Split::Test));
    std::fs::remove_file(&train[1].path).unwrap();
    std::fs::write(&train[2].path, b"").unwrap();
    let whole = std::fs::read(&train[3].path).unwrap();
    std::fs::write(&train[3].path, &whole[..whole.len() / 3]).unwrap();
    std::fs::copy(&train[0].path, &test[0].path).unwrap();

    let reported = Mutex::new(Vec::new());
    let report = check(&paths, &inspect, &|progress| reported.lock().unwrap().push(progress.done)).unwrap();
    assert_eq!(reported.into_inner().unwrap().into_iter().max(), Some(13));
    assert_eq!(report.usage(Split::Train).to_string(), "3 of 6 clips");
    assert_eq!(report.usage(Split::Test).to_string(), "4 of 4 clips");
    let bad: Vec<String> = report.skip_list().clips.into_iter().map(|skipped| skipped.id).collect();
    assert_eq!(bad, [1, 2, 3].map(|clip| train[clip].id.clone()));
    assert!(matches!(report.skip_list().clips[0].reason, Reason::Missing));
    assert_eq!(report.overlaps.len(), 1);
    assert_eq!(report.overlaps[0].what, Shared::File);
    assert!(!report.is_valid());
    let text = report.to_string();
    for expected in
        ["train     3 of 6 clips", "missing   1:", "undecodable 2", "train and test are the same file"]
    {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    serde_json::to_string(&report).unwrap();

    // Without the list the data set is refused; with it, the skipped clips are counted.
    assert!(open(&paths).is_err());
    let list = folder.path().join("skip.json");
    report.skip_list().save(&list).unwrap();
    let set = open(&DatasetPaths { skip: Some(list), ..paths }).unwrap();
    assert_eq!(set.usage(Split::Train).to_string(), "3 of 6 clips");
    assert_eq!(set.clips.len() + set.skipped.len(), 13);
}

#[test]
fn a_check_reports_durations_sizes_and_wrong_splits() {
    let folder = tempfile::tempdir().unwrap();
    world(folder.path(), 3);
    let inspect = |_: &Path| Inspected {
        frames: 20,
        width: 320,
        height: 240,
        duration_s: Some(12.5),
        warning: None,
        error: None,
    };
    let paths = DatasetPaths { splits: Splits::default(), ..paths(folder.path()) };
    let report = check(&paths, &inspect, &|_| {}).unwrap();
    let text = report.to_string();
    assert!(text.contains("durations 12.5 to 12.5 s, median 12.5 s"), "{text}");
    assert!(text.contains("sizes     320x240 (10)"), "{text}");
    assert!(text.contains("msrvtt's split train has 6,513 clips, got 3"), "{text}");
}

#[test]
fn prepared_frames_equal_decoded_frames() {
    let folder = tempfile::tempdir().unwrap();
    let videos = world(folder.path(), 6).videos().unwrap();
    let clips: Vec<&Clip> = videos.clips.iter().collect();
    let request = FrameRequest { seed: 3, ..FrameRequest::uniform(4, 24) };
    let out = folder.path().join("prepared");
    let made = prepare(&clips, &request, &out, &|_| {}).unwrap();
    assert_eq!((made.decoded, made.kept, made.bytes), (13, 0, 13 * 4 * 24 * 24 * 3));
    let nothing = &|_| panic!("nothing is to be decoded");
    let mapped = FrameStore::on_disk(&clips, &request, &out, nothing).unwrap();
    let loaded = FrameStore::of_clips(&clips, &request, Some(&out), nothing).unwrap();
    let decoded = FrameStore::of_clips(&clips, &request, None, &|_| {}).unwrap();
    for (index, clip) in clips.iter().enumerate() {
        assert_eq!(mapped.clip(index), decoded.clip(index), "{}", clip.id);
        assert_eq!(loaded.clip(index), decoded.clip(index), "{}", clip.id);
    }
    assert_eq!((mapped.ids()[3].as_str(), mapped.size()), (clips[3].id.as_str(), 24));
    assert!(mapped.clip(13).is_empty() && decoded.clip(13).is_empty());

    let again = prepare(&clips, &request, &out, &|_| {}).unwrap();
    assert_eq!((again.decoded, again.kept), (0, 13));
    let other = FrameRequest::uniform(2, 24);
    assert_eq!(prepare(&clips[..2], &other, &out, &|_| {}).unwrap().decoded, 2);
    assert_eq!(prepare(&clips, &request, &out, &|_| {}).unwrap().kept, 13);
}

#[test]
fn the_resizing_rule_applies_to_decoded_prepared_and_paired_frames() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(folder.path(), 3);
    let videos = world.videos().unwrap();
    let clips: Vec<&Clip> = videos.clips.iter().collect();
    let (cache, blip) = (folder.path().join("cache"), FrameRequest::uniform(3, 24));
    let lavis = FrameRequest { resizing: Resizing::Lavis, ..blip };
    let stores = |request| {
        let cached = FrameStore::of_clips(&clips, request, Some(&cache), &|_| {}).unwrap();
        let mapped = FrameStore::on_disk(&clips, request, &cache, &|_| {}).unwrap();
        [cached, mapped, FrameStore::of_clips(&clips, request, None, &|_| {}).unwrap()]
    };
    let (blip_stores, lavis_stores) = (stores(&blip), stores(&lavis));
    for (index, clip) in clips.iter().enumerate() {
        let whole = decode(&clip.path, &FrameRequest { size: None, ..lavis }).unwrap();
        let expected = resize(&whole, 24, Resizing::Lavis).unwrap().data;
        assert_eq!(decode(&clip.path, &lavis).unwrap().data, expected, "{}", clip.id);
        assert!(lavis_stores.iter().all(|store| store.clip(index) == expected), "{}", clip.id);
        assert!(blip_stores.iter().all(|store| store.clip(index) != expected), "{}", clip.id);
    }
    let pairs = world.pairs(Split::Validate).unwrap();
    let images = |resizing| FrameStore::of_pairs(&pairs, 24, resizing, Some(&cache), &|_| {}).unwrap();
    let (lavis, blip) = (images(Resizing::Lavis), images(Resizing::Blip));
    assert!((0..pairs.pairs.len()).all(|index| lavis.clip(index) != blip.clip(index)));
}

/// The shards in a folder.
fn shards(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "shard")).collect()
}

#[test]
fn a_damaged_shard_is_made_again_and_a_broken_clip_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let videos = world(folder.path(), 2).videos().unwrap();
    let clips: Vec<&Clip> = videos.clips.iter().collect();
    let request = FrameRequest::uniform(2, 16);
    let out = folder.path().join("prepared");
    prepare(&clips, &request, &out, &|_| {}).unwrap();
    let shard = shards(&out).remove(0);
    let sound = std::fs::read(&shard).unwrap();
    let mut bytes = sound.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&shard, &bytes).unwrap();
    assert_eq!(prepare(&clips, &request, &out, &|_| {}).unwrap().decoded, 9);
    assert_eq!(std::fs::read(&shard).unwrap(), sound);

    std::fs::write(&clips[1].path, b"no video").unwrap();
    let message = prepare(&clips, &request, &out, &|_| {}).unwrap_err().to_string();
    assert!(message.contains(clips[1].path.to_str().unwrap()), "{message}");
    assert_eq!(shards(&out), [shard]);
    let other =
        |path: &Path| path.extension().is_none_or(|extension| extension != "shard" && extension != "json");
    let files = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(files.filter(|path| other(path)).collect::<Vec<_>>(), Vec::<PathBuf>::new());
}

/// Seconds of processor time that this process has used; other work on the machine does not count.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks =
        |field: usize| after_name.split_whitespace().nth(field).and_then(|text| text.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}

/// Measures preparing at growing numbers of clips: `cargo test -p data --test all -- --ignored --nocapture
/// linear`.
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
