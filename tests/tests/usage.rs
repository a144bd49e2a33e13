//! Wrong usage and broken surroundings: the message names the thing and the next step, the exit code is 2 for
//! wrong words and 1 for failures, nothing panics, and no half-written result is left.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use tests::Desk;

fn refused(arguments: &[&str], code: i32, words: &[&str]) {
    let ran = Desk::new().run(arguments);
    assert_eq!(ran.code, Some(code), "{arguments:?}: {}", ran.err);
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
    for word in words {
        assert!(ran.err.contains(word), "{arguments:?} should say {word:?}: {}", ran.err);
    }
}

#[test]
fn an_unknown_ablation_is_answered_with_the_nearest() {
    refused(
        &["ablation", "freeze_vti"],
        2,
        &["freeze_vti", "did you mean \"freeze_vit\"?", "experiments list"],
    );
}

#[test]
fn an_unknown_variant_is_answered_with_the_nearest() {
    refused(
        &["ablation", "freeze_vit", "--only", "qformer"],
        2,
        &["--only qformer", "qformer_only", "experiments show freeze_vit"],
    );
}

#[test]
fn an_unknown_profile_is_answered_with_the_nearest() {
    refused(&["ablation", "freeze_vit", "--profile", "tinny"], 2, &["tinny", "did you mean \"tiny\"?"]);
}

#[test]
fn an_unknown_device_is_answered_with_all_words() {
    refused(&["ablation", "freeze_vit", "--device", "gpu"], 2, &["--device gpu", "cuda:1", "cpu"]);
}

#[test]
fn an_unknown_or_ill_typed_setting_is_answered_with_the_key() {
    let set = |value| ["ablation", "freeze_vit", "--set", value];
    refused(&set("train.epoch=3"), 2, &["train.epoch=3", "did you mean \"epochs\"?"]);
    refused(&set("train.epochs=many"), 2, &["train.epochs=many"]);
    refused(&set("trian.epochs=3"), 2, &["did you mean \"train\"?"]);
    refused(&set("nonsense"), 2, &["expected key=value"]);
    refused(
        &["show", "freeze_vit", "--set", "train.parameters={\"vit.*\"=\"frozen\"}"],
        2,
        &["vit.*", "vision_model"],
    );
}

#[test]
fn a_renamed_key_is_answered_with_its_present_name() {
    let set = |value| ["ablation", "freeze_vit", "--set", value];
    refused(&set("train.clip_norm=1.0"), 2, &["train.clip_norm: was renamed to train.max_grad_norm"]);
    refused(&set("evaluate.num_beams=3"), 2, &["evaluate.num_beams: was renamed to generate.num_beams"]);
    refused(&set("frames.keep=disk"), 2, &["frames.keep: was renamed to frames.storage"]);
    let pretrain = ["pretrain", "smoke", "--out", "c", "--set", "sentences.keep=0.5"];
    refused(&pretrain, 2, &["sentences.keep: was renamed to sentences.word_keep_probability"]);
}

#[test]
fn missing_meteor_tables_are_named_with_the_places_that_were_searched() {
    let desk = Desk::new();
    std::fs::write(desk.path("p.json"), PREDICTIONS).unwrap();
    std::fs::write(desk.path("r.json"), REFERENCES).unwrap();
    let arguments = ["score", "--predictions", "p.json", "--references", "r.json", "--partial"];
    let ran = desk.run(&arguments);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let place = desk.path("cache/meteor").display().to_string();
    assert!(ran.err.contains("METEOR: not computed") && ran.err.contains(&place), "{}", ran.err);
}

