"""Makes model/tests/fixtures/parity: tiny random BLIP-2s of transformers and what they compute.

    pip install torch==2.15 transformers==5.23 safetensors
    python scripts/reference/fixtures.py            # all, about three minutes
    python scripts/reference/fixtures.py llama      # those whose name begins so

Each model has a directory MODEL/ (`save_pretrained`), nearly all the same in shards in MODEL/sharded/, for one also as
`pytorch_model.bin`, and references MODEL/CASE.{safetensors,json}, in the format that reference.py tells. Weights are drawn
wide, so that attention and logits are far from flat. Sizes are odd wherever they may be.

How transformers 5 writes a T5: `tie_word_embeddings` is always true in the config; whether the output is scaled stands in
`scale_decoder_outputs`, and the head is its own when the file holds `lm_head.weight`. FLAN is unscaled with its own head,
v1.0 is scaled and tied; `t5-tied-unscaled` is what a fresh model with `tie_word_embeddings=False` becomes.
`t5-three-tables` has different tables in `shared`, `encoder.embed_tokens` and `decoder.embed_tokens`, as a model that was
trained with `tie_word_embeddings=False`; the config of such a file says `tie_word_embeddings: false`.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
import transformers
from transformers import Blip2Config, Blip2ForConditionalGeneration, LlamaConfig, OPTConfig, T5Config

from recap_reference import Stages, load_model
from reference import draw_inputs, make_reference

OUT = Path(__file__).resolve().parents[2] / "model/tests/fixtures/parity"
COMMAND = "python scripts/reference/fixtures.py"
VOCABULARY = 37

VISION = {
    "hidden_size": 20,
    "intermediate_size": 46,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 21,
    "patch_size": 7,
}
QFORMER = {
    "hidden_size": 15,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 26,
    "vocab_size": 30,
}


def t5(**settings):
    sizes = {"d_model": 18, "d_kv": 7, "d_ff": 25, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 3}
    buckets = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}
    return T5Config(vocab_size=VOCABULARY, decoder_start_token_id=0, **sizes, **buckets, **settings)


def opt(**settings):
    sizes = {"hidden_size": 22, "ffn_dim": 30, "num_hidden_layers": 3, "num_attention_heads": 2}
    return OPTConfig(vocab_size=VOCABULARY, max_position_embeddings=50, **sizes, **settings)


def llama(**settings):
    sizes = {"hidden_size": 24, "intermediate_size": 34, "num_hidden_layers": 3, "num_attention_heads": 4}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    rest = {"max_position_embeddings": 64, "tie_word_embeddings": False}
    return LlamaConfig(vocab_size=VOCABULARY, **sizes, **ids, **rest, **settings)


# name -> (text config, whether the head is its own, first seed)
MODELS = {
    "t5-flan": (lambda: t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False), True, 1),
    "t5-flan-erf-gelu": (
        lambda: t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False, dense_act_fn="gelu"),
        True,
        2,
    ),
    "t5-tied-unscaled": (lambda: t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False), False, 3),
    "t5-three-tables": (lambda: t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False), True, 8),
    "t5-v1.0": (lambda: t5(feed_forward_proj="relu"), False, 4),
    "opt": (opt, False, 5),
    "llama": (llama, True, 6),
    "llama-grouped": (lambda: llama(num_key_value_heads=2), True, 7),
}
WITH_BIN = "opt"
WITH_THREE_TABLES = "t5-three-tables"
IN_BFLOAT16 = {"t5-flan", "opt", "llama-grouped"}

LONG = {"max_new_tokens": 12}
BEAMS = [
    {"num_beams": beams, "length_penalty": penalty, **LONG}
    for beams in (1, 2, 3, 4, 5)
    for penalty in ((1.0,) if beams == 1 else (-1.0, 1.0, 1.5))
]


def draw_weights(model, seed, has_own_head):
    """Weights wide enough for attention and logits that differ from place to place."""
    generator = torch.Generator().manual_seed(seed)

    def normal(parameter, std, mean=0.0):
        parameter.data = mean + std * torch.randn(parameter.shape, generator=generator)

    is_t5 = model.config.text_config.model_type == "t5"
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            is_norm_scale = name.endswith("weight")
            normal(parameter, 0.2, 1.0 if is_norm_scale else 0.0)
        elif "relative_attention_bias" in name:
            normal(parameter, 1.5)
        elif name == "query_tokens" or "vision_model.embeddings" in name and parameter.ndim == 3:
            normal(parameter, 0.7)
        elif "embed_positions" in name:
            normal(parameter, 0.5)
        elif name.endswith(("shared.weight", "embed_tokens.weight")):
            scaled = getattr(model.config.text_config, "scale_decoder_outputs", False)
            normal(parameter, 1.6 if scaled or has_own_head else 0.5)
        else:
            gain = 2.0 if "lm_head" in name else 1.0
            std = gain / parameter[0].numel() ** 0.5
            if is_t5 and name.startswith("language_model") and name.endswith(".q.weight"):
                std /= model.config.text_config.d_kv ** 0.5
            normal(parameter, std)
    if not has_own_head:
        # Else what a token predicts is mostly itself.
        norm = next(m for n, m in model.named_modules() if n.endswith(("decoder.final_layer_norm")))
        normal(norm.weight, 1.0)
    silence_padding(model)
    for layer in model.vision_model.encoder.layers:
        key = slice(VISION["hidden_size"], 2 * VISION["hidden_size"])
        layer.self_attn.qkv.bias.data[key] = 0


def silence_padding(model):
    """Keeps captions from holding the padding token in earnest."""
    model.language_model.lm_head.weight.data[model.config.text_config.pad_token_id] = 0


def build(name, seed):
    text, has_own_head, _ = MODELS[name]
    config = Blip2Config(
        vision_config=dict(VISION),
        qformer_config=dict(QFORMER),
        text_config=text(),
        num_query_tokens=5,
        image_token_index=VOCABULARY - 1,
    )
    torch.manual_seed(seed)
    model = Blip2ForConditionalGeneration(config).eval()
    if has_own_head:
        language_model = model.language_model
        language_model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(language_model.lm_head.weight))
    if name == WITH_THREE_TABLES:
        for stack in (model.language_model.encoder, model.language_model.decoder):
            stack.embed_tokens.weight = torch.nn.Parameter(torch.zeros_like(stack.embed_tokens.weight))
        for each in (model.config, model.config.text_config, model.language_model.config):
            each.tie_word_embeddings = False
    draw_weights(model, seed, has_own_head)
    return model


def swap_tokens(model, a, b):
    """Exchanges what two token ids mean."""
    language_model = model.language_model
    embeddings = [m for n, m in language_model.named_modules() if n.endswith(("shared", "embed_tokens", "lm_head"))]
    tables = {id(module.weight): module.weight for module in embeddings}
    for table in tables.values():
        table.data[[a, b]] = table.data[[b, a]]


def save_model(model, directory, name):
    shutil.rmtree(directory, ignore_errors=True)
    model.save_pretrained(directory)
    if name == WITH_THREE_TABLES:
        return
    model.save_pretrained(directory / "sharded", max_shard_size="60kB")
    for copy in ("config.json", "generation_config.json"):
        (directory / "sharded" / copy).unlink(missing_ok=True)
    shutil.copy(directory / "config.json", directory / "sharded/config.json")
    if name == WITH_BIN:
        state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        state["language_model.lm_head.weight"] = state["language_model.model.decoder.embed_tokens.weight"]
        (directory / "bin").mkdir()
        torch.save(state, directory / "bin/pytorch_model.bin")
        shutil.copy(directory / "config.json", directory / "bin/config.json")


def lively_model(name):
    """The first draw of weights whose captions vary, with the end token standing midway in some of them, not all."""
    for seed in range(MODELS[name][2], 1000, 10):
        model = build(name, seed)
        pixels, ids, mask, labels = draw_inputs(model.config, frames=3, batch=3, prompt_length=4, label_length=7, seed=11)
        stages = Stages(model, pixels, "concat", ids, mask, labels)
        greedy, _ = stages.generate(num_beams=1, max_new_tokens=12, end_tokens=[])
        rows = [row[int(stages.has_encoder) :] for row in greedy.tolist()]
        own = model.language_model.generation_config
        special = {own.pad_token_id, own.bos_token_id, own.eos_token_id}
        places = {
            token: [row.index(token) for row in rows if token in row]
            for token in {token for row in rows for token in row} - special
        }
        good = [token for token, at in places.items() if min(at) >= 2 and len(at) == 2]
        if good and min(len(set(row)) for row in rows) >= 5:
            # Exchanging what two ids mean makes the model say its end token there.
            swap_tokens(model, own.eos_token_id, min(good))
            print(name, "weights of seed", seed)
            return model
    raise SystemExit(f"{name}: no seed gives captions that vary")


def make(name):
    directory = OUT / name
    save_model(lively_model(name), directory, name)
    model = load_model(directory)
    halved = load_model(directory, torch.bfloat16) if name in IN_BFLOAT16 else None
    shared = {"model": model, "double": load_model(directory, torch.float64), "command": COMMAND}
    make_reference(**shared, out=directory / "frames1", batch=2, seed=10, num_beams=3, bfloat16=halved)
    make_reference(
        **shared,
        out=directory / "frames3-concat-prompt",
        frames=3,
        batch=3,
        prompt_length=4,
        label_length=7,
        seed=11,
        bfloat16=halved,
        **LONG,
        generations=[
            *BEAMS,
            *({**setting, "end_tokens": []} for setting in BEAMS if setting["num_beams"] in (1, 3, 5)),
            *more_generations(model),
        ],
    )
    if name == WITH_THREE_TABLES:
        report(directory)
        return
    make_reference(
        **shared,
        out=directory / "frames3-average",
        frames=3,
        fusion="average",
        batch=2,
        label_length=5,
        seed=12,
        num_beams=2,
        length_penalty=-1.0,
        **LONG,
    )
    make_reference(
        **shared,
        out=directory / "padded-prompts",
        frames=2,
        batch=3,
        prompt_length=5,
        padded_prompts=True,
        seed=13,
        num_beams=4,
        length_penalty=1.5,
        **LONG,
    )
    if not model.config.is_encoder_decoder:
        check_padding(model)
    report(directory)


def check_padding(model):
    """Padded prompts must give each clip what it would get alone."""
    pixels, ids, mask, labels = draw_inputs(
        model.config, frames=2, batch=3, prompt_length=5, label_length=6, seed=13, padded_prompts=True
    )
    together = Stages(model, pixels, "concat", ids, mask, labels)
    for clip in range(3):
        one = slice(clip, clip + 1)
        alone = Stages(model, pixels[one], "concat", ids[one, mask[clip] == 1], None, labels[one])
        assert relative(together.logits[one], alone.logits) < 1e-5
        for beams in (1, 4):
            setting = {"num_beams": beams, **LONG, "end_tokens": []}
            assert torch.equal(together.generate(**setting)[0][one], alone.generate(**setting)[0])


def more_generations(model):
    """Several end tokens, penalties for repeating, least lengths, stopping rules, the n best."""
    own = model.language_model.generation_config.eos_token_id
    several = [own, 7, 11, 19]
    return [
        {"num_beams": 1, **LONG, "end_tokens": several},
        {"num_beams": 4, "length_penalty": 1.0, **LONG, "end_tokens": several},
        {"num_beams": 1, **LONG, "repetition_penalty": 1.5},
        {"num_beams": 3, "length_penalty": 1.0, **LONG, "repetition_penalty": 1.5},
        {"num_beams": 1, **LONG, "min_new_tokens": 8},
        {"num_beams": 3, "length_penalty": 1.0, **LONG, "min_new_tokens": 8},
        {"num_beams": 4, "length_penalty": 1.0, **LONG, "early_stopping": True},
        {"num_beams": 4, "length_penalty": 0.0, **LONG, "early_stopping": True},
        {"num_beams": 4, "length_penalty": 1.0, **LONG, "early_stopping": "never"},
        {"num_beams": 4, "length_penalty": -1.0, **LONG, "early_stopping": "never"},
        {"num_beams": 5, "length_penalty": 1.0, **LONG, "num_return_sequences": 5},
        {"num_beams": 5, "length_penalty": 1.0, "max_new_tokens": 1},
        {"num_beams": 3, "length_penalty": 1.0, **LONG, "no_repeat_ngram_size": 2},
    ]


def report(directory):
    from safetensors.torch import load_file

    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    print(f"{directory.name}: {size / 1000:.0f} kB")
    for path in sorted(directory.glob("*.json")):
        if path.stem in ("config", "generation_config"):
            continue
        tensors = load_file(path.with_suffix(".safetensors"))
        bfloat16 = tensors.get("logits_bfloat16")
        difference = ""
        if bfloat16 is not None:
            in_norm = (bfloat16 - tensors["logits"]).norm() / tensors["logits"].norm()
            largest = relative(bfloat16, tensors["logits"])
            difference = f", bf16 off by {largest:.1e} of the largest, {in_norm:.1e} in the norm"
        print(f"  {path.stem}: {path.with_suffix('.safetensors').stat().st_size / 1000:.0f} kB, "
              f"loss {tensors['loss'].item():.4f}, logits' std {tensors['logits'].std():.2f}{difference}")
        print("    greedy", tensors["generated_greedy"].tolist())
        print("    beam  ", tensors["generated_beam"].tolist())


def relative(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def main():
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    for name in MODELS:
        if len(sys.argv) == 1 or name.startswith(sys.argv[1]):
            make(name)
    print(json.dumps({"bytes": sum(p.stat().st_size for p in OUT.rglob("*") if p.is_file())}))


if __name__ == "__main__":
    main()
