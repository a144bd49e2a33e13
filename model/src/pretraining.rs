//! BLIP-2's first stage of pretraining (arXiv:2301.12597, section 3.2; `blip2_qformer.py` in LAVIS): the
//! Q-Former learns to read images by three losses on image-text pairs, without a language model.
//!
//! - ITC, image-text contrastive: similarity of the nearest query output and the text's CLS output, over the
//!   batch;
//! - ITM, image-text matching: a binary classification of pairs, with queries and text attending to each
//!   other;
//! - ITG, image-grounded text generation: the next token of the text, given the queries.

use std::ops::Range;

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::blip2::{Blip2, Visual, frame_features};
use crate::input::InputError;
use crate::layers::{
    Activation, LayerNorm, LayerNormConfig, Layout, Linear, LinearConfig, RowDraws, cast, product,
    with_layout,
};
use crate::loss::{Targets, cross_entropy};
use crate::qformer::{QFormer, QFormerConfig, QFormerText, TextAttention};
use crate::vit::{Vit, VitConfig};

/// Sizes of a [`Pretraining`] model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PretrainingConfig {
    /// The image encoder.
    pub vision_config: VitConfig,
    /// The Q-Former, with its text path.
    pub qformer_config: QFormerConfig,
    /// Number of queries.
    pub num_query_tokens: usize,
    /// Width of the ITC features.
    pub embed_dim: usize,
    /// Initial temperature, which similarities are divided by.
    pub temperature: f64,
    /// Label smoothing of the ITC and ITG losses.
    pub label_smoothing: f64,
}

impl Default for PretrainingConfig {
    /// BLIP-2: BERT's 30,522 tokens and the start token of generated texts.
    fn default() -> Self {
        Self {
            vision_config: VitConfig::default(),
            qformer_config: QFormerConfig {
                reads_text: true,
                vocab_size: 30_523,
                ..QFormerConfig::default()
            },
            num_query_tokens: 32,
            embed_dim: 256,
            temperature: 0.07,
            label_smoothing: 0.1,
        }
    }
}

impl PretrainingConfig {
    /// Whether any layer has dropout.
    pub fn has_dropout(&self) -> bool {
        let qformer = &self.qformer_config;
        let rates = [
            self.vision_config.attention_dropout,
            qformer.hidden_dropout_prob,
            qformer.attention_probs_dropout_prob,
        ];
        rates.into_iter().any(|rate| rate > 0.0)
    }

    /// Makes the model with fresh weights.
    pub fn init(&self, device: &Device) -> Pretraining {
        let (d, std) = (self.qformer_config.hidden_size, self.qformer_config.initializer_range);
        Pretraining {
            vision_model: self.vision_config.init(device),
            ln_vision: self.vision_config.ln_vision().init(device),
            query_tokens: Initializer::Normal { mean: 0.0, std }.init([1, self.num_query_tokens, d], device),
            qformer: self.qformer_config.init(device),
            vision_proj: LinearConfig::new(d, self.embed_dim, std).init(device),
            text_proj: LinearConfig::new(d, self.embed_dim, std).init(device),
            itm_head: LinearConfig::new(d, 2, std).init(device),
            writer: TextHead {
                dense: LinearConfig::new(d, d, std).init(device),
                layer_norm: LayerNormConfig::new(d, self.qformer_config.layer_norm_eps).init(device),
                bias: Initializer::Zeros.init([self.qformer_config.vocab_size], device),
                activation: self.qformer_config.hidden_act,
            },
            temperature: Initializer::Constant { value: self.temperature }.init([1], device),
            label_smoothing: self.label_smoothing,
        }
    }
}

/// The model of the first stage.
#[derive(Module, Debug)]
pub struct Pretraining {
    /// Images to tokens.
    pub vision_model: Vit,
    /// Norm of the ViT's output.
    pub ln_vision: LayerNorm,
    /// The learned queries: `[1, q, d]`.
    pub query_tokens: Param<Tensor<3>>,
    /// Reads images into queries, and texts.
    pub qformer: QFormer,
    vision_proj: Linear,
    text_proj: Linear,
    itm_head: Linear,
    /// The head of the ITG loss.
    writer: TextHead,
    /// `[1]`
    temperature: Param<Tensor<1>>,
    label_smoothing: f64,
}

/// Image tokens and their texts, row by row.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// Output of `ln_vision`: `[b, p, d]`.
    pub image: Tensor<3>,
    /// `[b, t]`, the CLS token first.
    pub ids: Tensor<2, Int>,
    /// `[b, t]`, 1 where there is a token.
    pub mask: Tensor<2>,
}

