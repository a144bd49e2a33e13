//! The tiny world: equal files for equal seeds, and files that agree with the scenes.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use data::datasets::questions::most_frequent_answers;
use data::datasets::{DataSet, Split, annotations};
use data::frames::FrameStore;
use data::sampling::Sampling;
use data::tiny_world::config::{ClipCounts, PairCounts};
use data::tiny_world::draw::held_out;
use data::tiny_world::scene::Event;
use data::tiny_world::{
    QuestionKind, World, WorldConfig, assess, assess_picture, chance_levels, parse_caption, synthesize,
};
use data::video::{FrameRequest, Resizing, decode};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

fn small(seed: u64) -> WorldConfig {
    WorldConfig {
        seed,
        clips: ClipCounts { train: 12, validate: 4, test: 8 },
        pairs: PairCounts { train: 60, validate: 12 },
        ..WorldConfig::default()
    }
}

fn make(config: &WorldConfig, directory: &Path, threads: usize) -> World {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| synthesize(config, directory, &|_| {})).unwrap()
}

/// Every file below a directory with its bytes.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![directory.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().display().to_string();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn a_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let [one, four, other] = ["one", "four", "other"].map(|name| folder.path().join(name));
    make(&small(7), &one, 1);
    std::thread::sleep(std::time::Duration::from_millis(1100)); // a muxer's date counts seconds
    make(&small(7), &four, 4);
    make(&small(8), &other, 2);
    let (one, four, other) = (files(&one), files(&four), files(&other));
    assert_eq!(one.len(), 24 + 2 + 1 + 3 + 1, "clips, shards, annotations, questions, truth");
    for (name, bytes) in &one {
        assert!(four[name] == *bytes, "{name} differs between one thread and four");
        assert!(other[name] != *bytes, "{name} is the same for another seed");
    }
}

#[test]
fn annotations_agree_with_the_truth() {
    let folder = tempfile::tempdir().unwrap();
    let world = make(&small(1), &folder.path().join("world"), 2);
    let set = world.videos().unwrap();
    assert_eq!(set.clips.len(), 24);
    let mut scenes = BTreeSet::new();
    for split in Split::ALL {
        for (index, (clip, truth)) in set.split(split).iter().zip(world.truths(split)).enumerate() {
            assert_eq!(clip.id, truth.id);
            let captions: BTreeSet<&String> = clip.captions.iter().collect();
            assert_eq!(captions.len(), 20, "{} has captions twice", clip.id);
            for caption in &clip.captions {
                let assessed = assess(&parse_caption(caption), &truth.scene);
                assert!(
                    assessed.shape && assessed.direction != Some(false) && assessed.order != Some(false),
                    "{caption}"
                );
            }
            let main = truth.scene.main;
            let mut colours = std::iter::once(main.colour).chain(truth.scene.to_colour);
            let held = colours.any(|colour| held_out(colour, main.shape));
            assert_eq!(held, split != Split::Train && index % 2 == 1, "{}", clip.id);
            let new = scenes.insert(truth.scene.key());
            assert!(new || split == Split::Train, "{} is a copy", clip.id);
        }
    }
    let pairs = world.pairs(Split::Validate).unwrap();
    assert_eq!(world.pairs(Split::Train).unwrap().pairs.len(), 60);
    for (pair, truth) in pairs.pairs.iter().zip(world.held_out_pictures()) {
        assert_eq!(pair.id, truth.id);
        assert!(assess_picture(&parse_caption(&pair.caption), &truth.picture).0, "{}", pair.caption);
    }
}

#[test]
fn questions_are_read_as_those_of_msrvtt_qa() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = small(7);
    config.clips = ClipCounts { train: 200, validate: 30, test: 100 };
    let world = make(&config, &folder.path().join("world"), 2);
    let set = world.questions().unwrap();
    let found = annotations(DataSet::MsrvttQa, world.directory()).unwrap();
    assert_eq!(found.clips.len(), 330, "the folder reads as MSRVTT-QA's");
    let mut ids = BTreeSet::new();
    for split in Split::ALL {
        assert_eq!(set.split(split).len(), world.truths(split).count(), "every clip is asked about");
        for clip in set.split(split) {
            let scene = &world.truth(&clip.id).unwrap().scene;
            for question in &clip.questions {
                assert!(ids.insert(question.id.clone()), "question {} is there twice", question.id);
                let kind = world.question_kind(&question.id).unwrap();
                assert!(kind.answers().contains(&question.answer.as_str()), "{question:?} is no {kind:?}");
                let parsed = parse_caption(&question.answer);
                match kind {
                    QuestionKind::Shape => assert_eq!(parsed.shape, Some(scene.main.shape)),
                    QuestionKind::Colour => assert_eq!(parsed.colour, Some(scene.main.colour)),
                    QuestionKind::Corner => assert_eq!(parsed.shape, scene.second.map(|second| second.shape)),
                    QuestionKind::Count => assert_eq!(question.answer == "two", scene.second.is_some()),
                    QuestionKind::Event => assert_eq!(scene.events.len(), 1),
                    QuestionKind::Order => assert_eq!(scene.events.len(), 2),
                    QuestionKind::ColourChange => assert!(scene.events.contains(&Event::Recolour)),
                    QuestionKind::Direction
                    | QuestionKind::Growth
                    | QuestionKind::Presence
                    | QuestionKind::Background => {}
                }
            }
        }
    }
    assert_eq!(world.question_kind(&ids.len().to_string()), None);
    assert_eq!(world.question_kind("first"), None);
    let asked = |split| {
        let questions = set.split(split).into_iter().flat_map(|clip| &clip.questions);
        questions.map(|question| (world.question_kind(&question.id).unwrap(), question.answer.as_str()))
    };
    let constant = most_frequent_answers(asked(Split::Train));
    for kind in QuestionKind::ALL {
        let answers: Vec<&str> =
            asked(Split::Test).filter(|(own, _)| *own == kind).map(|(_, answer)| answer).collect();
        let right = answers.iter().filter(|answer| **answer == constant[&kind]).count();
        let (chance, even) = (right as f64 / answers.len() as f64, 1.0 / kind.answers().len() as f64);
        assert!(
            chance < 2.0 * even + 0.1,
            "{kind:?}: the most frequent answer of training is right {chance}"
        );
    }
}

