//! Data-parallel training: gradients, sums of metrics and contrastive negatives pass through a
//! [`ProcessGroup`], and the rest of the crate does not depend on the number of processes.

use std::collections::VecDeque;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData, bf16};
use model::device;
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

    /// As [`sum`](Self::sum), for a tensor on any device: by way of the host, unless a group has a faster
    /// one.
    ///
    /// # Shapes
    /// - input and output: `[n]`
    ///
    /// # Errors
    /// When a process is gone, or the device fails.
    fn sum_tensor(&self, own: Tensor<1>) -> Result<Tensor<1>, TrainError> {
        let (device, dims) = (own.device(), own.dims());
        let mut values = device::values(own)?;
        self.sum_floats(&mut values)?;
        Ok(Tensor::from_data(TensorData::new(values, dims), &device))
    }

    /// As [`sum`](Self::sum), in two bytes a value. Sums are computed in f32 and rounded once, in the same
    /// way for all processes.
    ///
    /// # Errors
    /// When a process is gone.
    fn sum_halves(&self, values: &mut [bf16]) -> Result<(), TrainError> {
        let parts = self.gather(values.iter().flat_map(|value| value.to_le_bytes()).collect())?;
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        sum_of_halves(&parts, values);
        Ok(())
    }

    /// The bytes of each process, in the order of ranks; lengths may differ.
    ///
    /// # Errors
    /// When a process is gone.
    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, TrainError>;
}

/// The sums of values in bf16, little-endian, of which each part has one; computed in f32 and rounded once.
pub fn sum_of_halves(parts: &[&[u8]], sums: &mut [bf16]) {
    for (place, sum) in sums.iter_mut().enumerate() {
        let of = |part: &&[u8]| bf16::from_le_bytes([part[2 * place], part[2 * place + 1]]).to_f32();
        *sum = bf16::from_f32(parts.iter().map(of).sum());
    }
}

/// The type in which gradients are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// As they are.
    F32,
    /// In half the bytes.
    Bf16,
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
    own: T,
    what: &str,
) -> Result<Vec<T>, TrainError> {
    if processes.world_size() == 1 {
        return Ok(vec![own]);
    }
    let unreadable = |error: serde_json::Error| TrainError::Data(format!("{what} of a process: {error}"));
    let parts = processes.gather(serde_json::to_vec(&own).map_err(unreadable)?)?;
    parts.iter().map(|part| serde_json::from_slice(part).map_err(unreadable)).collect()
}

/// The rows of a batch that this process computes: parts of nearly equal size, in the order of ranks.
pub fn own_rows(processes: &dyn ProcessGroup, rows: usize) -> std::ops::Range<usize> {
    let (rank, count) = (processes.rank(), processes.world_size());
    rank * rows / count..(rank + 1) * rows / count
}

/// The rows of a batch that each process has, in the order of ranks.
///
/// # Errors
/// When a process is gone.
pub(crate) fn row_counts(processes: &dyn ProcessGroup, own: usize) -> Result<Vec<usize>, TrainError> {
    let mut counts = vec![0.0; processes.world_size()];
    counts[processes.rank()] = own as f64;
    processes.sum(&mut counts)?;
    Ok(counts.into_iter().map(|count| count as usize).collect())
}

/// Returns a process's own result if all succeeded, and an error on every process otherwise, so that none
/// waits for one that has stopped: its own, or that of the first process that failed. All processes call this
/// wherever one of them may fail.
///
/// # Errors
/// When any process failed, or is gone.
pub fn agree<T, E>(processes: &dyn ProcessGroup, own: Result<T, E>) -> Result<T, E>
where
    E: ToString + From<TrainError>,
{
    if processes.world_size() == 1 {
        return own;
    }
    let mut failed = [f64::from(u8::from(own.is_err()))];
    processes.sum(&mut failed)?;
    if failed[0] == 0.0 {
        return own;
    }
    let message = own.as_ref().err().map(ToString::to_string);
    let all = gather_json(processes, message, "the outcome")?;
    let value = own?;
    let first = all.into_iter().enumerate().find_map(|(rank, message)| Some((rank, message?)));
    first.map_or(Ok(value), |(rank, message)| Err(TrainError::Peer { rank, message }.into()))
}

/// Refuses a value that is not the same in all processes.
///
/// # Errors
/// With the values, on every process; or when a process is gone.
pub fn check_same(processes: &dyn ProcessGroup, what: &'static str, own: &str) -> Result<(), TrainError> {
    let all = gather_json(processes, own.to_owned(), what)?;
    let first = all[0].clone();
    match all.into_iter().enumerate().find(|(_, value)| *value != first) {
        None => Ok(()),
        Some((rank, other)) => Err(TrainError::Differs { what, first, rank, other }),
    }
}

/// The first process's value, on all processes.
///
/// # Errors
/// When a process is gone, or the value cannot be sent.
pub fn share_first<T: Serialize + DeserializeOwned>(
    processes: &dyn ProcessGroup,
    own: T,
) -> Result<T, TrainError> {
    Ok(gather_json(processes, own, "a value of the first process")?.swap_remove(0))
}