/// Normalised features of images and texts for image-text contrastive learning (ITC).
#[derive(Debug, Clone)]
pub struct ItcFeatures {
    /// Unit vectors: `[b, q, e]`.
    pub image: Tensor<3>,
    /// Unit vectors: `[b, e]`.
    pub text: Tensor<2>,
}

/// Similarities divided by the temperature, each the maximum over the queries.
#[derive(Debug, Clone)]
pub struct Similarities {
    /// `[images, texts]`
    pub image_to_text: Tensor<2>,
    /// `[texts, images]`
    pub text_to_image: Tensor<2>,
}

/// Image-text contrast of the rows of a process.
#[derive(Debug, Clone)]
pub struct Itc {
    /// Those of its rows to all rows.
    pub similarities: Similarities,
    /// `[1]`
    pub loss: Tensor<1>,
}

/// Hard negatives: for every pair of a batch, the rows of a similar image and of a similar text of other
/// pairs. Both are empty for a batch of a single pair.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct HardNegatives {
    /// The negative image of each text.
    pub images: Vec<usize>,
    /// The negative text of each image.
    pub texts: Vec<usize>,
}

/// The texts of a whole batch, of which a process may have the images of some rows only.
#[derive(Debug, Clone)]
pub struct Texts {
    /// `[b, t]`, the CLS token first.
    pub ids: Tensor<2, Int>,
    /// `[b, t]`, 1 where there is a token.
    pub mask: Tensor<2>,
}

impl Pretraining {
    /// Moves ViT, norm, queries and Q-Former into a captioner, which keeps its projection and language model.
    pub fn into_captioner(self, mut captioner: Blip2) -> Blip2 {
        captioner.vision_model = self.vision_model;
        captioner.ln_vision = self.ln_vision;
        captioner.query_tokens = self.query_tokens;
        captioner.qformer = self.qformer.without_text();
        captioner
    }

    /// Encodes each frame separately and applies the layer norm. A frozen ViT runs on plain tensors, without
    /// a graph.
    ///
    /// # Shapes
    /// - visual: one or several frames of each pair
    /// - output: `[b, f·p, d]`, in f32
    pub fn image_tokens(&self, visual: Visual) -> Tensor<3> {
        let features = match visual {
            Visual::Frames(frames) => frame_features(&self.vision_model, frames),
            Visual::Features(features) => features,
        };
        let [b, f, p, d] = features.dims();
        self.ln_vision.forward(cast(features.reshape([b, f * p, d]), FloatDType::F32))
    }

    /// The Q-Former's output for images: `[b, q, d]`.
    pub fn query_output(&self, image: &Tensor<3>) -> Tensor<3> {
        let [b, _, _] = image.dims();
        self.qformer.forward(self.queries(b), image)
    }

    /// The ITC features of a batch.
    ///
    /// # Errors
    /// If the Q-Former has no text path.
    pub fn itc_features(&self, pairs: &Pairs) -> Result<ItcFeatures, InputError> {
        let [b, _] = pairs.ids.dims();
        let text = pairs.text(TextAttention::Bidirectional);
        let text = self.qformer.forward_with_text(None, text, None)?;
        let d = text.dims()[2];
        let cls = text.slice([0..b, 0..1, 0..d]).reshape([b, d]);
        Ok(ItcFeatures {
            image: unit(self.vision_proj.forward(self.query_output(&pairs.image))),
            text: unit(self.text_proj.forward(cls)),
        })
    }

    /// The similarities of this process's rows to all rows, and the ITC loss in both directions. The loss's
    /// gradient, summed over all processes with each weighted by its share of the rows, is that of the loss
    /// of all rows.
    ///
    /// `own` are the rows of `all` from `first` on. LAVIS lets no gradient pass to the rows of other
    /// processes, so that what it learns depends on their number. Here every process computes the loss of all
    /// rows, with a graph for its own features: the gradient of a row's feature comes from every similarity
    /// that it enters, and no gradient needs to be sent.
    pub fn itc(&self, own: &ItcFeatures, all: &ItcFeatures, first: usize) -> Itc {
        let ([b, _], [total, _]) = (own.text.dims(), all.text.dims());
        let temperature = self.temperature.val();
        if b == total {
            let similarities = similarities(own, own, temperature);
            return Itc { loss: self.contrastive_loss(&similarities, 0), similarities };
        }
        let own_similarities = similarities(&own.constant(), all, temperature.clone());
        let value = self.contrastive_loss(&own_similarities, first);
        let all = all.with_rows(own, first);
        let whole = similarities(&all, &all, temperature.without_autodiff());
        let whole = self.contrastive_loss(&whole, 0) * (total as f64 / b as f64);
        let loss = value + whole.clone() - whole.without_autodiff();
        Itc { similarities: own_similarities, loss }
    }

