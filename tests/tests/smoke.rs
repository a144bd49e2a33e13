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
        let timing: Value = serde_json::from_str(&desk.read(&format!("{folder}/timing.json"))).unwrap();
        let memory = timing["peak_memory"].as_u64();
        assert!(memory > Some(10 << 20) || !cfg!(target_os = "linux"), "bytes of the process: {memory:?}");
        let provenance: Value =
            serde_json::from_str(&desk.read(&format!("{folder}/provenance.json"))).unwrap();
        for key in ["command", "commit", "machine", "config_hash", "data_hash", "date"] {
            assert!(!provenance[key].as_str().unwrap().is_empty(), "{key}");
        }
        // all weights where all are trained, else those that are, and the name of the base
        let has = |file: &str| desk.path(&format!("{folder}/best/{file}")).is_file();
        let is_whole = variant == "all_trainable";
        assert!(has("model.safetensors") == is_whole && has("base.json") != is_whole, "{variant}");
        let file = if is_whole { "model.safetensors" } else { "trained.safetensors" };
        let bytes = std::fs::metadata(desk.path(&format!("{folder}/best/{file}"))).unwrap().len();
        let result: Value = serde_json::from_str(&desk.read(&format!("{folder}/result.json"))).unwrap();
        let trained = 4 * result["trainable"].as_u64().unwrap();
        // a fused bias has the keys' third too; the header takes less than 200 bytes a tensor
        assert!(bytes > trained && bytes < trained + 100_000, "{variant}: {bytes} for {trained} of values");
    }
}

