//! The whole captioner, as in Fig. 1 of the paper: frames -> ViT -> fusion -> Q-Former -> projection -> language model.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::fusion::{Fusion, Temporal, TemporalEmbedding};
use crate::layers::{LayerNorm, Linear, LinearConfig};
use crate::lm::t5::{T5, T5Config};
use crate::loss::{Targets, cross_entropy};
use crate::parameters::is_frozen;
use crate::qformer::{QFormer, QFormerConfig};
use crate::vit::{Vit, VitConfig};

/// Sizes of a [`Blip2`], under the keys of Hugging Face's `config.json`; `fusion`, `temporal` and `max_frames` are ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Blip2Config {
    /// The image encoder.
    pub vision_config: VitConfig,
    /// The Q-Former.
    pub qformer_config: QFormerConfig,
    /// The language model.
    pub text_config: T5Config,
    /// Number of queries.
    pub num_query_tokens: usize,
    /// How frames are joined.
    pub fusion: Fusion,
    /// Whether frames are told apart.
    pub temporal: Temporal,
    /// Most frames that a temporal embedding knows.
    pub max_frames: usize,
}

impl Default for Blip2Config {
    /// BLIP-2 with FLAN-T5-XL.
    fn default() -> Self {
        Self {
            vision_config: VitConfig::default(),
            qformer_config: QFormerConfig::default(),
            text_config: T5Config::default(),
            num_query_tokens: 32,
            fusion: Fusion::Concat,
            temporal: Temporal::None,
            max_frames: 32,
        }
    }
}

impl Blip2Config {
    /// Whether training draws random numbers.
    pub fn has_dropout(&self) -> bool {
        let (vision, qformer) = (&self.vision_config, &self.qformer_config);
        let rates =
            [vision.attention_dropout, qformer.hidden_dropout_prob, qformer.attention_probs_dropout_prob];
        rates.into_iter().chain([self.text_config.dropout_rate]).any(|rate| rate > 0.0)
    }

    /// Makes the captioner with fresh weights.
    pub fn init(&self, device: &Device) -> Blip2 {
        let (d_image, d_query) = (self.vision_config.hidden_size, self.qformer_config.hidden_size);
        let std = self.qformer_config.initializer_range;
        Blip2 {
            vision_model: self.vision_config.init(device),
            ln_vision: self.vision_config.ln_vision().init(device),
            temporal: self.temporal.init(self.max_frames, d_image, device),
            query_tokens: Initializer::Normal { mean: 0.0, std }
                .init([1, self.num_query_tokens, d_query], device),
            qformer: self.qformer_config.init(device),
            language_projection: LinearConfig::new(d_query, self.text_config.d_model, std).init(device),
            language_model: self.text_config.init(device),
            fusion: self.fusion,
        }
    }
}

/// A video captioner.
#[derive(Module, Debug)]
pub struct Blip2 {
    /// Frames to tokens.
    pub vision_model: Vit,
    /// Norm of the ViT's output; trained when the ViT is frozen.
    pub ln_vision: LayerNorm,
    /// Tells frames apart, where asked for.
    pub temporal: Option<TemporalEmbedding>,
    /// The learned queries: `[1, q, d]`.
    pub query_tokens: Param<Tensor<3>>,
    /// Reads the frames' tokens into the queries.
    pub qformer: QFormer,
    /// From the Q-Former's width to the language model's.
    pub language_projection: Linear,
    /// Writes the caption.
    pub language_model: T5,
    #[module(skip)]
    fusion: Fusion,
}

/// A batch of videos: frames, or what the ViT made of them (a frozen ViT needs to run once only).
#[derive(Debug, Clone)]
pub enum Visual {
    /// Normalised frames: `[b, f, 3, S, S]`.
    Frames(Tensor<5>),
    /// Output of [`Blip2::vision_features`]: `[b, f, p, d]`.
    Features(Tensor<4>),
}

impl Visual {
    /// Number of videos.
    pub fn batch_size(&self) -> usize {
        match self {
            Self::Frames(frames) => frames.dims()[0],
            Self::Features(features) => features.dims()[0],
        }
    }
}