    fn contrastive_loss(&self, similarities: &Similarities, first: usize) -> Tensor<1> {
        // Burn 0.22 fuses the maximum, the transpose and the softmax into kernels whose loss is wrong by
        // percents, and whose gradient is right. Nothing is fused across a flush, which other backends
        // ignore. A failure is met where the loss is read.
        similarities.image_to_text.device().flush().ok();
        let loss = |similarities: &Tensor<2>| {
            let [b, all] = similarities.dims();
            let device = similarities.device().inner();
            let ids = Tensor::<1, Int>::arange(first as i64..(first + b) as i64, &device).reshape([b, 1]);
            let targets = Targets { ids, mask: Tensor::ones([b, 1], &device) };
            cross_entropy(similarities.clone().reshape([b, 1, all]), &targets, self.label_smoothing)
        };
        (loss(&similarities.image_to_text) + loss(&similarities.text_to_image)) / 2.0
    }

    /// The ITM loss: matching pairs against images with wrong texts and texts with wrong images.
    ///
    /// `own` are the rows of the batch from `first` on, `texts` and `negatives` those of the whole batch. A
    /// text and its negative image are computed by the process that has the image. The mean over the
    /// processes, each weighted by its share of the rows, is the mean over all pairs.
    ///
    /// # Shapes
    /// - output: `[1]`
    ///
    /// # Errors
    /// If the Q-Former has no text path.
    pub fn itm_loss(
        &self,
        own: &Pairs,
        first: usize,
        texts: &Texts,
        negatives: &HardNegatives,
    ) -> Result<Tensor<1>, InputError> {
        let ([b, _], [total, _]) = (own.ids.dims(), texts.ids.dims());
        let device = own.ids.device().inner();
        let rows = MatchingRows::new(first..first + b, negatives);
        let n = rows.texts.len();
        let pairs = rows.pairs(own, texts);
        let logits = with_layout(Layout::Rows(rows.draws.into()), || self.itm_logits(&pairs))?;
        let labels: Vec<i32> = (0..n).map(|row| i32::from(row < b)).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(labels, [n, 1]), &device);
        let targets = Targets { ids, mask: Tensor::ones([n, 1], &device) };
        let of_all = total + negatives.images.len() + negatives.texts.len();
        let weight = (n * total) as f64 / (b * of_all) as f64;
        Ok(cross_entropy(logits.reshape([n, 1, 2]), &targets, 0.0) * weight)
    }

    /// The ITM logits of each pair, "no match" and "match": `[b, 2]`.
    ///
    /// # Errors
    /// If the Q-Former has no text path.
    pub fn itm_logits(&self, pairs: &Pairs) -> Result<Tensor<2>, InputError> {
        let [b, _] = pairs.ids.dims();
        let queries = self.queries(b);
        let [_, q, d] = queries.dims();
        let text = pairs.text(TextAttention::Bidirectional);
        let all = self.qformer.forward_with_text(Some(queries), text, Some(&pairs.image))?;
        let logits = self.itm_head.forward(all.slice([0..b, 0..q, 0..d]));
        Ok(logits.mean_dim(1).reshape([b, 2]))
    }

    /// The ITG loss: predicting each text from its image. `start` replaces the CLS token.
    ///
    /// # Shapes
    /// - output: `[1]`
    ///
    /// # Errors
    /// When the Q-Former was made without a text path.
    pub fn itg_loss(&self, pairs: &Pairs, start: u32) -> Result<Tensor<1>, InputError> {
        let [b, t] = pairs.ids.dims();
        let logits = self.itg_logits(pairs, start)?;
        let [_, _, v] = logits.dims();
        let targets = Targets {
            ids: pairs.ids.clone().slice([0..b, 1..t]),
            mask: pairs.mask.clone().slice([0..b, 1..t]),
        };
        Ok(cross_entropy(logits.slice([0..b, 0..t - 1, 0..v]), &targets, self.label_smoothing))
    }

    /// The logits of the token after each token of the texts, with `start` in place of the first: `[b, t,
    /// v]`.
    ///
    /// # Errors
    /// When the Q-Former was made without a text path.
    pub fn itg_logits(&self, pairs: &Pairs, start: u32) -> Result<Tensor<3>, InputError> {
        let [b, t] = pairs.ids.dims();
        let first = Tensor::full([b, 1], i64::from(start), &pairs.ids.device());
        let ids = Tensor::cat(vec![first, pairs.ids.clone().slice([0..b, 1..t])], 1);
        let text = QFormerText { ids, ..pairs.text(TextAttention::Causal) };
        let queries = self.queries(b);
        let q = queries.dims()[1];
        let all = self.qformer.forward_with_text(Some(queries), text, Some(&pairs.image))?;
        let d = all.dims()[2];
        let words = self.qformer.word_embedding().ok_or(InputError::NoTextPath)?;
        Ok(self.writer.forward(all.slice([0..b, q..q + t, 0..d]), words))
    }

    fn queries(&self, b: usize) -> Tensor<3> {
        let [_, q, d] = self.query_tokens.dims();
        self.query_tokens.val().expand([b, q, d])
    }
}

