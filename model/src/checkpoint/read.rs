//! Filling a model from a checkpoint, tensor by tensor: memory holds the model and one tensor.

use std::collections::BTreeSet;
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};

use super::huggingface::{MAY_BE_MISSING, Names, Slice, held_name};
use super::{CheckpointError, Parts, Precision};
use crate::Blip2;
use crate::parameters::{FieldPath, track_path};
use crate::quantise::Quantised;
use crate::vit::interpolate_positions;

/// The ViT's learned positions, whose number depends on the image size of the checkpoint.
const POSITIONS: &str = "vision_model.position_embedding";

/// [`fill`] in f32, with the dense layers of ViT and language model in int8.
pub(super) fn fill_int8(
    mut model: Blip2,
    names: &Names,
    tensors: &Parts,
    path: &Path,
) -> Result<Blip2, CheckpointError> {
    let mut layers = Quantised::layers_of(&mut model);
    let mut model = fill_with(model, names, tensors, Precision::default(), path, &mut layers)?;
    layers.apply(&mut model);
    Ok(model)
}

/// Fills every parameter, or lists all tensors that do not fit.
pub(super) fn fill<M: Module>(
    model: M,
    names: &Names,
    tensors: &Parts,
    precision: Precision,
    path: &Path,
) -> Result<M, CheckpointError> {
    fill_with(model, names, tensors, precision, path, &mut Quantised::none())
}

fn fill_with<M: Module>(
    model: M,
    names: &Names,
    tensors: &Parts,
    precision: Precision,
    path: &Path,
    quantised: &mut Quantised,
) -> Result<M, CheckpointError> {
    let mut loader = Loader {
        unread: tensors.names().map(str::to_owned).collect(),
        names,
        tensors,
        precision,
        quantised,
        path: FieldPath::default(),
        problems: Vec::new(),
        failure: None,
    };
    let model = model.map(&mut loader);
    let Loader { mut problems, unread, failure, .. } = loader;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let left = unread.iter().filter(|name| !names.may_be_left(name));
    problems.extend(left.map(|name| format!("unexpected {name}")));
    if problems.is_empty() {
        Ok(model)
    } else {
        Err(CheckpointError::Mismatch { problems, path: path.to_owned() })
    }
}

struct Loader<'a> {
    tensors: &'a Parts,
    names: &'a Names,
    unread: BTreeSet<String>,
    precision: Precision,
    quantised: &'a mut Quantised,
    path: FieldPath,
    problems: Vec<String>,
    failure: Option<CheckpointError>,
}

impl ModuleMapper for Loader<'_> {
    track_path!();

    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.failure.is_some() {
            return parameter;
        }
        let ours = self.path.name();
        if ours.contains(".lora.") {
            return parameter; // stored in a separate file
        }
        match self.values(&ours, &parameter.lazy_shape().to_vec()) {
            Ok(Some((values, shape))) => {
                let data = TensorData::new(values, shape);
                if self.quantised.take(parameter.id, &data) {
                    return parameter; // replaced when all are read, and never initialised
                }
                let dtype = self.precision.of(&ours);
                let tensor = Tensor::<D>::from_data(data, &parameter.lazy_device().inner());
                let id = parameter.id;
                parameter.transform_for_load(tensor.cast(dtype), id)
            }
            Ok(None) => parameter,
            Err(failure) => {
                self.failure = Some(failure);
                parameter
            }
        }
    }
}

/// Values in row-major order, and their shape.
type Values = (Vec<f32>, Vec<usize>);

impl Loader<'_> {
    /// The values of one parameter; `None` if they are missing or do not fit, which is added to the problems.
    fn values(&mut self, ours: &str, expected: &[usize]) -> Result<Option<Values>, CheckpointError> {
        let (own, slice) = self.names.location(ours);
        let name = held_name(&own, self.tensors).unwrap_or(own);
        let Some(mut shape) = self.tensors.shape(&name) else {
            if !MAY_BE_MISSING.contains(&name.as_str()) {
                let nearest = nearest(&name, &self.unread);
                self.problems.push(format!("missing {name}{nearest}"));
            }
            return Ok(None);
        };
        self.unread.remove(&name);
        let stored = shape.clone();
        if slice != Slice::Whole
            && let [rows] = shape.as_mut_slice()
        {
            *rows /= 3;
        }
        if shape.is_empty() {
            shape.push(1); // scalars of PyTorch have no axis
        }
        let may_interpolate = ours == POSITIONS && is_square_grid(&shape, expected);
        if shape != expected && !may_interpolate {
            self.problems.push(format!("{name}: expected {expected:?}, got {stored:?}"));
            return Ok(None);
        }
        let mut values = self.tensors.read_f32(&name)?;
        let third = values.len() / 3;
        match slice {
            Slice::Whole => {}
            Slice::First => values.truncate(third),
            Slice::Last => drop(values.drain(..2 * third)),
        }
        if shape != expected {
            values = interpolate_positions(&values, shape[2], expected[1]);
        }
        Ok(Some((values, expected.to_vec())))
    }
}

/// Whether both are `[1, side² + 1, d]` with the same `d`.
fn is_square_grid(found: &[usize], expected: &[usize]) -> bool {
    let is_square = |tokens: usize| tokens > 1 && (tokens - 1).isqrt().pow(2) == tokens - 1;
    matches!((found, expected), ([1, p, d], [1, p_expected, d_expected])
        if d == d_expected && is_square(*p) && is_square(*p_expected))
}

/// The name that is most similar to a missing one, among those without a parameter.
pub(super) fn nearest(name: &str, candidates: &BTreeSet<String>) -> String {
    let best = candidates.iter().map(|other| (strsim::normalized_levenshtein(name, other), other));
    match best.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((likeness, other)) if likeness > 0.8 => format!(" (the file has {other})"),
        _ => String::new(),
    }
}
