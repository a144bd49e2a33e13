//! Layers of all networks. Parameters have PyTorch's shapes and names, so that checkpoints are read without
//! transposing.

mod activation;
mod attention;
mod dropout;
mod linear;
mod lora;
mod norm;

pub use activation::Activation;
pub use attention::MASKED;
pub(crate) use attention::{
    AttentionInput, HeadsInput, Sources, attend, attend_heads, join_heads, split_heads,
};
pub use dropout::{Draws, Dropout, DropoutConfig};
pub(crate) use dropout::{Layout, RandomStream, RowDraws, layout, with_layout};
pub(crate) use linear::product;
pub use linear::{Linear, LinearConfig};
pub use lora::{Lora, LoraConfig};
pub use norm::{LayerNorm, LayerNormConfig, RmsNorm, RmsNormConfig};

use burn::tensor::{FloatDType, Tensor};

/// Converts a tensor to another type. Burn would copy it even if it has that type already.
pub(crate) fn cast<const D: usize>(x: Tensor<D>, dtype: FloatDType) -> Tensor<D> {
    if FloatDType::from(x.dtype()) == dtype { x } else { x.cast(dtype) }
}
