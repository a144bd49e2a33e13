//! The Q-Former: a BERT whose learned queries attend to the image tokens by cross-attention in every second
//! layer (BLIP-2, section 3.1; `Blip2QFormerModel` in transformers, `Qformer.py` in LAVIS). Post-norm, as
//! BERT.
//!
//! Queries and text share only the self-attention: the queries alone attend to the image, and both have
//! separate MLPs. Captioning gives it no text; pretraining and InstructBLIP do.

use burn::module::{Initializer, Module, Param};
use burn::tensor::module::embedding;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::input::InputError;
use crate::layers::{
    Activation, AttentionInput, Dropout, DropoutConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig,
    MASKED, Sources, attend,
};
use crate::recompute::{BlockInput, ModelPart, stack};

/// Sizes of a [`QFormer`], under the keys of Hugging Face's `qformer_config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QFormerConfig {
    /// Width.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Heads of both attentions.
    pub num_attention_heads: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Activation of the MLP.
    pub hidden_act: Activation,
    /// Dropout after each sub-layer and on the embedded queries.
    pub hidden_dropout_prob: f64,
    /// Dropout on the attentions' probabilities.
    pub attention_probs_dropout_prob: f64,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// Epsilon of every layer norm.
    pub layer_norm_eps: f64,
    /// Number of layers from one cross-attention to the next; the first layer has one.
    pub cross_attention_frequency: usize,
    /// Width of the image tokens.
    pub encoder_hidden_size: usize,
    /// Whether it can read text.
    #[serde(rename = "use_qformer_text_input")]
    pub reads_text: bool,
    /// Number of tokens of its text.
    pub vocab_size: usize,
    /// Longest text.
    pub max_position_embeddings: usize,
}

impl Default for QFormerConfig {
    /// The Q-Former of every published BLIP-2: BERT-base for a ViT-g.
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            cross_attention_frequency: 2,
            encoder_hidden_size: 1408,
            reads_text: false,
            vocab_size: 30_522,
            max_position_embeddings: 512,
        }
    }
}

impl QFormerConfig {
    /// Makes the Q-Former with fresh weights.
    pub fn init(&self, device: &Device) -> QFormer {
        QFormer {
            text: self.reads_text.then(|| self.init_text(device)),
            layernorm: LayerNormConfig::new(self.hidden_size, self.layer_norm_eps).init(device),
            dropout: DropoutConfig::new(self.hidden_dropout_prob).init(),
            layers: (0..self.num_hidden_layers).map(|index| self.init_layer(index, device)).collect(),
        }
    }

    fn init_text(&self, device: &Device) -> TextEmbedding {
        let normal = Initializer::Normal { mean: 0.0, std: self.initializer_range };
        TextEmbedding {
            word: normal.init([self.vocab_size, self.hidden_size], device),
            position: normal.init([self.max_position_embeddings, self.hidden_size], device),
        }
    }

    fn init_layer(&self, index: usize, device: &Device) -> Layer {
        let (d, std) = (self.hidden_size, self.initializer_range);
        let reads_image = index.is_multiple_of(self.cross_attention_frequency);
        let intermediate = || LinearConfig::new(d, self.intermediate_size, std).init(device);
        Layer {
            attention: self.init_attention(d, device),
            crossattention: reads_image.then(|| self.init_attention(self.encoder_hidden_size, device)),
            intermediate: self.reads_text.then(intermediate),
            output: self.reads_text.then(|| self.init_output(self.intermediate_size, device)),
            intermediate_query: intermediate(),
            output_query: self.init_output(self.intermediate_size, device),
            activation: self.hidden_act,
        }
    }

    fn init_attention(&self, d_source: usize, device: &Device) -> Attention {
        let (d, std) = (self.hidden_size, self.initializer_range);
        Attention {
            query: LinearConfig::new(d, d, std).init(device),
            key: LinearConfig::new(d_source, d, std).init(device),
            value: LinearConfig::new(d_source, d, std).init(device),
            output: self.init_output(d, device),
            dropout: DropoutConfig::new(self.attention_probs_dropout_prob).init(),
            heads: self.num_attention_heads,
        }
    }

