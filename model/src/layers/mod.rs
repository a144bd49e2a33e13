//! The layers that every network here is made of. Parameters have the shapes and the names that PyTorch gives them, so
//! that a checkpoint is read without transposing a tensor.

mod activation;
mod attention;
mod linear;
mod norm;

pub use activation::Activation;
pub use attention::{AttentionInput, MASKED, attend, join_heads, split_heads};
pub(crate) use linear::product;
pub use linear::{Linear, LinearConfig};
pub use norm::{LayerNorm, LayerNormConfig, RmsNorm, RmsNormConfig};
