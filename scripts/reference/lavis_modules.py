"""Makes model/tests/fixtures/parity/lavis: what LAVIS's own modules compute, and checkpoints in its layouts.

    pip download --no-deps salesforce-lavis==1.0.2 && unzip salesforce_lavis-1.0.2-py3-none-any.whl -d LAVIS
    python3.8 -m venv venv && venv/bin/pip install torch==1.13.1 torchvision==0.14.1 transformers==4.26.1 timm==0.4.12 \\
        safetensors==0.5.3
    venv/bin/python scripts/reference/lavis_modules.py LAVIS

Only LAVIS's models are imported, its `lavis.common` (downloads, registry, logging) is replaced by stand-ins, and the
tokenizers by ones that hand out the given ids; every forward pass is LAVIS's.

    eva_vit_g.pth    a raw ViT state dict as LAVIS downloads it: f16, q_bias and v_bias, one block more than is used, norm, head
    stage1.pth       {"model", "optimizer", "config", "scaler", "epoch"} of Blip2Qformer, the frozen ViT left out
    stage1.safetensors/.json   its passes, see `stage1`
    stage2_t5.pth    the same of Blip2T5: query_tokens, Q-Former without text, ln_vision, t5_proj
    stage2_opt.pth   the same with opt_proj, weights of fixtures.py's `opt`
    t5/              the language model that stage2_t5.pth goes with, a directory of transformers; FLAN's config says
                     gated-gelu, but LAVIS computes with the exact GELU
    t5.safetensors/.json       a reference for `verify` of [stage2_t5.pth, eva_vit_g.pth, t5/], computed by Blip2T5.forward
    coco_t5.pth      stage2_t5.pth with `visual_encoder.*` in f32 in it, whose positions are for a larger picture
    coco_t5.safetensors/.json  likewise, pictures of that size
    positions.safetensors      LAVIS's interpolate_pos_embed: `K.before` and `K.after` for 3x3 to 5x5, 4x4 to 6x6, 6x6 to 4x4

Epsilons: blocks 1e-6, ln_vision 1e-5, Q-Former 1e-12, T5 1e-6. Logits at labels of -100 are not to be compared: LAVIS masks
the decoder's input there. Where labels count, transformers 5.23 with these weights agrees with both T5 references to 1.2e-6
of the largest logit and 5.2e-6 of the largest gradient.
"""

import json
import shutil
import sys
import types
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

OUT = Path(__file__).resolve().parents[2] / "model/tests/fixtures/parity/lavis"
COMMAND = "python scripts/reference/lavis_modules.py LAVIS"
IGNORED = -100

WIDTH, DEPTH, HEADS, PATCH, IMAGE = 20, 3, 2, 7, 21
QUERY_WIDTH, QUERIES, EMBED = 15, 5, 8
WORDS, DEC, SEP, CLS, PAD = 31, 30, 3, 2, 0
T5_WORDS, T5_WIDTH = 37, 18


def import_lavis(source):
    """LAVIS's models without the rest of it."""

    class Registry:
        def __getattr__(self, _):
            return lambda *_: lambda kind: kind

    def module(name, **members):
        made = sys.modules[name] = types.ModuleType(name)
        made.__dict__.update(members)
        return made

    for name in ("lavis", "lavis.models", "lavis.models.blip2_models", "lavis.models.blip_models"):
        module(name).__path__ = [str(Path(source).joinpath(*name.split(".")))]
    nothing = lambda *_, **__: None
    module("lavis.common").__path__ = []
    module("lavis.common.registry", registry=Registry())
    sys.modules["lavis.common"].dist_utils = module(
        "lavis.common.dist_utils", download_cached_file=nothing, is_dist_avail_and_initialized=lambda: False
    )
    module("lavis.common.utils", get_abs_path=nothing, is_url=nothing)
    module("lavis.common.logger", MetricLogger=nothing)
    module("lavis.models.clip_vit", create_clip_vit_L=nothing)
    module("omegaconf", OmegaConf=None)
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )


def draw_weights(model, seed):
    """Weights wide enough for attention and logits that differ from place to place."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name == "temp":
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            is_norm_scale = name.endswith("weight")
            parameter.data = 0.2 * noise + (1.0 if is_norm_scale else 0.0)
        elif "embed" in name or "shared" in name or "token" in name:
            parameter.data = 0.6 * noise
        elif "relative_attention_bias" in name:
            parameter.data = 1.5 * noise
        else:
            parameter.data = noise / parameter[0].numel() ** 0.5
    return model


def vit(depth=DEPTH, image=IMAGE):
    from lavis.models.eva_vit import VisionTransformer

    return VisionTransformer(
        img_size=image,
        patch_size=PATCH,
        embed_dim=WIDTH,
        depth=depth,
        num_heads=HEADS,
        mlp_ratio=2.3,
        qkv_bias=True,
        use_mean_pooling=False,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )


def q_former():
    from lavis.models.blip2_models.Qformer import BertConfig, BertLMHeadModel

    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=QUERY_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=26,
        max_position_embeddings=12,
    )
    config.encoder_width, config.query_length = WIDTH, QUERIES
    config.add_cross_attention, config.cross_attention_freq = True, 2
    return BertLMHeadModel(config)


class Ids(dict):
    """What a tokenizer returns."""

    def __getattr__(self, name):
        return self[name]

    def to(self, _):
        return self


class Tokenizer:
    """Hands out the given ids for any text."""

    def __init__(self, pad, bos=None):
        self.pad_token_id, self.bos_token_id = pad, bos

    def __call__(self, ids, **_):
        return Ids(input_ids=ids, attention_mask=(ids != self.pad_token_id).long())


class PerFrame(nn.Module):
    """A ViT that reads `[b, f, 3, S, S]` frame by frame and hands the tokens of all frames on, as the paper's code does."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, pixel_values):
        tokens = self.encoder(pixel_values.flatten(0, 1))
        return tokens.reshape(pixel_values.shape[0], -1, tokens.shape[-1])


def bare(kind):
    """An object of one of LAVIS's models without what its constructor downloads."""
    model = kind.__new__(kind)
    nn.Module.__init__(model)
    return model


def checkpoint(model, path, epoch, steps=0):
    """What LAVIS's runner saves: parameters that are trained and all buffers."""
    is_trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    state = {name: tensor for name, tensor in model.state_dict().items() if is_trained.get(name, True)}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    if steps:
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    config = {"run": {"task": "image_text_pretrain", "lr_sched": "linear_warmup_cosine_lr"}, "model": {"arch": "blip2"}}
    scaler = {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 7}
    contents = {"model": state, "optimizer": optimizer.state_dict(), "config": config, "scaler": scaler, "epoch": epoch}
    torch.save(contents, path)
    return state


def freeze(module):
    for parameter in module.parameters():
        parameter.requires_grad = False
    return module


def plain(tensors):
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def watch(module, store, name):
    """Keeps each output of a module under `name.0`, `name.1`, ..."""

    def keep(_, __, output):
        count = sum(key.startswith(name + ".") for key in store)
        store[f"{name}.{count}"] = output[0] if isinstance(output, tuple) else getattr(output, "last_hidden_state", output)

    return module.register_forward_hook(keep)


def first_stage():
    """LAVIS's Blip2Qformer, its weights not drawn yet."""
    from lavis.models.blip2_models.blip2 import LayerNorm
    from lavis.models.blip2_models.blip2_qformer import Blip2Qformer

    model = bare(Blip2Qformer)
    model.tokenizer = Tokenizer(PAD, DEC)
    model.visual_encoder, model.ln_vision = vit(), LayerNorm(WIDTH)
    model.Qformer, model.query_tokens = q_former(), nn.Parameter(torch.zeros(1, QUERIES, QUERY_WIDTH))
    model.vision_proj, model.text_proj = nn.Linear(QUERY_WIDTH, EMBED), nn.Linear(QUERY_WIDTH, EMBED)
    model.itm_head, model.temp = nn.Linear(QUERY_WIDTH, 2), nn.Parameter(0.07 * torch.ones([]))
    model.max_txt_len = 7
    return model


