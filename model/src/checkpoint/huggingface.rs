//! Names and configuration of `Blip2ForConditionalGeneration` in transformers.

use std::path::Path;

use serde_json::{Value, json};

use super::CheckpointError;
use crate::blip2::Blip2Config;

/// Our names to Hugging Face's: wherever a name starts with the first column, the second column becomes the third.
/// Rows apply from top to bottom.
const TABLE: &[(&str, &str, &str)] = &[
    ("ln_vision.", "ln_vision.", "vision_model.post_layernorm."),
    ("vision_model.class", "vision_model.", "vision_model.embeddings."),
    ("vision_model.position", "vision_model.", "vision_model.embeddings."),
    ("vision_model.patch", "vision_model.", "vision_model.embeddings."),
    ("vision_model.layers.", ".layers.", ".encoder.layers."),
    ("temporal.", "temporal.", "temporal_embedding."),
    ("qformer.", "qformer.layers.", "qformer.encoder.layer."),
    ("qformer.", "attention.query.", "attention.attention.query."),
    ("qformer.", "attention.key.", "attention.attention.key."),
    ("qformer.", "attention.value.", "attention.attention.value."),
    ("qformer.", ".layer_norm.", ".LayerNorm."),
    ("language_model.shared", "shared", "shared.weight"),
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

/// Tensors that a file may lack; they keep their fresh values (zero).
pub(super) const MAY_BE_MISSING: &[&str] = &["temporal_embedding.weight"];

/// Tensors that a file may hold beside the model's: copies of the embedding that older files carry.
pub(super) const MAY_BE_LEFT: &[&str] =
    &["language_model.encoder.embed_tokens.weight", "language_model.decoder.embed_tokens.weight"];

/// The Hugging Face name of one of our parameters. `is_gated` tells T5's two forms of MLP apart.
pub(super) fn name_of(ours: &str, is_gated: bool) -> String {
    let mut name = ours.to_owned();
    for (start, from, to) in TABLE {
        if ours.starts_with(start) {
            name = name.replacen(from, to, 1);
        }
    }
    if !is_gated && name.contains("DenseReluDense.wi_0.") {
        name = name.replace(".wi_0.", ".wi.");
    }
    name
}

const MODEL_TYPE: &str = "blip-2";

pub(super) fn read_config(path: &Path) -> Result<Blip2Config, CheckpointError> {
    let fail = |reason: String| CheckpointError::Config { reason, path: path.to_owned() };
    let text = std::fs::read_to_string(path).map_err(|source| CheckpointError::Io {
        action: "read the checkpoint's configuration",
        source,
        path: path.to_owned(),
    })?;
    let value: Value = serde_json::from_str(&text).map_err(|error| fail(error.to_string()))?;
    for (place, found, expected) in [
        ("model_type", &value["model_type"], MODEL_TYPE),
        ("text_config.model_type", &value["text_config"]["model_type"], "t5"),
    ] {
        if found.as_str() != Some(expected) {
            return Err(fail(format!("{place} is {found}, expected \"{expected}\"")));
        }
    }
    serde_json::from_value(value).map_err(|error| fail(error.to_string()))
}

pub(super) fn write_config(config: &Blip2Config, path: &Path) -> Result<(), CheckpointError> {
    let fail = |reason: String| CheckpointError::Config { reason, path: path.to_owned() };
    let mut value = serde_json::to_value(config).map_err(|error| fail(error.to_string()))?;
    value["architectures"] = json!(["Blip2ForConditionalGeneration"]);
    value["model_type"] = json!(MODEL_TYPE);
    value["vision_config"]["model_type"] = json!("blip_2_vision_model");
    value["qformer_config"]["model_type"] = json!("blip_2_qformer");
    value["text_config"]["model_type"] = json!("t5");
    value["text_config"]["is_encoder_decoder"] = json!(true);
    value["use_decoder_only_language_model"] = json!(false);
    let text = serde_json::to_string_pretty(&value).map_err(|error| fail(error.to_string()))?;
    super::write::replace_file(path, |file| std::io::Write::write_all(file, (text + "\n").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_transformers() {
        for (ours, theirs) in [
            ("query_tokens", "query_tokens"),
            ("ln_vision.bias", "vision_model.post_layernorm.bias"),
            ("vision_model.patch_embedding.weight", "vision_model.embeddings.patch_embedding.weight"),
            ("vision_model.layers.3.self_attn.qkv.bias", "vision_model.encoder.layers.3.self_attn.qkv.bias"),
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
            ("qformer.layers.1.output_query.dense.bias", "qformer.encoder.layer.1.output_query.dense.bias"),
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
        ] {
            assert_eq!(name_of(ours, true), theirs);
        }
        assert!(
            name_of("language_model.encoder.block.0.feed_forward.wi_0.weight", false).ends_with(".wi.weight")
        );
    }
}
