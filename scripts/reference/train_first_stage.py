"""Makes train/tests/fixtures/parity/stage1.{json,safetensors}: how PyTorch trains LAVIS's own Blip2Qformer, by its three losses.

    pip download --no-deps salesforce-lavis==1.0.2 && unzip salesforce_lavis-1.0.2-py3-none-any.whl -d LAVIS
    pip install torch==2.0.1 torchvision==0.15.2 transformers==4.26.1 timm==0.6.13 safetensors==0.5.3 "numpy<2"
    python scripts/reference/train_first_stage.py LAVIS

It starts from stage1.pth and eva_vit_g.pth, which lavis_modules.py made, with the ViT frozen. Every step learns from four
of eight pairs: the first pictures of clips.safetensors (of train_captioner.py) and `texts`, BERT's tokens from [CLS] to
[SEP]. Nothing drops out; LAVIS draws the hard negatives, and the JSON holds them: `negative_images` are for each text the
row of the image that was drawn, `negative_texts` for each image the row of the text. Every step has the three losses
beside their sum.

In the weights' file the names are LAVIS's, and the frozen ViT is left out.
"""

import sys

import torch
from safetensors.torch import load_file

from lavis_modules import CLS, DEC, PAD, SEP, first_stage, freeze, import_lavis, raw_vit
from lavis_modules import OUT as CHECKPOINTS
from training import CLIPS, OUT, STEPS, record, train

COMMAND = "python scripts/reference/train_first_stage.py LAVIS"
LENGTH, ROWS = 7, 4
SETTINGS = {
    "schedule": "lavis",
    "warmup_learning_rate": 1e-5,
    "learning_rate": 3e-3,
    "min_learning_rate": 3e-4,
    "warmup_steps": 4,
    "evaluate_every": 5,
    "max_grad_norm": 0.0,
    "beta_1": 0.9,
    "beta_2": 0.999,
    "epsilon": 1e-8,
    "weight_decay": 0.05,
    "batch_size": ROWS,
    "parameters": {"vision_model.*": "frozen"},
}


def draw_texts():
    """Tokens of eight texts of different lengths."""
    generator = torch.Generator().manual_seed(73)
    lengths = [1, 5, 3, 4, 2, 5, 4, 3]
    return [[CLS, *torch.randint(4, DEC, (n,), generator=generator).tolist(), SEP] for n in lengths]


def started(dtype):
    """The model as lavis_modules.py left it."""
    model = first_stage()
    state = torch.load(CHECKPOINTS / "stage1.pth")["model"]
    missing = model.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys, missing
    assert all(name.startswith("visual_encoder.") for name in missing.missing_keys), missing
    model.visual_encoder.load_state_dict(raw_vit(), strict=False)
    freeze(model.visual_encoder)
    # LAVIS's own subclass computes in f32 whatever it is given
    model.ln_vision.__class__ = torch.nn.LayerNorm
    model = model.to(dtype).eval()
    return model, {name: p for name, p in model.named_parameters() if p.requires_grad}


def sizes(model):
    """The model's sizes under the keys of Recap's `PretrainingConfig`."""
    vit, bert = model.visual_encoder, model.Qformer.config
    return {
        "vision_config": {
            "hidden_size": vit.embed_dim,
            "intermediate_size": vit.blocks[0].mlp.fc1.out_features,
            "num_hidden_layers": len(vit.blocks),
            "num_attention_heads": vit.blocks[0].attn.num_heads,
            "image_size": vit.image_size,
            "patch_size": vit.patch_embed.patch_size[0],
            "layer_norm_eps": vit.blocks[0].norm1.eps,
            "post_layernorm_eps": model.ln_vision.eps,
        },
        "qformer_config": {
            "hidden_size": bert.hidden_size,
            "num_hidden_layers": bert.num_hidden_layers,
            "num_attention_heads": bert.num_attention_heads,
            "intermediate_size": bert.intermediate_size,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "layer_norm_eps": bert.layer_norm_eps,
            "cross_attention_frequency": bert.cross_attention_freq,
            "encoder_hidden_size": bert.encoder_width,
            "use_qformer_text_input": True,
            "vocab_size": bert.vocab_size,
            "max_position_embeddings": bert.max_position_embeddings,
        },
        "num_query_tokens": bert.query_length,
        "embed_dim": model.vision_proj.out_features,
        "label_smoothing": 0.1,
    }


def parts_of(model, batches, texts, drawn):
    """The sum of the three losses of a step. Negatives that are not in `drawn` yet are drawn by LAVIS and put there;
    those that are there are given to it."""
    dtype = next(model.parameters()).dtype
    pixels = load_file(OUT / "clips.safetensors")["pixel_values"][:, 0].to(dtype)
    padded = torch.tensor([text + [PAD] * (LENGTH - len(text)) for text in texts])
    generator, multinomial = torch.Generator().manual_seed(74), torch.multinomial

    def parts(step):
        if step == len(drawn):
            drawn.append([])
        known, now = list(drawn[step]), []

        def draw(weights, count):
            index = torch.tensor([known[len(now)]]) if known else multinomial(weights, count, generator=generator)
            now.append(index.item())
            return index

        torch.multinomial = draw
        output = model({"image": pixels[batches[step]["pairs"]], "text_input": padded[batches[step]["pairs"]]})
        torch.multinomial = multinomial
        drawn[step] = now
        names = {"contrast": "loss_itc", "matching": "loss_itm", "generation": "loss_lm"}
        yield output.loss, {name: output[key].item() for name, key in names.items()}

    return parts


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    torch.set_num_threads(1)
    import_lavis(sys.argv[1])
    generator = torch.Generator().manual_seed(75)
    batches = [{"pairs": torch.randperm(CLIPS, generator=generator)[:ROWS].tolist()} for _ in range(STEPS)]
    texts, drawn, ran = draw_texts(), [], []
    for dtype in (torch.float32, torch.float64):
        model, parameters = started(dtype)
        parts = parts_of(model, batches, texts, drawn)
        steps, largest = train(parameters, parts, SETTINGS, sys.argv[1])
        ran.append((parameters, steps, largest))
    for batch, negatives in zip(batches, drawn):
        batch["negative_images"], batch["negative_texts"] = negatives[:ROWS], negatives[ROWS:]
    description = {
        "model": "lavis",
        "config": sizes(model),
        "start_token": DEC,
        "train": SETTINGS,
        "texts": texts,
        "batches": batches,
        "command": COMMAND,
    }
    record("stage1", description, *ran)


if __name__ == "__main__":
    main()
