//! The image encoder: EVA-CLIP's ViT as BLIP-2 uses it (arXiv:2303.15389; `Blip2VisionModel` in
//! transformers).
//!
//! Pre-norm blocks, learned positions, one fused query-key-value product with a bias on query and value only.
//! (A bias on the keys adds the same to every score of a query, so the softmax cancels it; transformers
//! stores zeros.) Differences from the reference: the last layer norm (`post_layernorm` in transformers,
//! `ln_vision` in LAVIS) is part of [`Blip2`](crate::Blip2), as it stays trainable when the ViT is frozen;
//! and the patch embedding is a matrix product over unfolded patches, which equals the convolution with the
//! patch as kernel and stride.

use std::ops::Range;

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, FloatDType, Tensor};
use serde::{Deserialize, Serialize};

use crate::cores::{parts, side_by_side};
use crate::host::is_on_host;
use crate::input::InputError;
use crate::layers::{
    Activation, AttentionInput, Dropout, DropoutConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig,
    Sources, attend, cast,
};
use crate::recompute::{BlockInput, ModelPart, stack};

/// Sizes of a [`Vit`], under the keys of Hugging Face's `vision_config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VitConfig {
    /// Width.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Heads of the attention.
    pub num_attention_heads: usize,
    /// Height and width of the images, in pixels.
    pub image_size: usize,
    /// Height and width of a patch, in pixels.
    pub patch_size: usize,
    /// Activation of the MLP.
    pub hidden_act: Activation,
    /// Epsilon of the blocks' layer norms.
    pub layer_norm_eps: f64,
    /// Epsilon of `ln_vision` if it differs from `layer_norm_eps`: 1e-5 in LAVIS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_layernorm_eps: Option<f64>,
    /// Dropout on the attention's probabilities.
    pub attention_dropout: f64,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
}

impl Default for VitConfig {
    /// EVA-CLIP ViT-g/14, the encoder of every published BLIP-2.
    fn default() -> Self {
        Self {
            hidden_size: 1408,
            intermediate_size: 6144,
            num_hidden_layers: 39,
            num_attention_heads: 16,
            image_size: 224,
            patch_size: 14,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-6,
            post_layernorm_eps: None,
            attention_dropout: 0.0,
            initializer_range: 0.02,
        }
    }
}

impl VitConfig {
    /// Number of tokens of an image: its patches and the CLS token.
    pub fn tokens(&self) -> usize {
        let side = self.image_size / self.patch_size;
        side * side + 1
    }

    /// The layer norm that follows the encoder.
    pub fn ln_vision(&self) -> LayerNormConfig {
        LayerNormConfig::new(self.hidden_size, self.post_layernorm_eps.unwrap_or(self.layer_norm_eps))
    }

    /// Makes the encoder with fresh weights.
    pub fn init(&self, device: &Device) -> Vit {
        let d = self.hidden_size;
        let normal = Initializer::Normal { mean: 0.0, std: self.initializer_range };
        Vit {
            class_embedding: normal.init([1, 1, d], device),
            position_embedding: normal.init([1, self.tokens(), d], device),
            patch_embedding: PatchEmbedding {
                weight: normal.init([d, 3, self.patch_size, self.patch_size], device),
                bias: Initializer::Zeros.init([d], device),
            },
            layers: (0..self.num_hidden_layers).map(|_| self.init_block(device)).collect(),
        }
    }

    fn init_block(&self, device: &Device) -> Block {
        let (d, std) = (self.hidden_size, self.initializer_range);
        let norm = LayerNormConfig::new(d, self.layer_norm_eps);
        Block {
            layer_norm1: norm.init(device),
            self_attn: Attention {
                qkv: LinearConfig::new(d, 3 * d, std).without_bias().init(device),
                q_bias: Initializer::Zeros.init([d], device),
                v_bias: Initializer::Zeros.init([d], device),
                projection: LinearConfig::new(d, d, std).init(device),
                dropout: DropoutConfig::new(self.attention_dropout).init(),
                heads: self.num_attention_heads,
            },
            layer_norm2: norm.init(device),
            mlp: Mlp {
                fc1: LinearConfig::new(d, self.intermediate_size, std).init(device),
                fc2: LinearConfig::new(self.intermediate_size, d, std).init(device),
                activation: self.hidden_act,
            },
        }
    }
}

/// Images are encoded by the cores of a CPU in parts of about so many tokens. Fewer would multiply by the
/// same weights more often.
const TOKENS_AT_A_TIME: usize = 1024;

/// The image encoder.
#[derive(Module, Debug)]
pub struct Vit {
    class_embedding: Param<Tensor<3>>,
    position_embedding: Param<Tensor<3>>,
    patch_embedding: PatchEmbedding,
    layers: Vec<Block>,
}