impl Pairs {
    /// The texts of pairs that are the whole batch.
    pub fn texts(&self) -> Texts {
        Texts { ids: self.ids.clone(), mask: self.mask.clone() }
    }

    fn text(&self, attention: TextAttention) -> QFormerText {
        QFormerText { ids: self.ids.clone(), mask: Some(self.mask.clone()), attention }
    }
}

/// The similarity of every image to every text. `all` may hold the pairs of other processes.
fn similarities(own: &ItcFeatures, all: &ItcFeatures, temperature: Tensor<1>) -> Similarities {
    let best = |images: &Tensor<3>, texts: &Tensor<2>| {
        let ([n, q, e], [texts_count, _]) = (images.dims(), texts.dims());
        let each = product(images.clone().reshape([n * q, e]), texts.clone(), None);
        each.reshape([n, q, texts_count]).max_dim(1).reshape([n, texts_count])
    };
    let temperature = temperature.unsqueeze::<2>();
    Similarities {
        image_to_text: best(&own.image, &all.text) / temperature.clone(),
        text_to_image: best(&all.image, &own.text).transpose() / temperature,
    }
}

impl ItcFeatures {
    fn constant(&self) -> Self {
        Self { image: self.image.clone().without_autodiff(), text: self.text.clone().without_autodiff() }
    }

    /// The same features, but for those from `first` on, which are `rows`.
    fn with_rows(&self, rows: &Self, first: usize) -> Self {
        let ([_, q, e], [b, _]) = (self.image.dims(), rows.text.dims());
        let place = first..first + b;
        Self {
            image: self.image.clone().slice_assign([place.clone(), 0..q, 0..e], rows.image.clone()),
            text: self.text.clone().slice_assign([place, 0..e], rows.text.clone()),
        }
    }
}

/// The rows that a process computes the matching loss of: its own pairs, then the texts whose negative images
/// it has, then its images with their negative texts.
struct MatchingRows {
    /// Rows among the process's own images.
    images: Vec<i32>,
    /// Rows among all texts.
    texts: Vec<i32>,
    /// What each row draws for dropout: the same in whatever process.
    draws: Vec<RowDraws>,
}

impl MatchingRows {
    fn new(own: Range<usize>, negatives: &HardNegatives) -> Self {
        let mut rows = Self { images: Vec::new(), texts: Vec::new(), draws: Vec::new() };
        let mut add = |image: usize, text: usize, row: usize, place: usize| {
            rows.images.push((image - own.start) as i32);
            rows.texts.push(text as i32);
            rows.draws.push(RowDraws { row, place });
        };
        for row in own.clone() {
            add(row, row, row, 0);
        }
        for (text, &image) in negatives.images.iter().enumerate().filter(|(_, image)| own.contains(image)) {
            add(image, text, text, 1);
        }
        for image in own.clone().filter(|&image| image < negatives.texts.len()) {
            add(image, negatives.texts[image], image, 2);
        }
        rows
    }

    fn pairs(&self, own: &Pairs, texts: &Texts) -> Pairs {
        let device = own.ids.device().inner();
        let rows = |rows: &[i32]| Tensor::<1, Int>::from_ints(rows, &device);
        let of_texts = rows(&self.texts);
        Pairs {
            image: own.image.clone().select(0, rows(&self.images)),
            ids: texts.ids.clone().select(0, of_texts.clone()),
            mask: texts.mask.clone().select(0, of_texts),
        }
    }
}

/// BERT's language-modelling head: a dense layer and a norm, then the transposed word embedding.
#[derive(Module, Debug)]
struct TextHead {
    dense: Linear,
    layer_norm: LayerNorm,
    /// `[v]`
    bias: Param<Tensor<1>>,
    #[module(skip)]
    activation: Activation,
}

impl TextHead {
    fn forward(&self, x: Tensor<3>, words: Tensor<2>) -> Tensor<3> {
        let x = self.layer_norm.forward(self.activation.forward_dense(&self.dense, x));
        let ([b, t, d], [v, _]) = (x.dims(), words.dims());
        product(x.reshape([b * t, d]), words, Some(self.bias.val())).reshape([b, t, v])
    }
}

/// Scales the last axis to length one, as PyTorch's `normalize` with its smallest length 1e-12.
fn unit<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let length = x.clone().square().sum_dim(D - 1).sqrt().clamp_min(1e-12);
    x / length
}
