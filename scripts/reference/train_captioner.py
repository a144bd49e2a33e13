"""Makes train/tests/fixtures/parity/{clips,xe-*,scst-*}: how PyTorch trains captioners that fixtures.py and peft_lora.py made.

    pip install torch==2.15 transformers==5.23 peft==0.21.2 safetensors
    pip download --no-deps salesforce-lavis==1.0.2 && unzip salesforce_lavis-1.0.2-py3-none-any.whl -d LAVIS
    python scripts/reference/train_captioner.py LAVIS

    xe-t5-lora      t5-flan with the adapter of lora/t5-flan: ViT and language model frozen, the adapter and all between
                    trained; batches in two parts, padded prompts, label smoothing, clipped gradients, cosine by the step
    xe-opt-whole    opt, all of it trained, the ViT at a tenth of the learning rate; prompts padded in front, frames
                    averaged, LAVIS's schedule (its own code), no clipping
    xe-t5-whole     t5-flan, all of it trained; the same schedule, whose warm-up ends early
    scst-t5-lora    the first model, by self-critical training as the paper's authors released it, on the sequences and
                    rewards that stand in the JSON: five a clip

The loss is the mean over all labels of the whole batch, however many parts it is computed in. The language model and the
Q-Former are transformers', LoRA is PEFT's, nothing drops out, and all weights are f32. Pixels are in clips.safetensors.
LAVIS has a bias for queries and for values of the ViT only; transformers' has one for keys beside them, which is held still.
"""

import sys
from pathlib import Path

import torch
import transformers
from peft import PeftModel
from safetensors.torch import save_file

from recap_reference import IGNORED, Stages, load_model
from training import CLIPS, OUT, STEPS, record, train

COMMAND = "python scripts/reference/train_captioner.py LAVIS"
MODELS = Path(__file__).resolve().parents[2] / "model/tests/fixtures/parity"

ADAMW = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8, "weight_decay": 0.05}
FROZEN = {"vision_model.*": "frozen", "language_model.*": "frozen", "*.lora.*": 1.0}
COSINE = {
    "schedule": "cosine",
    "learning_rate": 3e-3,
    "min_learning_rate": 3e-4,
    "warmup_steps": 4,
    "evaluate_every": 1,
    "max_grad_norm": 1.0,
    **ADAMW,
}
LAVIS = {
    "schedule": "lavis",
    "warmup_learning_rate": 1e-5,
    "learning_rate": 3e-3,
    "min_learning_rate": 3e-4,
    "warmup_steps": 8,
    "evaluate_every": 5,
    "max_grad_norm": 0.0,
    **ADAMW,
}

CASES = {
    "xe-t5-lora": {
        "model": "t5-flan",
        "adapter": "lora/t5-flan",
        "fusion": "concat",
        "train": {**COSINE, "batch_size": 4, "micro_batches": 2, "label_smoothing": 0.1, "parameters": FROZEN},
    },
    "xe-opt-whole": {
        "model": "opt",
        "adapter": None,
        "fusion": "average",
        "train": {**LAVIS, "batch_size": 4, "parameters": {"vision_model.*": 0.1}},
    },
    "xe-t5-whole": {
        "model": "t5-flan",
        "adapter": None,
        "fusion": "concat",
        "train": {**LAVIS, "warmup_steps": 3, "batch_size": 4, "parameters": {}},
    },
    "scst-t5-lora": {
        "model": "t5-flan",
        "adapter": "lora/t5-flan",
        "fusion": "concat",
        "train": {**COSINE, "batch_size": 2, "max_grad_norm": 0.0, "parameters": FROZEN},
    },
}
BEAMS = 5
FRAMES = 2


def clips(size):
    """The pictures that all cases learn from, `[clips, frames, 3, size, size]`."""
    generator = torch.Generator().manual_seed(71)
    return torch.randn(CLIPS, FRAMES, 3, size, size, generator=generator)


def draw_ids(generator, model, length):
    """So many token ids, none of them special."""
    special = {model.language_model.config.pad_token_id, model.language_model.generation_config.eos_token_id}
    allowed = [token for token in range(model.config.text_config.vocab_size) if token not in special]
    return [allowed[int(torch.randint(len(allowed), (), generator=generator))] for _ in range(length)]


def between(generator, least, most):
    return int(torch.randint(least, most + 1, (), generator=generator))


def caption_batches(model, generator, rows):
    end = model.language_model.generation_config.eos_token_id
    return [
        {
            "clips": torch.randperm(CLIPS, generator=generator)[:rows].tolist(),
            "prompts": [draw_ids(generator, model, between(generator, 1, 3)) for _ in range(rows)],
            "captions": [draw_ids(generator, model, between(generator, 1, 6)) + [end] for _ in range(rows)],
        }
        for _ in range(STEPS)
    ]


def reward_batches(model, generator, rows):
    """Sequences of one to seven tokens that end with the end token, or of eight that were cut off before it. All five
    rewards of a clip are alike in one batch, which must then learn nothing from it."""
    end = model.language_model.generation_config.eos_token_id

    def sequence():
        length = between(generator, 1, 8)
        return draw_ids(generator, model, length) + ([] if length == 8 else [end])

    batches = [
        {
            "clips": torch.randperm(CLIPS, generator=generator)[:rows].tolist(),
            "sequences": [[sequence() for _ in range(BEAMS)] for _ in range(rows)],
            "rewards": [[round(3 * torch.rand((), generator=generator).item(), 3) for _ in range(BEAMS)] for _ in range(rows)],
        }
        for _ in range(STEPS)
    ]
    batches[7]["rewards"][1] = [0.5] * BEAMS
    return batches


