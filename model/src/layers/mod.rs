//! The layers that every network here is made of. Parameters have the shapes and the names that PyTorch gives them, so
//! that a checkpoint is read without transposing a tensor.

mod activation;
mod attention;
mod dropout;
mod linear;
mod lora;
mod norm;

pub use activation::Activation;
pub use attention::{AttentionInput, HeadsInput, MASKED, attend, attend_heads, join_heads, split_heads};
pub(crate) use dropout::RandomStream;
pub use dropout::{Dropout, DropoutConfig};
pub(crate) use linear::product;
pub use linear::{Linear, LinearConfig};
pub use lora::{Lora, LoraConfig};
pub use norm::{LayerNorm, LayerNormConfig, RmsNorm, RmsNormConfig};

use burn::tensor::{FloatDType, Tensor};

/// Converts a tensor, unless it is of the type already: Burn copies even then.
pub(crate) fn cast<const D: usize>(x: Tensor<D>, dtype: FloatDType) -> Tensor<D> {
    if FloatDType::from(x.dtype()) == dtype { x } else { x.cast(dtype) }
}
