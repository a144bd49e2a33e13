//! Every ablation in smoke mode, and what it leaves behind.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use std::collections::BTreeSet;

use serde_json::Value;
use tests::Desk;

fn summary(desk: &Desk) -> Value {
    serde_json::from_str(&desk.read("runs/freeze_vit/summary.json")).unwrap()
}

const SMOKE: [&str; 4] = ["ablation", "freeze_vit", "--profile", "smoke"];

#[test]
fn an_ablation_leaves_table_report_plots_and_predictions() {
    let desk = Desk::new();
    let ran = desk.run(&SMOKE);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    for word in
        ["all_trainable", "freeze_vit", "qformer_only", "pretrained, not trained", "chance", "test CIDEr"]
    {
        assert!(ran.out.contains(word), "{word}: {}", ran.out);
    }
    assert!(
        ran.out.lines().filter(|line| line.contains("epoch  1/2")).count() == 3,
        "a line an epoch: {}",
        ran.out
    );

    let summary = summary(&desk);
    assert_eq!(summary["variants"].as_array().unwrap().len(), 3);
    assert_eq!(summary["clips"], serde_json::json!([8, 4, 6]));
    let report = desk.read("runs/freeze_vit/report.md");
    assert!(
        report.contains("| variant") && report.contains("reference:") && report.contains("loss.svg"),
        "{report}"
    );
    for plot in ["loss.svg", "cider.svg", "event.svg"] {
        assert!(desk.read(&format!("runs/freeze_vit/{plot}")).contains("</svg>"));
    }
    for variant in ["all_trainable", "freeze_vit", "qformer_only"] {
        let folder = format!("runs/freeze_vit/{variant}/seed-1");
        let predictions: Value =
            serde_json::from_str(&desk.read(&format!("{folder}/predictions/test.json"))).unwrap();
        let ids: BTreeSet<&str> =
            predictions.as_array().unwrap().iter().map(|row| row["image_id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 6, "a caption for every test clip");
        assert_eq!(desk.read(&format!("{folder}/metrics.jsonl")).lines().count(), 2);
        assert!(desk.read(&format!("{folder}/config.toml")).contains("[train.parameters]"));
        let provenance: Value =
            serde_json::from_str(&desk.read(&format!("{folder}/provenance.json"))).unwrap();
        for key in ["command", "commit", "machine", "config_hash", "data_hash", "date"] {
            assert!(!provenance[key].as_str().unwrap().is_empty(), "{key}");
        }
        assert!(desk.path(&format!("{folder}/best/model.safetensors")).is_file());
    }
}

#[test]
fn the_same_command_gives_the_same_summary_to_the_last_digit_and_keeps_the_earlier_run() {
    let desk = Desk::new();
    assert_eq!(desk.run(&SMOKE).code, Some(0));
    let first = desk.read("runs/freeze_vit/summary.json");
    let again = desk.run(&SMOKE);
    assert_eq!(again.code, Some(0));
    assert!(again.err.contains("freeze_vit.old-1"), "{}", again.err);
    assert_eq!(first, desk.read("runs/freeze_vit/summary.json"));
    assert_eq!(first, desk.read("runs/freeze_vit.old-1/summary.json"));
}

#[test]
fn seeds_only_and_set_do_what_they_say() {
    let desk = Desk::new();
    let mut arguments = SMOKE.to_vec();
    arguments.extend(["--only", "qformer_only", "--seeds", "2", "--set", "train.epochs=1"]);
    let ran = desk.run(&arguments);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let summary = summary(&desk);
    assert_eq!(summary["variants"].as_array().unwrap().len(), 1);
    let runs = summary["variants"][0]["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[0]["history"].as_array().unwrap().len(), 1);
    assert_ne!(runs[0]["history"], runs[1]["history"], "seeds differ");
}

#[test]
fn list_and_show_print_what_there_is() {
    let desk = Desk::new();
    let list = desk.run(&["list"]);
    assert!(list.out.contains("freeze_vit") && list.out.contains("smoke"), "{}", list.out);
    let show = desk.run(&["show", "freeze_vit"]);
    assert_eq!(show.code, Some(0), "{}", show.err);
    assert!(
        show.out.contains("trainable") && show.out.contains("\"vision_model.*\" = \"frozen\""),
        "{}",
        show.out
    );
}

#[test]
fn pretraining_makes_a_checkpoint_that_an_ablation_takes() {
    let desk = Desk::new();
    let ran = desk.run(&["pretrain", "smoke", "--out", "checkpoint", "--no-tui"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("held-out images"), "{}", ran.out);
    let mut arguments = SMOKE.to_vec();
    arguments.extend(["--only", "freeze_vit", "--set", "checkpoint=checkpoint"]);
    let ran = desk.run(&arguments);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
}

#[test]
fn a_damaged_clip_stops_the_run_with_its_name() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["data", "synthesize", "--profile", "smoke", "--out", "w"]).code, Some(0));
    let mut arguments = SMOKE.to_vec();
    arguments.extend(["--only", "qformer_only"]);
    assert_eq!(desk.run(&arguments).code, Some(0));
    let world = std::fs::read_dir(desk.path("cache")).unwrap().map(|entry| entry.unwrap().path());
    let world = world.into_iter().find(|path| path.is_dir()).unwrap();
    let clip = std::fs::read_dir(world.join("videos")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&clip, b"").unwrap();
    let ran = desk.run(&arguments);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let name = clip.file_name().unwrap().to_str().unwrap();
    assert!(ran.err.contains(name) && !ran.err.contains("panicked"), "{}", ran.err);
    std::fs::remove_file(&clip).unwrap();
    let ran = desk.run(&arguments);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains(name.split('.').next().unwrap()), "{}", ran.err);
}