    fn init_output(&self, d_input: usize, device: &Device) -> Output {
        Output {
            dense: LinearConfig::new(d_input, self.hidden_size, self.initializer_range).init(device),
            layer_norm: LayerNormConfig::new(self.hidden_size, self.layer_norm_eps).init(device),
            dropout: DropoutConfig::new(self.hidden_dropout_prob).init(),
        }
    }
}

/// The querying transformer.
#[derive(Module, Debug)]
pub struct QFormer {
    text: Option<TextEmbedding>,
    layernorm: LayerNorm,
    dropout: Dropout,
    layers: Vec<Layer>,
}

impl QFormer {
    /// The same without text path, for captioning.
    #[must_use]
    pub fn without_text(self) -> Self {
        let layers = self.layers.into_iter().map(|layer| Layer { intermediate: None, output: None, ..layer });
        Self { text: None, layers: layers.collect(), ..self }
    }
}

/// The embeddings of words and positions.
#[derive(Module, Debug)]
struct TextEmbedding {
    /// `[v, d]`
    word: Param<Tensor<2>>,
    /// `[positions, d]`
    position: Param<Tensor<2>>,
}

/// Text that the Q-Former reads with its queries.
#[derive(Debug, Clone)]
pub struct QFormerText {
    /// `[b, t]`
    pub ids: Tensor<2, Int>,
    /// `[b, t]`, 1 for a token and 0 for padding.
    pub mask: Option<Tensor<2>>,
    /// Which tokens attend to which.
    pub attention: TextAttention,
}

/// Which tokens attend to which in the self-attention of queries and text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextAttention {
    /// Every token attends to every token (image-text matching, InstructBLIP).
    Bidirectional,
    /// The text attends to the queries and to earlier text, the queries only to queries (image-grounded
    /// generation).
    Causal,
}

impl QFormer {
    /// Runs the queries over the image tokens. The order of the tokens has no effect.
    ///
    /// # Shapes
    /// - queries: `[b, q, d]`
    /// - image: `[b, p, d_image]`
    /// - output: `[b, q, d]`
    pub fn forward(&self, queries: Tensor<3>, image: &Tensor<3>) -> Tensor<3> {
        let [_, q, _] = queries.dims();
        let x = self.dropout.forward(self.layernorm.forward(queries));
        self.read(x, q, Some(image), None)
    }

    /// Runs queries and text together; the queries attend to the image. Without queries it is a plain BERT.
    ///
    /// # Shapes
    /// - queries: `[b, q, d]`
    /// - image: `[b, p, d_image]`
    /// - output: `[b, q + t, d]`, the queries first
    ///
    /// # Errors
    /// If this Q-Former has no text path.
    pub fn forward_with_text(
        &self,
        queries: Option<Tensor<3>>,
        text: QFormerText,
        image: Option<&Tensor<3>>,
    ) -> Result<Tensor<3>, InputError> {
        let embedding_table = self.text.as_ref().ok_or(InputError::NoTextPath)?;
        let ([_, tokens], positions) = (text.ids.dims(), embedding_table.position.lazy_shape()[0]);
        if tokens > positions {
            return Err(InputError::QFormerText { tokens, positions });
        }
        let q = queries.as_ref().map_or(0, |queries| queries.dims()[1]);
        let bias = self_attention_bias(&text, q);
        let words = embedding_table.forward(text.ids);
        let x = match queries {
            Some(queries) => Tensor::cat(vec![queries, words], 1),
            None => words,
        };
        let x = self.dropout.forward(self.layernorm.forward(x));
        Ok(self.read(x, q, image, Some(bias)))
    }

    fn read(&self, x: Tensor<3>, q: usize, image: Option<&Tensor<3>>, bias: Option<Tensor<4>>) -> Tensor<3> {
        let input = BlockInput { memory: image.cloned(), ..BlockInput::new(x) };
        stack(ModelPart::QFormer, &self.layers, input, move |layer, input| {
            layer.forward(input.hidden, q, input.memory.as_ref(), bias.as_ref())
        })
    }

    /// The word embeddings, `[v, d]`, which a language-modelling head shares.
    pub(crate) fn word_embedding(&self) -> Option<Tensor<2>> {
        self.text.as_ref().map(|text| text.word.val())
    }
}

