//! The captioner, as in Fig. 1 of the paper: frames -> ViT -> fusion -> Q-Former -> projection -> language
//! model.

mod config;

pub use config::Blip2Config;

use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::{FloatDType, Int, Tensor};

use crate::cores::{parts, side_by_side};
use crate::device::DeviceError;
use crate::fusion::{Fusion, TemporalEmbedding};
use crate::generate::{self, GenerateConfig, GenerateError, Generated, PromptInfo, Request};
use crate::input::InputError;
use crate::layers::{LayerNorm, Linear, cast};
use crate::lm::{LanguageModel, Prefix};
use crate::loss::{Targets, cross_entropy};
use crate::parameters::is_frozen;
use crate::qformer::{QFormer, QFormerText, TextAttention};
use crate::vit::Vit;

/// A video captioner.
#[derive(Module, Debug)]
pub struct Blip2 {
    /// Frames to tokens.
    pub vision_model: Vit,
    /// Norm of the ViT's output; trained when the ViT is frozen.
    pub ln_vision: LayerNorm,
    /// Marks the position of each frame, where configured.
    pub temporal: Option<TemporalEmbedding>,
    /// The learned queries: `[1, q, d]`.
    pub query_tokens: Param<Tensor<3>>,
    /// Reads the frames' tokens with the queries.
    pub qformer: QFormer,
    /// Maps the Q-Former's width to the language model's.
    pub language_projection: Linear,
    /// Generates the caption.
    pub language_model: LanguageModel,
    #[module(skip)]
    fusion: Fusion,
}

/// A batch of videos: frames, or their ViT features (a frozen ViT needs to run only once).
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

    /// The same values without a graph.
    #[must_use]
    pub fn without_autodiff(self) -> Self {
        match self {
            Self::Frames(frames) => Self::Frames(frames.without_autodiff()),
            Self::Features(features) => Self::Features(features.without_autodiff()),
        }
    }
}

/// Text that the model reads with the video; none by default.
#[derive(Debug, Clone, Default)]
pub struct Prompt {
    /// Read by the language model, after the video.
    pub text: Option<PromptTokens>,
    /// Read by the Q-Former together with its queries (InstructBLIP).
    pub instruction: Option<PromptTokens>,
    /// Selects each video's stream of random numbers when captions are sampled, for example its index in the
    /// data set, so that samples do not depend on the rest of the batch. The index in the batch where absent.
    pub streams: Option<Vec<u64>>,
}

/// Tokens of a batch of prompts.
#[derive(Debug, Clone)]
pub struct PromptTokens {
    /// `[b, t]`
    pub ids: Tensor<2, Int>,
    /// `[b, t]`, 1 for a token and 0 for padding. Padding precedes the prompt of a decoder-only language
    /// model and follows that of a T5 and of the Q-Former.
    pub mask: Option<Tensor<2>>,
}

impl Prompt {
    /// The same text for every row of a batch, without padding.
    pub fn text(ids: Tensor<2, Int>) -> Self {
        Self { text: Some(PromptTokens { ids, mask: None }), ..Self::default() }
    }
}

/// Why no caption was generated.
#[derive(Debug, thiserror::Error)]
pub enum CaptionError {
    /// The model cannot read its input.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The search failed.
    #[error(transparent)]
    Generate(#[from] GenerateError<DeviceError>),
}

impl Blip2 {
    /// Encodes each frame separately. A frozen ViT runs on plain tensors, without a graph.
    ///
    /// # Shapes
    /// - frames: `[b, f, 3, S, S]`
    /// - output: `[b, f, p, d]`, before `ln_vision`, in the ViT's type
    pub fn vision_features(&self, frames: Tensor<5>) -> Tensor<4> {
        frame_features(&self.vision_model, frames)
    }

