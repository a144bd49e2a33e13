//! The job scripts of docs/cluster.md: run as they are, with stand-ins for Slurm's and Kubernetes's launchers
//! that set the variables of the real ones.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tests::{Desk, mpirun, program, programs_among, with_mpi};

const STUDY: &str = r#"
question = "Do jobs that each run a part make one study?"
[variants.one]
description = "Q-Former"
[variants.one.set]
train.parameters = { "vision_model.*" = "frozen", "language_model.*" = "frozen" }
[variants.two]
description = "Q-Former and ViT"
[variants.two.set]
train.parameters = { "language_model.*" = "frozen" }
"#;

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cluster").canonicalize().unwrap()
}

/// A folder with a study, and with `srun` and `scontrol` in `bin`.
fn desk() -> Desk {
    let desk = Desk::new();
    std::fs::write(desk.path("study.toml"), STUDY).unwrap();
    stand_in(&desk, "scontrol", "echo \"$@\" >> scontrol.log");
    // a step of one task, as srun of Slurm 23 describes it
    let srun = "while [[ $1 == -* ]]; do shift; done
export SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1 SLURM_STEP_NUM_NODES=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0
exec \"$@\"";
    stand_in(&desk, "srun", srun);
    desk
}

fn stand_in(desk: &Desk, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(desk.path("bin")).unwrap();
    let path = desk.path("bin").join(name);
    std::fs::write(&path, format!("#!/bin/bash\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// `bash` with what all scripts read.
fn bash(desk: &Desk) -> Command {
    let mut command = Command::new("bash");
    let path = format!("{}:{}", desk.path("bin").display(), std::env::var("PATH").unwrap());
    command.current_dir(desk.path("")).env("PATH", path).env("RECAP_CACHE", desk.path("cache"));
    command.env("RECAP", program()).env("STUDY", "study.toml").env("OPTIONS", "--profile smoke --device cpu");
    command.env("VARIANTS", "one two").env("SEEDS", "2").stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// A job of the array.
fn array_job(desk: &Desk, number: usize) -> Command {
    let mut command = bash(desk);
    command.arg(scripts().join("slurm-array.sh"));
    command.env("SLURM_JOB_ID", (100 + number).to_string()).env("SLURM_ARRAY_JOB_ID", "100");
    command.env("SLURM_ARRAY_TASK_ID", number.to_string()).env("SLURM_ARRAY_TASK_COUNT", "4");
    command.env("SLURM_NTASKS", "1").env("SLURM_NPROCS", "1").env("SLURM_JOB_NUM_NODES", "1");
    command
}

/// The program of the Kubernetes job, which is the last entry of its file.
fn pod(desk: &Desk, index: usize) -> Command {
    let text = std::fs::read_to_string(scripts().join("kubernetes.yaml")).unwrap();
    assert!(text.contains("completionMode: Indexed") && text.contains(r#"command: ["bash", "-euc"]"#));
    let (_, script) = text.split_once("- |\n").unwrap();
    let mut command = bash(desk);
    command.args(["-euc", script]).env("JOB_COMPLETION_INDEX", index.to_string());
    command
}

fn ended(job: Child) -> (Option<i32>, String) {
    let output = job.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn json(desk: &Desk, path: &str) -> Value {
    serde_json::from_str(&desk.read(path)).unwrap_or_else(|_| panic!("no {path}"))
}

/// Checks that the parts of a study give what the study gives when one job runs it.
fn assert_is_whole(desk: &Desk) {
    let whole = self::desk();
    let arguments =
        ["ablation", "study.toml", "--profile", "smoke", "--seeds", "2", "--no-tui", "--device", "cpu"];
    assert_eq!(whole.run(&arguments).code, Some(0));
    for run in ["one/seed-1", "one/seed-2", "two/seed-1", "two/seed-2"] {
        for file in ["result.json", "predictions/test.json"] {
            let path = format!("runs/study/{run}/{file}");
            assert!(!whole.read(&path).is_empty());
            assert_eq!(whole.read(&path), desk.read(&path), "{path}");
        }
    }
    let reported = desk.run(&["report", "runs/study"]);
    assert_eq!(reported.code, Some(0), "{}", reported.err);
    assert_eq!(whole.run(&["report", "runs/study"]).code, Some(0));
    let table = |desk: &Desk| {
        let text = desk.read("runs/study/report.md");
        let lines = text.lines().filter(|line| line.starts_with("| one") || line.starts_with("| two"));
        // times and memory differ from run to run
        lines.take(4).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(table(&whole).len() >= 4, "{:?}", table(&whole));
    assert_eq!(table(&whole), table(desk));
}

#[test]
fn jobs_of_a_slurm_array_run_one_study_in_one_folder_at_the_same_time() {
    let desk = desk();
    let jobs: Vec<Child> = (0..4).map(|number| array_job(&desk, number).spawn().unwrap()).collect();
    for job in jobs {
        let (code, err) = ended(job);
        assert_eq!(code, Some(0), "{err}");
    }
    assert!(!desk.path("scontrol.log").exists(), "nothing was stopped");
    assert_eq!(std::fs::read_dir(desk.path("runs/study/parts")).unwrap().count(), 4);
    assert_is_whole(&desk);
    // the whole study finds them finished, and refuses to run while a part of it does
    let arguments = ["ablation", "study.toml", "--profile", "smoke", "--seeds", "2", "--no-tui", "--resume"];
    assert_eq!(desk.run(&arguments).code, Some(0));
    let summary = json(&desk, "runs/study/summary.json");
    assert_eq!(summary["variants"][1]["runs"].as_array().unwrap().len(), 2);
}

/// A state is saved after every step.
const EVERY_STEP: &str = "--profile smoke --device cpu --set train.save_every=1";

/// Sends SIGTERM to the program that a job runs, once it has saved a state, and waits for the job.
fn stopped(desk: &Desk, mut job: Child, state: &str) -> (Option<i32>, String) {
    while !desk.path(state).exists() {
        assert!(job.try_wait().unwrap().is_none(), "it ended before it could be stopped");
        std::thread::sleep(Duration::from_millis(5));
    }
    let tasks = programs_among(job.id());
    assert!(!tasks.is_empty());
    for task in tasks {
        assert!(Command::new("kill").args(["-TERM", &task.to_string()]).status().unwrap().success());
    }
    ended(job)
}

/// The job for the GPUs of a node, with `mpirun` in the place of Slurm's own launch of the tasks.
#[test]
fn a_slurm_job_of_several_processes_stops_before_its_limit_and_goes_on() {
    let Some(program) = with_mpi() else { return };
    let desk = desk();
    let srun = "[[ $* == *--mpi=pmix* && $* == *--kill-on-bad-exit=1* ]] || exit 9
while [[ $1 == -* ]]; do shift; done
export SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NUM_NODES=1 SLURM_NODEID=0
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
exec $MPIRUN --oversubscribe --bind-to none -n 2 env -u OMPI_COMM_WORLD_SIZE \"$@\"";
    stand_in(&desk, "srun", srun);
    let job = || {
        let mut command = bash(&desk);
        command.arg(scripts().join("slurm-job.sh")).env("RECAP", program).env("OPTIONS", EVERY_STEP);
        command.env("MPIRUN", mpirun());
        command.env("SLURM_JOB_ID", "7").env("SLURM_NTASKS", "2").env("SLURM_NTASKS_PER_NODE", "2");
        command.spawn().unwrap()
    };
    let (code, err) = stopped(&desk, job(), "runs/study/one/seed-1/checkpoints/step-1");
    assert_eq!(code, Some(0), "the batch script: {err}");
    assert_eq!(desk.read("scontrol.log"), "requeue 7\n");
    assert!(!desk.path("runs/study/one/seed-1/result.json").exists());
    let (code, err) = ended(job());
    assert_eq!(code, Some(0), "{err}");
    let summary = json(&desk, "runs/study/summary.json");
    for variant in summary["variants"].as_array().unwrap() {
        assert_eq!(variant["runs"].as_array().unwrap().len(), 1, "{summary}");
    }
}

/// Slurm sends SIGTERM to the tasks before the time limit; Kubernetes to the pod before it is moved.
#[test]
fn a_job_that_is_stopped_is_queued_again_and_goes_on() {
    let desk = desk();
    let mut job = array_job(&desk, 3);
    let job = job.env("OPTIONS", EVERY_STEP).spawn().unwrap();
    let (code, err) = stopped(&desk, job, "runs/study/two/seed-2/checkpoints/step-1");
    assert_eq!(code, Some(0), "the batch script: {err}");
    assert_eq!(desk.read("scontrol.log"), "requeue 100_3\n");
    assert!(!desk.path("runs/study/two/seed-2/result.json").exists());
    let pod_of = |index| {
        let mut command = pod(&desk, index);
        command.env("OPTIONS", EVERY_STEP).spawn().unwrap()
    };
    let (code, err) = stopped(&desk, pod_of(0), "runs/study/one/seed-1/checkpoints/step-1");
    assert_eq!(code, Some(130), "a pod that fails is started again: {err}");
    for job in
        [array_job(&desk, 3).env("OPTIONS", EVERY_STEP).spawn().unwrap(), pod_of(0), pod_of(1), pod_of(2)]
    {
        let (code, err) = ended(job);
        assert_eq!(code, Some(0), "{err}");
    }
    let results = ["one/seed-1", "one/seed-2", "two/seed-1", "two/seed-2"];
    assert!(results.iter().all(|run| desk.path(&format!("runs/study/{run}/result.json")).exists()));
    assert_eq!(desk.run(&["report", "runs/study"]).code, Some(0));
}