impl TextEmbedding {
    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [_, t] = ids.dims();
        let [_, d] = self.position.val().dims();
        let position = self.position.val().slice([0..t, 0..d]).unsqueeze();
        embedding(self.word.val(), ids) + position
    }
}

/// [`MASKED`] where a token must not attend, else 0: `[b|1, 1, q + t, q + t]`.
fn self_attention_bias(text: &QFormerText, q: usize) -> Tensor<4> {
    let [b, t] = text.ids.dims();
    let device = text.ids.device().inner();
    let all = q + t;
    let hidden =
        |row: usize, column: usize| text.attention == TextAttention::Causal && column > row.max(q.max(1) - 1);
    let order: Vec<f32> =
        (0..all * all).map(|index| if hidden(index / all, index % all) { MASKED } else { 0.0 }).collect();
    let order = Tensor::<4>::from_data(TensorData::new(order, [1, 1, all, all]), &device);
    match &text.mask {
        None => order,
        Some(mask) => {
            let mask = Tensor::cat(vec![Tensor::ones([b, q], &device), mask.clone()], 1);
            order + ((mask - 1.0) * -MASKED).reshape([b, 1, 1, all])
        }
    }
}

/// Self-attention among queries and text, cross-attention of the queries to the image where the layer has
/// one, MLPs.
#[derive(Module, Debug)]
struct Layer {
    attention: Attention,
    crossattention: Option<Attention>,
    intermediate: Option<Linear>,
    output: Option<Output>,
    intermediate_query: Linear,
    output_query: Output,
    #[module(skip)]
    activation: Activation,
}

impl Layer {
    fn forward(
        &self,
        x: Tensor<3>,
        q: usize,
        image: Option<&Tensor<3>>,
        bias: Option<&Tensor<4>>,
    ) -> Tensor<3> {
        let x = self.attention.forward(x, None, bias.cloned());
        let [b, all, d] = x.dims();
        let queries = (q > 0).then(|| self.read_image(x.clone().slice([0..b, 0..q, 0..d]), image));
        let text = match (&self.intermediate, &self.output) {
            (Some(intermediate), Some(output)) if all > q => {
                let text = x.slice([0..b, q..all, 0..d]);
                let inner = self.activation.forward_dense(intermediate, text.clone());
                Some(output.forward(inner, text))
            }
            _ => None,
        };
        match (queries, text) {
            (Some(queries), Some(text)) => Tensor::cat(vec![queries, text], 1),
            (Some(part), None) | (None, Some(part)) => part,
            (None, None) => Tensor::zeros([b, 0, d], &self.intermediate_query.weight.device()),
        }
    }

    fn read_image(&self, queries: Tensor<3>, image: Option<&Tensor<3>>) -> Tensor<3> {
        let queries = match (&self.crossattention, image) {
            (Some(crossattention), Some(image)) => crossattention.forward(queries, Some(image), None),
            _ => queries,
        };
        let inner = self.activation.forward_dense(&self.intermediate_query, queries.clone());
        self.output_query.forward(inner, queries)
    }
}

#[derive(Module, Debug)]
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Output,
    dropout: Dropout,
    heads: usize,
}

impl Attention {
    /// Attends to `memory`, or to the queries themselves.
    fn forward(&self, queries: Tensor<3>, memory: Option<&Tensor<3>>, bias: Option<Tensor<4>>) -> Tensor<3> {
        let [_, _, d] = queries.dims();
        let layers = [&self.query, &self.key, &self.value];
        let sources = match memory {
            Some(memory) => Sources::crossed(layers, queries.clone(), memory),
            None => Sources::own(layers, queries.clone()),
        };
        let attended = attend(AttentionInput {
            sources,
            heads: self.heads,
            scale: ((d / self.heads) as f64).powf(-0.5),
            bias,
            dropout: &self.dropout,
        });
        self.output.forward(attended, queries)
    }
}

/// `norm(dropout(dense(x)) + residual)`.
#[derive(Module, Debug)]
struct Output {
    dense: Linear,
    layer_norm: LayerNorm,
    dropout: Dropout,
}

