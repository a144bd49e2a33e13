//! The Q-Former: a BERT whose learned queries read the image tokens by cross-attention in every second layer
//! (BLIP-2, section 3.1; `Blip2QFormerModel` in transformers). Post-norm, as BERT is.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::layers::{
    Activation, AttentionInput, LayerNorm, LayerNormConfig, Linear, LinearConfig, attend, join_heads,
    split_heads,
};

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
    /// Every how many layers the queries read the image, the first included.
    pub cross_attention_frequency: usize,
    /// Width of the image tokens.
    pub encoder_hidden_size: usize,
}

impl Default for QFormerConfig {
    /// The Q-Former of every published BLIP-2: BERT-base beside a ViT-g.
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
        }
    }
}

impl QFormerConfig {
    /// Makes the Q-Former with fresh weights.
    pub fn init(&self, device: &Device) -> QFormer {
        QFormer {
            layernorm: LayerNormConfig::new(self.hidden_size, self.layer_norm_eps).init(device),
            dropout: DropoutConfig::new(self.hidden_dropout_prob).init(),
            layers: (0..self.num_hidden_layers).map(|index| self.init_layer(index, device)).collect(),
        }
    }

    fn init_layer(&self, index: usize, device: &Device) -> Layer {
        let (d, std) = (self.hidden_size, self.initializer_range);
        let reads_image = index.is_multiple_of(self.cross_attention_frequency);
        Layer {
            attention: self.init_attention(d, device),
            crossattention: reads_image.then(|| self.init_attention(self.encoder_hidden_size, device)),
            intermediate_query: LinearConfig::new(d, self.intermediate_size, std).init(device),
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
    layernorm: LayerNorm,
    dropout: Dropout,
    layers: Vec<Layer>,
}

impl QFormer {
    /// Lets the queries read the image tokens. Every token may be read; the tokens' order carries no meaning of its own.
    ///
    /// # Shapes
    /// - queries: `[b, q, d]`
    /// - image: `[b, p, d_image]`
    /// - output: `[b, q, d]`
    pub fn forward(&self, queries: Tensor<3>, image: &Tensor<3>) -> Tensor<3> {
        let queries = self.dropout.forward(self.layernorm.forward(queries));
        self.layers.iter().fold(queries, |queries, layer| layer.forward(queries, image))
    }
}

/// Self-attention among the queries, cross-attention to the image where the layer has one, MLP.
#[derive(Module, Debug)]
struct Layer {
    attention: Attention,
    crossattention: Option<Attention>,
    intermediate_query: Linear,
    output_query: Output,
    #[module(skip)]
    activation: Activation,
}

impl Layer {
    fn forward(&self, queries: Tensor<3>, image: &Tensor<3>) -> Tensor<3> {
        let queries = self.attention.forward(queries.clone(), queries);
        let queries = match &self.crossattention {
            Some(crossattention) => crossattention.forward(queries, image.clone()),
            None => queries,
        };
        let inner = self.activation.forward(self.intermediate_query.forward(queries.clone()));
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
    fn forward(&self, queries: Tensor<3>, source: Tensor<3>) -> Tensor<3> {
        let [_, _, d] = queries.dims();
        let attended = join_heads(attend(AttentionInput {
            query: split_heads(self.query.forward(queries.clone()), self.heads),
            key: split_heads(self.key.forward(source.clone()), self.heads),
            value: split_heads(self.value.forward(source), self.heads),
            scale: ((d / self.heads) as f64).powf(-0.5),
            bias: None,
            dropout: &self.dropout,
        }));
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
}