impl Blip2 {
    /// Encodes each frame by itself. A frozen ViT runs on plain tensors, without a graph.
    ///
    /// # Shapes
    /// - frames: `[b, f, 3, S, S]`
    /// - output: `[b, f, p, d]`, before `ln_vision`
    pub fn vision_features(&self, frames: Tensor<5>) -> Tensor<4> {
        let [b, f, channels, height, width] = frames.dims();
        let images = frames.reshape([b * f, channels, height, width]);
        let tokens = if is_frozen(&self.vision_model) {
            self.vision_model.valid().forward(images.without_autodiff())
        } else {
            self.vision_model.forward(images)
        };
        let [_, p, d] = tokens.dims();
        tokens.reshape([b, f, p, d])
    }

    /// What the language model is given to read: every frame's tokens, fused, queried and projected.
    ///
    /// # Shapes
    /// - output: `[b, q, d_lm]`, or `[b, f·q, d_lm]` for [`Fusion::ConcatQueries`]
    pub fn visual_prefix(&self, visual: Visual) -> Tensor<3> {
        let features = match visual {
            Visual::Frames(frames) => self.vision_features(frames),
            Visual::Features(features) => features,
        };
        let [_, f, _, _] = features.dims();
        let features = self.ln_vision.forward(features);
        let features = match &self.temporal {
            Some(temporal) => temporal.forward(features),
            None => features,
        };
        let image = self.fusion.before(features);
        let [rows, _, _] = image.dims();
        let [_, q, d] = self.query_tokens.dims();
        let queries = self.qformer.forward(self.query_tokens.val().expand([rows, q, d]), &image);
        self.language_projection.forward(self.fusion.after(queries, f))
    }

    /// What the language model's encoder makes of a video and an optional prompt, which stands behind the video.
    ///
    /// # Shapes
    /// - prompt: `[b, t]`
    /// - output: `[b, q + t, d_lm]`
    pub fn encode(&self, visual: Visual, prompt: Option<Tensor<2, Int>>) -> Tensor<3> {
        let prefix = self.visual_prefix(visual);
        let embedded = match prompt {
            Some(prompt) => Tensor::cat(vec![prefix, self.language_model.embed(prompt)], 1),
            None => prefix,
        };
        self.language_model.encode(embedded, None)
    }

    /// Scores given captions token by token (teacher forcing).
    ///
    /// # Shapes
    /// - captions: `[b, t]`
    /// - output: `[b, t, v]`, in f32
    pub fn logits(
        &self,
        visual: Visual,
        prompt: Option<Tensor<2, Int>>,
        captions: Tensor<2, Int>,
    ) -> Tensor<3> {
        let encoded = self.encode(visual, prompt);
        self.language_model.decode(captions, &encoded, None)
    }

