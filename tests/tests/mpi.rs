//! Several processes: they learn what one learns, they stop together, and what they cannot do is refused.
//! The tests that need an MPI are skipped, with a message, where none is installed (`make mpi` installs one).

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{Desk, Ran, mpirun, program, programs_among, with_mpi};

/// `mpirun` in a test's folder, for so many processes; the cores are shared.
fn launch(desk: &Desk, count: usize) -> Command {
    let mut command = Command::new(mpirun());
    command.args(["--oversubscribe", "--bind-to", "none", "-n", &count.to_string()]);
    command.current_dir(desk.path("")).env("RECAP_CACHE", desk.path("cache"));
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command
}

fn run(desk: &Desk, count: usize, arguments: &[&str]) -> Ran {
    Ran::from(launch(desk, count).arg(with_mpi().unwrap()).args(arguments).output().unwrap())
}

/// Relative to a loss, or to 1 where it is smaller: sums run in another order. At the paper's learning rates
/// and ten times theirs; at a hundred times, those of the tiny world, Adam amplifies rounding to 1e-5.
const TOLERANCE: f64 = 1e-6;

/// A study of the tiny world: cross-entropy with dropout and low-rank updates, then rewards.
const STUDY: &str = r#"
question = "Do several processes learn what one learns?"
[variants.words]
description = "dropout and low-rank updates"
[variants.words.set]
model.dropout = 0.1
model.lora = { r = 2, lora_alpha = 4.0, lora_dropout = 0.1, target_modules = ["q", "v"] }
[variants.words.set.train]
steps = 50
learning_rate = 1e-4
evaluate_every = 25
batch_size = 6
micro_batches = 1
parameters = { "vision_model.*" = "frozen", "language_model.*" = "frozen", "*.lora.*" = 1.0 }
[variants.rewarded]
description = "then captions of a high CIDEr-D become likelier"
[variants.rewarded.set]
train = { learning_rate = 1e-4, parameters = { "vision_model.*" = "frozen" } }
[variants.rewarded.set.scst]
reward = { mode = "standard", candidates = 3, baseline = "leave_one_out", cross_entropy = 0.2 }
train = { steps = 50, learning_rate = 1e-5, evaluate_every = 25, batch_size = 4, micro_batches = 2 }
"#;

const QUESTIONS: &str = r#"
question = "Do several processes learn to answer what one learns?"
[variants.questions]
description = "questions"
[variants.questions.set]
answering = {}
train = { steps = 50, learning_rate = 1e-4, evaluate_every = 25, batch_size = 7, select = "accuracy" }
"#;

const ARGUMENTS: [&str; 5] = ["ablation", "study.toml", "--profile", "smoke", "--no-tui"];

fn desk() -> Desk {
    let desk = Desk::new();
    std::fs::write(desk.path("study.toml"), STUDY).unwrap();
    std::fs::write(desk.path("questions.toml"), QUESTIONS).unwrap();
    desk
}

fn json(desk: &Desk, path: &str) -> Value {
    serde_json::from_str(&desk.read(path)).unwrap_or_else(|_| panic!("no {path}"))
}

/// The losses of a run's evaluations.
fn losses(desk: &Desk, run: &str) -> Vec<f64> {
    let result = json(desk, &format!("{run}/result.json"));
    result["history"].as_array().unwrap().iter().map(|record| record["loss"].as_f64().unwrap()).collect()
}

/// Largest difference of two files of weights, relative to the largest weight of each tensor. Biases of
/// attention's keys have no gradient but rounding, which Adam divides by its size: they drift, and change
/// nothing (docs/training-parity.md).
fn difference(one: &Path, other: &Path) -> f64 {
    let [one, other] = [one, other].map(|path| std::fs::read(path).unwrap());
    let [one, other] = [&one, &other].map(|bytes| safetensors::SafeTensors::deserialize(bytes).unwrap());
    let values = |bytes: &[u8]| -> Vec<f64> {
        bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
    };
    let of_tensor = |(name, tensor): (String, safetensors::tensor::TensorView<'_>)| {
        let [one, other] = [values(tensor.data()), values(other.tensor(&name).unwrap().data())];
        let largest = one.iter().fold(1e-30, |most: f64, value| most.max(value.abs()));
        one.iter().zip(&other).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f64::max)
    };
    let has_gradient =
        |(name, _): &(String, _)| !name.ends_with("key.bias") && !name.ends_with("k_proj.bias");
    one.tensors().into_iter().filter(has_gradient).map(of_tensor).fold(0.0, f64::max)
}

