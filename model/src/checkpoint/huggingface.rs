//! Names of `Blip2ForConditionalGeneration` and of InstructBLIP in transformers.

use super::parts::Parts;
use crate::blip2::Blip2Config;
use crate::lm::LanguageModelConfig;
use crate::lm::t5::FeedForward;

/// From names of parameters to Hugging Face's: in names that start with the first column, the second column
/// is replaced by the third. Rows apply from top to bottom.
const TABLE: &[(&str, &str, &str)] = &[
    ("ln_vision.", "ln_vision.", "vision_model.post_layernorm."),
    ("vision_model.class", "vision_model.", "vision_model.embeddings."),
    ("vision_model.position", "vision_model.", "vision_model.embeddings."),
    ("vision_model.patch", "vision_model.", "vision_model.embeddings."),
    ("vision_model.layers.", ".layers.", ".encoder.layers."),
    ("vision_model.layers.", ".q_bias", ".qkv.bias"),
    ("vision_model.layers.", ".v_bias", ".qkv.bias"),
    ("temporal.", "temporal.", "temporal_embedding."),
    ("qformer.text.", "qformer.text.word", "qformer.embeddings.word_embeddings.weight"),
    ("qformer.text.", "qformer.text.position", "qformer.embeddings.position_embeddings.weight"),
    ("qformer.layers.", "qformer.layers.", "qformer.encoder.layer."),
    ("qformer.layers.", "attention.query.", "attention.attention.query."),
    ("qformer.layers.", "attention.key.", "attention.attention.key."),
    ("qformer.layers.", "attention.value.", "attention.attention.value."),
    ("qformer.layers.", ".intermediate.", ".intermediate.dense."),
    ("qformer.layers.", ".intermediate_query.", ".intermediate_query.dense."),
    ("qformer.layers.", ".layer_norm.", ".LayerNorm."),
];

/// After [`TABLE`], if the Q-Former reads text.
const TEXT: &[(&str, &str, &str)] =
    &[("qformer.layernorm.", "qformer.layernorm.", "qformer.embeddings.layernorm.")];

/// After [`TABLE`], for OPT.
const OPT: &[(&str, &str, &str)] = &[
    ("language_model.embed_tokens", "embed_tokens", "model.decoder.embed_tokens.weight"),
    ("language_model.embed_positions", "embed_positions", "model.decoder.embed_positions.weight"),
    ("language_model.layers.", "layers.", "model.decoder.layers."),
    ("language_model.final_layer_norm.", "final_layer_norm.", "model.decoder.final_layer_norm."),
];

/// After [`TABLE`], for T5.
const T5: &[(&str, &str, &str)] = &[
    ("language_model.shared", "shared", "shared.weight"),
    ("language_model.encoder.embed_tokens", ".embed_tokens", ".embed_tokens.weight"),
    ("language_model.decoder.embed_tokens", ".embed_tokens", ".embed_tokens.weight"),
    (
        "language_model.",
        ".relative_attention_bias.",
        ".block.0.layer.0.SelfAttention.relative_attention_bias.",
    ),
    ("language_model.", ".self_attention_norm.", ".layer.0.layer_norm."),
    ("language_model.", ".self_attention.", ".layer.0.SelfAttention."),
    ("language_model.", ".cross_attention_norm.", ".layer.1.layer_norm."),
    ("language_model.", ".cross_attention.", ".layer.1.EncDecAttention."),
    ("language_model.encoder.", ".feed_forward_norm.", ".layer.1.layer_norm."),
    ("language_model.encoder.", ".feed_forward.", ".layer.1.DenseReluDense."),
    ("language_model.decoder.", ".feed_forward_norm.", ".layer.2.layer_norm."),
    ("language_model.decoder.", ".feed_forward.", ".layer.2.DenseReluDense."),
];

/// After [`T5`], for the MLP without a gate.
const T5_WITHOUT_GATE: &[(&str, &str, &str)] = &[("language_model.", ".wi_0.", ".wi.")];

/// After [`TABLE`], for LLaMA.
const LLAMA: &[(&str, &str, &str)] = &[
    ("language_model.embed_tokens", "embed_tokens", "model.embed_tokens.weight"),
    ("language_model.layers.", "layers.", "model.layers."),
    ("language_model.norm.", "norm.", "model.norm."),
];