    /// Mean cross-entropy of the captions' tokens.
    ///
    /// # Shapes
    /// - output: `[1]`
    pub fn caption_loss(
        &self,
        visual: Visual,
        prompt: Option<Tensor<2, Int>>,
        captions: &Targets,
    ) -> Tensor<1> {
        let logits = self.logits(visual, prompt, captions.ids.clone());
        cross_entropy(logits, captions, 0.0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use burn::tensor::{Distribution, Tolerance};

    pub(crate) fn tiny(fusion: Fusion) -> Blip2Config {
        Blip2Config {
            vision_config: VitConfig {
                hidden_size: 16,
                intermediate_size: 32,
                num_hidden_layers: 2,
                num_attention_heads: 2,
                image_size: 8,
                patch_size: 4,
                initializer_range: 0.2,
                ..VitConfig::default()
            },
            qformer_config: QFormerConfig {
                hidden_size: 12,
                num_hidden_layers: 2,
                num_attention_heads: 2,
                intermediate_size: 24,
                encoder_hidden_size: 16,
                hidden_dropout_prob: 0.0,
                attention_probs_dropout_prob: 0.0,
                initializer_range: 0.2,
                ..QFormerConfig::default()
            },
            text_config: crate::lm::t5::tests::tiny(),
            num_query_tokens: 3,
            fusion,
            ..Blip2Config::default()
        }
    }

    fn video(device: &Device) -> Tensor<5> {
        Tensor::random([2, 4, 3, 8, 8], Distribution::Normal(0.0, 1.0), device)
    }

    fn shuffled(frames: Tensor<5>) -> Tensor<5> {
        let order = Tensor::<1, Int>::from_ints([2, 0, 3, 1], &frames.device());
        frames.select(1, order)
    }

    /// Order enters through no layer, so only the sums' order may differ: 1e-4 on logits of size 1.
    #[test]
    fn concat_and_average_are_blind_to_the_order_of_frames() {
        for fusion in [Fusion::Concat, Fusion::Average, Fusion::AverageQueries] {
            let device = Device::flex();
            device.seed(21);
            let model = tiny(fusion).init(&device);
            let captions = Tensor::<2, Int>::from_ints([[4, 5, 1], [6, 1, 0]], &device);
            let frames = video(&device);
            let straight = model.logits(Visual::Frames(frames.clone()), None, captions.clone());
            let other = model.logits(Visual::Frames(shuffled(frames)), None, captions);
            straight.into_data().assert_approx_eq::<f32>(&other.into_data(), Tolerance::absolute(1e-4));
        }
    }

    #[test]
    fn a_temporal_embedding_sees_the_order_of_frames() {
        let device = Device::flex();
        device.seed(22);
        let mut model = Blip2Config { temporal: Temporal::Learned, ..tiny(Fusion::Concat) }.init(&device);
        let frames = video(&device);
        let captions = Tensor::<2, Int>::from_ints([[4, 5, 1], [6, 1, 0]], &device);
        let difference = |model: &Blip2| {
            let straight = model.logits(Visual::Frames(frames.clone()), None, captions.clone());
            let other = model.logits(Visual::Frames(shuffled(frames.clone())), None, captions.clone());
            (straight - other).abs().max().into_scalar::<f32>()
        };
        assert!(difference(&model) < 1e-4, "zero at first");
        struct Randomise;
        impl burn::module::ModuleMapper for Randomise {
            fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
                parameter.map(|x| x.random_like(Distribution::Normal(0.0, 1.0)))
            }
        }
        model.temporal = model.temporal.map(|temporal| temporal.map(&mut Randomise));
        assert!(difference(&model) > 1e-3);
    }

    #[test]
    fn cached_features_give_the_same_logits_as_frames() {
        let device = Device::flex();
        device.seed(23);
        let model = tiny(Fusion::Concat).init(&device);
        let frames = video(&device);
        let captions = Tensor::<2, Int>::from_ints([[4, 5, 1], [6, 1, 0]], &device);
        let features = model.vision_features(frames.clone());
        let from_features = model.logits(Visual::Features(features), None, captions.clone());
        let from_frames = model.logits(Visual::Frames(frames), None, captions);
        assert_eq!(from_features.into_data(), from_frames.into_data());
    }

    #[test]
    fn a_frozen_vit_gets_no_gradient_and_every_other_parameter_one() {
        use crate::parameters::{names, set_trainable};
        let device = Device::flex().autodiff();
        device.seed(24);
        let model = tiny(Fusion::Concat).init(&device);
        let model = set_trainable(model, |name| !name.starts_with("vision_model."));
        let captions = Targets {
            ids: Tensor::from_ints([[4, 5, 1], [6, 1, 0]], &device),
            mask: Tensor::from_floats([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]], &device),
        };
        let loss = model.caption_loss(Visual::Frames(video(&Device::flex())), None, &captions);
        let gradients = burn::optim::GradientsParams::from_grads(loss.backward(), &model);
        let trained = names(&model).iter().filter(|name| !name.starts_with("vision_model.")).count();
        assert_eq!(gradients.len(), trained);
        assert!(trained < names(&model).len());
    }
}