/// Losses agree within [`TOLERANCE`] over 50 steps, weights within 1e-4, and predictions are the same bytes.
#[test]
fn two_and_three_processes_learn_what_one_learns() {
    if with_mpi().is_none() {
        return;
    }
    let studies = [ARGUMENTS, ["ablation", "questions.toml", "--profile", "smoke", "--no-tui"]];
    let alone = desk();
    for study in studies {
        let ran = alone.run(&study);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
    }
    for count in [2, 3] {
        let several = desk();
        for study in studies {
            let ran = run(&several, count, &study);
            assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
            assert_eq!(ran.out.matches("report: ").count(), 1, "one process prints: {}", ran.out);
        }
        for (study, variant) in [("study", "words"), ("study", "rewarded"), ("questions", "questions")] {
            let place = format!("runs/{study}/{variant}/seed-1");
            let (one, more) = (losses(&alone, &place), losses(&several, &place));
            assert_eq!(one.len(), more.len());
            for (one, more) in one.iter().zip(&more) {
                let allowed = TOLERANCE * one.abs().max(1.0);
                assert!((one - more).abs() <= allowed, "{variant}, {count} processes: {one} {more}");
            }
            let weights = ["best/model.safetensors", "best/trained.safetensors"];
            for file in weights.map(|file| format!("{place}/{file}")) {
                if alone.path(&file).exists() {
                    let apart = difference(&alone.path(&file), &several.path(&file));
                    assert!(apart < 1e-4, "{file}, {count} processes: {apart}");
                }
            }
            let predictions = format!("{place}/predictions/test.json");
            assert!(!alone.read(&predictions).is_empty());
            assert_eq!(alone.read(&predictions), several.read(&predictions), "{variant}, {count} processes");
        }
        let evaluate = ["evaluate", "--checkpoint", "runs/study/words/seed-1/best", "--json"];
        let (one, more) = (several.run(&evaluate), run(&several, count, &evaluate));
        assert_eq!((more.code, one.out), (Some(0), more.out), "{}", more.err);
    }
}

/// Both stages: contrast and matching compare the rows of all processes. The tolerance is that of training.
#[test]
fn two_and_three_processes_pretrain_what_one_pretrains_and_one_saves() {
    if with_mpi().is_none() {
        return;
    }
    let alone = desk();
    let mut pretrain = vec!["pretrain", "smoke", "--out", "made", "--no-tui"];
    for set in [
        "text.learning_rate=1e-4",
        "first_stage.train.learning_rate=1e-4",
        "first_stage.train.steps=50",
        "second_stage.train.learning_rate=1e-4",
    ] {
        pretrain.extend(["--set", set]);
    }
    assert_eq!(alone.run(&pretrain).code, Some(0));
    for count in [2, 3] {
        let several = desk();
        let ran = run(&several, count, &pretrain);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert_eq!(ran.out.matches("checkpoint: made").count(), 1, "{}", ran.out);
        let [one, more] = [&alone, &several].map(|desk| json(desk, "made/pretraining.json"));
        for (stage, metrics) in one.as_object().unwrap() {
            let Some(loss) = metrics["Loss"].as_f64() else { continue };
            let other = more[stage]["Loss"].as_f64().unwrap();
            assert!(
                (loss - other).abs() < TOLERANCE * loss.max(1.0),
                "{stage}, {count} processes: {loss} {other}"
            );
        }
        let file = "made/model.safetensors";
        let apart = difference(&alone.path(file), &several.path(file));
        assert!(apart < 1e-4, "{count} processes: {apart}");
    }
}