def stage1():
    """The three losses of pretraining. `stage1.safetensors` holds the inputs `pixel_values` [b,3,S,S], `text_ids` [b,t]
    with [CLS] in front, [SEP] behind and padding, and of each pass its output:

        image_embeds         ViT and ln_vision
        query_output         queries alone
        text_cls             text alone, its first token
        sim_i2t, sim_t2i     similarities over the temperature
        negative_images      for each text the image drawn, negative_texts for each image the text drawn
        itm_output           [queries; text] of positives, negative images, negative texts: all tokens
        itm_logits           mean over the queries of the head
        lm_logits            causal text behind cached queries, all positions
        loss, loss_itc, loss_itm, loss_lm
        grad.NAME            gradient of `loss` at the parameter NAME
    """
    from lavis.models.blip2_models import blip2_qformer

    model = draw_weights(first_stage(), 21).eval()
    model.visual_encoder.load_state_dict(raw_vit(), strict=False)
    freeze(model.visual_encoder)

    generator = torch.Generator().manual_seed(22)
    batch, length = 4, 7
    pixel_values = torch.randn(batch, 3, IMAGE, IMAGE, generator=generator)
    text_ids = torch.randint(4, DEC, (batch, length), generator=generator)
    text_ids[:, 0] = CLS
    for text, end in enumerate((6, 4, 5, 2)):
        text_ids[text, end] = SEP
        text_ids[text, end + 1 :] = PAD

    seen, drawn, similarities = {}, [], []
    for name, module in (("bert", model.Qformer.bert), ("lm", model.Qformer), ("ln", model.ln_vision), ("itm", model.itm_head)):
        if name == "lm":
            model.Qformer.register_forward_hook(lambda _, __, output: seen.update(lm_logits=output.logits))
        else:
            watch(module, seen, name)
    multinomial, cross_entropy = torch.multinomial, nn.functional.cross_entropy

    def draw(weights, count):
        drawn.append(multinomial(weights, count, generator=generator))
        return drawn[-1]

    def note(logits, *given, **settings):
        similarities.append(logits)
        return cross_entropy(logits, *given, **settings)

    torch.multinomial, blip2_qformer.F.cross_entropy = draw, note
    output = model({"image": pixel_values, "text_input": text_ids})
    torch.multinomial, blip2_qformer.F.cross_entropy = multinomial, cross_entropy
    output.loss.backward()
    negatives = torch.cat(drawn)
    tensors = {
        "pixel_values": pixel_values,
        "text_ids": text_ids,
        "image_embeds": seen["ln.0"],
        "query_output": seen["bert.0"],
        "text_cls": seen["bert.1"][:, 0],
        "sim_i2t": similarities[0],
        "sim_t2i": similarities[1],
        "negative_images": negatives[:batch],
        "negative_texts": negatives[batch:],
        "itm_output": seen["bert.2"],
        "itm_logits": seen["itm.0"].mean(1),
        "lm_logits": seen["lm_logits"],
        "loss": output.loss[None],
        "loss_itc": output.loss_itc[None],
        "loss_itm": output.loss_itm[None],
        "loss_lm": output.loss_lm[None],
    }
    # What passes through cross_entropy: image to text, text to image, matching, language modelling.
    assert len(similarities) == 4 and torch.equal(similarities[2], seen["itm.0"].mean(1))
    for name in (
        "query_tokens",
        "temp",
        "ln_vision.weight",
        "vision_proj.weight",
        "text_proj.weight",
        "itm_head.weight",
        "Qformer.bert.embeddings.word_embeddings.weight",
        "Qformer.bert.embeddings.position_embeddings.weight",
        "Qformer.bert.encoder.layer.0.crossattention.self.key.weight",
        "Qformer.bert.encoder.layer.1.attention.self.query.weight",
        "Qformer.bert.encoder.layer.2.intermediate.dense.weight",
        "Qformer.bert.encoder.layer.2.intermediate_query.dense.weight",
        "Qformer.cls.predictions.bias",
    ):
        tensors["grad." + name] = dict(model.named_parameters())[name].grad
    state = checkpoint(model, OUT / "stage1.pth", epoch=9)
    save_file(plain(tensors), OUT / "stage1.safetensors")
    description = {
        "image_size": IMAGE,
        "dec_token": DEC,
        "cls_token": CLS,
        "sep_token": SEP,
        "pad_token": PAD,
        "label_smoothing": 0.1,
        "bert": {k: getattr(model.Qformer.config, k) for k in BERT_SIZES},
        "vision": {"heads": HEADS, "depth": DEPTH, "patch": PATCH},
        "command": COMMAND,
    }
    (OUT / "stage1.json").write_text(json.dumps(description, indent=2) + "\n")
    print("stage 1:", len(state), "tensors, losses", *(f"{tensors[k].item():.4f}" for k in tensors if k.startswith("loss")))
    print("  negatives", negatives.flatten().tolist())