/// The metrics of `evaluate` on the best checkpoint of a run, with the settings that the run saved.
fn evaluated(desk: &Desk, run: &str) -> Value {
    let ran = desk.run(&["evaluate", "--checkpoint", &format!("{run}/best"), "--json"]);
    assert_eq!(ran.code, Some(0), "{run}: {}", ran.err);
    assert!(!ran.err.contains("changed:"), "{run}: {}", ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

/// The ablations are found among the files, so that none is missed. `evaluate` must reproduce the result of
/// every run.
#[test]
fn every_ablation_runs_in_smoke_mode() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/configs/ablations");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    let desk = Desk::new();
    let listed = desk.run(&["list"]).out;
    let mut variants_run = 0;
    for name in &names {
        assert!(listed.contains(name), "{name} is not listed: {listed}");
        let ran = desk.run(&["ablation", name, "--profile", "smoke", "--no-tui"]);
        assert_eq!(ran.code, Some(0), "{name}: {}{}", ran.out, ran.err);
        let summary: Value = serde_json::from_str(&desk.read(&format!("runs/{name}/summary.json"))).unwrap();
        let variants = summary["variants"].as_array().unwrap();
        assert!(variants.len() > 1, "{name} compares nothing");
        let metrics: &[&str] =
            if name == "vqa" { &["accuracy"] } else { &["CIDEr", "CIDEr, order", "CIDEr, no order"] };
        for variant in variants {
            let test = &variant["runs"][0]["test"];
            assert!(metrics.iter().all(|metric| test[metric].is_number()), "{name}: {test}");
            let place = format!("runs/{name}/{}/seed-1", variant["name"].as_str().unwrap());
            assert_eq!(
                &evaluated(&desk, &place),
                test,
                "{place}: its best checkpoint alone gives its result"
            );
        }
        variants_run += variants.len();
        let report = desk.read(&format!("runs/{name}/report.md"));
        assert_eq!(report.contains("constant caption"), name != "vqa", "questions have none: {name}");
    }
    assert_eq!((names.len(), variants_run), (11, 29), "{names:?}");
}

/// The fusion of a checkpoint holds in every command, whatever a profile says; an override is printed.
#[test]
fn a_checkpoint_keeps_its_fusion_unless_it_is_overridden() {
    let desk = Desk::new();
    let study = ["ablation", "fusion", "--profile", "smoke", "--only", "average", "--no-tui"];
    let ran = desk.run(&study);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let (run, best) = ("runs/fusion/average/seed-1", "runs/fusion/average/seed-1/best");
    let result: Value = serde_json::from_str(&desk.read(&format!("{run}/result.json"))).unwrap();
    let evaluate = |more: &[&str]| {
        let ran = desk.run(&[&["evaluate", "--checkpoint", best, "--json"][..], more].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        (serde_json::from_str::<Value>(&ran.out).unwrap(), ran.err)
    };
    let (with_profile, said) = evaluate(&["--profile", "smoke"]);
    assert_eq!(with_profile, result["test"]);
    assert!(!said.contains("changed:"), "{said}");
    let (overridden, said) = evaluate(&["--set", "model.fusion=concat"]);
    assert_ne!(overridden, result["test"]);
    assert!(said.contains("changed: fusion: average -> concat"), "{said}");
    let (resized, said) = evaluate(&["--set", "frames.resizing=lavis"]);
    assert_ne!(resized, result["test"], "the rule of resizing applies to test clips");
    assert!(said.contains("changed: frames.resizing: \"blip\" -> \"lavis\""), "{said}");
    let (_, said) = evaluate(&["--set", "generate.num_beams=2"]);
    assert!(said.contains("changed: generate.num_beams: 1 -> 2"), "{said}");

    assert_eq!(desk.run(&["data", "synthesize", "--profile", "smoke", "--out", "w"]).code, Some(0));
    let caption = |more: &[&str]| {
        let ran = desk.run(&[&["caption", "--checkpoint", best, "w/videos/video0.webm"][..], more].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        (ran.out, ran.err)
    };
    let (own, said) = caption(&[]);
    assert!(!said.contains("changed:"), "{said}");
    assert_eq!(caption(&["--fusion", "average"]).0, own);
    assert!(caption(&["--fusion", "concat"]).1.contains("changed: fusion: average -> concat"));

    std::fs::remove_file(desk.path(&format!("{best}/recap.toml"))).unwrap();
    assert_eq!(evaluate(&["--profile", "smoke"]).0, result["test"], "a checkpoint without saved settings");
}

#[test]
fn every_checkpoint_of_a_study_has_its_own_baseline_which_resuming_keeps() {
    let desk = Desk::new();
    let study = ["ablation", "lm_size", "--profile", "smoke", "--no-tui"];
    let ran = desk.run(&study);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let summary = || -> Value { serde_json::from_str(&desk.read("runs/lm_size/summary.json")).unwrap() };
    let before = summary();
    let models = before["models"].as_array().unwrap();
    let of = |key: &str| models.iter().map(|model| model[key].to_string()).collect::<BTreeSet<String>>();
    assert_eq!(
        (of("variants").len(), of("parameters").len(), of("weights_hash").len()),
        (3, 3, 3),
        "{models:?}"
    );
    assert!(models.iter().all(|model| model["test"]["CIDEr"].is_number()), "{models:?}");
    let report = desk.read("runs/lm_size/report.md");
    for variant in ["small", "middle", "large"] {
        assert!(report.contains(&format!("pretrained, not trained ({variant})")), "{report}");
    }

    // a baseline that is computed again would be saved again
    let predictions: Vec<_> = std::fs::read_dir(desk.path("runs/lm_size/predictions")).unwrap().collect();
    assert_eq!(predictions.len(), 3);
    std::fs::remove_dir_all(desk.path("runs/lm_size/predictions")).unwrap();
    assert_eq!(desk.run(&[&study[..], &["--resume"]].concat()).code, Some(0));
    assert_eq!(summary(), before);
    assert!(!desk.path("runs/lm_size/predictions").exists());
}

/// A program that was built from one commit and runs while another is checked out.
#[cfg(unix)]
#[test]
fn provenance_has_the_commit_of_the_build() {
    use std::os::unix::fs::PermissionsExt as _;
    let desk = Desk::new();
    std::fs::create_dir(desk.path("bin")).unwrap();
    std::fs::write(desk.path("bin/git"), "#!/bin/sh\necho 0123456789ab\n").unwrap();
    std::fs::set_permissions(desk.path("bin/git"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let study = ["ablation", "fusion", "--profile", "smoke", "--only", "concat", "--no-tui"];
    let path = format!("{}:{}", desk.path("bin").display(), std::env::var("PATH").unwrap());
    let output = desk.command(&study).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let provenance = desk.read("runs/fusion/concat/seed-1/provenance.json");
    assert!(provenance.contains("\"commit\"") && !provenance.contains("0123456789ab"), "{provenance}");
}

#[test]
fn caches_are_found_from_any_working_directory() {
    let desk = Desk::new();
    let run = |variables: &[(&str, &str)]| {
        let mut command =
            desk.command(&["ablation", "fusion", "--profile", "smoke", "--only", "concat", "--no-tui"]);
        command.env_remove("RECAP_CACHE").env_remove("XDG_CACHE_HOME").env("HOME", desk.path("home"));
        for (name, value) in variables {
            command.env(name, desk.path(value));
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&[("RECAP_CACHE", "named")]);
    // GStreamer has its own cache in the home folder
    let home = desk.path("home/.cache/recap");
    assert!(desk.path("named").is_dir() && !desk.path("cache").exists() && !home.exists());
    std::fs::create_dir(desk.path("cache")).unwrap();
    run(&[]);
    let worlds = |folder: &str| std::fs::read_dir(desk.path(folder)).unwrap().count();
    assert!(worlds("cache") > 0 && !home.exists());
    std::fs::remove_dir_all(desk.path("cache")).unwrap();
    if cfg!(target_os = "linux") {
        run(&[]);
        assert!(worlds("home/.cache/recap") > 0 && !desk.path("cache").exists());
    }
}

#[test]
fn an_equal_run_of_another_study_is_copied_where_the_program_can_be_named() {
    let desk = Desk::new();
    let run = |study: &str, only: &str, more: &[&str]| {
        let arguments = ["ablation", study, "--only", only, "--profile", "smoke", "--no-tui"];
        let ran = desk.run(&[&arguments[..], more].concat());
        assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
        ran.err
    };
    let provenance = |run: &str| -> Value {
        serde_json::from_str(&desk.read(&format!("runs/{run}/seed-1/provenance.json"))).unwrap()
    };
    run("fusion", "concat", &[]);
    let first = provenance("fusion/concat");
    let commit = first["commit"].as_str().unwrap();
    let is_named = commit != "unknown" && !commit.ends_with("+changes");
    let said = run("temporal", "blind", &[]);
    assert_eq!(said.contains("which was copied"), is_named, "{commit}: {said}");
    let second = provenance("temporal/blind");
    assert_eq!(second["made_in"].as_str(), is_named.then_some("runs/fusion/concat/seed-1"));
    let result = |run: &str| desk.read(&format!("runs/{run}/seed-1/result.json"));
    assert_eq!(result("temporal/blind"), result("fusion/concat"), "trained or copied, it is the same run");
    assert!(desk.path("runs/temporal/blind/seed-1/best/config.json").is_file());

    let said = run("temporal", "blind", &["--no-reuse"]);
    assert!(!said.contains("which was copied") && provenance("temporal/blind")["made_in"].is_null());
    assert_eq!(result("temporal/blind"), result("fusion/concat"));
}

#[test]
fn a_data_set_on_disk_is_trained_on_and_its_best_model_evaluated() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["data", "synthesize", "--profile", "smoke", "--out", "w"]).code, Some(0));
    let settings = "[frames]\ncount = 4\nsampling = \"uniform\"\ntrain_sampling = \"random\"\nstorage = \"disk\"\n\
                    augment = { flip = 0.0 }\n[train]\nepochs = 1\nparameters = { \"vision_model.*\" = \"frozen\" }\n";
    std::fs::write(desk.path("mine.toml"), settings).unwrap();
    let data = ["--dataset", "msrvtt=w", "--profile", "smoke"];
    let official = desk.run(&[&["train", "mine.toml", "--no-tui"][..], &data[..]].concat());
    assert!(official.code == Some(1) && official.err.contains("6,513"), "{}", official.err);
    let own = ["--set", "dataset.own_split=true"];
    let ran = desk.run(&[&["train", "mine.toml", "--no-tui"][..], &data[..], &own[..]].concat());
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("8 of 8 clips"), "{}", ran.err);
    let trained: Value = serde_json::from_str(&desk.read("runs/mine/summary.json")).unwrap();
    let best = ["--checkpoint", "runs/mine/mine/seed-1/best", "--json", "--predictions", "p.json"];
    let frames = ["--set", "frames.storage=disk"];
    let scored = desk.run(&[&["evaluate"][..], &best[..], &data[..], &own[..], &frames[..]].concat());
    assert_eq!(scored.code, Some(0), "{}", scored.err);
    let metrics: Value = serde_json::from_str(&scored.out).unwrap();
    assert_eq!(
        metrics, trained["variants"][0]["runs"][0]["test"],
        "the model that was exported is the one scored"
    );
    assert_eq!(serde_json::from_str::<Value>(&desk.read("p.json")).unwrap().as_array().unwrap().len(), 6);
    assert_eq!(
        evaluated(&desk, "runs/mine/mine/seed-1"),
        metrics,
        "the data set is saved with the checkpoint"
    );
    let stray = desk.run(&["evaluate", "--checkpoint", "nowhere", "--dataset", "msrvt=w"]);
    assert!(stray.code == Some(2) && stray.err.contains("did you mean \"msrvtt\"?"), "{}", stray.err);

    // the same clips, captions and set of files, but two files are exchanged
    let hash = || {
        let provenance = desk.read("runs/mine/mine/seed-1/provenance.json");
        serde_json::from_str::<Value>(&provenance).unwrap()["data_hash"].as_str().unwrap().to_owned()
    };
    let first = hash();
    assert!(first.len() == 16 && first.chars().all(|digit| digit.is_ascii_hexdigit()), "{first:?}");
    let videos = desk.path("w/videos");
    let [one, two, aside] = ["video0.webm", "video1.webm", "aside"].map(|name| videos.join(name));
    for (from, to) in [(&one, &aside), (&two, &one), (&aside, &two)] {
        std::fs::rename(from, to).unwrap();
    }
    let ran = desk.run(&[&["train", "mine.toml", "--no-tui"][..], &data[..], &own[..]].concat());
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert_ne!(hash(), first, "the hash covers the content of the files");
}

/// The cache shows it: each seed stores other views, and a repeated run finds them.
#[test]
fn the_seed_and_the_replica_of_a_run_reach_its_views() {
    let desk = Desk::new();
    let settings = "[frames]\ncount = 2\nsampling = \"uniform\"\nviews = 2\nstorage = \"disk\"\naugment = { flip = 0.0 }\n\
                    [train]\nepochs = 1\nworkers = 3\nparameters = { \"vision_model.*\" = \"frozen\" }\n";
    std::fs::write(desk.path("mine.toml"), settings).unwrap();
    let shards = |arguments: &[&str]| {
        let run = ["train", "mine.toml", "--profile", "smoke", "--no-tui", "--no-reuse"];
        let ran = desk.run(&[&run[..], arguments].concat());
        assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
        let count = |folder: &str| {
            let files = std::fs::read_dir(desk.path("cache").join(folder)).unwrap();
            files.filter(|file| file.as_ref().unwrap().path().extension() == Some("shard".as_ref())).count()
        };
        [count("frames"), count("features")]
    };
    let held_out = 2; // validation and test
    assert_eq!(shards(&[]), [held_out + 1; 2]);
    assert_eq!(shards(&[]), [held_out + 1; 2], "the same seed has the same views");
    assert_eq!(shards(&["--seeds", "2"]), [held_out + 2; 2]);
    assert_eq!(shards(&["--set", "replica=1"]), [held_out + 3; 2]);
}

/// Half precision where a part is frozen, low-rank updates, augmentation, frames on disk, beams, a prompt:
/// all that the profile `paper` sets, but for its sizes and its number of steps.
#[test]
fn every_ablation_runs_with_the_papers_settings_on_a_small_model() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["data", "synthesize", "--profile", "smoke", "--out", "w"]).code, Some(0));
    assert_eq!(desk.run(&["pretrain", "smoke", "--out", "small", "--no-tui"]).code, Some(0));
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/configs/ablations");
    let sets = ["dataset.own_split=true", "checkpoint=small", "model.image_size=32", "train.steps=2"];
    let sets: Vec<&str> =
        sets.into_iter().chain(["train.evaluate_every=2"]).flat_map(|set| ["--set", set]).collect();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let (name, file) = (path.file_stem().unwrap().to_str().unwrap(), path.file_name().unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        // only variants with self-critical training have such a table, so that no --set can reach it
        let text =
            text.replace("steps = 20000", "steps = 2").replace("evaluate_every = 1000", "evaluate_every = 2");
        std::fs::write(desk.path(file.to_str().unwrap()), text).unwrap();
        let data = if name == "vqa" { "msrvtt-qa=w" } else { "msrvtt=w" };
        let study = ["ablation", file.to_str().unwrap(), "--profile", "paper", "--dataset", data, "--no-tui"];
        let ran = desk.run(&[&study[..], &sets].concat());
        assert_eq!(ran.code, Some(0), "{name}: {}{}", ran.out, ran.err);
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
fn show_takes_the_papers_sizes_without_data_or_weights() {
    let desk = Desk::new();
    let shown = |arguments: &[&str]| {
        let ran = desk.run(&[&["show", "freeze_vit", "--profile", "paper"][..], arguments].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        ran.out
    };
    let msrvtt = shown(&[]);
    for word in ["106,739,968", "985,894,528", "4,718,592", "130,260", "130,272", "not run: no measured rate"]
    {
        assert!(msrvtt.contains(word), "{word}: {msrvtt}");
    }
    assert!(shown(&["--dataset", "msvd"]).contains("48,774"));
    assert!(shown(&["--dataset", "vatex"]).contains("259,910"));
    let released = shown(&["--recipe", "released"]);
    assert!(released.contains("15,000") && released.contains("recipe = \"released\""), "{released}");
    let stray = desk.run(&["show", "freeze_vit", "--profile", "paper", "--recipe", "relaesed"]);
    assert!(stray.code == Some(2) && stray.err.contains("did you mean \"released\"?"), "{}", stray.err);
    let without = desk.run(&["ablation", "fusion", "--profile", "smoke", "--recipe", "released"]);
    assert!(without.code == Some(2) && without.err.contains("changes nothing of fusion"), "{}", without.err);
}

#[test]
fn a_checkpoint_that_is_not_there_is_named_with_the_command_that_gets_it() {
    let desk = Desk::new();
    let data = ["--dataset", "tiny", "--profile", "paper", "--device", "cpu"];
    let ran = desk.run(&[&["ablation", "freeze_vit"][..], &data[..]].concat());
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let command = "experiments import Salesforce/blip2-flan-t5-xl --out checkpoints/blip2-flan-t5-xl";
    assert!(ran.err.contains(command), "{}", ran.err);
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
    let world = world.into_iter().find(|path| path.join("videos").is_dir()).unwrap();
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
