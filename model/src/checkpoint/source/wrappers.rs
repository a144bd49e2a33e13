//! Parts of names that are not the model's: those of the modules around it in training.
//!
//! `torch.compile`, `DistributedDataParallel`, FSDP and activation checkpointing hold the wrapped module in
//! an attribute, anywhere in the model. A Lightning module and many training scripts hold the model as
//! `model`, which also begins the names of OPT and LLaMA themselves.

use std::collections::BTreeMap;

/// Attributes that hold a wrapped module; no model read here has parameters under these names.
const WRAPPERS: [&str; 5] =
    ["_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"];

/// Attribute that holds the model.
const MODEL: &str = "model.";

/// Starts of names that never follow `model.` in a model's own names: where one does, `model.` is a wrapper.
/// OPT has `model.decoder.layers.`, `.embed_` and `.final_layer_norm.`; LLaMA has `model.layers.`,
/// `.embed_tokens.` and `.norm.`.
const ROOTS: [&str; 30] = [
    // transformers' BLIP-2, and parts of it
    "vision_model.",
    "qformer.",
    "language_model.",
    "language_projection.",
    "query_tokens",
    "temporal_embedding.",
    "embeddings.",
    "encoder.",
    "post_layernorm.",
    "layernorm.",
    // its language models
    "model.",
    "lm_head.",
    "shared.",
    "decoder.block.",
    // LAVIS, and EVA's ViT
    "Qformer.",
    "visual_encoder.",
    "ln_vision.",
    "t5_model.",
    "opt_model.",
    "llm_model.",
    "t5_proj.",
    "opt_proj.",
    "llm_proj.",
    "vision_proj.",
    "text_proj.",
    "cls_token",
    "pos_embed",
    "patch_embed.",
    "blocks.",
    // an adapter of peft
    "base_model.",
];

/// Maximum number of `model.` in front of a name.
const MAX_DEPTH: usize = 8;

/// A name without the attributes of [`WRAPPERS`].
pub(in crate::checkpoint) fn without_wrappers(name: &str) -> String {
    if !WRAPPERS.iter().any(|wrapper| name.contains(wrapper)) {
        return name.to_owned();
    }
    let parts: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    if parts.is_empty() { name.to_owned() } else { parts.join(".") }
}

/// Renames entries to the model's own names. The error is two names that become one.
pub(super) fn unwrap_names<T>(entries: BTreeMap<String, T>) -> Result<BTreeMap<String, T>, [String; 2]> {
    let mut names: Vec<String> = entries.keys().map(|name| without_wrappers(name)).collect();
    for _ in 0..MAX_DEPTH {
        let is_wrapped = |name: &String| {
            name.strip_prefix(MODEL).is_some_and(|inner| ROOTS.iter().any(|root| inner.starts_with(root)))
        };
        if !names.iter().any(is_wrapped) {
            break;
        }
        for name in &mut names {
            if let Some(inner) = name.strip_prefix(MODEL).map(str::to_owned) {
                *name = inner;
            }
        }
    }
    let mut origins: BTreeMap<String, String> = BTreeMap::new();
    let mut renamed = BTreeMap::new();
    for (name, (original, entry)) in names.into_iter().zip(entries) {
        if let Some(other) = origins.insert(name.clone(), original.clone()) {
            return Err([other, original]);
        }
        renamed.insert(name, entry);
    }
    Ok(renamed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unwrapped(names: &[&str]) -> Vec<String> {
        let entries = names.iter().map(|name| ((*name).to_owned(), ())).collect();
        unwrap_names(entries).unwrap().into_keys().collect()
    }

    #[test]
    fn attributes_of_wrappers_are_removed_wherever_they_are() {
        let own = ["language_model.model.decoder.layers.0.fc1.bias", "query_tokens"];
        for wrapped in [
            ["_orig_mod.{}", "_orig_mod.query_tokens"],
            ["module.{}", "module.query_tokens"],
            ["model.{}", "model.query_tokens"],
            ["module._orig_mod.{}", "module._orig_mod.query_tokens"],
            ["_orig_mod.module.{}", "_orig_mod.module.query_tokens"],
            ["model._orig_mod.{}", "model._orig_mod.query_tokens"],
            ["model.module._orig_mod.{}", "model.module._orig_mod.query_tokens"],
            ["_forward_module.model.model.{}", "_forward_module.model.model.query_tokens"],
            ["{}", "model.query_tokens"],
        ] {
            let [first, second] = wrapped.map(|name| name.replace("{}", own[0]));
            assert_eq!(unwrapped(&[&first, &second]), own, "{first}");
        }
        let compiled = "model.language_model._orig_mod.model.decoder.layers._fsdp_wrapped_module.0.fc1.bias";
        assert_eq!(unwrapped(&[compiled]), [own[0]]);
    }

    #[test]
    fn names_that_begin_with_model_themselves_are_kept() {
        for own in [
            &["lm_head.weight", "model.decoder.embed_tokens.weight", "model.decoder.layers.0.fc1.bias"][..],
            &[
                "lm_head.weight",
                "model.embed_tokens.weight",
                "model.layers.0.mlp.up_proj.weight",
                "model.norm.weight",
            ],
            &["model.decoder.embed_positions.weight", "model.decoder.final_layer_norm.bias"],
            &[
                "decoder.block.0.layer.0.layer_norm.weight",
                "encoder.final_layer_norm.weight",
                "shared.weight",
            ],
        ] {
            assert_eq!(unwrapped(own), own);
            let wrapped: Vec<String> = own.iter().map(|name| format!("model.{name}")).collect();
            let wrapped: Vec<&str> = wrapped.iter().map(String::as_str).collect();
            assert_eq!(unwrapped(&wrapped), own, "{wrapped:?}");
        }
    }

    #[test]
    fn two_names_that_become_one_are_an_error() {
        let entries = ["query_tokens", "module.query_tokens"].map(|name| (name.to_owned(), ()));
        assert_eq!(
            unwrap_names(BTreeMap::from(entries)).unwrap_err(),
            ["module.query_tokens", "query_tokens"]
        );
        assert_eq!(without_wrappers("module"), "module");
        assert_eq!(without_wrappers("a.modules.b"), "a.modules.b");
    }
}