BERT_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "layer_norm_eps",
    "cross_attention_freq",
    "encoder_width",
)


def raw_vit():
    return torch.load(OUT / "eva_vit_g.pth")


def make_vit():
    """As EVA publishes it: f16, a block more, a norm and a head that BLIP-2 does without."""
    whole = draw_weights(vit(DEPTH + 1), 20)
    state = {name: tensor.half() for name, tensor in whole.state_dict().items()}
    generator = torch.Generator().manual_seed(23)
    for name, shape in (("norm.weight", (WIDTH,)), ("norm.bias", (WIDTH,)), ("head.weight", (6, WIDTH)), ("head.bias", (6,))):
        state[name] = torch.randn(shape, generator=generator).half()
    torch.save(state, OUT / "eva_vit_g.pth")


def t5_model():
    from lavis.models.blip2_models.modeling_t5 import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": T5_WIDTH, "d_kv": 7, "d_ff": 25, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 3}
    buckets = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}
    config = T5Config(
        vocab_size=T5_WORDS,
        decoder_start_token_id=0,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        architectures=["T5ForConditionalGeneration"],
        **sizes,
        **buckets,
    )
    language_model = draw_weights(T5ForConditionalGeneration(config), 24).eval()
    shutil.rmtree(OUT / "t5", ignore_errors=True)
    saved = dict(language_model.state_dict())
    language_model.config.save_pretrained(OUT / "t5")
    tied = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    save_file(plain({k: v for k, v in saved.items() if k not in tied}), OUT / "t5/model.safetensors", {"format": "pt"})
    config.dense_act_fn = "gelu"
    exact = T5ForConditionalGeneration(config).eval()
    exact.load_state_dict(saved)
    return freeze(exact)


def without_text(model):
    """The Q-Former of the second stage."""
    model.Qformer.cls = None
    model.Qformer.bert.embeddings.word_embeddings = None
    model.Qformer.bert.embeddings.position_embeddings = None
    for layer in model.Qformer.bert.encoder.layer:
        layer.output = layer.intermediate = None


def stage2_t5():
    from lavis.models.blip2_models.blip2 import LayerNorm
    from lavis.models.blip2_models.blip2_t5 import Blip2T5

    model = bare(Blip2T5)
    model.visual_encoder, model.ln_vision = freeze(vit()), LayerNorm(WIDTH)
    model.Qformer, model.query_tokens = q_former(), nn.Parameter(torch.zeros(1, QUERIES, QUERY_WIDTH))
    without_text(model)
    model.t5_proj = nn.Linear(QUERY_WIDTH, T5_WIDTH)
    draw_weights(model, 25)
    unexpected = model.visual_encoder.load_state_dict(raw_vit(), strict=False).unexpected_keys
    assert all(name.startswith((f"blocks.{DEPTH}.", "norm.", "head.")) for name in unexpected), unexpected
    checkpoint(model, OUT / "stage2_t5.pth", epoch=4, steps=1)
    model.t5_model, model.t5_tokenizer, model.max_txt_len = t5_model(), Tokenizer(0), 32
    model.eval()
    t5_reference(model, "t5", frames=2, seed=26)

    # A COCO checkpoint: another picture size, the ViT trained and therefore inside.
    state, larger = raw_vit(), vit(image=35)
    from lavis.models.eva_vit import interpolate_pos_embed

    interpolate_pos_embed(larger, state)
    larger.load_state_dict(state, strict=False)
    language_model, model.t5_model = model.t5_model, None
    model.visual_encoder = larger.float()
    checkpoint(model, OUT / "coco_t5.pth", epoch=0)
    model.t5_model = language_model
    t5_reference(model.eval(), "coco_t5", frames=1, seed=27)


