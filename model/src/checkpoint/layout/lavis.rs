//! From LAVIS's and EVA's names to Hugging Face's.
//!
//! LAVIS saves the trained parts: the Q-Former, the projection, `ln_vision`, and the ViT if it was trained.
//! Its initial ViT is `eva_vit_g.pth`, with the same names without `visual_encoder.`.

use super::{Excused, Recipe, Rules};

/// A name that starts with the first column gets the second instead. The first matching row applies.
///
/// Tensors of pretraining get the names of `Blip2ForImageTextRetrieval` if it has them (embeddings, text
/// path, `itm_head`, the two projections), else keep LAVIS's (`qformer.cls.`, `temp`).
const STARTS: &[(&str, &str)] = &[
    ("query_tokens", "query_tokens"),
    ("ln_vision.", "vision_model.post_layernorm."),
    ("visual_encoder.", "vision_model."),
    ("opt_proj.", "language_projection."),
    ("t5_proj.", "language_projection."),
    ("llm_proj.", "language_projection."),
    ("opt_model.", "language_model."),
    ("t5_model.", "language_model."),
    ("llm_model.", "language_model."),
    ("Qformer.bert.embeddings.LayerNorm.", "qformer.layernorm."),
    ("Qformer.bert.embeddings.", "embeddings."),
    ("Qformer.bert.", "qformer."),
    ("Qformer.cls.", "qformer.cls."),
    ("vision_proj.", "vision_projection."),
    ("text_proj.", "text_projection."),
    ("itm_head.", "itm_head."),
    ("temp", "temp"),
];

/// The embeddings of InstructBLIP's Q-Former are part of the Q-Former.
const INSTRUCT_STARTS: &[(&str, &str)] = &[
    ("Qformer.bert.embeddings.LayerNorm.", "qformer.embeddings.layernorm."),
    ("Qformer.bert.embeddings.", "qformer.embeddings."),
];

/// Within the Q-Former, after the rows above.
const QFORMER: &[(&str, &str)] =
    &[(".attention.self.", ".attention.attention."), (".crossattention.self.", ".crossattention.attention.")];

/// Within the ViT, whole segments of a name.
const VIT: &[(&str, &str)] = &[
    ("cls_token", "embeddings.class_embedding"),
    ("pos_embed", "embeddings.position_embedding"),
    ("patch_embed.proj", "embeddings.patch_embedding"),
    ("blocks", "encoder.layers"),
    ("norm1", "layer_norm1"),
    ("norm2", "layer_norm2"),
    ("attn.qkv", "self_attn.qkv"),
    ("attn.proj", "self_attn.projection"),
];

/// Tensors without a parameter: starts of names, before mapping, and the reason.
const EXCUSED: &[(&str, &str)] = &[
    ("Qformer.bert.embeddings.position_ids", "a buffer of counting numbers"),
    // copies of one parameter each
    ("Qformer.cls.predictions.decoder.weight", "tied to the word embeddings"),
    ("Qformer.cls.predictions.decoder.bias", "tied to cls.predictions.bias"),
];

/// The same for the ViT, after `visual_encoder.`.
const EXCUSED_VIT: &[(&str, &str)] = &[
    ("blocks.39.", "EVA has 40 blocks, BLIP-2 uses the first 39"),
    ("norm.", "EVA's last norm, which BLIP-2 replaces by its own"),
    ("fc_norm.", "part of EVA's classifier"),
    ("head.", "EVA's classifier"),
    ("mask_token", "of EVA's pretraining"),
    ("rel_pos_bias.", "of EVA's other sizes"),
];

const VISUAL: &str = "visual_encoder.";

/// Whether it is a name of a LAVIS file.
pub(super) fn is_lavis(name: &str) -> bool {
    ["Qformer.bert.", "visual_encoder.", "ln_vision.", "t5_model.", "opt_model.", "llm_model."]
        .iter()
        .any(|start| name.starts_with(start))
}