#[test]
fn an_ablation_file_with_an_unknown_key_is_answered_with_its_name() {
    let desk = Desk::new();
    let text = "question = \"?\"\npaper = \"-\"\n[variants.a]\ndescription = \"a\"\nset.train.epcohs = 1\n";
    std::fs::write(desk.path("mine.toml"), text).unwrap();
    let ran = desk.run(&["ablation", "mine.toml"]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(ran.err.contains("did you mean \"epochs\"?") && ran.err.contains("variant \"a\""), "{}", ran.err);
}

#[test]
fn an_impossible_world_is_refused() {
    let desk = Desk::new();
    let ran = desk.run(&["data", "synthesize", "--out", "w", "--profile", "smoke", "--set", "world.size=7"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("size") && !desk.path("w").exists(), "{}", ran.err);
}

#[test]
fn a_missing_checkpoint_is_named_with_the_command_that_makes_it() {
    refused(
        &["ablation", "freeze_vit", "--profile", "smoke", "--set", "checkpoint=nowhere"],
        1,
        &["nowhere", "experiments pretrain tiny --out"],
    );
}

#[cfg(unix)]
#[test]
fn a_write_protected_folder_is_named_before_anything_is_trained() {
    let desk = Desk::new();
    // a file where the folder should be fails for root too, whom permissions do not stop
    std::fs::write(desk.path("runs"), "").unwrap();
    let ran = desk.run(&["ablation", "freeze_vit", "--profile", "smoke"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("runs/freeze_vit") && !ran.err.contains("panicked"), "{}", ran.err);
}

#[test]
fn without_arguments_the_help_is_shown() {
    let ran = Desk::new().run(&[]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("Usage"), "{}", ran.err);
}

const PREDICTIONS: &str =
    r#"[{"image_id": "a", "caption": "A dog runs."}, {"image_id": "b", "caption": "a cat sits"}]"#;
const REFERENCES: &str = r#"{"images": [{"id": "a"}, {"id": "b"}, {"id": "c"}], "annotations": [
    {"image_id": "a", "caption": "a dog runs"}, {"image_id": "a", "caption": "the dog is running"},
    {"image_id": "b", "caption": "a cat is sitting"}, {"image_id": "c", "caption": "a bird"}]}"#;

#[test]
fn scoring_lists_missing_ids_and_scores_the_rest_only_when_told_to() {
    let desk = Desk::new();
    std::fs::write(desk.path("p.json"), PREDICTIONS).unwrap();
    std::fs::write(desk.path("r.json"), REFERENCES).unwrap();
    let arguments =
        ["score", "--predictions", "p.json", "--references", "r.json", "--metrics", "bleu,rouge,cider"];
    let ran = desk.run(&arguments);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("1: c") && ran.err.contains("--partial"), "{}", ran.err);
    let mut partial = arguments.to_vec();
    partial.extend(["--partial", "--json", "--per-video", "each.json"]);
    let ran = desk.run(&partial);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("1 have no prediction"), "{}", ran.err);
    let scores: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let keys: Vec<&String> = scores.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"]);
    let each: serde_json::Value = serde_json::from_str(&desk.read("each.json")).unwrap();
    assert_eq!(each[0]["image_id"], "a");
    assert_eq!(each[0]["ROUGE_L"], 1.0, "equal to a reference once tokenised");
}

#[test]
fn scoring_names_the_file_that_is_not_there_or_not_what_it_should_be() {
    let desk = Desk::new();
    std::fs::write(desk.path("r.json"), REFERENCES).unwrap();
    let ran = desk.run(&["score", "--predictions", "p.json", "--references", "r.json"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("p.json"), "{}", ran.err);
    std::fs::write(desk.path("p.json"), "[{\"image_id\": 3}]").unwrap();
    let ran = desk.run(&["score", "--predictions", "p.json", "--references", "r.json"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("p.json") && ran.err.contains("caption"), "{}", ran.err);
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_early_is_no_panic() {
    let desk = Desk::new();
    let mut child = desk
        .command(&["show", "freeze_vit"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn the_doctor_names_what_is_there_and_how_to_install_what_is_not() {
    let desk = Desk::new();
    let ran = desk.run(&["doctor"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    for wanted in ["device cpu", "GStreamer", "avdec_h264", "METEOR's tables", "MPI", "free"] {
        assert!(ran.out.contains(wanted), "{wanted}: {}", ran.out);
    }
    assert!(ran.out.contains("--features cuda"), "{}", ran.out);
    let ran = desk.run(&["doctor", "--json"]);
    let findings: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert!(findings.as_array().unwrap().iter().all(|finding| finding["state"] != "missing"), "{}", ran.out);

    let ran = desk.run(&["ablation", "freeze_vit", "--device", "list"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("device cpu") && ran.out.contains("device vulkan"), "{}", ran.out);
    assert!(!desk.path("runs").exists(), "nothing is run");
}
