//! A model as stacks of blocks with the number of tokens that each reads: the basis of the estimates of
//! memory and work.

use model::lm::LanguageModelConfig;
use model::parameters::Parameter;
use model::recompute::Recompute;
use model::{Blip2Config, Fusion};

use crate::config::{FrozenType, RunConfig};
use crate::tasks::TextLengths;

/// What a stack is in the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Vit,
    QFormer,
    /// The encoder of a language model that has one.
    Encoder,
    /// The blocks of a language model that generate.
    Decoder,
}

/// A stack of equal blocks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) blocks: usize,
    /// Tokens of a clip that go through.
    pub(super) tokens: usize,
    pub(super) width: usize,
    /// Values of a token inside a block's MLP.
    pub(super) inner: usize,
    pub(super) heads: usize,
    /// Tokens that a token reads in its own sequence.
    pub(super) keys: usize,
    /// Cross-attention: tokens that a token reads, such tokens of a clip, their width, and the share of
    /// blocks with it.
    pub(super) memory: Option<(usize, usize, usize, f64)>,
    /// Number of weights of the blocks, without low-rank updates.
    pub(super) weights: usize,
    /// Number of trained weights, with low-rank updates.
    pub(super) trained: usize,
    pub(super) bytes: usize,
    /// Whether there is a backward pass through it.
    pub(super) has_graph: bool,
    /// Whether its activations are recomputed.
    pub(super) recomputed: bool,
}

impl Part {
    /// Values that enter a block for one clip.
    pub(super) fn input(&self) -> usize {
        self.tokens * self.width
    }

    /// Values that a block keeps for its backward pass for one clip: see `docs/reproducing.md`.
    pub(super) fn inside(&self) -> usize {
        let own = self.tokens * (12 * self.width + self.inner + 2 * self.heads * self.keys);
        let memory = self.memory.map_or(0.0, |(keys, read, _, share)| {
            let values = self.tokens * (5 * self.width + 2 * self.heads * keys) + 2 * read * self.width;
            values as f64 * share
        });
        own + memory as usize
    }

    /// Floating-point operations of the forward pass of one clip: two for each weight and token, and for each
    /// key that a token reads and value of the width four.
    pub(super) fn forward(&self) -> f64 {
        let attention = |keys: usize| 4.0 * (self.tokens * keys * self.width * self.blocks) as f64;
        let read = self.memory.map_or(0.0, |(keys, read, width, share)| {
            // keys and values are made of the memory's tokens, not of the stack's own
            let made = 4.0 * self.width as f64 * width as f64 * (read as f64 - self.tokens as f64);
            (attention(keys) + made * self.blocks as f64) * share
        });
        2.0 * (self.weights * self.tokens) as f64 + attention(self.keys) + read
    }
}

/// The stacks of a configuration's model in the order of the forward pass. `is_trained` chooses among its
/// parameters.
pub(super) fn parts(
    config: &RunConfig,
    sizes: &Blip2Config,
    parameters: &[Parameter],
    texts: TextLengths,
    is_trained: impl Fn(&str) -> bool,
    recompute: Recompute,
) -> Vec<Part> {
    let (vision, qformer) = (&sizes.vision_config, &sizes.qformer_config);
    let (frames, patches, queries) = (config.frames.count, vision.tokens(), sizes.num_query_tokens);
    let (runs, seen, prefix) = match sizes.fusion {
        Fusion::Concat => (1, frames * patches, queries),
        Fusion::Average => (1, patches, queries),
        Fusion::ConcatQueries => (frames, patches, frames * queries),
        Fusion::AverageQueries => (frames, patches, queries),
    };
    let weights = |start: &str| {
        let of = |choose: &dyn Fn(&str) -> bool| -> usize {
            let own = parameters.iter().filter(|own| own.name.starts_with(start) && choose(&own.name));
            own.map(Parameter::len).sum()
        };
        let is_base = |name: &str| !name.contains(".lora.");
        (of(&is_base), of(&is_trained), of(&|name| is_trained(name) && is_base(name)))
    };
    let part = |kind, start: &str, recomputed| {
        let (all, trained, base) = weights(start);
        let is_half = base == 0 && config.model.frozen_type == FrozenType::Bf16;
        Part {
            kind,
            weights: all,
            trained,
            bytes: if is_half && kind != Kind::QFormer { 2 } else { 4 },
            has_graph: true,
            recomputed,
            ..Part::default()
        }
    };
    let vit = part(Kind::Vit, "vision_model.", recompute.vision_model);
    let vit = Part {
        blocks: vision.num_hidden_layers,
        tokens: frames * patches,
        width: vision.hidden_size,
        inner: 2 * vision.intermediate_size,
        heads: vision.num_attention_heads,
        keys: patches,
        has_graph: vit.trained > 0,
        ..vit
    };
    let share = 1.0 / qformer.cross_attention_frequency as f64;
    let reader = Part {
        blocks: qformer.num_hidden_layers,
        tokens: runs * queries,
        width: qformer.hidden_size,
        inner: 2 * qformer.intermediate_size,
        heads: qformer.num_attention_heads,
        keys: queries,
        memory: Some((seen, runs * seen, qformer.encoder_hidden_size, share)),
        ..part(Kind::QFormer, "qformer.", recompute.qformer)
    };
    let TextLengths { prompt, target: caption } = texts;
    let read = prefix + prompt;
    let all = read + caption; // in a language model without an encoder
    let language_model = |kind, start| part(kind, start, recompute.language_model);
    let decoder =
        || Part { tokens: all, keys: all, ..language_model(Kind::Decoder, "language_model.layers.") };
    let writers = match &sizes.text_config {
        LanguageModelConfig::T5(t5) => {
            let stack = |kind, start| Part {
                width: t5.d_model,
                inner: 3 * t5.d_ff,
                heads: t5.num_heads,
                ..language_model(kind, start)
            };
            let encoder = stack(Kind::Encoder, "language_model.encoder.");
            let decoder = stack(Kind::Decoder, "language_model.decoder.");
            vec![
                Part { blocks: t5.num_layers, tokens: read, keys: read, ..encoder },
                Part {
                    blocks: t5.num_decoder_layers,
                    tokens: caption,
                    keys: caption,
                    memory: Some((read, read, t5.d_model, 1.0)),
                    ..decoder
                },
            ]
        }
        LanguageModelConfig::Opt(opt) => vec![Part {
            blocks: opt.num_hidden_layers,
            width: opt.hidden_size,
            inner: 2 * opt.ffn_dim,
            heads: opt.num_attention_heads,
            ..decoder()
        }],
        LanguageModelConfig::Llama(llama) => vec![Part {
            blocks: llama.num_hidden_layers,
            width: llama.hidden_size,
            inner: 3 * llama.intermediate_size,
            heads: llama.num_attention_heads,
            ..decoder()
        }],
    };
    [vit, reader].into_iter().chain(writers).collect()
}
