//! BLIP-2 as Burn modules: an EVA-style ViT, a Q-Former and a language model, with the frames of a video
//! fused between ViT and Q-Former. This crate has tensors and checkpoints; it reads no video and computes no
//! metric.
//!
//! Shape letters in every file: `b` batch, `f` frames, `p` patches including the CLS token, `q` queries, `t`
//! text tokens, `d` width, `h` heads, `v` vocabulary.

pub mod blip2;
pub mod checkpoint;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use checkpoint::fuzzing;
pub mod cores;
pub mod device;
pub mod fusion;
pub mod generate;
mod host;
mod input;
pub mod layers;
pub mod lm;
pub mod lora;
pub mod loss;
pub mod parameters;
pub mod presets;
pub mod pretraining;
pub mod profile;
pub mod qformer;
pub mod quantise;
pub mod recompute;
pub mod vit;

pub use blip2::{Blip2, Blip2Config, Prompt, PromptTokens, Visual};
pub use fusion::{Fusion, Temporal};
pub use input::InputError;
pub use recompute::Recompute;