impl Vit {
    /// Encodes images separately, in the weights' type.
    ///
    /// # Shapes
    /// - images: `[b, 3, S, S]`, normalised
    /// - output: `[b, p, d]`, the CLS token first, before `ln_vision`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<3> {
        let [b, ..] = images.dims();
        let at_a_time = (TOKENS_AT_A_TIME / self.output_size()[0]).max(1);
        let weight = self.patch_embedding.weight.val();
        let is_training = images.device().is_autodiff() || weight.device().is_autodiff();
        if b <= at_a_time || is_training || !is_on_host(&images) {
            return self.encode(images);
        }
        let part = |images_of: Range<usize>| self.encode(images.clone().slice([images_of]));
        Tensor::cat(side_by_side(parts(b, at_a_time), part), 0)
    }

    fn encode(&self, images: Tensor<4>) -> Tensor<3> {
        let patches = self.patch_embedding.forward(cast(images, self.dtype()));
        let [b, _, d] = patches.dims();
        let class = self.class_embedding.val().expand([b, 1, d]);
        let x = Tensor::cat(vec![class, patches], 1) + self.position_embedding.val();
        stack(ModelPart::VisionModel, &self.layers, BlockInput::new(x), |block, input| {
            block.forward(input.hidden)
        })
    }

    /// Tokens of an image, and their width.
    pub fn output_size(&self) -> [usize; 2] {
        let [_, p, d] = self.position_embedding.lazy_shape().dims();
        [p, d]
    }

    /// Rejects images whose patches are not as many as the positions.
    pub(crate) fn check_size(&self, [height, width]: [usize; 2]) -> Result<(), InputError> {
        let [_, _, patch_height, patch_width] = self.patch_embedding.weight.lazy_shape().dims();
        let expected = self.position_embedding.lazy_shape()[1];
        let found = (height / patch_height) * (width / patch_width) + 1;
        let is_whole = height % patch_height == 0 && width % patch_width == 0;
        if is_whole && found == expected {
            Ok(())
        } else {
            Err(InputError::FrameSize { height, width, found, expected })
        }
    }

    fn dtype(&self) -> FloatDType {
        self.patch_embedding.weight.val().dtype().into()
    }
}

/// Resamples learned positions for another grid of patches: bicubic, without antialiasing; the CLS token's is
/// kept (`interpolate_pos_embed` in LAVIS, `torch.nn.functional.interpolate(mode="bicubic",
/// align_corners=False)`).
///
/// `values` is `[1, side² + 1, d]` in row-major order, and so is the result, with `tokens` for `side² + 1`.
pub(crate) fn interpolate_positions(values: &[f32], d: usize, tokens: usize) -> Vec<f32> {
    let from = (values.len() / d - 1).isqrt();
    let to = (tokens - 1).isqrt();
    let (class, grid) = values.split_at(d);
    let taps: Vec<[(usize, f32); 4]> = (0..to).map(|index| bicubic_taps(index, to, from)).collect();
    let mut resampled = class.to_vec();
    resampled.reserve(to * to * d);
    for rows in &taps {
        for columns in &taps {
            let start = resampled.len();
            resampled.resize(start + d, 0.0);
            for &(row, row_weight) in rows {
                for &(column, column_weight) in columns {
                    let patch = &grid[(row * from + column) * d..][..d];
                    for (sum, value) in resampled[start..].iter_mut().zip(patch) {
                        *sum += row_weight * column_weight * value;
                    }
                }
            }
        }
    }
    resampled
}

/// The four source cells of cell `index` of `to`, and their weights: Keys' cubic with a = -0.75, as in
/// PyTorch. Cells beyond the border repeat the border cell.
fn bicubic_taps(index: usize, to: usize, from: usize) -> [(usize, f32); 4] {
    const A: f32 = -0.75;
    let place = (index as f32 + 0.5) * (from as f32 / to as f32) - 0.5;
    let t = place - place.floor();
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
    let first = place.floor() as i64 - 1;
    let last = from as i64 - 1;
    std::array::from_fn(|tap| ((first + tap as i64).clamp(0, last) as usize, weights[tap]))
}

/// Images to patch tokens.
#[derive(Module, Debug)]
struct PatchEmbedding {
    /// `[d, 3, patch, patch]`
    weight: Param<Tensor<4>>,
    /// `[d]`
    bias: Param<Tensor<1>>,
}

impl PatchEmbedding {
    fn forward(&self, images: Tensor<4>) -> Tensor<3> {
        let [b, channels, height, width] = images.dims();
        let weight = self.weight.val();
        let [d, _, side, _] = weight.dims();
        let (rows, columns) = (height / side, width / side);
        let patches = images
            .reshape([b, channels, rows, side, columns, side])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([b * rows * columns, channels * side * side]);
        let tokens = patches.matmul(weight.reshape([d, channels * side * side]).transpose());
        (tokens + self.bias.val().unsqueeze()).reshape([b, rows * columns, d])
    }
}