/// Before [`TABLE`], for the first stage of pretraining: names of `Blip2ForImageTextRetrieval` if it has
/// them, else of LAVIS.
const PRETRAINING: &[(&str, &str, &str)] = &[
    ("qformer.text.", "qformer.text.word", "embeddings.word_embeddings.weight"),
    ("qformer.text.", "qformer.text.position", "embeddings.position_embeddings.weight"),
    ("vision_proj.", "vision_proj.", "vision_projection."),
    ("text_proj.", "text_proj.", "text_projection."),
    ("writer.dense.", "writer.", "qformer.cls.predictions.transform."),
    ("writer.layer_norm.", "writer.layer_norm.", "qformer.cls.predictions.transform.LayerNorm."),
    ("writer.bias", "writer.", "qformer.cls.predictions."),
    ("temperature", "temperature", "temp"),
];

/// Tensors that a file may lack; they keep their initial value, zero.
pub(super) const MAY_BE_MISSING: &[&str] = &["temporal_embedding.weight"];

/// Tensors that a file may contain without a parameter: copies of the embedding, and a table of T5's older
/// files that no model has used (`_keys_to_ignore_on_load_unexpected` in transformers).
const MAY_BE_LEFT: &[&str] = &[
    "language_model.encoder.embed_tokens.weight",
    "language_model.decoder.embed_tokens.weight",
    "language_model.decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
];

/// As [`MAY_BE_LEFT`], if the head is tied to the embedding.
const MAY_BE_LEFT_WHEN_TIED: &str = "language_model.lm_head.weight";

/// Other names of a tensor, used if its own is absent: transformers saves equal tensors once.
const ALIASES: &[(&str, &str)] = &[
    ("language_model.lm_head.weight", "language_model.shared.weight"),
    ("language_model.shared.weight", "language_model.encoder.embed_tokens.weight"),
    ("language_model.shared.weight", "language_model.decoder.embed_tokens.weight"),
    ("language_model.model.decoder.embed_tokens.weight", "language_model.lm_head.weight"),
];

/// Endings of buffers in older files that follow from the configuration: the wavelengths of rotary
/// positions, and counting numbers. transformers passes over both in every model.
const MAY_BE_LEFT_ENDINGS: &[&str] =
    &[".rotary_emb.inv_freq", ".rotary_emb.original_inv_freq", ".position_ids"];

/// The name of a tensor in `tensors`: its own, or an alias.
pub(super) fn held_name(name: &str, tensors: &Parts) -> Option<String> {
    let aliases = ALIASES.iter().filter(|(of, _)| *of == name).map(|(_, alias)| *alias);
    std::iter::once(name).chain(aliases).find(|held| tensors.shape(held).is_some()).map(str::to_owned)
}

/// A slice of a tensor along its first axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slice {
    /// All of it.
    Whole,
    /// The first third: the bias of the queries in a fused bias.
    First,
    /// The last third: the bias of the values. (The second third, the bias of the keys, has no effect.)
    Last,
}

/// The names of the parameters of one model.
#[derive(Debug, Clone)]
pub(super) struct Names {
    tables: Vec<&'static [(&'static str, &'static str, &'static str)]>,
    is_tied: bool,
}

impl Names {
    pub(super) fn new(config: &Blip2Config) -> Self {
        let mut tables = vec![TABLE];
        if config.qformer_config.reads_text {
            tables.push(TEXT);
        }
        let is_tied = match &config.text_config {
            LanguageModelConfig::Opt(opt) => {
                tables.push(OPT);
                opt.tie_word_embeddings
            }
            LanguageModelConfig::T5(t5) => {
                tables.push(T5);
                if t5.feed_forward_proj == FeedForward::Relu {
                    tables.push(T5_WITHOUT_GATE);
                }
                t5.tie_word_embeddings
            }
            LanguageModelConfig::Llama(llama) => {
                tables.push(LLAMA);
                llama.tie_word_embeddings
            }
        };
        Self { tables, is_tied }
    }

    /// The names of a model of the first stage of pretraining.
    pub(super) fn pretraining() -> Self {
        Self { tables: vec![PRETRAINING, TABLE], is_tied: false }
    }

    /// Hugging Face's name of the tensor with a parameter, and the slice of the tensor.
    pub(super) fn location(&self, ours: &str) -> (String, Slice) {
        let mut name = ours.to_owned();
        for (start, from, to) in self.tables.iter().copied().flatten() {
            if ours.starts_with(start) {
                name = name.replacen(from, to, 1);
            }
        }
        let slice = match ours.rsplit('.').next() {
            Some("q_bias") => Slice::First,
            Some("v_bias") => Slice::Last,
            _ => Slice::Whole,
        };
        (name, slice)
    }

