//! A run that was stopped goes on as if it had not been.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::Desk;

/// Long enough to be stopped in the middle, short enough for a test.
const SETS: [&str; 9] = [
    "ablation",
    "freeze_vit",
    "--profile",
    "smoke",
    "--only",
    "all_trainable",
    "--no-tui",
    "--set",
    "train.epochs=12",
];

fn start(desk: &Desk, resume: bool) -> Child {
    let mut command = desk.command(&SETS);
    if resume {
        command.arg("--resume");
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn epochs(desk: &Desk) -> usize {
    desk.read("runs/freeze_vit/all_trainable/seed-1/metrics.jsonl").lines().count()
}

fn wait_for_epochs(desk: &Desk, child: &mut Child, wanted: usize) {
    let started = Instant::now();
    while epochs(desk) < wanted && child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < Duration::from_secs(120), "no {wanted} epochs in two minutes");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The CPU gives equal bits. An accelerator may tune to other kernels in another process: losses differed by
/// 3e-6 on lavapipe.
fn ends_as_an_undisturbed_run(desk: &Desk) {
    let whole = Desk::new();
    assert_eq!(whole.run(&SETS).code, Some(0));
    let [resumed, whole] = [desk, &whole].map(|desk| desk.read("runs/freeze_vit/summary.json"));
    if std::env::var("RECAP_DEVICE").is_ok_and(|device| device != "cpu") {
        let [resumed, whole] = [&resumed, &whole].map(|text| serde_json::from_str(text).unwrap());
        assert_close(&resumed, &whole);
    } else {
        assert_eq!(resumed, whole);
    }
}

/// The same documents, but for numbers, which agree to 1e-4.
fn assert_close(found: &Value, expected: &Value) {
    match (found, expected) {
        (Value::Number(found), Value::Number(expected)) => {
            let [found, expected] = [found, expected].map(|number| number.as_f64().unwrap());
            assert!((found - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{found}, not {expected}");
        }
        (Value::Array(found), Value::Array(expected)) => {
            assert_eq!(found.len(), expected.len());
            found.iter().zip(expected).for_each(|(found, expected)| assert_close(found, expected));
        }
        (Value::Object(found), Value::Object(expected)) => {
            assert!(found.keys().eq(expected.keys()), "{found:?}, not {expected:?}");
            found.values().zip(expected.values()).for_each(|(found, expected)| assert_close(found, expected));
        }
        _ => assert_eq!(found, expected),
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_soon_and_the_resumed_run_ends_the_same() {
    let desk = Desk::new();
    let mut child = start(&desk, false);
    wait_for_epochs(&desk, &mut child, 3);
    let pressed = Instant::now();
    let interrupt = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupt.unwrap().success());
    let code = child.wait().unwrap().code();
    // within a second on a quiet machine; the rest of the run takes longer than this
    assert!(pressed.elapsed() < Duration::from_secs(10), "took {:?}", pressed.elapsed());
    assert_eq!(code, Some(130));
    assert!(epochs(&desk) < 12);
    assert_eq!(desk.run(&["report", "runs/freeze_vit"]).code, Some(0), "as far as it goes");
    let report = desk.read("runs/freeze_vit/report.md");
    assert!(report.contains("not finished (") && !report.contains("finished (12 epochs)"), "{report}");
    let overview = desk.run(&["report", "runs/nothing", "--watch"]);
    assert!(overview.code == Some(1) && overview.err.contains("no summary.json"), "{}", overview.err);
    assert!(start(&desk, true).wait().unwrap().success());
    ends_as_an_undisturbed_run(&desk);
}

#[test]
fn a_killed_run_ends_the_same() {
    let desk = Desk::new();
    for wanted in [2, 5, 9] {
        let mut child = start(&desk, wanted > 2);
        wait_for_epochs(&desk, &mut child, wanted);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(start(&desk, true).wait().unwrap().success());
    ends_as_an_undisturbed_run(&desk);
}

/// With dropout, and a state saved after every step, so that many of the kills fall into saving.
/// `RECAP_KILLS` sets how often; six times by default.
#[test]
fn a_run_killed_at_random_moments_ends_the_same_and_never_meets_an_unreadable_state() {
    let kills: u32 = std::env::var("RECAP_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(6);
    let mut sets = SETS.to_vec();
    // long enough to be killed so often: what is saved is not done again
    let epochs = format!("train.epochs={}", 4 * kills);
    sets.extend(["--set", &epochs, "--set", "train.save_every=1", "--set", "model.dropout=0.1"]);
    sets.extend(["--set", "train.evaluate_every=3", "--set", "train.recompute={language_model = true}"]);
    let whole = Desk::new();
    tests::program();
    let started = Instant::now();
    assert_eq!(whole.run(&sets).code, Some(0));
    let length = started.elapsed();

    let desk = Desk::new();
    let mut killed = 0;
    // a linear congruential generator: the moments differ, and are the same each time the test runs
    let mut state = 20_261_124_u64;
    for attempt in 0..10 * kills {
        let mut command = desk.command(&sets);
        if attempt > 0 {
            command.arg("--resume");
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let moment = (state >> 40) as f64 / (1u64 << 24) as f64;
        std::thread::sleep(Duration::from_millis(150) + length.mul_f64(moment * 1.5 / f64::from(kills)));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("cannot resume") && !said.contains("panicked"), "{said}");
        if output.status.success() {
            break;
        }
        killed += 1;
        if killed == kills {
            break;
        }
    }
    println!("killed {killed} times");
    assert!(killed >= kills.min(3), "killed {killed} times only");
    let mut command = desk.command(&sets);
    assert!(command.arg("--resume").stdout(Stdio::null()).status().unwrap().success());
    let read = |desk: &Desk, path: &str| std::fs::read(desk.path(path)).unwrap();
    let variant = "runs/freeze_vit/all_trainable/seed-1";
    for path in ["runs/freeze_vit/summary.json".to_owned()].into_iter().chain(
        ["metrics.jsonl", "result.json", "best/model.safetensors", "predictions/test.json"]
            .map(|file| format!("{variant}/{file}")),
    ) {
        assert!(read(&whole, &path) == read(&desk, &path), "{path} differs after {killed} kills");
    }
}

/// A second runner is turned away and changes nothing; who watches sees the end.
#[test]
fn two_runners_on_one_directory_do_not_meet() {
    let desk = Desk::new();
    let mut first = start(&desk, false);
    wait_for_epochs(&desk, &mut first, 2);
    let mut watch = desk.command(&["report", "runs/freeze_vit", "--watch"]);
    let watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    for again in [&["--resume"][..], &[]] {
        let second = desk.run(&[&SETS[..], again].concat());
        assert_eq!(second.code, Some(1), "{}", second.err);
        assert!(second.err.contains("another process is at work in runs/freeze_vit"), "{}", second.err);
    }
    let watched = watch.wait_with_output().unwrap();
    let output = String::from_utf8_lossy(&watched.stdout);
    assert!(watched.status.success() && output.contains("0 of 1 runs finished"), "{output}");
    assert!(output.contains("1 of 1 runs finished"), "{output}");
    assert!(first.wait().unwrap().success());
    ends_as_an_undisturbed_run(&desk);
}

#[test]
fn resuming_with_other_settings_is_refused() {
    let desk = Desk::new();
    let mut child = start(&desk, false);
    wait_for_epochs(&desk, &mut child, 1);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut arguments = SETS.to_vec();
    arguments.extend(["--set", "train.learning_rate=0.5", "--resume"]);
    let ran = desk.run(&arguments);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("other settings") && ran.err.contains("step-"), "{}", ran.err);
}

#[test]
fn resuming_a_finished_ablation_trains_nothing_again() {
    let desk = Desk::new();
    let arguments = ["ablation", "freeze_vit", "--profile", "smoke", "--only", "qformer_only"];
    assert_eq!(desk.run(&arguments).code, Some(0));
    let before = desk.read("runs/freeze_vit/qformer_only/seed-1/result.json");
    let modified = |desk: &Desk| {
        std::fs::metadata(desk.path("runs/freeze_vit/qformer_only/seed-1/result.json"))
            .unwrap()
            .modified()
            .unwrap()
    };
    let time = modified(&desk);
    let mut again = arguments.to_vec();
    again.push("--resume");
    let ran = desk.run(&again);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(
        (before, time),
        (desk.read("runs/freeze_vit/qformer_only/seed-1/result.json"), modified(&desk))
    );
    assert!(ran.out.contains("qformer_only"), "the table is printed again: {}", ran.out);
}
