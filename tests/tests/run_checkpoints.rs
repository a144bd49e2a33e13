//! The checkpoint of a run with frozen parts: trained tensors, and the name of the base that has the others.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use std::collections::BTreeSet;

use serde_json::Value;
use tests::Desk;

/// Frozen parts in half precision, two stages: what `best/` holds and its base give the run's result.
#[test]
fn a_run_with_frozen_parts_saves_what_its_stages_trained_and_is_merged_with_its_base() {
    let desk = Desk::new();
    let project = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/checkpoints/tiny");
    std::fs::create_dir(desk.path("base")).unwrap();
    for entry in std::fs::read_dir(project).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, desk.path("base").join(path.file_name().unwrap())).unwrap();
        }
    }
    let frozen = |parts: &str| format!("parameters = {{ {parts} }}\n");
    let first = frozen("\"*\" = \"frozen\", \"qformer.*\" = 1.0");
    let second = frozen("\"*\" = \"frozen\", \"language_projection.*\" = 1.0");
    let settings = format!(
        "checkpoint = \"base\"\n[model]\nfrozen_type = \"bf16\"\n[train]\nepochs = 1\n{first}\
         [scst]\nreward = {{ mode = \"standard\", candidates = 2 }}\n[scst.train]\nepochs = 1\n{second}"
    );
    std::fs::write(desk.path("mine.toml"), settings).unwrap();
    let ran = desk.run(&["train", "mine.toml", "--profile", "smoke", "--no-tui"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    let run = "runs/mine/mine/seed-1";
    let result: Value = serde_json::from_str(&desk.read(&format!("{run}/result.json"))).unwrap();
    let names = |best: &str| {
        let bytes = std::fs::read(desk.path(&format!("{best}/trained.safetensors"))).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let names = header.as_object().unwrap().keys().filter(|name| *name != "__metadata__");
        names.map(|name| name.split('.').next().unwrap().to_owned()).collect::<BTreeSet<String>>()
    };
    let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(names(&format!("{run}/cross_entropy/best")), set(&["qformer"]));
    assert_eq!(names(&format!("{run}/best")), set(&["language_projection", "qformer"]), "of both stages");
    let best = format!("{run}/best");
    let evaluate = |checkpoint: &str| desk.run(&["evaluate", "--checkpoint", checkpoint, "--json"]);
    let evaluated = |checkpoint: &str| {
        let ran = evaluate(checkpoint);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        serde_json::from_str::<Value>(&ran.out).unwrap()
    };
    assert_eq!(evaluated(&best), result["test"]);

    let exported = desk.run(&["export", "--checkpoint", &best, "--out", "whole"]);
    assert_eq!(exported.code, Some(0), "{}", exported.err);
    assert!(exported.out.contains("were merged with those of"), "{}", exported.out);
    assert!(desk.path("whole/model.safetensors").is_file() && !desk.path("whole/base.json").exists());
    std::fs::copy(desk.path(&format!("{best}/recap.toml")), desk.path("whole/recap.toml")).unwrap();
    assert_eq!(evaluated("whole"), result["test"], "the merged checkpoint is the same model");

    // the whole folder is moved: the base is found as it was configured, in the working directory
    let text = desk.read(&format!("{best}/base.json"));
    let base: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(base["types"], serde_json::json!({ "vision_model": "bf16", "language_model": "bf16" }));
    assert_eq!(base["directory"], "base");
    let elsewhere = text.replace(base["absolute"].as_str().unwrap(), "/elsewhere/base");
    std::fs::write(desk.path(&format!("{best}/base.json")), elsewhere).unwrap();
    assert_eq!(evaluated(&best), result["test"]);
    let mut config: Value = serde_json::from_str(&desk.read("base/config.json")).unwrap();
    config["changed"] = true.into();
    std::fs::write(desk.path("base/config.json"), config.to_string()).unwrap();
    let changed = evaluate(&best);
    assert_eq!(changed.code, Some(1), "{}", changed.out);
    for word in
        [base["weights_hash"].as_str().unwrap(), "base has the content hash", "/elsewhere/base", "base.json"]
    {
        assert!(changed.err.contains(word), "{word}: {}", changed.err);
    }
}