impl Output {
    fn forward(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        self.layer_norm.forward(self.dropout.forward(self.dense.forward(x)) + residual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Distribution, Tolerance};

    fn tiny() -> QFormerConfig {
        QFormerConfig {
            hidden_size: 16,
            num_hidden_layers: 3,
            num_attention_heads: 2,
            intermediate_size: 32,
            encoder_hidden_size: 12,
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            ..QFormerConfig::default()
        }
    }

    #[test]
    fn every_second_layer_reads_the_image() {
        let qformer = tiny().init(&Device::flex());
        let reads: Vec<bool> = qformer.layers.iter().map(|layer| layer.crossattention.is_some()).collect();
        assert_eq!(reads, [true, false, true]);
    }

    #[test]
    fn the_order_of_the_image_tokens_does_not_matter_but_their_content_does() {
        let device = Device::flex();
        device.seed(2);
        let config = QFormerConfig { initializer_range: 0.3, ..tiny() };
        let qformer = config.init(&device);
        let queries = Tensor::<3>::random([2, 4, 16], Distribution::Default, &device);
        let image = Tensor::<3>::random([2, 6, 12], Distribution::Default, &device);
        let straight = qformer.forward(queries.clone(), &image);
        let reversed = qformer.forward(queries.clone(), &image.clone().flip([1]));
        straight
            .clone()
            .into_data()
            .assert_approx_eq::<f32>(&reversed.into_data(), Tolerance::absolute(1e-4));
        let other = qformer.forward(queries, &(image * 2.0));
        assert!((straight - other).abs().max().into_scalar::<f32>() > 1e-2);
    }

    fn text(ids: [[i32; 3]; 2], attention: TextAttention) -> QFormerText {
        QFormerText { ids: Tensor::from_ints(ids, &Device::flex()), mask: None, attention }
    }

    fn reader() -> (QFormer, Tensor<3>, Tensor<3>) {
        let device = Device::flex();
        device.seed(3);
        let config = QFormerConfig {
            initializer_range: 0.3,
            reads_text: true,
            vocab_size: 11,
            max_position_embeddings: 8,
            ..tiny()
        };
        let queries = Tensor::<3>::random([2, 4, 16], Distribution::Default, &device);
        let image = Tensor::<3>::random([2, 6, 12], Distribution::Default, &device);
        (config.init(&device), queries, image)
    }

    #[test]
    fn under_causal_attention_queries_and_earlier_words_see_no_later_word() {
        let (qformer, queries, image) = reader();
        let forward = |last: i32| {
            let text = text([[5, 3, last], [2, 2, last]], TextAttention::Causal);
            qformer.forward_with_text(Some(queries.clone()), text, Some(&image)).unwrap()
        };
        let (one, other) = (forward(1), forward(9));
        let seen = |x: &Tensor<3>| x.clone().slice([0..2, 0..6]).into_data();
        assert_eq!(seen(&one), seen(&other));
        assert!((one - other).abs().max().into_scalar::<f32>() > 1e-2);
        let alone = qformer.forward(queries.clone(), &image);
        let beside = forward(1).slice([0..2, 0..4]);
        beside.into_data().assert_approx_eq::<f32>(&alone.into_data(), Tolerance::absolute(1e-5));
    }

    #[test]
    fn under_bidirectional_attention_queries_see_the_text_but_no_padding() {
        let (qformer, queries, image) = reader();
        let forward = |last: i32, counts: f32| {
            let mask = Tensor::<2>::from_floats([[1.0, 1.0, counts], [1.0, 1.0, counts]], &Device::flex());
            let text = text([[5, 3, last], [2, 2, last]], TextAttention::Bidirectional);
            let text = QFormerText { mask: Some(mask), ..text };
            let all = qformer.forward_with_text(Some(queries.clone()), text, Some(&image)).unwrap();
            all.slice([0..2, 0..6])
        };
        assert!((forward(1, 1.0) - forward(9, 1.0)).abs().max().into_scalar::<f32>() > 1e-2);
        assert_eq!(forward(1, 0.0).into_data(), forward(9, 0.0).into_data());
    }

    #[test]
    fn a_qformer_without_a_text_path_refuses_text() {
        let qformer = tiny().init(&Device::flex());
        let text = text([[1, 2, 3], [1, 2, 3]], TextAttention::Causal);
        assert!(qformer.forward_with_text(None, text, None).is_err());
    }
}
