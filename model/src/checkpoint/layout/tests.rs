//! Views over the fixtures of `scripts/reference/checkpoint_fixtures.py` and
//! `scripts/reference/onnx_export.py`.

use std::path::{Path, PathBuf};

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(name)
}

fn mapped(name: &str) -> Mapped {
    Mapped::new(Source::open(&fixture(name)).unwrap()).unwrap()
}

#[test]
fn layouts_follow_from_the_names() {
    for (name, layout) in [
        ("lavis_stage1.pth", Layout::Lavis),
        ("lavis_coco.pth", Layout::Lavis),
        ("eva_vit_g.pth", Layout::EvaVit),
        ("sharded", Layout::HuggingFace),
        ("onnx/vit.dynamo.onnx", Layout::Onnx),
    ] {
        assert_eq!(mapped(name).layout(), layout, "{name}");
    }
}

#[test]
fn lavis_names_become_hugging_faces() {
    let stage_2 = mapped("lavis_stage2.pth");
    for (theirs, lavis) in [
        ("query_tokens", "query_tokens"),
        ("vision_model.post_layernorm.weight", "ln_vision.weight"),
        ("qformer.layernorm.bias", "Qformer.bert.embeddings.LayerNorm.bias"),
        (
            "qformer.encoder.layer.0.attention.attention.query.weight",
            "Qformer.bert.encoder.layer.0.attention.self.query.weight",
        ),
        (
            "qformer.encoder.layer.0.crossattention.attention.key.weight",
            "Qformer.bert.encoder.layer.0.crossattention.self.key.weight",
        ),
        (
            "qformer.encoder.layer.0.crossattention.output.LayerNorm.weight",
            "Qformer.bert.encoder.layer.0.crossattention.output.LayerNorm.weight",
        ),
        (
            "qformer.encoder.layer.1.output_query.dense.bias",
            "Qformer.bert.encoder.layer.1.output_query.dense.bias",
        ),
        ("language_projection.weight", "t5_proj.weight"),
        (
            "base_model.model.language_model.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight",
            "t5_model.base_model.model.encoder.block.0.layer.0.SelfAttention.q.lora_A.default.weight",
        ),
    ] {
        assert_eq!(stage_2.recipe(theirs), Some(&Recipe::Tensor(lavis.to_owned())), "{theirs}");
        assert_eq!(stage_2.read_f32(theirs).unwrap(), stage_2.source().read_f32(lavis).unwrap());
    }
    let excused: Vec<_> = stage_2.excused().iter().map(|excused| excused.name.as_str()).collect();
    assert_eq!(excused, ["Qformer.bert.embeddings.position_ids"]);
    assert_eq!(stage_2.names().count() + excused.len(), stage_2.source().names().count());
}

#[test]
fn what_only_pretraining_uses_is_kept() {
    let stage_1 = mapped("lavis_stage1.pth");
    for name in [
        "embeddings.word_embeddings.weight",
        "embeddings.position_embeddings.weight",
        "qformer.encoder.layer.1.intermediate.dense.weight",
        "qformer.encoder.layer.1.output.LayerNorm.bias",
        "qformer.cls.predictions.transform.dense.weight",
        "qformer.cls.predictions.bias",
        "vision_projection.weight",
        "text_projection.bias",
        "itm_head.weight",
        "temp",
    ] {
        assert!(stage_1.get(name).is_some(), "{name}");
    }
    assert_eq!(stage_1.read_f32("temp").unwrap(), [0.07]);
    assert_eq!(stage_1.names().count() + stage_1.excused().len(), stage_1.source().names().count());
}

/// Every name with its shape, of several files together; adapters left out.
fn shapes(files: &[&str]) -> BTreeMap<String, Vec<usize>> {
    let mut shapes = BTreeMap::new();
    for file in files {
        let mapped = mapped(file);
        for name in mapped.names().filter(|name| !name.starts_with("base_model.")) {
            shapes.insert(name.to_owned(), mapped.get(name).unwrap().0);
        }
    }
    shapes
}

#[test]
fn mapped_files_have_all_the_names_and_shapes_that_transformers_has_and_no_others() {
    type Shapes = BTreeMap<String, Vec<usize>>;
    let text = std::fs::read_to_string(fixture("transformers_names.json")).unwrap();
    let theirs: BTreeMap<String, Shapes> = serde_json::from_str(&text).unwrap();
    assert_eq!(shapes(&["eva_vit_g.pth", "lavis_stage2.pth"]), theirs["Blip2ForConditionalGeneration"]);
    let mut stage_1 = shapes(&["eva_vit_g.pth", "lavis_stage1.pth"]);
    stage_1.retain(|name, _| !name.starts_with("qformer.cls.") && name != "temp");
    assert_eq!(stage_1, theirs["Blip2ForImageTextRetrieval"]);
}

