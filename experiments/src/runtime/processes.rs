//! The processes that run one command together: one, or those that `mpirun` or `srun` started.

use std::sync::Arc;

use anyhow::{anyhow, bail, ensure};
use train::processes::{ProcessGroup, SingleProcess};

use super::Reported;

/// The processes of a command, and those of them on this machine.
#[derive(Debug, Clone)]
pub struct Processes {
    /// All of them.
    pub group: Arc<dyn ProcessGroup>,
    /// Number of this process among those on its machine, from 0.
    pub rank_on_node: usize,
    /// Processes on this machine.
    pub size_on_node: usize,
}

impl Default for Processes {
    fn default() -> Self {
        Self { group: Arc::new(SingleProcess), rank_on_node: 0, size_on_node: 1 }
    }
}

/// The variables by which launchers tell a process how many there are and which it is: Open MPI, MPICH's
/// Hydra, Slurm's step.
const LAUNCHERS: [(&str, &str, &str); 3] = [
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "Open MPI's mpirun"),
    ("PMI_SIZE", "PMI_RANK", "MPICH's mpirun"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "srun"),
];

/// What a launcher says about this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Launched {
    count: usize,
    rank: usize,
    launcher: &'static str,
}

/// What the launcher says; none where there is no launcher.
fn launched(variable: impl Fn(&str) -> Option<String>) -> Option<Launched> {
    let number = |name: &str| variable(name)?.trim().parse().ok();
    let of = |(count, rank, launcher)| {
        Some(Launched { count: number(count)?, rank: number(rank).unwrap_or(0), launcher })
    };
    LAUNCHERS.into_iter().find_map(of)
}

/// The same of this process, where the launcher started more than one.
fn several() -> Option<Launched> {
    launched(|name| std::env::var(name).ok()).filter(|launched| launched.count > 1)
}

/// Joins the other processes, if a launcher started several; shares the cores of the machine with those on
/// it. Called once, before anything is computed.
///
/// # Errors
/// When the program was built without MPI, or with another MPI than the launcher's.
pub fn join() -> anyhow::Result<Processes> {
    let Some(launched) = several() else { return Ok(Processes::default()) };
    join_launched(launched).map_err(|error| reported_by_first(launched, error))
}

/// An error that all processes have, and the first prints.
fn reported_by_first(launched: Launched, error: anyhow::Error) -> anyhow::Error {
    if launched.rank == 0 { error } else { Reported(error).into() }
}

fn join_launched(Launched { count, launcher, .. }: Launched) -> anyhow::Result<Processes> {
    let processes = start(count, launcher)?;
    let found = processes.group.world_size();
    ensure!(
        found == count,
        "{launcher} started {count} processes, and the MPI of this program finds {found}: it was built with \
         another MPI than the launcher's. Build it with the launcher's, as in \
         `MPI_PKG_CONFIG=ompi cargo build -p experiments --features mpi`"
    );
    if processes.group.rank() > 0 {
        super::progress::silence();
    }
    share_cores(&processes);
    Ok(processes)
}

/// Refuses to run a command, which uses one process, in several.
///
/// # Errors
/// When a launcher started several processes.
pub fn refuse_several() -> anyhow::Result<()> {
    let Some(launched) = several() else { return Ok(()) };
    let Launched { count, launcher, .. } = launched;
    let refusal = anyhow!(
        "{launcher} started {count} processes; only ablation, train, pretrain and evaluate run in several"
    );
    Err(reported_by_first(launched, refusal))
}

#[cfg(feature = "mpi")]
fn start(_: usize, _: &str) -> anyhow::Result<Processes> {
    super::mpi::start()
}

#[cfg(not(feature = "mpi"))]
fn start(count: usize, launcher: &str) -> anyhow::Result<Processes> {
    bail!(
        "{launcher} started {count} processes, and this program was built without MPI: each would run alone and \
         write to the same folders. `make mpi` builds one with it"
    )
}

/// Ends the use of MPI after a success. After a failure the program ends without it: the launcher then stops
/// the processes that still wait.
pub fn leave() {
    #[cfg(feature = "mpi")]
    super::mpi::finish();
}