#[test]
fn clips_decode_to_their_scenes() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = small(2);
    config.clips.train = 40;
    config.scenes.two_events = 0.0;
    config.scenes.second_object = 0.0;
    let world = make(&config, &folder.path().join("world"), 2);
    let mut moved = 0;
    for (clip, truth) in world.videos().unwrap().split(Split::Train).iter().zip(world.truths(Split::Train)) {
        let all = FrameRequest { size: None, ..FrameRequest::uniform(truth.scene.frames, 64) };
        let frames = decode(&clip.path, &all).unwrap();
        assert_eq!((frames.height, frames.width), (64, 64));
        let centres: Vec<(f64, f64)> = frames.iter().map(|frame| centre(frame, 64)).collect();
        let (first, last) = (centres[0], centres[centres.len() - 1]);
        let (right, down) = (last.0 - first.0, last.1 - first.1);
        match truth.scene.events[0] {
            Event::Right => assert!(right > 0.8 && down.abs() < 0.2, "{right} {down}"),
            Event::Left => assert!(right < -0.8 && down.abs() < 0.2, "{right} {down}"),
            Event::Down => assert!(down > 0.8 && right.abs() < 0.2, "{right} {down}"),
            Event::Up => assert!(down < -0.8 && right.abs() < 0.2, "{right} {down}"),
            Event::Still => assert!(down.abs() < 0.05 && right.abs() < 0.05, "{right} {down}"),
            _ => continue,
        }
        moved += 1;
    }
    assert!(moved > 10);
}

/// Where the light is, in the world's coordinates.
fn centre(frame: &[u8], size: usize) -> (f64, f64) {
    let (mut sum, mut x, mut y) = (0.0, 0.0, 0.0);
    for (place, pixel) in frame.chunks_exact(3).enumerate() {
        let light = f64::from(*pixel.iter().max().unwrap()).max(110.0) - 110.0;
        sum += light;
        x += light * ((place % size) as f64 + 0.5);
        y += light * ((place / size) as f64 + 0.5);
    }
    let half = size as f64 / 2.0;
    (x / sum / half - 1.0, y / sum / half - 1.0)
}

#[test]
fn a_world_is_made_once() {
    let cache = tempfile::tempdir().unwrap();
    let made = World::open_or_make(&small(3), cache.path(), &|_| {}).unwrap();
    let stamp =
        |world: &World| std::fs::metadata(world.directory().join("world.json")).unwrap().modified().unwrap();
    let before = stamp(&made);
    let opened = World::open_or_make(&small(3), cache.path(), &|_| panic!("nothing is to be done")).unwrap();
    assert_eq!((before, made.hash()), (stamp(&opened), opened.hash()));
    assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 1, "no unfinished world is left behind");
}

#[test]
fn a_world_does_not_overwrite_and_does_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("thesis.txt"), "mine").unwrap();
    let error = synthesize(&small(0), folder.path(), &|_| {}).unwrap_err().to_string();
    assert!(error.contains("new or empty"), "{error}");
    assert_eq!(files(folder.path()).len(), 1);

    let nothing = World::open(folder.path()).unwrap_err().to_string();
    assert!(nothing.contains("experiments data synthesize"), "{nothing}");
    let world = make(&small(0), &folder.path().join("world"), 2);
    let truth = world.directory().join("world.json");
    let text = std::fs::read_to_string(&truth).unwrap();
    std::fs::write(&truth, text.replacen("\"seed\":0", "\"seed\":1", 1)).unwrap();
    assert!(World::open(world.directory()).unwrap_err().to_string().contains("another version"));
    std::fs::write(&truth, &text[..text.len() / 2]).unwrap();
    assert!(World::open(world.directory()).is_err());
}