#[test]
fn evas_two_biases_become_one_of_three_with_zeros_for_the_keys() {
    for (file, start) in [("eva_vit_g.pth", ""), ("lavis_coco.pth", "visual_encoder.")] {
        let vit = mapped(file);
        let bias = vit.read_f32("vision_model.encoder.layers.0.self_attn.qkv.bias").unwrap();
        let read = |name: &str| vit.source().read_f32(&format!("{start}blocks.0.attn.{name}")).unwrap();
        assert_eq!(bias, [read("q_bias"), vec![0.0; 8], read("v_bias")].concat());
        assert_eq!(vit.get("vision_model.encoder.layers.0.self_attn.qkv.bias").unwrap().0, [24]);
        for (theirs, eva, shape) in [
            ("embeddings.class_embedding", "cls_token", &[1, 1, 8][..]),
            (
                "embeddings.position_embedding",
                "pos_embed",
                if start.is_empty() { &[1, 5, 8] } else { &[1, 10, 8] },
            ),
            ("embeddings.patch_embedding.weight", "patch_embed.proj.weight", &[8, 3, 4, 4]),
            ("encoder.layers.0.layer_norm2.bias", "blocks.0.norm2.bias", &[8]),
            ("encoder.layers.0.self_attn.projection.weight", "blocks.0.attn.proj.weight", &[8, 8]),
            ("encoder.layers.0.mlp.fc2.weight", "blocks.0.mlp.fc2.weight", &[8, 12]),
        ] {
            let theirs = format!("vision_model.{theirs}");
            assert_eq!(vit.recipe(&theirs), Some(&Recipe::Tensor(format!("{start}{eva}"))), "{theirs}");
            assert_eq!(vit.get(&theirs).unwrap().0, shape);
        }
        assert!(!vit.names().any(|name| name.contains("_bias")));
    }
}

#[test]
fn evas_last_block_and_classifier_are_excused_by_name() {
    let names =
        ["blocks.38.norm1.bias", "blocks.39.norm1.bias", "fc_norm.weight", "head.bias", "norm.weight"];
    let rules = lavis::map_eva(&names);
    assert_eq!(rules.recipes.keys().collect::<Vec<_>>(), ["vision_model.encoder.layers.38.layer_norm1.bias"]);
    assert_eq!(rules.excused.len(), 4);
}

#[test]
fn language_models_and_instructblip_keep_what_is_theirs() {
    let names = [
        "Qformer.bert.embeddings.LayerNorm.bias",
        "Qformer.bert.embeddings.word_embeddings.weight",
        "llm_model.base_model.model.model.layers.0.mlp.up_proj.base_layer.weight",
        "llm_model.model.norm.weight",
        "llm_proj.bias",
        "some.thing.else",
    ];
    let rules = lavis::map_lavis(&names);
    let mut expected = [
        "language_model.model.layers.0.mlp.up_proj.weight",
        "language_model.model.norm.weight",
        "language_projection.bias",
        "qformer.embeddings.layernorm.bias",
        "qformer.embeddings.word_embeddings.weight",
        "some.thing.else",
    ];
    expected.sort_unstable();
    assert_eq!(rules.recipes.keys().collect::<Vec<_>>(), expected);
}

#[test]
fn a_bias_without_its_other_half_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("half.safetensors");
    let header = r#"{"patch_embed.proj.weight":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"blocks.0.attn.q_bias":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat();
    std::fs::write(&path, bytes).unwrap();
    let error = Mapped::new(Source::open(&path).unwrap()).unwrap_err().to_string();
    assert!(error.contains("made of blocks.0.attn.v_bias, which is absent"), "{error}");
}

/// Parameters that share their numbers with one that the export has: the language models' tied embeddings.
const TIED: &[(&str, &str)] = &[
    ("encoder.embed_tokens.weight", "shared.weight"),
    ("decoder.embed_tokens.weight", "shared.weight"),
    ("shared.weight", "lm_head.weight"),
    ("model.decoder.embed_tokens.weight", "lm_head.weight"),
];

#[test]
fn every_parameter_is_recovered_from_an_export_bit_for_bit() {
    for (model, part) in [
        ("vit", "vision_model."),
        ("qformer", "qformer."),
        ("t5", "language_model."),
        ("t5_tied", "language_model."),
        ("opt", "language_model."),
        ("llama", "language_model."),
    ] {
        let expected = Source::open(&fixture(&format!("onnx/{model}.safetensors"))).unwrap();
        for exporter in ["torchscript", "dynamo"] {
            let export = mapped(&format!("onnx/{model}.{exporter}.onnx"));
            let mut missing = Vec::new();
            for name in expected.names() {
                let theirs = format!("{part}{name}");
                let Some((shape, _)) = export.get(&theirs) else {
                    let tied =
                        TIED.iter().filter(|(from, _)| *from == name).map(|(_, to)| format!("{part}{to}"));
                    if !tied.into_iter().any(|tied| {
                        export.get(&tied).is_some()
                            && export.read_f32(&tied).unwrap() == expected.read_f32(name).unwrap()
                    }) {
                        missing.push(theirs);
                    }
                    continue;
                };
                assert_eq!(shape, expected.get(name).unwrap().shape, "{model} {exporter} {name}");
                let (found, wanted) = (export.read_f32(&theirs).unwrap(), expected.read_f32(name).unwrap());
                let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
                assert_eq!(bits(found), bits(wanted), "{model} {exporter} {name}");
            }
            assert_eq!(missing, [""; 0], "{model} {exporter}");
            let unexpected: Vec<_> = export
                .names()
                .filter(|name| expected.get(name.strip_prefix(part).unwrap_or(name)).is_none())
                .collect();
            assert_eq!(unexpected, [""; 0], "{model} {exporter}");
        }
    }
}
