//! The whole captioner, as in Fig. 1 of the paper: frames -> ViT -> fusion -> Q-Former -> projection -> language model.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, FloatDType, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::fusion::{Fusion, Temporal, TemporalEmbedding};
use crate::layers::{LayerNorm, Linear, LinearConfig, cast};
use crate::lm::t5::T5Config;
use crate::lm::{LanguageModel, LanguageModelConfig, Prefix};
use crate::lora::{LoraConfig, attach};
use crate::loss::{Targets, cross_entropy};
use crate::parameters::is_frozen;
use crate::qformer::{NoTextPath, QFormer, QFormerConfig, QFormerText, TextAttention};
use crate::vit::{Vit, VitConfig};

/// Sizes of a [`Blip2`], under the keys of Hugging Face's `config.json`; `fusion`, `temporal` and `max_frames`
/// are ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Blip2Config {
    /// The image encoder.
    pub vision_config: VitConfig,
    /// The Q-Former.
    pub qformer_config: QFormerConfig,
    /// The language model.
    pub text_config: LanguageModelConfig,
    /// Number of queries.
    pub num_query_tokens: usize,
    /// How frames are joined.
    pub fusion: Fusion,
    /// Whether frames are told apart.
    pub temporal: Temporal,
    /// Most frames that a temporal embedding knows.
    pub max_frames: usize,
    /// Low-rank updates of the language model, which lie in files of their own.
    #[serde(skip)]
    pub lora: Option<LoraConfig>,
}

impl Default for Blip2Config {
    /// BLIP-2 with FLAN-T5-XL.
    fn default() -> Self {
        Self {
            vision_config: VitConfig::default(),
            qformer_config: QFormerConfig::default(),
            text_config: LanguageModelConfig::T5(T5Config::default()),
            num_query_tokens: 32,
            fusion: Fusion::Concat,
            temporal: Temporal::None,
            max_frames: 32,
            lora: None,
        }
    }
}

impl Blip2Config {
    /// Sets the rates of dropout in the Q-Former and the language model.
    pub fn set_dropout(&mut self, rate: f64) {
        self.qformer_config.hidden_dropout_prob = rate;
        self.qformer_config.attention_probs_dropout_prob = rate;
        self.text_config.set_dropout(rate);
        if let Some(lora) = &mut self.lora {
            lora.lora_dropout = rate;
        }
    }

    /// Whether training draws random numbers.
    pub fn has_dropout(&self) -> bool {
        let (vision, qformer) = (&self.vision_config, &self.qformer_config);
        let rates =
            [vision.attention_dropout, qformer.hidden_dropout_prob, qformer.attention_probs_dropout_prob];
        rates
            .into_iter()
            .chain([self.text_config.dropout()])
            .chain(self.lora.as_ref().map(|lora| lora.lora_dropout))
            .any(|rate| rate > 0.0)
    }

    /// Refuses sizes that make no model, naming the key.
    ///
    /// # Errors
    /// What is wrong, in one line.
    pub fn check(&self) -> Result<(), String> {
        let (vision, qformer) = (&self.vision_config, &self.qformer_config);
        let sizes = [
            ("num_query_tokens", self.num_query_tokens),
            ("max_frames", self.max_frames),
            ("vision_config.hidden_size", vision.hidden_size),
            ("vision_config.intermediate_size", vision.intermediate_size),
            ("vision_config.patch_size", vision.patch_size),
            ("vision_config.num_attention_heads", vision.num_attention_heads),
            ("qformer_config.hidden_size", qformer.hidden_size),
            ("qformer_config.intermediate_size", qformer.intermediate_size),
            ("qformer_config.num_attention_heads", qformer.num_attention_heads),
            ("qformer_config.cross_attention_frequency", qformer.cross_attention_frequency),
        ];
        let sizes = sizes.into_iter().chain(self.text_config.sizes());
        for (key, size) in sizes {
            // a larger one is no model's, and its square would not fit a 64-bit number
            if size == 0 || size > 1 << 24 {
                return Err(format!("{key} is {size}"));
            }
        }
        let divisions = [
            ("vision_config.num_attention_heads", vision.hidden_size, vision.num_attention_heads),
            ("qformer_config.num_attention_heads", qformer.hidden_size, qformer.num_attention_heads),
            ("vision_config.patch_size", vision.image_size, vision.patch_size),
        ];
        for (key, whole, part) in divisions.into_iter().chain(self.text_config.divisions()) {
            if whole % part != 0 {
                return Err(format!("{key} is {part}, which does not divide {whole}"));
            }
        }
        if qformer.encoder_hidden_size != vision.hidden_size {
            let (expected, found) = (vision.hidden_size, qformer.encoder_hidden_size);
            return Err(format!(
                "qformer_config.encoder_hidden_size is {found}, expected {expected}, the ViT's width"
            ));
        }
        let rates = [
            ("vision_config.attention_dropout", vision.attention_dropout),
            ("qformer_config.hidden_dropout_prob", qformer.hidden_dropout_prob),
            ("qformer_config.attention_probs_dropout_prob", qformer.attention_probs_dropout_prob),
            ("text_config's dropout", self.text_config.dropout()),
        ];
        for (key, rate) in rates {
            if !(0.0..1.0).contains(&rate) {
                return Err(format!("{key} is {rate}, expected 0 or more and less than 1"));
            }
        }
        let layers = [vision.num_hidden_layers, qformer.num_hidden_layers, self.text_config.layers()];
        if layers.iter().any(|&layers| layers > 1000) {
            return Err(format!("a model of {layers:?} layers"));
        }
        Ok(())
    }