/// Whether it is a name of EVA's state dict.
pub(super) fn is_eva(name: &str) -> bool {
    name == "patch_embed.proj.weight" || name == "blocks.0.attn.qkv.weight"
}

pub(super) fn map_lavis(names: &[&str]) -> Rules {
    let has = |start: &str| names.iter().any(|name| name.starts_with(start));
    let is_instruct =
        has("Qformer.bert.embeddings.word_embeddings.") && (has("llm_proj.") || has("t5_proj."));
    let mut rules = Rules::default();
    for &name in names {
        if let Some(reason) = excuse(name, EXCUSED) {
            rules.excused.push(Excused { name: name.to_owned(), reason });
        } else if let Some(inner) = name.strip_prefix(VISUAL) {
            map_vit(inner, VISUAL, names, &mut rules);
        } else {
            rules.add(target_of(name, is_instruct), Recipe::Tensor(name.to_owned()));
        }
    }
    rules
}

pub(super) fn map_eva(names: &[&str]) -> Rules {
    let mut rules = Rules::default();
    for &name in names {
        map_vit(name, "", names, &mut rules);
    }
    rules
}

fn excuse(name: &str, table: &[(&str, &'static str)]) -> Option<&'static str> {
    table.iter().find(|(start, _)| name.starts_with(start)).map(|(_, reason)| *reason)
}

/// Maps one name of the ViT; `inner` is the name after `start`. `names` are sorted.
fn map_vit(inner: &str, start: &str, names: &[&str], rules: &mut Rules) {
    let name = format!("{start}{inner}");
    if let Some(reason) = excuse(inner, EXCUSED_VIT) {
        rules.excused.push(Excused { name, reason });
        return;
    }
    // EVA has biases for queries and values only; Hugging Face has one for all three, with zeros for the keys
    if let Some(attention) = inner.strip_suffix(".v_bias") {
        let query = format!("{start}{attention}.q_bias");
        if names.binary_search(&query.as_str()).is_ok() {
            return; // part of the bias of its q_bias
        }
    }
    if let Some(attention) = inner.strip_suffix(".q_bias") {
        let value = format!("{start}{attention}.v_bias");
        let target = format!("vision_model.{}", rename_vit(&format!("{attention}.qkv.bias")));
        rules.add(target, Recipe::QueryValueBias { query: name, value });
        return;
    }
    rules.add(format!("vision_model.{}", rename_vit(inner)), Recipe::Tensor(name));
}

fn rename_vit(inner: &str) -> String {
    // dots around, so that only whole segments are replaced
    let mut name = format!(".{inner}.");
    for (from, to) in VIT {
        name = name.replacen(&format!(".{from}."), &format!(".{to}."), 1);
    }
    name.trim_matches('.').to_owned()
}

fn target_of(name: &str, is_instruct: bool) -> String {
    let instruct = if is_instruct { INSTRUCT_STARTS } else { &[] };
    let row = instruct.iter().chain(STARTS).find(|(start, _)| name.starts_with(start));
    let Some((start, target)) = row else { return name.to_owned() };
    let rest = &name[start.len()..];
    if *target == "language_model." {
        return language_model(rest);
    }
    let mut mapped = format!("{target}{rest}");
    if mapped.starts_with("qformer.") {
        for (from, to) in QFORMER {
            mapped = mapped.replacen(from, to, 1);
        }
    }
    mapped
}

/// Names of a language model wrapped by PEFT: adapters get the names of an adapter of the whole model
/// (`adapter_model.safetensors`), base weights their own names.
fn language_model(rest: &str) -> String {
    let Some(inner) = rest.strip_prefix("base_model.model.") else { return format!("language_model.{rest}") };
    if inner.contains(".lora_") {
        // PEFT's files omit the name of the adapter
        let inner = inner.replacen(".default.", ".", 1);
        return format!("base_model.model.language_model.{inner}");
    }
    format!("language_model.{}", inner.replacen(".base_layer.", ".", 1))
}
