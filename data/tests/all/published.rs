//! The published data sets as they are downloaded, and their splits.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use crate::shared::shared;
use data::datasets::splits::Splits;
use data::datasets::{Annotations, DataSet, DatasetPaths, Split, annotations, msvd, open, skip, splits};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn official(dataset: DataSet, path: &Path) -> Annotations {
    let set = annotations(dataset, path).unwrap();
    Splits::default().apply(dataset, set).unwrap()
}

/// Clips, captions and questions of each split.
fn counts(set: &Annotations) -> [[usize; 3]; 3] {
    Split::ALL.map(|split| {
        set.split(split).fold([0; 3], |[clips, captions, questions], clip| {
            [clips + 1, captions + clip.captions.len(), questions + clip.questions.len()]
        })
    })
}

#[test]
fn msr_vtt_has_its_clips_and_two_hundred_thousand_captions_at_once() {
    let Some(folder) = shared("annotations/msrvtt") else { return };
    let timed = || {
        let started = Instant::now();
        (official(DataSet::Msrvtt, &folder), started.elapsed())
    };
    // The fastest of three: what a machine that does other work as well is slowed down by does not count.
    let (set, took) = [timed(), timed(), timed()].into_iter().min_by_key(|(_, took)| *took).unwrap();
    assert_eq!(counts(&set), [[6513, 130_260, 0], [497, 9940, 0], [2990, 59_800, 0]]);
    assert_eq!(set.clips[0].id, "video0");
    assert!(took < Duration::from_secs(2), "{took:?}");
    println!("read {} captions in {took:?}", set.clips.iter().map(|clip| clip.captions.len()).sum::<usize>());
}

#[test]
fn split_files_that_are_one_clip_off_are_caught() {
    let (Some(folder), Some(off)) = (shared("annotations/msrvtt"), shared("annotations/msrvtt/off_by_one"))
    else {
        return;
    };
    let set = annotations(DataSet::Msrvtt, &folder).unwrap();
    let files = |own| Splits {
        files: vec![
            (Split::Train, off.join("MSRVTT_train.6k.csv.gz")),
            (Split::Validate, off.join("val.csv.gz")),
        ],
        own,
    };
    let message = files(false).apply(DataSet::Msrvtt, set.clone()).unwrap_err().to_string();
    assert!(message.contains("train has 6,513 clips, got 6,512; missing: video6512;"), "{message}");
    let validation = Splits { files: files(false).files[1..].to_vec(), own: false };
    let message = validation.apply(DataSet::Msrvtt, set.clone()).unwrap_err().to_string();
    assert!(message.contains("validate has 497 clips, got 498; too many: video6512;"), "{message}");
    let own = files(true).apply(DataSet::Msrvtt, set).unwrap();
    assert_eq!(counts(&own).map(|[clips, ..]| clips), [6512, 498, 0]);
}

#[test]
fn msvd_is_read_in_both_forms() {
    let Some(folder) = shared("annotations/msvd") else { return };
    let set = official(DataSet::Msvd, &folder);
    assert_eq!(counts(&set), [[1200, 48_774, 0], [100, 4290, 0], [670, 27_763, 0]]);
    assert_eq!((set.clips[0].id.as_str(), set.clips[0].names[0].as_str()), ("vid1", "-4wsuPCjDBc_5_15"));
    let lists = ["train", "val", "test"].map(|split| folder.join(format!("{split}_list.txt.gz")));
    for (list, split) in lists.iter().zip(Split::ALL) {
        let listed = splits::read_ids(list).unwrap();
        let named: Vec<&str> = set.split(split).map(|clip| clip.names[0].as_str()).collect();
        assert_eq!(listed, named);
    }

    let corpus = folder.join("hobincar_SGN_val.csv.gz");
    let mapping = folder.join("youtube_mapping.txt.gz");
    let typed = msvd::read_corpus(&[&corpus], Some(&mapping)).unwrap();
    assert_eq!(counts(&typed)[1][0], 100);
    for (typed, plain) in typed.clips.iter().zip(set.split(Split::Validate)) {
        assert_eq!((&typed.id, &typed.names), (&plain.id, &plain.names));
    }
}

#[test]
fn vatex_is_read_with_its_mapping() {
    let Some(folder) = shared("annotations/vatex") else { return };
    let set = official(DataSet::Vatex, &folder);
    assert_eq!(counts(&set), [[0; 3], [3000, 30_000, 0], [0; 3]]);
    assert_eq!(set.clips[0].id, "G9zN5TTuGO4_000179_000189");
    assert_eq!(set.clips[0].names, ["video25991"]);
}

