//! LAVIS's names, and EVA's own, for Hugging Face's.
//!
//! LAVIS saves what it trained: the Q-Former, the projection, `ln_vision`, and the ViT where that was tuned. The ViT it
//! starts from is `eva_vit_g.pth`, with the same names less `visual_encoder.`.

use super::{Excused, Part, Recipe, Rules};

/// Wherever a name starts with the first column, that becomes the second. The first row that fits decides.
///
/// What only pretraining uses has the names of `Blip2ForImageTextRetrieval` where Hugging Face has it (embeddings, text
/// path, `itm_head`, the two projections); the rest (`qformer.cls.`, `temp`) keeps LAVIS's.
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

/// InstructBLIP's Q-Former keeps its embeddings to itself.
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

/// What a file may hold beside the model: starts of names, before mapping, and why they are not needed.
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

/// Whether the names are those of a file of LAVIS.
pub(super) fn is_lavis(name: &str) -> bool {
    ["Qformer.bert.", "visual_encoder.", "ln_vision.", "t5_model.", "opt_model.", "llm_model."]
        .iter()
        .any(|start| name.starts_with(start))
}

/// Whether the names are those of EVA's own state dict.
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
    // EVA has biases for queries and values only: Hugging Face keeps one for all three, whose middle is zero.
    if let Some(attention) = inner.strip_suffix(".v_bias") {
        let query = format!("{start}{attention}.q_bias");
        if names.binary_search(&query.as_str()).is_ok() {
            return; // with its q_bias
        }
    }
    if let Some(attention) = inner.strip_suffix(".q_bias") {
        let value = format!("{start}{attention}.v_bias");
        let target = format!("vision_model.{}", rename_vit(&format!("{attention}.qkv.bias")));
        let parts = vec![Part::Tensor(name.clone()), Part::Zeros { like: name }, Part::Tensor(value)];
        rules.add(target, Recipe::Concat(parts));
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

/// What PEFT puts around a language model: adapters go by the names of an adapter of the whole model
/// (`adapter_model.safetensors`), the weights under them by their own.
fn language_model(rest: &str) -> String {
    let Some(inner) = rest.strip_prefix("base_model.model.") else { return format!("language_model.{rest}") };
    if inner.contains(".lora_") {
        // PEFT leaves the adapter's name out of files
        let inner = inner.replacen(".default.", ".", 1);
        return format!("base_model.model.language_model.{inner}");
    }
    format!("language_model.{}", inner.replacen(".base_layer.", ".", 1))
}
