"""Makes a BLIP-2 of an official size with random weights, in the layout of the published files.

    pip install torch==2.15 transformers==5.23 safetensors
    python scripts/reference/random_checkpoint.py blip2-flan-t5-xl OUT --tokenizers FOLDER
    python scripts/reference/random_checkpoint.py blip2-flan-t5-xl OUT --tokenizers FOLDER --layout lavis
    python scripts/reference/random_checkpoint.py blip2-opt-2.7b OUT --tokenizers FOLDER --layers 2   # a quick trial

`hub` is what Salesforce has on the hub: config.json, safetensors in shards with an index, the tokenizer. `lavis` is what
LAVIS downloads: `eva_vit_g.pth` (f16), `blip2_pretrained_NAME.pth` (f32: Q-Former, queries, norm, projection) and a
folder with the language model of the hub. Names and shapes come from transformers' own modules on the meta device.
Weights are stored in bf16 but for LAVIS's; some published files have f32.

Every weight is drawn with a variance that keeps activations at size one: 1 / inputs for matrices, T5's own rule for its
queries, one for norms. A tensor's values depend on the seed and its name only, and all are bf16 values, so both layouts
hold the same model: `experiments verify` compares an import of either with one reference.
"""

import argparse
import json
import math
import shutil
import zlib
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

SHARD = 4_000_000_000  # bytes, at most

T5_XL = dict(
    vocab_size=32128, d_model=2048, d_kv=64, d_ff=5120, num_layers=24, num_decoder_layers=24, num_heads=32,
    feed_forward_proj="gated-gelu", dense_act_fn="gelu", tie_word_embeddings=False, decoder_start_token_id=0,
)  # fmt: skip
OPT_2B7 = dict(
    vocab_size=50272, hidden_size=2560, ffn_dim=10240, num_hidden_layers=32, num_attention_heads=32,
    word_embed_proj_dim=2560, max_position_embeddings=2048, eos_token_id=50118,
)  # fmt: skip
VICUNA_7B = dict(
    vocab_size=32001, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=32, max_position_embeddings=2048, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
    pad_token_id=32000,
)  # fmt: skip

# name -> (class of the model, class of the text config, its sizes, class of the language model, tokenizer)
MODELS = {
    "blip2-flan-t5-xl": ("Blip2", "T5", T5_XL, "T5ForConditionalGeneration", "t5"),
    "blip2-opt-2.7b": ("Blip2", "OPT", OPT_2B7, "OPTForCausalLM", "opt"),
    "blip2-vicuna-7b": ("Blip2", "Llama", VICUNA_7B, "LlamaForCausalLM", "llama"),
    "instructblip-vicuna-7b": ("InstructBlip", "Llama", VICUNA_7B, "LlamaForCausalLM", "llama"),
}


def configuration(name, layers):
    """transformers' configuration; `layers` limits every part's depth."""
    model, text_kind, sizes, _, _ = MODELS[name]
    depth, qformer, vision = {}, {}, {}
    if layers:
        text_depth = ["num_layers", "num_decoder_layers"] if text_kind == "T5" else ["num_hidden_layers"]
        depth = dict.fromkeys(text_depth, layers)
        qformer = vision = {"num_hidden_layers": layers}
    text = getattr(transformers, f"{text_kind}Config")(**sizes | depth).to_dict()
    kind = getattr(transformers, f"{model}Config")
    return kind(text_config=text, vision_config=vision, qformer_config=qformer, num_query_tokens=32)


def shapes(config, name):
    """Names and shapes of the tensors that a published file has."""
    with torch.device("meta"):
        model = getattr(transformers, f"{MODELS[name][0]}ForConditionalGeneration")(config)
    state = model.state_dict()
    tied = getattr(config.text_config, "tie_word_embeddings", False) and MODELS[name][1] != "T5"
    left_out = [key for key in state if key.endswith(("encoder.embed_tokens.weight", "position_ids"))]
    left_out += [key for key in state if MODELS[name][1] == "T5" and key.endswith("decoder.embed_tokens.weight")]
    left_out += ["language_model.lm_head.weight"] if tied else []
    return {key: tuple(value.shape) for key, value in state.items() if key not in left_out}