def pad(sequences, value, at_start=False):
    longest = max(map(len, sequences))
    filled = [[value] * (longest - len(s)) for s in sequences]
    rows = [fill + s if at_start else s + fill for s, fill in zip(sequences, filled)]
    return torch.tensor(rows)


def cross_entropy_parts(model, case, pixels):
    """The parts of a step's loss, each over the number of labels in the whole batch."""
    settings, fusion, double = case["train"], case["fusion"], next(model.parameters()).dtype
    is_decoder_only = not model.config.is_encoder_decoder

    def parts(step):
        batch = case["batches"][step]
        rows, count = len(batch["clips"]), settings.get("micro_batches", 1)
        labels = sum(map(len, batch["captions"]))
        for part in range(count):
            own = slice(part * rows // count, (part + 1) * rows // count)
            prompts, captions = batch["prompts"][own], pad(batch["captions"][own], IGNORED)
            ids = pad(prompts, 0, is_decoder_only)
            mask = pad([[1] * len(prompt) for prompt in prompts], 0, is_decoder_only)
            seen = pixels[batch["clips"][own]].to(double)
            logits = Stages(model, seen, fusion, ids, mask, captions).logits
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1),
                captions.flatten(),
                ignore_index=IGNORED,
                label_smoothing=settings.get("label_smoothing", 0.0),
                reduction="sum",
            )
            yield loss / labels

    return parts


def released_parts(model, case, pixels):
    """Self-critical training as the authors released it: of every sequence the mean log-probability of its tokens, the end
    token among them, those of exactly zero left out; the baseline of a clip is the mean reward of its own five."""
    double = next(model.parameters()).dtype

    def parts(step):
        batch = case["batches"][step]
        stages = Stages(model, pixels[batch["clips"]].to(double), case["fusion"])
        stages.prefix, stages.prefix_mask = (
            each.repeat_interleave(BEAMS, 0) for each in (stages.prefix, stages.prefix_mask)
        )
        stages.labels = pad([sequence for clip in batch["sequences"] for sequence in clip], IGNORED)
        counts = stages.labels != IGNORED
        chosen = stages.encoder_decoder_logits().log_softmax(-1).gather(2, stages.labels.clamp(0)[..., None])[..., 0]
        chosen = chosen.masked_fill(~counts, 0.0)
        mean = chosen.sum(1) / (chosen < 0).sum(1)
        rewards = torch.tensor(batch["rewards"], dtype=double)
        advantages = (rewards - rewards.mean(1, keepdim=True)).flatten()
        yield -(mean * advantages).mean()

    return parts


def trained_model(case, double):
    """The model at its start, what of it is trained, and the names that the trained weights get in files."""
    model = load_model(MODELS / case["model"])
    if case["adapter"]:
        model.language_model = PeftModel.from_pretrained(
            model.language_model, MODELS / case["adapter"], is_trainable=True
        )
    model = model.to(double).eval()
    for name, parameter in model.named_parameters():
        is_base = is_of_vit(name) or (name.startswith("language_model.") and "lora_" not in name)
        parameter.requires_grad = not (case["adapter"] and is_base)
    for layer in model.vision_model.encoder.layers:
        if layer.self_attn.qkv.bias.requires_grad:
            layer.self_attn.qkv.bias.register_hook(hold_keys)
    return model, {name: p for name, p in model.named_parameters() if p.requires_grad}


def is_of_vit(name):
    """transformers holds the norm behind the ViT to be a part of it, LAVIS and Recap do not."""
    return name.startswith("vision_model.") and "post_layernorm" not in name


def vit_scale(case):
    """The learning-rate scale of every tensor, by its name."""
    times = case["train"]["parameters"].get("vision_model.*", 1.0)
    return lambda name: times if is_of_vit(name) else 1.0


def hold_keys(gradient):
    """The gradient of a joint bias of queries, keys and values without the keys' part."""
    queries, keys, values = gradient.chunk(3)
    return torch.cat([queries, torch.zeros_like(keys), values])


def file_name(name):
    """PEFT's files leave out which adapter it is, and what stands around the language model."""
    if "lora_" in name:
        return name.removeprefix("language_model.").replace(".default.", ".")
    return name


def make(name, lavis, pixels):
    case, ran = CASES[name], []
    for dtype in (torch.float32, torch.float64):
        model, parameters = trained_model(case, dtype)
        rows, is_reward = case["train"]["batch_size"], name.startswith("scst")
        generator = torch.Generator().manual_seed(109 if is_reward else 72)
        case["batches"] = (reward_batches if is_reward else caption_batches)(model, generator, rows)
        parts = (released_parts if is_reward else cross_entropy_parts)(model, case, pixels)
        steps, largest = train(parameters, parts, case["train"], lavis, vit_scale(case))
        ran.append((parameters, steps, largest))
    # one near zero would make a relative difference say nothing; the rewards' seed was sought for this
    assert min(abs(step["loss"]) for step in ran[0][1]) > 0.03, [step["loss"] for step in ran[0][1]]
    record(name, {**case, "command": COMMAND}, *ran, file_name)


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    OUT.mkdir(parents=True, exist_ok=True)
    pixels = clips(21)
    save_file({"pixel_values": pixels}, OUT / "clips.safetensors")
    for name in CASES:
        make(name, sys.argv[1], pixels)
    for path in sorted(OUT.iterdir()):
        print(f"{path.stat().st_size / 1000:7.1f} kB  {path.name}")


if __name__ == "__main__":
    main()
