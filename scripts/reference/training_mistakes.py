"""Prints how far PyTorch would end from train/tests/fixtures/parity with one mistake in its training: what the tests see.

    python scripts/reference/training_mistakes.py LAVIS      # versions as for train_captioner.py

Of each mistake the largest relative difference of a step's loss, the largest of a weight to the largest of its tensor, and
that tensor. A test fails at 1e-4 of the one or 1e-3 of the other.
"""

import json
import sys
from copy import deepcopy
from functools import partial

import torch
import transformers
from safetensors.torch import load_file

import training
from train_captioner import CASES, cross_entropy_parts, file_name, released_parts, trained_model, vit_scale
from training import OUT


def decay_of(parameters, decay, scale, of):
    """Groups of which those that `of` chooses decay, given whether they should and how they are called."""
    made = []
    for name, parameter in parameters.items():
        (group,) = training.groups({name: parameter}, decay, scale)
        made.append({**group, "weight_decay": decay if of(group["weight_decay"] > 0, name) else 0.0})
    return made


class LargeEpsilon(torch.optim.AdamW):
    def __init__(self, parameters, eps, **settings):
        super().__init__(parameters, eps=1e-5, **settings)


MISTAKES = [
    ("xe-t5-lora", "none", {}),
    ("xe-t5-lora", "no decay", {"groups": partial(decay_of, of=lambda should, name: False)}),
    ("xe-t5-lora", "biases and norms decay", {"groups": partial(decay_of, of=lambda should, name: True)}),
    ("xe-t5-lora", "decay by the gradient, as Adam has it", {"optimizer": torch.optim.Adam}),
    ("xe-t5-lora", "epsilon 1e-5", {"optimizer": LargeEpsilon}),
    ("xe-t5-lora", "no clipping", {"max_grad_norm": 0.0}),
    ("xe-t5-lora", "no label smoothing", {"label_smoothing": 0.0}),
    ("xe-t5-lora", "warm-up of 3 steps for 4", {"warmup_steps": 3}),
    ("xe-opt-whole", "no decay", {"groups": partial(decay_of, of=lambda should, name: False)}),
    ("xe-opt-whole", "epsilon 1e-5", {"optimizer": LargeEpsilon}),
    ("xe-opt-whole", "clipping at 1", {"max_grad_norm": 1.0}),
    ("xe-opt-whole", "the ViT at the full rate", {"parameters": {}}),
    (
        "xe-t5-whole",
        "T5's relative positions decay",
        {"groups": partial(decay_of, of=lambda should, name: should or "relative" in name)},
    ),
]


def measure(name, mistake, lavis):
    recorded, weights = json.loads((OUT / f"{name}.json").read_text()), load_file(OUT / f"{name}.safetensors")
    pixels = load_file(OUT / "clips.safetensors")["pixel_values"]
    case = {**deepcopy(CASES[name]), "batches": recorded["batches"]}
    mistake = dict(mistake)
    ways = {key: mistake.pop(key) for key in ("groups", "optimizer") if key in mistake}
    case["train"] |= mistake
    model, parameters = trained_model(case, torch.float32)
    parts = (released_parts if name.startswith("scst") else cross_entropy_parts)(model, case, pixels)
    steps, _ = training.train(parameters, parts, case["train"], lavis, vit_scale(case), **ways)
    loss = max(abs(ours["loss"] / theirs["loss"] - 1) for ours, theirs in zip(steps, recorded["steps"]))
    worst = {}
    for parameter_name, parameter in parameters.items():
        tensor = file_name(parameter_name)
        if tensor not in recorded["without_gradient"]:
            worst[tensor] = ((parameter - weights[tensor]).abs().max() / weights[tensor].abs().max()).item()
    tensor = max(worst, key=worst.get)
    return loss, worst[tensor], tensor


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    print("| case | mistake | loss | weights | where |\n| --- | --- | ---: | ---: | --- |")
    for name, what, mistake in MISTAKES:
        loss, weight, tensor = measure(name, mistake, sys.argv[1])
        print(f"| {name} | {what} | {loss:.0e} | {weight:.0e} | {tensor} |")


if __name__ == "__main__":
    main()