def draw(name, shape, config, seed):
    """One tensor, in bf16."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    is_norm = any(part in name.lower() for part in ("layernorm", "layer_norm", "norm."))
    if len(shape) == 1 and is_norm and name.endswith("weight"):
        return (1 + 0.1 * torch.randn(shape, generator=generator)).bfloat16()
    spread = 0.02
    if name.endswith(("shared.weight", "query_tokens")):
        spread = 1.0
    elif len(shape) > 1 and not any(part in name for part in ("embed_tokens", "position", "class_embedding")):
        spread = 1 / math.sqrt(math.prod(shape[1:]))
    text = config.text_config
    if text.model_type == "t5" and name.endswith(("SelfAttention.q.weight", "EncDecAttention.q.weight")):
        spread /= math.sqrt(text.d_kv)
    value = torch.empty(shape, dtype=torch.bfloat16).normal_(0, spread, generator=generator)
    if name.endswith("qkv.bias"):
        value.chunk(3)[1].zero_()  # EVA has no bias of the keys
    return value


def write_shards(folder, wanted, make):
    """safetensors files of at most SHARD bytes, with the index that transformers reads."""
    groups, size = [[]], 0
    for key, shape in wanted.items():
        length = 2 * math.prod(shape)
        if groups[-1] and size + length > SHARD:
            groups.append([])
            size = 0
        groups[-1].append(key)
        size += length
    place = {}
    for index, keys in enumerate(groups):
        file = f"model-{index + 1:05}-of-{len(groups):05}.safetensors"
        save_file({key: make(key, wanted[key]) for key in keys}, folder / file, metadata={"format": "pt"})
        place |= dict.fromkeys(keys, file)
        print(f"{folder / file}: {len(keys)} tensors", flush=True)
    total = sum(2 * math.prod(shape) for shape in wanted.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": place}, indent=1)
    (folder / "model.safetensors.index.json").write_text(text)


def write_hub(out, name, config, tokenizers, seed):
    out.mkdir(parents=True)
    write_shards(out, shapes(config, name), lambda key, shape: draw(key, shape, config, seed))
    model, _, _, _, tokenizer = MODELS[name]
    # `architectures` is written by save_pretrained
    values = config.to_dict() | {"architectures": [f"{model}ForConditionalGeneration"], "dtype": "bfloat16"}
    (out / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
    copy_files(tokenizers / tokenizer, out)
    if model == "InstructBlip":
        copy_files(tokenizers / "bert-base-uncased", out / "qformer_tokenizer")


def write_lavis(out, name, config, tokenizers, seed):
    """LAVIS's names: scripts/reference/checkpoint_fixtures.py makes the same files at small sizes."""
    _, _, _, language_model, tokenizer = MODELS[name]
    wanted = shapes(config, name)
    out.mkdir(parents=True)
    make = lambda key, dtype: draw(key, wanted[key], config, seed).to(dtype)
    vision, rest = {}, {}
    for key in wanted:
        if key.startswith("vision_model.post_layernorm."):
            rest[key.replace("vision_model.post_layernorm", "ln_vision")] = make(key, torch.float32)
        elif key.startswith("vision_model."):
            vision |= vision_names(key, make(key, torch.float16))
        elif not key.startswith("language_model."):
            rest[qformer_name(key, name)] = make(key, torch.float32)
    torch.save(vision, out / "eva_vit_g.pth")
    # the published file has the queries' layers only, and these keys beside `model`
    content = {"model": rest, "optimizer": {}, "config": {}, "scaler": None, "epoch": 0}
    torch.save(content, out / f"blip2_pretrained_{name.removeprefix('blip2-').replace('-', '')}.pth")
    folder = out / name.removeprefix("blip2-")
    folder.mkdir()
    of_text = {key.removeprefix("language_model."): shape for key, shape in wanted.items() if key.startswith("language_model.")}
    write_shards(folder, of_text, lambda key, shape: draw(f"language_model.{key}", shape, config, seed))
    values = config.text_config.to_dict() | {"architectures": [language_model], "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
    copy_files(tokenizers / tokenizer, folder)


def vision_names(key, value):
    """EVA's names of a tensor; transformers' fused bias has a zero for the keys, EVA has none."""
    key = key.removeprefix("vision_model.")
    fixed = {
        "embeddings.class_embedding": "cls_token",
        "embeddings.position_embedding": "pos_embed",
        "embeddings.patch_embedding.weight": "patch_embed.proj.weight",
        "embeddings.patch_embedding.bias": "patch_embed.proj.bias",
    }
    if key in fixed:
        return {fixed[key]: value}
    key = key.replace("encoder.layers.", "blocks.").replace("layer_norm", "norm")
    key = key.replace("self_attn.projection", "attn.proj").replace("self_attn.qkv", "attn.qkv")
    if key.endswith("attn.qkv.bias"):
        query, _, values = value.chunk(3)
        base = key.removesuffix("qkv.bias")
        return {f"{base}q_bias": query.clone(), f"{base}v_bias": values.clone()}
    return {key: value}


def qformer_name(key, name):
    """Salesforce's name of a tensor that the second stage trains."""
    projection = {"T5": "t5_proj", "OPT": "opt_proj", "Llama": "llm_proj"}[MODELS[name][1]]
    if key.startswith("language_projection."):
        return key.replace("language_projection", projection)
    if key.startswith("qformer.layernorm."):
        return key.replace("qformer.layernorm", "Qformer.bert.embeddings.LayerNorm")
    return key.replace("qformer.", "Qformer.bert.").replace("attention.attention.", "attention.self.")


def copy_files(source, out):
    """Copies a tokenizer; only its sentencepiece model where there is one, as some copies of LLaMA's tokenizer.json are
    damaged (docs/datasets.md)."""
    out.mkdir(parents=True, exist_ok=True)
    whole = source / "tokenizer.model"
    for file in [whole] if whole.exists() else source.iterdir():
        shutil.copyfile(file, out / file.name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("out", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--tokenizers", type=Path, required=True, help="has the folders t5, opt, llama, bert-base-uncased")
    parser.add_argument("--layout", choices=["hub", "lavis"], default="hub")
    parser.add_argument("--layers", type=int, help="so many layers in every part, in place of the official depth")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    config = configuration(given.name, given.layers)
    write = write_hub if given.layout == "hub" else write_lavis
    write(given.out, given.name, config, given.tokenizers, given.seed)


if __name__ == "__main__":
    main()