    /// The input of a batch whose row `i` shows video `rows[i]`: the ViT runs once for each video.
    ///
    /// # Errors
    /// [`InputError::FrameSize`].
    pub fn encode_repeated(&self, videos: Visual, rows: &[usize]) -> Result<Visual, InputError> {
        let features = match videos {
            Visual::Frames(frames) => {
                self.check_frames(&frames)?;
                self.vision_features(frames)
            }
            Visual::Features(features) => features,
        };
        let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let rows = Tensor::<1, Int>::from_ints(rows.as_slice(), &features.device().inner());
        Ok(Visual::Features(features.select(0, rows)))
    }

    fn check_frames(&self, frames: &Tensor<5>) -> Result<(), InputError> {
        let [_, _, _, height, width] = frames.dims();
        self.vision_model.check_size([height, width])
    }

    /// The layer norm of the ViT features, in f32, as everything between ViT and language model.
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

    /// Fuses the frames of each video, after the temporal embedding if the model has one.
    ///
    /// # Shapes
    /// - features: `[b, f, p, d]`
    /// - output: `[b, m, d]`, or `[b·f, p, d]` where frames are fused after the Q-Former
    pub fn fuse(&self, features: Tensor<4>) -> Tensor<3> {
        self.fusion.before(match &self.temporal {
            Some(temporal) => temporal.forward(features),
            None => features,
        })
    }