/// Whatever the killed process was doing, the others end too, and the run goes on to the same weights, bit
/// for bit.
#[test]
fn a_killed_process_ends_all_and_the_run_goes_on_as_if_nothing_had_been() {
    if with_mpi().is_none() {
        return;
    }
    let arguments = [&ARGUMENTS[..], &["--only", "words", "--set", "train.save_every=1"]].concat();
    let whole = desk();
    assert_eq!(run(&whole, 2, &arguments).code, Some(0));
    let killed = desk();
    // docs/benchmarks/mpi.md has a run with 20
    let wanted = std::env::var("RECAP_KILLS").map_or(3, |kills| kills.parse().unwrap());
    let mut kills = 0;
    let mut more = vec![];
    loop {
        let mut running = launch(&killed, 2)
            .arg(with_mpi().unwrap())
            .args([&arguments[..], &more].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        more = vec!["--resume"];
        // later each time, so that other moments are met
        while newest_state(&killed) < 50 * (kills + 1) / (wanted + 1) && running.try_wait().unwrap().is_none()
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        let processes = programs_among(running.id());
        let is_over = running.try_wait().unwrap().is_some();
        if is_over || kills == wanted || processes.is_empty() {
            assert!(running.wait().unwrap().success());
            break;
        }
        let victim = processes[kills % processes.len()];
        let _ = Command::new("kill").args(["-9", &victim.to_string()]).status();
        let since = Instant::now();
        assert!(!running.wait().unwrap().success(), "the launcher reports it");
        // loaded machines are slow; without an end it would wait for good
        assert!(since.elapsed() < Duration::from_secs(120), "{:?}", since.elapsed());
        kills += 1;
    }
    assert!(kills > 0, "a run was over before a process could be killed");
    println!("{kills} kills");
    for file in
        ["trained.safetensors", "config.json"].map(|file| format!("runs/study/words/seed-1/best/{file}"))
    {
        let [one, other] = [&whole, &killed].map(|desk| std::fs::read(desk.path(&file)).unwrap());
        assert!(one == other, "{file} differs after {kills} kills");
    }
}

/// The step of the newest saved state of the run that is killed; 0 where there is none.
fn newest_state(desk: &Desk) -> usize {
    let Ok(states) = std::fs::read_dir(desk.path("runs/study/words/seed-1/checkpoints")) else { return 0 };
    let names = states.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("step-")?.parse().ok()).max().unwrap_or(0)
}

#[test]
fn processes_that_do_not_run_the_same_are_refused_before_the_first_step() {
    let Some(program) = with_mpi() else { return };
    let desk = desk();
    // two processes, of which the second has another option too
    let unequal = |option: [&str; 2]| {
        let mut command = launch(&desk, 1);
        command.arg(program).args(ARGUMENTS);
        command.args([":", "-n", "1"]).arg(program).args(ARGUMENTS).args(option);
        let ran = Ran::from(command.output().unwrap());
        assert_ne!(ran.code, Some(0));
        assert!(!desk.path("runs/study/words").exists(), "nothing was begun");
        ran.err
    };
    let err = unequal(["--set", "train.learning_rate=0.5"]);
    assert_eq!(err.matches("the study differs among the processes").count(), 1, "{err}");
    let err = unequal(["--runs", "elsewhere"]);
    assert_eq!(err.matches("all processes need one shared folder (process 1)").count(), 1, "{err}");
    assert!(!desk.path("elsewhere/study").exists());

    let ran = run(&desk, 2, &["list"]);
    assert_ne!(ran.code, Some(0));
    let refusals = ran.err.matches("only ablation, train, pretrain and evaluate run in several");
    assert_eq!(refusals.count(), 1, "{}", ran.err);
}

/// No MPI is needed for this one.
#[test]
fn a_program_without_mpi_does_not_run_alone_under_a_launcher() {
    let desk = desk();
    for (variable, launcher) in [("OMPI_COMM_WORLD_SIZE", "Open MPI"), ("SLURM_STEP_NUM_TASKS", "srun")] {
        let mut command = Command::new(program());
        command.current_dir(desk.path("")).args(ARGUMENTS).env(variable, "4");
        let ran = Ran::from(command.output().unwrap());
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        assert!(ran.err.contains("make mpi") && ran.err.contains(launcher), "{}", ran.err);
        assert!(!desk.path("runs").exists());
    }
}
