//! Processes that talk by MPI.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use burn::tensor::bf16;
use ferrompi::{Communicator, Mpi, ReduceOp, ThreadLevel};
use train::TrainError;
use train::processes::{ProcessGroup, sum_of_halves};

use super::processes::Processes;

thread_local! {
    /// MPI itself, which ends on the thread that started it. It is not ended by a process that fails: ending
    /// waits for the others, which may wait for this one.
    static MPI: RefCell<Option<ManuallyDrop<Mpi>>> = const { RefCell::new(None) };
}

/// Starts MPI.
///
/// # Errors
/// When the library fails, or does not let several threads call it in turn.
pub(super) fn start() -> anyhow::Result<Processes> {
    // the training loop runs in a separate thread
    let mpi = Mpi::init_thread(ThreadLevel::Serialized).context("MPI cannot be started")?;
    ensure!(
        mpi.thread_level() >= ThreadLevel::Serialized,
        "this MPI allows calls from the main thread only; install one that was built with thread support"
    );
    let world = mpi.world();
    let node = world.split_shared().context("MPI cannot tell which processes are on this machine")?;
    let [rank_on_node, size_on_node] = [node.rank(), node.size()].map(|number| number as usize);
    MPI.set(Some(ManuallyDrop::new(mpi)));
    Ok(Processes { group: Arc::new(MpiGroup { world }), rank_on_node, size_on_node })
}

/// Ends MPI, after all processes have come to their end.
pub(super) fn finish() {
    if let Some(mpi) = MPI.take() {
        drop(ManuallyDrop::into_inner(mpi));
    }
}

/// All processes of a launch.
struct MpiGroup {
    world: Communicator,
}

impl std::fmt::Debug for MpiGroup {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "process {} of {}", self.rank(), self.world_size())
    }
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn failed(error: ferrompi::Error) -> TrainError {
    TrainError::Process(error.to_string())
}

impl ProcessGroup for MpiGroup {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn world_size(&self) -> usize {
        self.world.size() as usize
    }

    fn sum(&self, values: &mut [f64]) -> Result<(), TrainError> {
        self.world.allreduce_inplace(values, ReduceOp::Sum).map_err(failed)
    }

    fn sum_floats(&self, values: &mut [f32]) -> Result<(), TrainError> {
        self.world.allreduce_inplace(values, ReduceOp::Sum).map_err(failed)
    }

    /// Each process sums one part of the values, so that each value is sent twice in two bytes, whatever the
    /// number of processes. MPI does not sum bf16.
    fn sum_halves(&self, values: &mut [bf16]) -> Result<(), TrainError> {
        let count = self.world_size();
        let part = values.len().div_ceil(count);
        let mut own: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        own.resize(2 * part * count, 0);
        let mut received = vec![0; own.len()];
        self.world.alltoall(&own, &mut received).map_err(failed)?;
        let parts: Vec<&[u8]> = received.chunks_exact((2 * part).max(1)).collect();
        let mut sums = vec![bf16::ZERO; part];
        sum_of_halves(&parts, &mut sums);
        let sums: Vec<u8> = sums.into_iter().flat_map(bf16::to_le_bytes).collect();
        self.world.allgather(&sums, &mut own).map_err(failed)?;
        for (value, bytes) in values.iter_mut().zip(own.chunks_exact(2)) {
            *value = bf16::from_le_bytes([bytes[0], bytes[1]]);
        }
        Ok(())
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, TrainError> {
        let too_long = |_| TrainError::Process(format!("{} bytes are too many for MPI", bytes.len()));
        let own = [i32::try_from(bytes.len()).map_err(too_long)?];
        let mut lengths = vec![0; self.world_size()];
        self.world.allgather(&own, &mut lengths).map_err(failed)?;
        let mut places = Vec::with_capacity(lengths.len());
        let mut total: i32 = 0;
        for &length in &lengths {
            places.push(total);
            total = total.checked_add(length).ok_or_else(|| {
                TrainError::Process("the processes send more than 2 GB together".to_owned())
            })?;
        }
        let mut all = vec![0u8; total as usize];
        self.world.allgatherv(&bytes, &mut all, &lengths, &places).map_err(failed)?;
        let part = |(&place, &length): (&i32, &i32)| all[place as usize..(place + length) as usize].to_vec();
        Ok(places.iter().zip(&lengths).map(part).collect())
    }
}