    /// Runs the Q-Former: its queries read the fused frames, and the instruction if there is one.
    ///
    /// # Shapes
    /// - image: `[b, m, d]` or `[b·f, p, d]`
    /// - output: `[b, q, d_q]`, or `[b, f·q, d_q]` for [`Fusion::ConcatQueries`]
    ///
    /// # Errors
    /// If the model cannot read the input ([`InputError`]).
    pub fn query(
        &self,
        image: &Tensor<3>,
        frames: usize,
        instruction: Option<&PromptTokens>,
    ) -> Result<Tensor<3>, InputError> {
        let [rows, _, _] = image.dims();
        let [_, q, d] = self.query_tokens.dims();
        let queries = self.query_tokens.val().expand([rows, q, d]);
        let queries = match instruction {
            None => self.qformer.forward(queries, image),
            Some(PromptTokens { ids, mask }) => {
                // where frames are fused after the Q-Former, each frame is read with the instruction
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

    /// The language model's input: the fused frames, queried and projected, then the prompt.
    ///
    /// # Shapes
    /// - output: `[b, q + t, d_lm]`, or `[b, f·q + t, d_lm]` for [`Fusion::ConcatQueries`]
    ///
    /// # Errors
    /// If the model cannot read the input ([`InputError`]).
    pub fn prefix(&self, visual: Visual, prompt: &Prompt) -> Result<Prefix, InputError> {
        if let Visual::Frames(frames) = &visual {
            self.check_frames(frames)?;
        }
        let features = self.normed_features(visual);
        let [_, f, _, _] = features.dims();
        let queries = self.query(&self.fuse(features), f, prompt.instruction.as_ref())?;
        Ok(self.with_prompt(self.language_projection.forward(queries), prompt.text.as_ref()))
    }

    /// Appends the prompt to the projected queries, in the language model's type.
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
    /// If the model cannot read the input ([`InputError`]).
    pub fn logits(
        &self,
        visual: Visual,
        prompt: &Prompt,
        captions: Tensor<2, Int>,
    ) -> Result<Tensor<3>, InputError> {
        self.language_model.score(self.prefix(visual, prompt)?, captions)
    }

    /// Generates captions: for each video `num_return_sequences` of them, best first. The model must be in
    /// evaluation mode.
    ///
    /// # Errors
    /// If the settings are invalid, the sequence is longer than the language model's positions, the device
    /// fails, or the model returns scores that are not numbers.
    pub fn caption(
        &self,
        visual: Visual,
        prompt: &Prompt,
        config: &GenerateConfig,
    ) -> Result<Vec<Vec<Generated>>, CaptionError> {
        self.generate(self.prefix(visual, prompt)?, prompt.streams.as_deref(), config)
    }

    /// As [`caption`](Self::caption), from the language model's input; `streams` are those of a [`Prompt`].
    ///
    /// # Errors
    /// If the settings are invalid, the sequence is longer than the language model's positions, the device
    /// fails, or the model returns scores that are not numbers.
    pub fn generate(
        &self,
        prefix: Prefix,
        streams: Option<&[u64]>,
        config: &GenerateConfig,
    ) -> Result<Vec<Vec<Generated>>, CaptionError> {
        let [b, s, _] = prefix.embedded.dims();
        self.language_model.check_length(s, config.max_new_tokens)?;
        // A repetition penalty counts a T5's start token, and no token of the prompt: that reaches the
        // language model embedded, as in LAVIS, so that `generate` of transformers sees none of its ids. For
        // the same reason no n-gram of the encoder's input can be excluded.
        let history: Vec<u32> = match &self.language_model {
            LanguageModel::T5(t5) => vec![t5.start_token()],
            LanguageModel::Opt(_) | LanguageModel::Llama(_) => Vec::new(),
        };
        let stream = |row: usize| streams.and_then(|streams| streams.get(row)).copied().unwrap_or(row as u64);
        let prompts: Vec<_> = (0..b)
            .map(|row| PromptInfo { history: history.clone(), stream: stream(row), ..PromptInfo::default() })
            .collect();
        let vocabulary = self.language_model.vocabulary_size();
        let search = |first: usize, prefix: Prefix| {
            let prompts = &prompts[first..first + prefix.embedded.dims()[0]];
            let mut decoding = self.language_model.decoding(prefix, config.max_new_tokens);
            generate::generate(&mut decoding, Request { prompts, vocabulary, config })
        };
        if !self.language_model.is_small_on_host(&prefix) {
            return Ok(search(0, prefix)?);
        }
        let part = |rows: Range<usize>| search(rows.start, prefix.clone().rows(rows));
        let found = side_by_side(parts(b, PROMPTS_AT_A_TIME), part);
        Ok(found.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// Mean cross-entropy of the captions' tokens.
    ///
    /// # Shapes
    /// - output: `[1]`
    ///
    /// # Errors
    /// If the model cannot read the input ([`InputError`]).
    pub fn caption_loss(
        &self,
        visual: Visual,
        prompt: &Prompt,
        captions: &Targets,
    ) -> Result<Tensor<1>, InputError> {
        Ok(cross_entropy(self.logits(visual, prompt, captions.ids.clone())?, captions, 0.0))
    }
}

/// Prompts that a core generates captions for at a time with a small language model.
const PROMPTS_AT_A_TIME: usize = 4;

/// Encodes each frame separately: `[b, f, 3, S, S]` to `[b, f, p, d]`. A frozen ViT runs without a graph.
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
    use crate::fusion::Temporal;
    use crate::lm::LanguageModelConfig;
    use crate::qformer::QFormerConfig;
    use crate::vit::VitConfig;
    use burn::tensor::{Device, Distribution, Tolerance};

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
    fn concat_and_average_ignore_the_order_of_frames() {
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

    /// On the CPU to the last digit, so that evaluation is the same whether rows are joined or not.
    #[test]
    fn videos_that_several_rows_show_are_encoded_once_with_the_same_digits() {
        let device = Device::flex();
        device.seed(25);
        let model = tiny(Fusion::Concat).init(&device);
        let (videos, rows) = (video(&device), [0, 0, 1, 1, 1]);
        let all = videos.clone().select(0, Tensor::from_ints(rows.map(|row| row as i32), &device));
        let Ok(Visual::Features(once)) = model.encode_repeated(Visual::Frames(videos), &rows) else {
            panic!("features")
        };
        assert_eq!(once.into_data(), model.vision_features(all).into_data());
        let wide = Tensor::<5>::zeros([1, 2, 3, 8, 12], &device);
        let refused = model.encode_repeated(Visual::Frames(wide), &[0, 0]);
        assert!(matches!(refused, Err(InputError::FrameSize { width: 12, .. })));
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