#[test]
fn questions_have_their_published_counts() {
    if let Some(folder) = shared("annotations/msvd-qa") {
        let set = official(DataSet::MsvdQa, &folder);
        assert_eq!(counts(&set), [[1161, 0, 30_933], [245, 0, 6415], [504, 0, 13_157]]);
    }
    if let Some(folder) = shared("annotations/msrvtt-qa") {
        let set = official(DataSet::MsrvttQa, &folder);
        assert_eq!(counts(&set), [[0; 3], [497, 0, 12_278], [0; 3]]);
        assert_eq!(set.clips[0].questions[0].text, "what are three people sitting on");
    }
}

#[test]
fn coco_references_and_flickr8k_images_are_read() {
    if let Some(folder) = shared("annotations/coco") {
        let set = official(DataSet::Coco, &folder);
        assert_eq!(counts(&set)[2][0], 5000);
    }
    if let Some(folder) = shared("flickr8k_1000") {
        let place = DatasetPaths {
            dataset: DataSet::Flickr8k,
            annotations: folder.clone(),
            videos: folder,
            splits: Splits { own: true, ..Splits::default() },
            skip: None,
        };
        let set = open(&place).unwrap();
        assert!(set.clips.len() > 900 && set.clips.iter().all(|clip| clip.captions.len() == 5));
        let official = DatasetPaths { splits: Splits::default(), ..place };
        assert!(open(&official).unwrap_err().to_string().contains("6,000 images"));
    }
}

fn small(folder: &Path) -> DatasetPaths {
    let captions = folder.join("captions.csv");
    std::fs::write(&captions, "video,caption,split\na,one,train\nb,two,train\nc,three,test\n").unwrap();
    std::fs::create_dir_all(folder.join("videos")).unwrap();
    for name in ["a.mp4", "c.webm"] {
        std::fs::write(folder.join("videos").join(name), b"not a video").unwrap();
    }
    DatasetPaths {
        dataset: DataSet::Own,
        annotations: folder.to_path_buf(),
        videos: folder.join("videos"),
        splits: Splits::default(),
        skip: None,
    }
}

fn skipped(list: &skip::SkipList, path: &Path) -> Option<PathBuf> {
    list.save(path).unwrap();
    Some(path.to_path_buf())
}

#[test]
fn what_is_left_out_is_listed_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let place = small(folder.path());
    let message = open(&place).unwrap_err().to_string();
    assert!(message.contains("1 of 3 annotated clips") && message.contains("first: b"), "{message}");

    let missing = skip::Skipped { id: "b".into(), split: Split::Train, reason: skip::Reason::Missing };
    let broken = skip::Skipped {
        id: "c".into(),
        split: Split::Test,
        reason: skip::Reason::Undecodable {
            path: place.videos.join("c.webm"),
            bytes: 11,
            error: "no video".into(),
        },
    };
    let list = skip::SkipList { dataset: "own".into(), clips: vec![missing, broken] };
    let skip = skipped(&list, &folder.path().join("skip.json"));
    let place = DatasetPaths { skip, ..place };
    let set = open(&place).unwrap();
    assert_eq!(set.clips.iter().map(|clip| clip.id.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(set.usage(Split::Train).to_string(), "1 of 2 clips");
    assert_eq!(set.usage(Split::Test).to_string(), "0 of 1 clips");
    assert_eq!(set.skipped, list.clips);

    // A clip that came back, or became another file, is not left out in silence.
    std::fs::write(place.videos.join("b.mp4"), b"x").unwrap();
    std::fs::write(place.videos.join("c.webm"), b"longer than before").unwrap();
    let message = open(&place).unwrap_err().to_string();
    assert!(message.contains("b was missing and is there now"), "{message}");
    assert!(message.contains("c had 11 bytes and has 18 now"), "{message}");
}

#[test]
fn a_folder_without_annotations_says_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    for dataset in DataSet::ALL {
        let message = annotations(dataset, folder.path()).unwrap_err().to_string();
        assert!(
            message.contains("no annotation file there") && message.contains(dataset.name()),
            "{message}"
        );
    }
    assert!("msrvt".parse::<DataSet>().unwrap_err().to_string().contains("msrvtt, msvd, vatex"));
}