    /// Makes the captioner with fresh weights.
    pub fn init(&self, device: &Device) -> Blip2 {
        let (d_image, d_query) = (self.vision_config.hidden_size, self.qformer_config.hidden_size);
        let std = self.qformer_config.initializer_range;
        let mut language_model = self.text_config.init(device);
        if let Some(lora) = &self.lora {
            attach(&mut language_model, lora);
        }
        Blip2 {
            vision_model: self.vision_config.init(device),
            ln_vision: self.vision_config.ln_vision().init(device),
            temporal: self.temporal.init(self.max_frames, d_image, device),
            query_tokens: Initializer::Normal { mean: 0.0, std }
                .init([1, self.num_query_tokens, d_query], device),
            qformer: self.qformer_config.init(device),
            language_projection: LinearConfig::new(d_query, self.text_config.width(), std).init(device),
            language_model,
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
    pub language_model: LanguageModel,
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

/// What the model reads beside the video; nothing by default.
#[derive(Debug, Clone, Default)]
pub struct Prompt {
    /// Read by the language model, behind the video.
    pub text: Option<PromptTokens>,
    /// Read by the Q-Former beside its queries (InstructBLIP).
    pub instruction: Option<PromptTokens>,
    /// Names each video's stream of random numbers, where captions are sampled: say its place in its data set, so that
    /// what is drawn does not hang on the rest of the batch. The place in the batch where absent.
    pub streams: Option<Vec<u64>>,
}

/// Tokens of a batch of prompts.
#[derive(Debug, Clone)]
pub struct PromptTokens {
    /// `[b, t]`
    pub ids: Tensor<2, Int>,
    /// `[b, t]`, 1 where there is a token and 0 at padding, which stands before the prompt of a decoder-only language
    /// model and behind that of a T5 and of the Q-Former.
    pub mask: Option<Tensor<2>>,
}

impl Prompt {
    /// The same text for every row of a batch, without padding.
    pub fn text(ids: Tensor<2, Int>) -> Self {
        Self { text: Some(PromptTokens { ids, mask: None }), ..Self::default() }
    }
}

impl Blip2 {
    /// Encodes each frame by itself. A frozen ViT runs on plain tensors, without a graph.
    ///
    /// # Shapes
    /// - frames: `[b, f, 3, S, S]`
    /// - output: `[b, f, p, d]`, before `ln_vision`, in the ViT's type
    pub fn vision_features(&self, frames: Tensor<5>) -> Tensor<4> {
        frame_features(&self.vision_model, frames)
    }

    /// The norm of what the ViT made of the frames, in f32, as all that is between ViT and language model.
    ///
    /// # Shapes
    /// - output: `[b, f, p, d]`
    pub fn normed_features(&self, visual: Visual) -> Tensor<4> {
        let features = match visual {
            Visual::Frames(frames) => self.vision_features(frames),
            Visual::Features(features) => features,
        };
        self.ln_vision.forward(cast(features, FloatDType::F32))
    }

    /// Joins the frames of each video, told apart where the model has a temporal embedding.
    ///
    /// # Shapes
    /// - features: `[b, f, p, d]`
    /// - output: `[b, m, d]`, or `[b·f, p, d]` where frames are joined after the Q-Former
    pub fn fuse(&self, features: Tensor<4>) -> Tensor<3> {
        self.fusion.before(match &self.temporal {
            Some(temporal) => temporal.forward(features),
            None => features,
        })
    }

    /// Lets the queries read the fused frames, and the instruction where there is one.
    ///
    /// # Shapes
    /// - image: `[b, m, d]` or `[b·f, p, d]`
    /// - output: `[b, q, d_q]`, or `[b, f·q, d_q]` for [`Fusion::ConcatQueries`]
    ///
    /// # Errors
    /// When there is an instruction and the Q-Former cannot read text.
    pub fn query(
        &self,
        image: &Tensor<3>,
        frames: usize,
        instruction: Option<&PromptTokens>,
    ) -> Result<Tensor<3>, NoTextPath> {
        let [rows, _, _] = image.dims();
        let [_, q, d] = self.query_tokens.dims();
        let queries = self.query_tokens.val().expand([rows, q, d]);
        let queries = match instruction {
            None => self.qformer.forward(queries, image),
            Some(PromptTokens { ids, mask }) => {
                // where frames are joined after the Q-Former, each of them is read with the instruction
                let times = (rows / ids.dims()[0]) as i32;
                let videos: Vec<i32> = (0..rows as i32).map(|row| row / times).collect();
                let device = ids.device().inner();
                let videos = Tensor::<1, Int>::from_ints(videos.as_slice(), &device);
                let text = QFormerText {
                    ids: ids.clone().select(0, videos.clone()),
                    mask: mask.clone().map(|mask| mask.select(0, videos)),
                    attention: TextAttention::Bidirectional,
                };
                let all = self.qformer.forward_with_text(Some(queries), text, Some(image))?;
                all.slice([0..rows, 0..q, 0..d])
            }
        };
        Ok(self.fusion.after(queries, frames))
    }

    /// What the language model reads: every frame's tokens fused, queried and projected, then the prompt.
    ///
    /// # Shapes
    /// - output: `[b, q + t, d_lm]`, or `[b, f·q + t, d_lm]` for [`Fusion::ConcatQueries`]
    ///
    /// # Errors
    /// When there is an instruction and the Q-Former cannot read text.
    pub fn prefix(&self, visual: Visual, prompt: &Prompt) -> Result<Prefix, NoTextPath> {
        let features = self.normed_features(visual);
        let [_, f, _, _] = features.dims();
        let queries = self.query(&self.fuse(features), f, prompt.instruction.as_ref())?;
        Ok(self.with_prompt(self.language_projection.forward(queries), prompt.text.as_ref()))
    }

    /// Puts the prompt behind the projected queries, in the language model's type.
    ///
    /// # Shapes
    /// - projected: `[b, q, d_lm]`
    pub fn with_prompt(&self, projected: Tensor<3>, prompt: Option<&PromptTokens>) -> Prefix {
        let projected = cast(projected, self.language_model.dtype());
        let Some(PromptTokens { ids, mask }) = prompt else {
            return Prefix { embedded: projected, mask: None };
        };
        let [b, q, _] = projected.dims();
        let device = projected.device().inner();
        let embedded = Tensor::cat(vec![projected, self.language_model.embed(ids.clone())], 1);
        let mask = mask.clone().map(|mask| Tensor::cat(vec![Tensor::ones([b, q], &device), mask], 1));
        Prefix { embedded, mask }
    }

    /// Scores given captions token by token (teacher forcing).
    ///
    /// # Shapes
    /// - captions: `[b, t]`
    /// - output: `[b, t, v]`, in f32
    ///
    /// # Errors
    /// When there is an instruction and the Q-Former cannot read text.
    pub fn logits(
        &self,
        visual: Visual,
        prompt: &Prompt,
        captions: Tensor<2, Int>,
    ) -> Result<Tensor<3>, NoTextPath> {
        Ok(self.language_model.score(self.prefix(visual, prompt)?, captions))
    }

    /// Mean cross-entropy of the captions' tokens.
    ///
    /// # Shapes
    /// - output: `[1]`
    ///
    /// # Errors
    /// When there is an instruction and the Q-Former cannot read text.
    pub fn caption_loss(
        &self,
        visual: Visual,
        prompt: &Prompt,
        captions: &Targets,
    ) -> Result<Tensor<1>, NoTextPath> {
        Ok(cross_entropy(self.logits(visual, prompt, captions.ids.clone())?, captions, 0.0))
    }
}

/// Encodes each frame by itself: `[b, f, 3, S, S]` to `[b, f, p, d]`. A frozen ViT runs without a graph.
pub(crate) fn frame_features(vit: &Vit, frames: Tensor<5>) -> Tensor<4> {
    let [b, f, channels, height, width] = frames.dims();
    let images = frames.reshape([b * f, channels, height, width]);
    let tokens =
        if is_frozen(vit) { vit.valid().forward(images.without_autodiff()) } else { vit.forward(images) };
    let [_, p, d] = tokens.dims();
    tokens.reshape([b, f, p, d])
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
            text_config: LanguageModelConfig::T5(crate::lm::t5::tests::tiny()),
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
            let straight =
                model.logits(Visual::Frames(frames.clone()), &Prompt::default(), captions.clone()).unwrap();
            let other = model.logits(Visual::Frames(shuffled(frames)), &Prompt::default(), captions).unwrap();
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
            let straight =
                model.logits(Visual::Frames(frames.clone()), &Prompt::default(), captions.clone()).unwrap();
            let other = model
                .logits(Visual::Frames(shuffled(frames.clone())), &Prompt::default(), captions.clone())
                .unwrap();
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
        let from_features =
            model.logits(Visual::Features(features), &Prompt::default(), captions.clone()).unwrap();
        let from_frames = model.logits(Visual::Frames(frames), &Prompt::default(), captions).unwrap();
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
        let loss = model
            .caption_loss(Visual::Frames(video(&Device::flex())), &Prompt::default(), &captions)
            .unwrap();
        let gradients = burn::optim::GradientsParams::from_grads(loss.backward(), &model);
        let trained = names(&model).iter().filter(|name| !name.starts_with("vision_model.")).count();
        assert_eq!(gradients.len(), trained);
        assert!(trained < names(&model).len());
    }
}