#[test]
fn an_impossible_world_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = small(0);
    config.captions = 30;
    // Without any choice of words there are not thirty different sentences.
    config.scenes.two_events = 0.0;
    config.clip_captions.no_direction = 0.0;
    config.size = 0;
    assert!(synthesize(&config, &folder.path().join("world"), &|_| {}).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn frames_are_stored_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let world = make(&small(4), &folder.path().join("world"), 2);
    let set = world.videos().unwrap();
    let clips = set.split(Split::Test);
    let request = FrameRequest { sampling: Sampling::Middle, ..FrameRequest::uniform(8, 32) };
    let cache = folder.path().join("cache");
    let made = FrameStore::of_clips(&clips, &request, Some(&cache), &|_| {}).unwrap();
    assert_eq!((made.ids().len(), made.size(), made.ids()[0].as_str()), (8, 32, clips[0].id.as_str()));
    for (index, clip) in clips.iter().enumerate() {
        assert_eq!(made.clip(index), decode(&clip.path, &request).unwrap().data);
    }
    assert!(made.clip(8).is_empty());
    let again = FrameStore::of_clips(&clips, &request, Some(&cache), &|_| panic!("it is cached")).unwrap();
    assert!((0..8).all(|index| made.clip(index) == again.clip(index)));
    let larger = FrameRequest { size: Some(48), ..request };
    assert_eq!(FrameStore::of_clips(&clips, &larger, Some(&cache), &|_| {}).unwrap().size(), 48);

    let pairs = world.pairs(Split::Validate).unwrap();
    let images = FrameStore::of_pairs(&pairs, 32, Resizing::Blip, Some(&cache), &|_| {}).unwrap();
    assert_eq!((images.ids().len(), images.clip(3).len()), (12, 32 * 32 * 3));
    let decoded = FrameStore::of_pairs(&pairs, 32, Resizing::Blip, None, &|_| {}).unwrap();
    assert!((0..12).all(|index| images.clip(index) == decoded.clip(index)));
}

#[test]
fn a_broken_clip_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let world = make(&small(5), &folder.path().join("world"), 2);
    let set = world.videos().unwrap();
    let clips = set.split(Split::Train);
    let bytes = std::fs::read(&clips[3].path).unwrap();
    std::fs::write(&clips[3].path, &bytes[..bytes.len() / 2]).unwrap();
    let request = FrameRequest::uniform(4, 32);
    let error = FrameStore::of_clips(&clips, &request, None, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("cut short") && error.contains(&clips[3].id), "{error}");
    std::fs::remove_file(&clips[3].path).unwrap();
    let error = world.videos().unwrap_err().to_string();
    assert!(error.contains("1 of 24") && error.contains(&clips[3].id), "{error}");
}

#[test]
fn chance_is_the_score_of_the_most_frequent_answer() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = small(6);
    config.clips.test = 40;
    let world = make(&config, &folder.path().join("world"), 2);
    let chance = chance_levels(&world, Split::Test);
    assert!((0.2..0.5).contains(&chance.shape), "{chance:?}");
    assert!((0.1..0.4).contains(&chance.colour), "{chance:?}");
    assert!((0.05..0.4).contains(&chance.event_kind), "{chance:?}");
    assert!((0.5..=0.8).contains(&chance.direction), "{chance:?}");
    assert!((0.5..=1.0).contains(&chance.order), "{chance:?}");
}

/// `cargo test -p data --test all -- --ignored --nocapture` prints what the world of the default
/// configuration costs.
#[test]
#[ignore = "measures the whole default world"]
fn times_of_the_default_world() {
    let folder = tempfile::tempdir().unwrap();
    let config = WorldConfig::default();
    let time =
        |what: &str, start: std::time::Instant| println!("{what}: {:.1} s", start.elapsed().as_secs_f64());
    let start = std::time::Instant::now();
    let world = synthesize(&config, &folder.path().join("world"), &|_| {}).unwrap();
    time("made", start);
    let size: usize = files(world.directory()).values().map(Vec::len).sum();
    println!("{} clips, {} pairs, {:.1} MB", set_len(&world), config.pairs.train, size as f64 / 1e6);
    let start = std::time::Instant::now();
    let set = world.videos().unwrap();
    let clips: Vec<_> = set.clips.iter().collect();
    let request = FrameRequest { sampling: Sampling::Middle, ..FrameRequest::uniform(8, 32) };
    FrameStore::of_clips(&clips, &request, None, &|_| {}).unwrap();
    time("clips decoded", start);
    let start = std::time::Instant::now();
    let pairs = world.pairs(Split::Train).unwrap();
    time("pairs listed", start);
    FrameStore::of_pairs(&pairs, 32, Resizing::Blip, None, &|_| {}).unwrap();
    time("images decoded", start);
}

fn set_len(world: &World) -> usize {
    world.videos().unwrap().clips.len()
}