    /// Whether a tensor without a parameter is no error.
    pub(super) fn may_be_left(&self, name: &str) -> bool {
        MAY_BE_LEFT.contains(&name)
            || MAY_BE_LEFT_ENDINGS.iter().any(|ending| name.ends_with(ending))
            || (self.is_tied && name == MAY_BE_LEFT_WHEN_TIED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blip2::tests::tiny;
    use crate::fusion::Fusion;
    use crate::lm::{llama, opt};

    fn names(text_config: LanguageModelConfig) -> Names {
        Names::new(&Blip2Config { text_config, ..tiny(Fusion::Concat) })
    }

    fn check(names: &Names, pairs: &[(&str, &str)]) {
        for (ours, theirs) in pairs {
            assert_eq!(names.location(ours), ((*theirs).to_owned(), Slice::Whole));
        }
    }

    #[test]
    fn names_are_transformers() {
        let t5 = Names::new(&tiny(Fusion::Concat));
        check(
            &t5,
            &[
                ("query_tokens", "query_tokens"),
                ("ln_vision.bias", "vision_model.post_layernorm.bias"),
                ("vision_model.patch_embedding.weight", "vision_model.embeddings.patch_embedding.weight"),
                (
                    "vision_model.layers.3.self_attn.qkv.weight",
                    "vision_model.encoder.layers.3.self_attn.qkv.weight",
                ),
                ("qformer.layernorm.weight", "qformer.layernorm.weight"),
                (
                    "qformer.layers.0.attention.key.weight",
                    "qformer.encoder.layer.0.attention.attention.key.weight",
                ),
                (
                    "qformer.layers.0.crossattention.query.bias",
                    "qformer.encoder.layer.0.crossattention.attention.query.bias",
                ),
                (
                    "qformer.layers.0.crossattention.output.layer_norm.weight",
                    "qformer.encoder.layer.0.crossattention.output.LayerNorm.weight",
                ),
                (
                    "qformer.layers.1.intermediate_query.weight",
                    "qformer.encoder.layer.1.intermediate_query.dense.weight",
                ),
                (
                    "qformer.layers.1.output_query.dense.bias",
                    "qformer.encoder.layer.1.output_query.dense.bias",
                ),
                ("language_model.shared", "language_model.shared.weight"),
                (
                    "language_model.encoder.relative_attention_bias.weight",
                    "language_model.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                ),
                (
                    "language_model.decoder.block.1.cross_attention.q.weight",
                    "language_model.decoder.block.1.layer.1.EncDecAttention.q.weight",
                ),
                (
                    "language_model.decoder.block.1.feed_forward.wi_1.weight",
                    "language_model.decoder.block.1.layer.2.DenseReluDense.wi_1.weight",
                ),
                (
                    "language_model.encoder.block.1.feed_forward_norm.weight",
                    "language_model.encoder.block.1.layer.1.layer_norm.weight",
                ),
                ("language_model.lm_head.weight", "language_model.lm_head.weight"),
            ],
        );
        let opt = names(LanguageModelConfig::Opt(opt::tests::tiny()));
        check(
            &opt,
            &[
                (
                    "language_model.layers.1.self_attn.out_proj.bias",
                    "language_model.model.decoder.layers.1.self_attn.out_proj.bias",
                ),
                (
                    "language_model.layers.1.final_layer_norm.bias",
                    "language_model.model.decoder.layers.1.final_layer_norm.bias",
                ),
                (
                    "language_model.final_layer_norm.weight",
                    "language_model.model.decoder.final_layer_norm.weight",
                ),
                ("language_model.embed_tokens", "language_model.model.decoder.embed_tokens.weight"),
            ],
        );
        assert!(
            opt.may_be_left("language_model.lm_head.weight")
                && !t5.may_be_left("language_model.lm_head.weight")
        );
        let llama = names(LanguageModelConfig::Llama(llama::tests::tiny()));
        check(
            &llama,
            &[
                ("language_model.norm.weight", "language_model.model.norm.weight"),
                (
                    "language_model.layers.0.mlp.gate_proj.weight",
                    "language_model.model.layers.0.mlp.gate_proj.weight",
                ),
            ],
        );
    }

    #[test]
    fn the_vits_biases_are_parts_of_the_fused_one() {
        let names = Names::new(&tiny(Fusion::Concat));
        let fused = "vision_model.encoder.layers.0.self_attn.qkv.bias".to_owned();
        assert_eq!(names.location("vision_model.layers.0.self_attn.q_bias"), (fused.clone(), Slice::First));
        assert_eq!(names.location("vision_model.layers.0.self_attn.v_bias"), (fused, Slice::Last));
    }
}