impl Vit {
    /// Visits every dense layer.
    pub(crate) fn visit_linears(&mut self, visit: &mut dyn FnMut(&mut Linear)) {
        for Block { self_attn, mlp, .. } in &mut self.layers {
            for linear in [&mut self_attn.qkv, &mut self_attn.projection, &mut mlp.fc1, &mut mlp.fc2] {
                visit(linear);
            }
        }
    }
}

/// `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Module, Debug)]
struct Block {
    layer_norm1: LayerNorm,
    self_attn: Attention,
    layer_norm2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.self_attn.forward_onto(x.clone(), self.layer_norm1.forward(x));
        self.mlp.forward_onto(x.clone(), self.layer_norm2.forward(x))
    }
}

#[derive(Module, Debug)]
struct Attention {
    qkv: Linear,
    /// `[d]`
    q_bias: Param<Tensor<1>>,
    /// `[d]`
    v_bias: Param<Tensor<1>>,
    projection: Linear,
    dropout: Dropout,
    heads: usize,
}

impl Attention {
    fn forward_onto(&self, residual: Tensor<3>, x: Tensor<3>) -> Tensor<3> {
        let [_, _, d] = x.dims();
        let d_head = d / self.heads;
        let (q_bias, v_bias) = (self.q_bias.val(), self.v_bias.val());
        let bias = Tensor::cat(vec![q_bias.clone(), q_bias.zeros_like(), v_bias], 0);
        let attended = attend(AttentionInput {
            sources: Sources::Joint(self.qkv.forward_with_bias(x, Some(bias))),
            heads: self.heads,
            scale: (d_head as f64).powf(-0.5),
            bias: None,
            dropout: &self.dropout,
        });
        self.projection.forward_onto(residual, attended)
    }
}

#[derive(Module, Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    fn forward_onto(&self, residual: Tensor<3>, x: Tensor<3>) -> Tensor<3> {
        self.fc2.forward_onto(residual, self.activation.forward_dense(&self.fc1, x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::module::conv2d;
    use burn::tensor::ops::ConvOptions;
    use burn::tensor::{Distribution, Tolerance};

    #[test]
    fn the_patch_product_equals_the_convolution() {
        let device = Device::flex();
        device.seed(5);
        let config = VitConfig { hidden_size: 12, patch_size: 4, image_size: 8, ..VitConfig::default() };
        let embedding = config.init(&device).patch_embedding;
        let images = Tensor::<4>::random([2, 3, 8, 8], Distribution::Default, &device);
        let options = ConvOptions::new([4, 4], [0, 0], [1, 1], 1);
        let weight = embedding.weight.val();
        let expected = conv2d(images.clone(), weight, Some(embedding.bias.val()), options)
            .reshape([2, 12, 4])
            .swap_dims(1, 2);
        let patches = embedding.forward(images);
        patches.into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-5));
    }

    #[test]
    fn an_image_does_not_see_its_neighbours_in_the_batch() {
        let device = Device::flex();
        device.seed(6);
        let config = VitConfig {
            hidden_size: 16,
            intermediate_size: 32,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            image_size: 8,
            patch_size: 4,
            ..VitConfig::default()
        };
        let vit = config.init(&device);
        let images = Tensor::<4>::random([3, 3, 8, 8], Distribution::Default, &device);
        let together = vit.forward(images.clone());
        assert_eq!(together.dims(), [3, config.tokens(), 16]);
        let alone = vit.forward(images.slice([1..2]));
        alone
            .into_data()
            .assert_approx_eq::<f32>(&together.slice([1..2]).into_data(), Tolerance::absolute(1e-5));
    }

    /// LAVIS's `interpolate_pos_embed` on random positions (scripts/reference/lavis_modules.py). Weights are
    /// f32 on both sides: 1e-6 on values of size 1.
    #[test]
    fn resampled_positions_are_lavis() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/parity/lavis/positions.safetensors");
        let positions = crate::checkpoint::source::Source::open(&path).unwrap();
        for name in ["3to5", "4to6", "6to4"] {
            let before = positions.read_f32(&format!("{name}.before")).unwrap();
            let after = positions.read_f32(&format!("{name}.after")).unwrap();
            let tokens = positions.get(&format!("{name}.after")).unwrap().shape[1];
            let d = after.len() / tokens;
            let resampled = interpolate_positions(&before, d, tokens);
            assert_eq!(resampled.len(), after.len());
            for (ours, theirs) in resampled.iter().zip(&after) {
                assert!((ours - theirs).abs() < 1e-6 * 4.0, "{name}: {ours} {theirs}");
            }
        }
    }
}
