//! Pretraining in its stages: stopped and gone on with, on a user's own pairs, and with settings that cannot
//! be.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{Desk, Ran};

const SMOKE: [&str; 5] = ["pretrain", "smoke", "--out", "checkpoint", "--no-tui"];
const STAGES: [&str; 3] = ["text", "first_stage", "second_stage"];

fn start(desk: &Desk, sets: &[&str], resume: bool) -> Child {
    let mut command = desk.command(&SMOKE);
    for set in sets {
        command.args(["--set", set]);
    }
    if resume {
        command.arg("--resume");
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn epochs(desk: &Desk, stage: &str) -> usize {
    desk.read(&format!("runs/pretrain-smoke/{stage}/metrics.jsonl")).lines().count()
}

#[test]
fn a_pretraining_killed_in_each_stage_ends_the_same() {
    let sets = ["text.epochs=8", "first_stage.train.epochs=8", "second_stage.train.epochs=8"];
    let whole = Desk::new();
    assert!(start(&whole, &sets, false).wait().unwrap().success());
    let desk = Desk::new();
    for (place, stage) in STAGES.into_iter().enumerate() {
        let mut child = start(&desk, &sets, place > 0);
        let started = Instant::now();
        while epochs(&desk, stage) < 3 && child.try_wait().unwrap().is_none() {
            assert!(
                started.elapsed() < Duration::from_secs(300),
                "no third epoch of {stage} in five minutes"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!desk.path("checkpoint/model.safetensors").is_file(), "killed too late in {stage}");
    }
    assert!(start(&desk, &sets, true).wait().unwrap().success());
    for stage in STAGES {
        let metrics = format!("runs/pretrain-smoke/{stage}/metrics.jsonl");
        assert_eq!(desk.read(&metrics), whole.read(&metrics), "{stage}");
    }
    let weights = |desk: &Desk| std::fs::read(desk.path("checkpoint/model.safetensors")).unwrap();
    assert!(weights(&desk) == weights(&whole), "weights differ");
}

/// As BLIP-2 itself was made: a ViT and a language model that are there, frozen, and a new Q-Former between
/// them.
#[test]
fn a_pretraining_starts_from_a_checkpoints_vit_and_language_model() {
    let desk = Desk::new();
    assert!(start(&desk, &[], false).wait().unwrap().success());
    let frozen = "first_stage.train.parameters={ \"vision_model.*\" = \"frozen\" }";
    let sets = [
        "--set",
        "start=checkpoint",
        "--set",
        frozen,
        "--set",
        "seed=1",
        "--set",
        "model.num_query_tokens=6",
    ];
    let ran = desk
        .run(&[&["pretrain", "smoke", "--out", "new", "--runs", "new-runs", "--no-tui"][..], &sets].concat());
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(
        !ran.out.contains("sentences") && !desk.path("new-runs/pretrain-smoke/text").exists(),
        "{}",
        ran.out
    );
    let read = |checkpoint: &str| {
        let bytes = std::fs::read(desk.path(checkpoint).join("model.safetensors")).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let table: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
        let values = |name: &str| {
            let offsets = &table[name]["data_offsets"];
            let place = |at: usize| 8 + header + offsets[at].as_u64().unwrap() as usize;
            bytes[place(0)..place(1)].to_vec()
        };
        [
            "vision_model.encoder.layers.0.mlp.fc1.weight",
            "language_model.shared.weight",
            "qformer.encoder.layer.0.attention.attention.query.weight",
        ]
        .map(values)
    };
    let ([vit, language_model, qformer], [new_vit, new_language_model, new_qformer]) =
        (read("checkpoint"), read("new"));
    assert!(vit == new_vit && language_model == new_language_model && qformer != new_qformer);
    let words = |checkpoint: &str| desk.read(&format!("{checkpoint}/tokenizer.json"));
    assert_eq!(words("checkpoint"), words("new"));
    let absent = desk.run(&["pretrain", "smoke", "--out", "other", "--set", "start=nowhere"]);
    assert!(
        absent.code == Some(2) && absent.err.contains("there is no checkpoint nowhere"),
        "{}",
        absent.err
    );
}

#[test]
fn every_stage_says_what_it_measured_and_later_settings_leave_earlier_stages_as_they_are() {
    let desk = Desk::new();
    let ran = desk.run(&SMOKE);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    let figures: Value = serde_json::from_str(&desk.read("checkpoint/pretraining.json")).unwrap();
    for (stage, names) in [
        ("text", &["Loss"][..]),
        ("first_stage", &["Loss", "ITC loss", "ITM loss", "ITG loss", "Image-to-text R@1"]),
        ("second_stage", &["Loss", "shape", "colour"]),
    ] {
        for name in names {
            assert!(figures[stage][name].is_f64(), "{stage}: {name}: {figures}");
        }
    }
    let text = desk.read("runs/pretrain-smoke/text/metrics.jsonl");
    let with = |sets: &[&str]| {
        let mut arguments = SMOKE.to_vec();
        arguments.push("--resume");
        arguments.extend(sets.iter().flat_map(|set| ["--set", set]));
        desk.run(&arguments)
    };
    let refused = with(&["second_stage.whole=0.25"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("second stage") && refused.err.contains("whole"), "{}", refused.err);
    std::fs::remove_dir_all(desk.path("runs/pretrain-smoke/second_stage")).unwrap();
    let ran = with(&["second_stage.whole=0.25"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(text, desk.read("runs/pretrain-smoke/text/metrics.jsonl"));
}

/// A table of pictures in one colour each.
fn own_pairs(desk: &Desk, count: u8) {
    std::fs::create_dir_all(desk.path("pictures")).unwrap();
    let mut table = String::from("image,caption\n");
    for i in 0..count {
        // the simplest picture there is: a portable pixmap's cousin would need a decoder that is not built in
        std::fs::write(desk.path(&format!("pictures/{i}.gif")), gif(i.wrapping_mul(37))).unwrap();
        table.push_str(&format!("{i}.gif,A zebra numbered {i}.\n"));
    }
    std::fs::write(desk.path("pairs.csv"), table).unwrap();
}

/// A GIF of one pixel in a shade of grey.
fn gif(shade: u8) -> Vec<u8> {
    let mut bytes = b"GIF89a\x01\x00\x01\x00\x80\x00\x00".to_vec();
    bytes.extend([shade, shade, shade, 0, 0, 0]);
    bytes.extend(b"\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b");
    bytes
}

fn with_own(desk: &Desk, more: &[&str]) -> Ran {
    let mut arguments = SMOKE.to_vec();
    for set in ["pairs.table=pairs.csv", "pairs.images=pictures", "second_stage.train.select=loss"] {
        arguments.extend(["--set", set]);
    }
    arguments.extend(more.iter().flat_map(|set| ["--set", set]));
    desk.run(&arguments)
}

#[test]
fn a_table_of_ones_own_is_learned_from_with_its_words() {
    let desk = Desk::new();
    own_pairs(&desk, 12);
    let ran = with_own(&desk, &["pairs.held_out=4", "pairs.count=6"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(desk.read("checkpoint/tokenizer.json").contains("\"zebra\""));
    let figures: Value = serde_json::from_str(&desk.read("checkpoint/pretraining.json")).unwrap();
    assert!(
        figures["second_stage"]["Loss"].is_f64() && figures["second_stage"]["shape"].is_null(),
        "{figures}"
    );
    assert!(!desk.read("runs/pretrain-smoke/second_stage/predictions/validate-epoch-1.json").is_empty());
}

#[test]
fn what_cannot_be_learned_from_is_refused_before_anything_is_trained() {
    let desk = Desk::new();
    own_pairs(&desk, 12);
    for (sets, message) in [
        (&["pairs.share=0"][..], "pairs.share"),
        (&["pairs.count=5", "pairs.held_out=4"], "leaves one alone"),
        (&["second_stage.train.select=shape"], "tiny world's images only"),
        (&["pairs.table=nothing.csv"], "nothing.csv"),
        (&["first_stage.train.batch_size=1"], "first_stage.train.batch_size"),
    ] {
        let ran = with_own(&desk, sets);
        assert_eq!(ran.code, Some(1), "{message}: {}", ran.err);
        assert!(ran.err.contains(message) && !ran.err.contains("panicked"), "{message}: {}", ran.err);
    }
    std::fs::write(desk.path("pairs.csv"), "image,caption\n0.gif,\n").unwrap();
    let ran = with_own(&desk, &[]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("caption") && ran.err.contains("pairs.csv"), "{}", ran.err);
    assert!(!desk.path("runs").exists(), "nothing was begun");
    let ran = desk.run(&[&SMOKE[..], &["--set", "second_stage.whole=2"]].concat());
    assert!(ran.code == Some(2) && ran.err.contains("second_stage.whole"), "{}", ran.err);
}

#[test]
fn a_picture_that_is_gone_is_named() {
    let desk = Desk::new();
    own_pairs(&desk, 12);
    std::fs::remove_file(desk.path("pictures/3.gif")).unwrap();
    let ran = with_own(&desk, &["pairs.held_out=4"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("3.gif") && !ran.err.contains("panicked"), "{}", ran.err);
}