def t5_reference(model, stem, frames, seed):
    size = model.visual_encoder.image_size
    generator = torch.Generator().manual_seed(seed)
    pixel_values = torch.randn(2, frames, 3, size, size, generator=generator)
    input_ids = torch.randint(2, T5_WORDS, (2, 3), generator=generator)
    target = torch.randint(2, T5_WORDS, (2, 6), generator=generator)
    target[:, 5], target[1, 3], target[1, 4:] = 1, 1, 0
    seen = {}
    encoder, model.visual_encoder = model.visual_encoder, PerFrame(model.visual_encoder)
    handles = [
        model.ln_vision.register_forward_hook(lambda _, __, output: seen.update(fused_features=output)),
        model.Qformer.bert.register_forward_hook(lambda _, __, output: seen.update(query_output=output.last_hidden_state)),
        model.t5_proj.register_forward_hook(lambda _, __, output: seen.update(projected=output)),
        model.t5_model.register_forward_hook(lambda _, __, output: seen.update(logits=output.logits)),
    ]
    loss = model({"image": pixel_values, "text_input": input_ids, "text_output": target})["loss"]
    model.zero_grad()
    loss.backward()
    for handle in handles:
        handle.remove()
    model.visual_encoder = encoder
    tensors = {
        "pixel_values": pixel_values,
        "input_ids": input_ids,
        "labels": target.masked_fill(target == 0, IGNORED),
        "vision_features": seen["fused_features"].reshape(2 * frames, -1, WIDTH),
        **seen,
        "loss": loss[None],
        "grad_query_tokens": model.query_tokens.grad,
        "grad_language_projection_weight": model.t5_proj.weight.grad,
    }
    fc1 = encoder.blocks[0].mlp.fc1.weight.grad
    if fc1 is not None:
        tensors["grad_vision_layer0_fc1_weight"] = fc1
    save_file(plain(tensors), OUT / f"{stem}.safetensors")
    said = {"fusion": "concat", "frames": frames, "num_beams": 1, "max_new_tokens": 8, "length_penalty": 1.0}
    (OUT / f"{stem}.json").write_text(json.dumps({**said, "command": COMMAND}, indent=2) + "\n")
    print(stem, "loss", loss.item(), "logits' std", seen["logits"].std().item())


def stage2_opt():
    """`opt` of fixtures.py under LAVIS's names; its ViT as eva_vit_g.pth would hold it is not written again."""
    from safetensors.torch import load_file

    theirs = load_file(OUT.parent / "opt/model.safetensors")
    model = nn.Module()
    model.ln_vision = nn.LayerNorm(WIDTH)
    model.Qformer, model.query_tokens = q_former(), nn.Parameter(torch.zeros(1, QUERIES, QUERY_WIDTH))
    without_text(model)
    model.opt_proj = nn.Linear(QUERY_WIDTH, theirs["language_projection.weight"].shape[0])
    for name, parameter in model.named_parameters():
        parameter.data = theirs[hugging_face_name(name)].clone()
    checkpoint(model, OUT / "stage2_opt.pth", epoch=4)


def hugging_face_name(name):
    """LAVIS's name of a tensor outside the ViT and the language model, in transformers."""
    for old, new in (
        ("ln_vision", "vision_model.post_layernorm"),
        ("opt_proj", "language_projection"),
        ("Qformer.bert.embeddings.LayerNorm", "qformer.layernorm"),
        ("Qformer.bert", "qformer"),
        (".self.", ".attention."),
    ):
        name = name.replace(old, new)
    return name


def positions():
    from lavis.models.eva_vit import interpolate_pos_embed

    generator, tensors = torch.Generator().manual_seed(28), {}
    for before, after in ((3, 5), (4, 6), (6, 4)):
        state = {"pos_embed": torch.randn(1, before * before + 1, 6, generator=generator)}
        key = f"{before}to{after}"
        tensors[key + ".before"] = state["pos_embed"]
        model = types.SimpleNamespace(
            patch_embed=types.SimpleNamespace(num_patches=after * after), pos_embed=torch.zeros(1, after * after + 1, 6)
        )
        interpolate_pos_embed(model, state)
        tensors[key + ".after"] = state["pos_embed"]
    save_file(plain(tensors), OUT / "positions.safetensors")


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    import_lavis(sys.argv[1])
    make_vit()
    stage1()
    stage2_t5()
    stage2_opt()
    positions()
    for path in sorted(p for p in OUT.rglob("*") if p.is_file()):
        print(f"{path.stat().st_size / 1000:7.1f} kB  {path.relative_to(OUT)}")


if __name__ == "__main__":
    main()
