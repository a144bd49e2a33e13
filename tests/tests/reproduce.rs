//! `experiments reproduce` as a user runs it.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use tests::Desk;

const RUN: &str = "runs/scst/scst/seed-1";

#[test]
fn a_run_is_repeated_to_the_last_digit_and_what_differs_is_listed() {
    let desk = Desk::new();
    let study = ["ablation", "scst", "--profile", "smoke", "--only", "scst", "--no-tui"];
    assert_eq!(desk.run(&study).code, Some(0));
    let again = desk.run(&["reproduce", RUN, "--no-tui"]);
    assert_eq!(again.code, Some(0), "{}{}", again.out, again.err);
    assert!(again.out.contains("identical"), "{}", again.out);
    let result = |folder: &str| desk.read(&format!("{folder}/result.json"));
    assert_eq!(result(&format!("{RUN}.again")), result(RUN));

    // a record of other results
    let changed = result(RUN).replacen("\"best_epoch\": ", "\"best_epoch\": 7", 1);
    std::fs::write(desk.path(&format!("{RUN}/result.json")), changed).unwrap();
    let path = desk.path(&format!("{RUN}/predictions/test.json"));
    let predictions = std::fs::read_to_string(&path).unwrap();
    let place = predictions.find("\"caption\": \"").unwrap() + "\"caption\": \"".len();
    std::fs::write(&path, format!("{}zebra {}", &predictions[..place], &predictions[place..])).unwrap();
    let differs = desk.run(&["reproduce", RUN, "--no-tui"]);
    assert_eq!(differs.code, Some(1), "{}{}", differs.out, differs.err);
    for word in ["2 values differ", "best_epoch: 7", "test.json", "zebra"] {
        assert!(differs.out.contains(word), "{word}: {}", differs.out);
    }

    // another machine
    let path = desk.path(&format!("{RUN}/provenance.json"));
    let provenance = std::fs::read_to_string(&path).unwrap();
    let other = provenance.replacen("\"machine\": \"", "\"machine\": \"Another processor, ", 1);
    std::fs::write(&path, &other).unwrap();
    let elsewhere = desk.run(&["reproduce", RUN, "--no-tui"]);
    assert!(
        elsewhere.out.contains("another machine") && elsewhere.out.contains("± 7.4"),
        "{}",
        elsewhere.out
    );

    // other data and weights
    let place = other.find("\"data_hash\": \"").unwrap() + "\"data_hash\": \"".len();
    std::fs::write(&path, format!("{}x{}", &other[..place], &other[place + 1..])).unwrap();
    let inputs = desk.run(&["reproduce", RUN, "--no-tui", "--out", "elsewhere"]);
    assert_eq!(inputs.code, Some(1), "{}", inputs.err);
    assert!(inputs.err.contains("data: hash") && inputs.err.contains("--anyway"), "{}", inputs.err);
    assert!(!desk.path("elsewhere/checkpoints").exists(), "nothing is trained");
}

/// Low-rank updates are drawn at the start of a run: from its seed, and not from the clock.
#[test]
fn a_run_with_low_rank_updates_is_repeated_and_another_seed_draws_others() {
    let desk = Desk::new();
    let lora = "model.lora={ r = 2, lora_alpha = 4.0, lora_dropout = 0.1, target_modules = [\"q\", \"v\"] }";
    let study = ["ablation", "fusion", "--profile", "smoke", "--only", "concat", "--no-tui", "--set", lora];
    assert_eq!(desk.run(&[&study[..], &["--seeds", "2"]].concat()).code, Some(0));
    let again = desk.run(&["reproduce", "runs/fusion/concat/seed-1", "--no-tui"]);
    assert_eq!(again.code, Some(0), "{}{}", again.out, again.err);
    let adapter = |run: &str| {
        let path = desk.path(&format!("runs/fusion/concat/{run}/best/adapter_model.safetensors"));
        std::fs::read(path).unwrap()
    };
    assert!(adapter("seed-1") == adapter("seed-1.again"), "bit for bit");
    assert!(adapter("seed-1") != adapter("seed-2"));
}

#[test]
fn a_folder_that_is_no_run_is_refused() {
    let ran = Desk::new().run(&["reproduce", "nowhere"]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(ran.err.contains("nowhere is not the folder of a finished run"), "{}", ran.err);
}
