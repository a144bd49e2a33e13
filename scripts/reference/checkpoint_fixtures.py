"""Makes small checkpoints in every format and layout that the readers know, for the tests beside the readers.

    pip install torch==2.15.0 transformers==5.23.0 safetensors
    python scripts/reference/checkpoint_fixtures.py model/tests/fixtures/checkpoints

Every file of torch.save has a `.safetensors` beside it that holds what is expected of it.
"""

import argparse
import collections
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file


def normal(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(dtype)


def save(folder, name, value, expected, **options):
    torch.save(value, folder / name, **options)
    tensors = {key: tensor.detach().clone().contiguous() for key, tensor in expected.items()}
    save_file(tensors, folder / f"{name}.safetensors")


class Config:
    """Stands for omegaconf's objects: a class that a reader does not know."""

    def __init__(self):
        self.run = {"lr": 1e-4}


def strided():
    base = normal(6, 10)
    shared = normal(4, 3)
    return collections.OrderedDict(
        transposed=base.t(),
        every_second=base[::2, 1::3],
        tail=base[4:],
        one=base[2, 3],
        empty=torch.empty(0, 3),
        shared=shared,
        shared_again=shared,
        expanded=normal(1, 4).expand(1, 4),
        parameter=torch.nn.Parameter(normal(3)),
        half=normal(5, dtype=torch.float16),
        bfloat=normal(5, dtype=torch.bfloat16),
        double=normal(5, dtype=torch.float64),
        counts=torch.arange(7),
        mask=torch.tensor([True, False]),
        channels_last=normal(2, 3, 2, 2).to(memory_format=torch.channels_last),
    )


def torch_files(folder):
    tensors = strided()
    save(folder, "strided.pth", tensors, tensors)
    save(folder, "legacy.pth", tensors, tensors, _use_new_zipfile_serialization=False)
    save(folder, "protocol5.pth", tensors, tensors, pickle_protocol=5)
    state = {"weight": normal(2, 3), "bias": normal(2)}
    wrapped = {
        "model": state,
        "optimizer": {"state": {0: {"exp_avg": normal(2, 3)}}, "param_groups": [{"lr": np.float64(0.1)}]},
        "config": argparse.Namespace(epochs=3, path=Path("x"), own=Config()),
        "scaler": {"scale": 65536.0, "growth": np.int64(3)},
        "epoch": 4,
    }
    save(folder, "wrapped.pth", wrapped, state)
    parallel = {"state_dict": {f"module.{key}": value for key, value in state.items()}}
    save(folder, "parallel.pth", parallel, state)
    save(folder, "aliased.pth", {"ema": state, "state_dict": state}, state)
    compiled(folder)


def compiled(folder):
    """A Lightning checkpoint of a compiled model, one part of which is compiled and parallel by itself."""
    state = {"query_tokens": torch.arange(6.0).reshape(1, 2, 3), "language_model.model.norm.weight": torch.ones(3)}
    part = "language_model.module._orig_mod."
    names = {key: "model._orig_mod." + key.replace("language_model.", part) for key in state}
    content = {"state_dict": {names[key]: value for key, value in state.items()}, "hyper_parameters": {"rate": 1e-4}}
    save(folder, "compiled.pth", content, state)


class Attack:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def attacks(folder):
    """Pickles that would write a file named by MARKER, were they run."""
    import os

    marker = "touch recap-was-here"
    state = {"weight": normal(2, 3)}
    torch.save({"weight": Attack(os.system, marker)}, folder / "attack_tensor.pth")
    torch.save(Attack(os.system, marker), folder / "attack_root.pth")
    torch.save({"model": state, "config": Attack(eval, "open('recap-was-here', 'w')")}, folder / "attack_config.pth")
    torch.save({"weight": Attack(np.ones, 3)}, folder / "call_tensor.pth")
    legacy = dict(_use_new_zipfile_serialization=False)
    torch.save({"weight": Attack(os.system, marker)}, folder / "attack_legacy.pth", **legacy)


def shards(folder):
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(1)
    sizes = dict(vocab_size=11, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_decoder_layers=1, num_heads=2)
    model = T5ForConditionalGeneration(T5Config(**sizes, relative_attention_num_buckets=4))
    model.save_pretrained(folder / "sharded", max_shard_size="3KB")


def rows(prefix, names):
    return {f"{prefix}{name}": normal(*shape) for name, shape in names.items()}


def eva(depth, width=8, tokens=5):
    """A state dict as EVA's authors name it."""
    state = {"cls_token": normal(1, 1, width), "pos_embed": normal(1, tokens, width)}
    state |= rows("patch_embed.proj.", {"weight": (width, 3, 4, 4), "bias": (width,)})
    for index in range(depth):
        block = f"blocks.{index}."
        state |= rows(block + "norm1.", {"weight": (width,), "bias": (width,)})
        state |= rows(block + "norm2.", {"weight": (width,), "bias": (width,)})
        state |= rows(block + "attn.", {"q_bias": (width,), "v_bias": (width,), "qkv.weight": (3 * width, width)})
        state |= rows(block + "attn.proj.", {"weight": (width, width), "bias": (width,)})
        state |= rows(block + "mlp.fc1.", {"weight": (12, width), "bias": (12,)})
        state |= rows(block + "mlp.fc2.", {"weight": (width, 12), "bias": (width,)})
    return state


def query_former(text, width=8, vision=8, vocabulary=13):
    """A Q-Former as LAVIS names it, from Salesforce's Qformer.py; `text` keeps what only pretraining uses."""
    state = {"query_tokens": normal(1, 3, width)}
    state |= rows("ln_vision.", {"weight": (vision,), "bias": (vision,)})
    base = "Qformer.bert."
    state |= rows(base + "embeddings.LayerNorm.", {"weight": (width,), "bias": (width,)})
    state[base + "embeddings.position_ids"] = torch.arange(6).expand((1, -1))
    for index in range(2):
        layer = f"{base}encoder.layer.{index}."
        attentions = {"attention": width} | ({"crossattention": vision} if index == 0 else {})
        for attention, inner in attentions.items():
            for name, size in {"query": width, "key": inner, "value": inner}.items():
                state |= rows(f"{layer}{attention}.self.{name}.", {"weight": (width, size), "bias": (width,)})
            output = f"{layer}{attention}.output."
            state |= rows(output + "dense.", {"weight": (width, width), "bias": (width,)})
            state |= rows(output + "LayerNorm.", {"weight": (width,), "bias": (width,)})
        for suffix in ("_query", "") if text else ("_query",):
            state |= rows(f"{layer}intermediate{suffix}.dense.", {"weight": (12, width), "bias": (12,)})
            state |= rows(f"{layer}output{suffix}.dense.", {"weight": (width, 12), "bias": (width,)})
            state |= rows(f"{layer}output{suffix}.LayerNorm.", {"weight": (width,), "bias": (width,)})
    if text:
        words = normal(vocabulary, width)
        state[base + "embeddings.word_embeddings.weight"] = words
        state[base + "embeddings.position_embeddings.weight"] = normal(6, width)
        cls = "Qformer.cls.predictions."
        state |= rows(cls, {"bias": (vocabulary,)})
        state |= rows(cls + "transform.dense.", {"weight": (width, width), "bias": (width,)})
        state |= rows(cls + "transform.LayerNorm.", {"weight": (width,), "bias": (width,)})
        state[cls + "decoder.weight"] = words
        state[cls + "decoder.bias"] = state[cls + "bias"]
        for name, size in {"vision_proj": 4, "text_proj": 4, "itm_head": 2}.items():
            state |= rows(f"{name}.", {"weight": (size, width), "bias": (size,)})
        state["temp"] = torch.tensor(0.07)
    return state


def lora(rank=2, width=8):
    base = "t5_model.base_model.model.encoder.block.0.layer.0.SelfAttention."
    state = {}
    for name in ("q", "v"):
        state |= rows(f"{base}{name}.", {"lora_A.default.weight": (rank, width), "lora_B.default.weight": (width, rank)})
    return state


def lavis(folder):
    extras = {"optimizer": {}, "config": {"run": {"lr": 1e-4}}, "scaler": None, "epoch": 0}
    save(folder, "eva_vit_g.pth", state := {key: value.half() for key, value in eva(2).items()}, state)
    stage_2 = query_former(text=False) | rows("t5_proj.", {"weight": (6, 8), "bias": (6,)}) | lora()
    save(folder, "lavis_stage2.pth", {"model": stage_2} | extras, stage_2)
    stage_1 = query_former(text=True)
    save(folder, "lavis_stage1.pth", {"model": stage_1} | extras, stage_1)
    tuned = {f"visual_encoder.{key}": value for key, value in eva(1, tokens=10).items()}
    tuned |= query_former(text=False) | rows("opt_proj.", {"weight": (6, 8), "bias": (6,)})
    save(folder, "lavis_coco.pth", {"model": tuned} | extras, tuned)


def names(folder):
    """Names and shapes in transformers of models as large as the files of `lavis`."""
    import transformers

    layers = dict(hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2)
    vision = dict(layers, image_size=8, patch_size=4)
    qformer = dict(layers, encoder_hidden_size=8, vocab_size=13, max_position_embeddings=6)
    text = transformers.T5Config(vocab_size=11, d_model=6, d_kv=3, d_ff=8, num_layers=1, num_heads=2).to_dict()
    found = {}
    models = {"Blip2ForConditionalGeneration": {}, "Blip2ForImageTextRetrieval": {"use_qformer_text_input": True}}
    for model, sizes in models.items():
        config = transformers.Blip2Config(
            vision_config=vision,
            qformer_config=qformer | sizes,
            text_config=text,
            num_query_tokens=3,
            image_text_hidden_size=4,
        )
        state = getattr(transformers, model)(config).state_dict()
        found[model] = {key: list(value.shape) for key, value in state.items() if not key.startswith("language_model.")}
    (folder / "transformers_names.json").write_text(json.dumps(found, indent=0) + "\n")


def main():
    folder = Path(sys.argv[1])
    makers = (torch_files, attacks, shards, lavis, names)
    folder.mkdir(parents=True, exist_ok=True)
    for seed, make in enumerate(makers):
        torch.manual_seed(seed)
        make(folder)


if __name__ == "__main__":
    main()