/// Gives each process of a machine its share of the cores, unless `RAYON_NUM_THREADS` says otherwise.
fn share_cores(processes: &Processes) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let all = sysinfo::System::physical_core_count().map_or(cores, |physical| physical.max(cores));
    let Processes { group, size_on_node, .. } = processes;
    if cores * size_on_node < all && group.rank() == 0 {
        eprintln!(
            "each process is bound to {cores} of {all} cores; `mpirun --bind-to none` lets all of them be used"
        );
    }
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        let share = (cores / size_on_node).max(1);
        // fails only where a pool exists already, which then keeps its size
        let _ = rayon::ThreadPoolBuilder::new().num_threads(share).build_global();
    }
}

/// The device word of a process: one accelerator each, by the number of the process on its machine. Where a
/// scheduler shows each process one accelerator only, it is that one.
///
/// # Errors
/// When a machine has fewer accelerators than processes, unless they may share them.
pub fn device_of(
    word: &str,
    processes: &Processes,
    visible: usize,
    may_share: bool,
) -> anyhow::Result<String> {
    let Processes { rank_on_node, size_on_node, .. } = processes;
    if *size_on_node == 1 || word == "cpu" || word.contains(':') && may_share {
        return Ok(word.to_owned());
    }
    ensure!(
        !word.contains(':'),
        "--device {word}: {size_on_node} processes of this machine would share one device; leave the number out, or \
         add --share-devices"
    );
    match visible {
        1 if is_bound_by_scheduler() => Ok(format!("{word}:0")),
        _ if *size_on_node <= visible => Ok(format!("{word}:{rank_on_node}")),
        _ if may_share && visible > 0 => Ok(format!("{word}:{}", rank_on_node % visible)),
        _ => bail!(
            "this machine has {visible} {word} devices for {size_on_node} processes; start at most {visible} on it, or \
             add --share-devices"
        ),
    }
}

/// Whether Slurm shows each task its own devices only.
fn is_bound_by_scheduler() -> bool {
    std::env::var_os("SLURM_STEP_GPUS").is_some() || std::env::var_os("SLURM_GPUS_PER_TASK").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_tell_the_number_of_processes() {
        let of = |pairs: &[(&str, &str)]| {
            launched(|name| pairs.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(of(&[]), None);
        let launched = |count, rank, launcher| Some(Launched { count, rank, launcher });
        assert_eq!(of(&[("OMPI_COMM_WORLD_SIZE", "4")]), launched(4, 0, "Open MPI's mpirun"));
        let hydra = [("PMI_SIZE", "2"), ("PMI_RANK", "1"), ("SLURM_STEP_NUM_TASKS", "2")];
        assert_eq!(of(&hydra), launched(2, 1, "MPICH's mpirun"));
        assert_eq!(of(&[("SLURM_STEP_NUM_TASKS", "16"), ("SLURM_PROCID", "7")]), launched(16, 7, "srun"));
        // a batch script has SLURM_NTASKS too, before it starts any step
        assert_eq!(of(&[("SLURM_NTASKS", "16")]), None);
        assert_eq!(of(&[("PMI_SIZE", "many")]), None);
    }

    #[test]
    fn each_process_of_a_machine_has_its_own_device() {
        let process =
            |rank_on_node, size_on_node| Processes { rank_on_node, size_on_node, ..Processes::default() };
        let device = |word, of: (usize, usize), visible, may_share| {
            device_of(word, &process(of.0, of.1), visible, may_share).map_err(|error| error.to_string())
        };
        assert_eq!(device("cuda", (0, 1), 8, false).unwrap(), "cuda");
        assert_eq!(device("cuda", (3, 8), 8, false).unwrap(), "cuda:3");
        assert_eq!(device("cpu", (3, 8), 0, false).unwrap(), "cpu");
        assert!(device("cuda", (1, 4), 2, false).unwrap_err().contains("--share-devices"));
        assert_eq!(device("cuda", (3, 4), 2, true).unwrap(), "cuda:1");
        assert!(device("cuda:1", (0, 2), 2, false).unwrap_err().contains("leave the number out"));
        assert_eq!(device("cuda:1", (0, 2), 2, true).unwrap(), "cuda:1");
    }
}