/// Bytes of gradients that are summed at a time: large enough that the time of a transfer is that of its
/// bytes, as in PyTorch's DDP.
const BUCKET: usize = 25 << 20;

/// Replaces every gradient by its sum over all processes, in buckets of at least 25 MiB. A parameter that no
/// row of this process reached contributes zero: the other processes wait for it.
///
/// # Errors
/// When a process is gone, or the device fails.
pub fn sum_gradients<M: Module>(
    processes: &dyn ProcessGroup,
    model: &M,
    gradients: GradientsParams,
    transfer: Transfer,
) -> Result<GradientsParams, TrainError> {
    if processes.world_size() == 1 {
        return Ok(gradients);
    }
    let mut buckets = Buckets {
        processes,
        transfer,
        gradients,
        open: Vec::new(),
        bytes: 0,
        sums: VecDeque::new(),
        failure: None,
    };
    model.visit(&mut buckets);
    buckets.close();
    let Buckets { gradients, sums, failure, .. } = buckets;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let mut summed = Summed { gradients, sums };
    model.visit(&mut summed);
    Ok(summed.gradients)
}

/// Collects gradients as flat tensors, and sums each bucket when it is full.
struct Buckets<'a> {
    processes: &'a dyn ProcessGroup,
    transfer: Transfer,
    gradients: GradientsParams,
    /// The gradients of the open bucket.
    open: Vec<Tensor<1>>,
    bytes: usize,
    /// Sums of closed buckets, gradient by gradient.
    sums: VecDeque<Tensor<1>>,
    failure: Option<TrainError>,
}

impl Buckets<'_> {
    fn sum(&self, own: Tensor<1>) -> Result<Tensor<1>, TrainError> {
        if self.transfer == Transfer::F32 {
            return self.processes.sum_tensor(own);
        }
        let (device, dims) = (own.device(), own.dims());
        // rounded on the host: not every device has bf16
        let mut values: Vec<bf16> = device::values(own)?.into_iter().map(bf16::from_f32).collect();
        self.processes.sum_halves(&mut values)?;
        let sums: Vec<f32> = values.into_iter().map(bf16::to_f32).collect();
        Ok(Tensor::from_data(TensorData::new(sums, dims), &device))
    }

    fn close(&mut self) {
        if self.open.is_empty() || self.failure.is_some() {
            return;
        }
        let gradients = std::mem::take(&mut self.open);
        self.bytes = 0;
        let lengths: Vec<usize> = gradients.iter().map(|gradient| gradient.dims()[0]).collect();
        match self.sum(Tensor::cat(gradients, 0)) {
            Ok(sum) => self.sums.extend(sum.split_with_sizes(lengths, 0)),
            Err(failure) => self.failure = Some(failure),
        }
    }
}

impl ModuleVisitor for Buckets<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if self.failure.is_some() || !parameter.val().is_require_grad() {
            return;
        }
        let own = self.gradients.remove::<D>(parameter.id);
        let own = own.unwrap_or_else(|| parameter.val().inner().zeros_like());
        let length = own.shape().num_elements();
        self.open.push(own.reshape([length]));
        self.bytes += 4 * length;
        if self.bytes >= BUCKET {
            self.close();
        }
    }
}

/// Gives each parameter its sum, in the order in which they were collected.
struct Summed {
    gradients: GradientsParams,
    sums: VecDeque<Tensor<1>>,
}

impl ModuleVisitor for Summed {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if parameter.val().is_require_grad()
            && let Some(sum) = self.sums.pop_front()
        {
            self.gradients.register::<D>(parameter.id, sum.reshape(parameter.val().shape()));
        }
    }
}

/// The rows of all processes as constants, in the order of ranks; `own` is `None` where there are none.
///
/// # Shapes
/// - input: `[rows, ...]`
/// - output: `[rows of all, ...]`, on the device without a graph
///
/// # Errors
/// When a process is gone, or the device fails.
pub fn gather_rows<const D: usize>(
    processes: &dyn ProcessGroup,
    own: Option<&Tensor<D>>,
    device: &Device,
) -> Result<Tensor<D>, TrainError> {
    let own = own.map(|own| own.clone().without_autodiff());
    if let (1, Some(own)) = (processes.world_size(), &own) {
        return Ok(own.clone());
    }
    let own = own.map(|own| {
        let dims = own.dims().to_vec();
        device::values(own).map(|values| (dims, values))
    });
    // the numbers of rows may differ, and a process without rows does not know their shape
    let (dims, values) = own.transpose()?.unwrap_or_default();
    let shapes = gather_json(processes, dims, "the shape of a tensor")?;
    let all = processes.gather(values.iter().flat_map(|value| value.to_le_bytes()).collect())?;
    let all: Vec<f32> = all
        .concat()
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect();
    let mut dims = [0; D];
    for shape in shapes.iter().filter(|shape| shape.len() == D) {
        dims.copy_from_slice(shape);
    }
    dims[0] = shapes.iter().filter_map(|shape| shape.first()).sum();
    Ok(Tensor::from_data(TensorData::new(all, dims), &device.clone().inner()))
}
