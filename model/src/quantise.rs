//! ViT and language model with dense layers in int8. Embeddings, normalisation, biases and the head over the
//! vocabulary keep their types, as bitsandbytes does it.

use std::collections::HashMap;

use burn::module::ParamId;
use burn::tensor::{FloatDType, TensorData};

use crate::Blip2;
use crate::device::{DeviceError, values};
use crate::host::int8::Int8Weight;
use crate::layers::Linear;

/// Replaces the weights of the dense layers of ViT and language model by integers of one byte with a scale
/// for each output, one after the other, so that memory holds one of them in f32 besides. Those with values
/// that are not finite stay, so that they show. Only the CPU computes with such layers.
///
/// # Errors
/// When a weight cannot be read from the device.
pub fn quantise(model: &mut Blip2) -> Result<(), DeviceError> {
    let mut failure = None;
    visit_linears(model, &mut |linear| {
        let [out, d_input] = linear.weight.lazy_shape().dims();
        match values(linear.weight.val().cast(FloatDType::F32)) {
            Ok(values) => {
                if let Some(int8) = Int8Weight::quantise(&values, [out, d_input]) {
                    linear.set_int8(int8);
                }
            }
            Err(error) => failure = failure.take().or(Some(error)),
        }
    });
    failure.map_or(Ok(()), Err)
}

/// Weights that are quantised while they are read from a file, so that they are never in memory in f32
/// together. Those of layers that stay as they are have none.
pub(crate) struct Quantised(HashMap<ParamId, Option<Int8Weight>>);

impl Quantised {
    /// No layer.
    pub(crate) fn none() -> Self {
        Self(HashMap::new())
    }

    /// The dense layers of ViT and language model.
    pub(crate) fn layers_of(model: &mut Blip2) -> Self {
        let mut layers = HashMap::new();
        visit_linears(model, &mut |linear| {
            layers.insert(linear.weight.id, None);
        });
        Self(layers)
    }

    /// Quantises the values of a parameter, if it is the weight of one of the layers and has numbers only.
    /// Returns whether it did.
    pub(crate) fn take(&mut self, parameter: ParamId, data: &TensorData) -> bool {
        let (Some(slot), Ok(values), &[out, d_input]) =
            (self.0.get_mut(&parameter), data.as_slice::<f32>(), data.shape().as_slice())
        else {
            return false;
        };
        *slot = Int8Weight::quantise(values, [out, d_input]);
        slot.is_some()
    }

    /// Gives the layers their weights.
    pub(crate) fn apply(mut self, model: &mut Blip2) {
        visit_linears(model, &mut |linear| {
            if let Some(int8) = self.0.remove(&linear.weight.id).flatten() {
                linear.set_int8(int8);
            }
        });
    }
}

fn visit_linears(model: &mut Blip2, visit: &mut dyn FnMut(&mut Linear)) {
    model.vision_model.visit_linears(visit);
    model.language_model.visit_linears(&mut |_, linear| visit(linear));
}
