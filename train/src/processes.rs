//! Data-parallel training: gradients, sums of metrics and contrastive negatives pass through a
//! [`ProcessGroup`], and the rest of the crate does not depend on the number of processes.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Int, Tensor, TensorData};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::TrainError;

/// Processes that train one model together, each on its own rows of every batch.
///
/// All processes call the collective methods in the same order and with the same number of values.
pub trait ProcessGroup: std::fmt::Debug + Send + Sync {
    /// Number of this process, from 0. Process 0 writes files and shows the dashboard.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn world_size(&self) -> usize;

    /// Replaces `values` by their sums over all processes.
    ///
    /// # Errors
    /// When a process is gone.
    fn sum(&self, values: &mut [f64]) -> Result<(), TrainError>;

    /// As [`sum`](Self::sum), for the values of tensors.
    ///
    /// # Errors
    /// When a process is gone.
    fn sum_floats(&self, values: &mut [f32]) -> Result<(), TrainError>;

    /// The bytes of each process, in the order of ranks; lengths may differ.
    ///
    /// # Errors
    /// When a process is gone.
    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, TrainError>;
}

/// A single process.
#[derive(Debug, Clone, Copy, Default)]
pub struct SingleProcess;

impl ProcessGroup for SingleProcess {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn sum(&self, _values: &mut [f64]) -> Result<(), TrainError> {
        Ok(())
    }

    fn sum_floats(&self, _values: &mut [f32]) -> Result<(), TrainError> {
        Ok(())
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, TrainError> {
        Ok(vec![bytes])
    }
}

/// A value of each process, in the order of ranks; `what` names the values in an error.
pub(crate) fn gather_json<T: Serialize + DeserializeOwned>(
    processes: &dyn ProcessGroup,
    own: &T,
    what: &str,
) -> Result<Vec<T>, TrainError> {
    let unreadable = |error: serde_json::Error| TrainError::Data(format!("{what} of a process: {error}"));
    let parts = processes.gather(serde_json::to_vec(own).map_err(unreadable)?)?;
    parts.iter().map(|part| serde_json::from_slice(part).map_err(unreadable)).collect()
}

/// The rows of a batch that this process computes: parts of nearly equal size, in the order of ranks.
pub fn own_rows(processes: &dyn ProcessGroup, rows: usize) -> std::ops::Range<usize> {
    let (rank, count) = (processes.rank(), processes.world_size());
    rank * rows / count..(rank + 1) * rows / count
}

/// Replaces every gradient by its sum over all processes. A parameter that no row of this process reached
/// contributes zero: the other processes wait for it.
///
/// # Errors
/// When a process is gone, or the device fails.
pub fn sum_gradients<M: Module>(
    processes: &dyn ProcessGroup,
    model: &M,
    gradients: GradientsParams,
) -> Result<GradientsParams, TrainError> {
    if processes.world_size() == 1 {
        return Ok(gradients);
    }
    let mut sums = Sums { processes, gradients, failure: None };
    model.visit(&mut sums);
    sums.failure.map_or(Ok(sums.gradients), Err)
}

struct Sums<'a> {
    processes: &'a dyn ProcessGroup,
    gradients: GradientsParams,
    failure: Option<TrainError>,
}

impl Sums<'_> {
    fn sum<const D: usize>(&self, own: Tensor<D>) -> Result<Tensor<D>, TrainError> {
        let (device, dims) = (own.device(), own.dims());
        let mut values = own.into_data().try_to_vec::<f32>().map_err(TrainError::device)?;
        self.processes.sum_floats(&mut values)?;
        Ok(Tensor::from_data(TensorData::new(values, dims), &device))
    }
}

impl ModuleVisitor for Sums<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if self.failure.is_some() || !parameter.val().is_require_grad() {
            return;
        }
        let own = self.gradients.remove::<D>(parameter.id);
        let own = own.unwrap_or_else(|| parameter.val().inner().zeros_like());
        match self.sum(own) {
            Ok(sum) => self.gradients.register::<D>(parameter.id, sum),
            Err(failure) => self.failure = Some(failure),
        }
    }
}

/// As [`gather_rows`], for token ids.
///
/// # Errors
/// When a process is gone, or the device fails.
pub fn gather_ids(processes: &dyn ProcessGroup, own: &Tensor<2, Int>) -> Result<Tensor<2, Int>, TrainError> {
    if processes.world_size() == 1 {
        return Ok(own.clone());
    }
    // integers up to 2^24 are exact in f32, and no vocabulary is larger
    Ok(gather_rows(processes, &own.clone().float())?.int())
}

/// The rows of all processes as constants, in the order of ranks, for contrastive negatives. As in LAVIS no
/// gradient flows to the rows of other processes.
///
/// # Shapes
/// - input: `[rows, ...]`
/// - output: `[rows of all, ...]`
///
/// # Errors
/// When a process is gone, or the device fails.
pub fn gather_rows<const D: usize>(
    processes: &dyn ProcessGroup,
    own: &Tensor<D>,
) -> Result<Tensor<D>, TrainError> {
    if processes.world_size() == 1 {
        return Ok(own.clone());
    }
    let mut dims = own.dims();
    let row: usize = dims[1..].iter().product();
    let values =
        own.clone().without_autodiff().into_data().try_to_vec::<f32>().map_err(TrainError::device)?;
    let all = processes.gather(values.iter().flat_map(|value| value.to_le_bytes()).collect())?;
    let all: Vec<f32> = all
        .concat()
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect();
    dims[0] = all.len() / row.max(1);
    Ok(Tensor::from_data(TensorData::new(all, dims), &own.device().inner()))
}
