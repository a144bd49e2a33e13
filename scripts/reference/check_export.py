"""Checks that transformers reads a directory that Recap wrote, whole and without a complaint, and gets the same numbers.

    pip install torch==2.15 transformers==5.23 safetensors
    python scripts/reference/check_export.py DIR [--reference STEM] [--tolerance 1e-4] [--peft ADAPTER]

Fails on missing, unexpected or wrongly shaped tensors and on any warning while loading. One warning is let through, since
transformers 5.23 gives it for every T5 with a head of its own, those it wrote itself included: that it will not tie the
two. Prints a hash of the logits (rounded to four digits); with --reference (made by reference.py, of the model that was
exported) compares every stage and the generated ids with it. --peft ADAPTER loads an adapter on the language model first.
"""

import argparse
import hashlib
import json
import logging
import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file

from recap_reference import Stages, gradients

HARMLESS = ("so we will NOT tie them",)


class Complaints(logging.Handler):
    """Keeps what transformers warns of."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        message = record.getMessage()
        if not any(known in message for known in HARMLESS):
            self.messages.append(message)


def load_strictly(directory):
    import transformers

    complaints = Complaints()
    transformers.logging.set_verbosity_warning()
    transformers.logging.add_handler(complaints)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, report = transformers.Blip2ForConditionalGeneration.from_pretrained(
            directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
    transformers.logging.remove_handler(complaints)
    faults = [f"{kind}: {sorted(map(str, names))}" for kind, names in report.items() if names]
    return model.eval(), faults + complaints.messages + [str(warning.message) for warning in caught]


def difference(ours, theirs):
    """Largest absolute difference, and the same over the largest value of the reference."""
    if ours.shape != theirs.shape:
        raise SystemExit(f"shape {tuple(ours.shape)}, the reference has {tuple(theirs.shape)}")
    absolute = (ours - theirs).abs().max().item()
    return absolute, absolute / max(theirs.abs().max().item(), 1e-30)


def compare(model, stem, tolerance):
    """Whether `model` gives what the reference holds; prints each tensor."""
    reference = load_file(f"{stem}.safetensors")
    said = json.loads(Path(f"{stem}.json").read_text())
    inputs = (reference.get(name) for name in ("input_ids", "input_mask", "labels"))
    stages = Stages(model, reference["pixel_values"], said["fusion"], *inputs)
    found = {name: value for name, value in vars(stages).items() if isinstance(value, torch.Tensor)}
    found["loss"] = stages.loss[None]
    found |= gradients(model, stages.loss)
    good = True
    for name in sorted(reference.keys() & found.keys()):
        if reference[name].is_floating_point() and name != "pixel_values":
            absolute, relative = difference(found[name].detach(), reference[name])
            limit = 10 * tolerance if name.startswith("grad_") else tolerance
            good &= relative <= limit
            print(f"{name:34} absolute {absolute:.2e} relative {relative:.2e} {'' if relative <= limit else 'OVER'}")
    shared = {name: said[name] for name in ("repetition_penalty", "min_new_tokens") if name in said}
    shared |= {"max_new_tokens": said["max_new_tokens"], "end_tokens": said.get("end_tokens")}
    beams = {"num_beams": said["num_beams"], "length_penalty": said["length_penalty"]}
    beams |= {name: said[name] for name in ("early_stopping",) if name in said}
    for name, settings in {"generated_greedy": {"num_beams": 1}, "generated_beam": beams}.items():
        if name in reference:
            is_same = torch.equal(stages.generate(**settings, **shared)[0], reference[name])
            good &= is_same
            print(f"{name:34} {'equal' if is_same else 'DIFFERENT'}")
    return good


def logits_hash(model):
    """A hash of the logits on fixed random pixels and labels, rounded."""
    from reference import draw_inputs

    inputs = draw_inputs(model.config, frames=2, batch=2, prompt_length=3, label_length=5, seed=0)
    logits = Stages(model, inputs[0], "concat", *inputs[1:]).logits.detach()
    return hashlib.sha256((logits * 1e4).round().to(torch.int64).numpy().tobytes()).hexdigest()[:16]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--reference", help="path without its ending; may be given as .safetensors too")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="relative; ten times as much for gradients")
    parser.add_argument("--peft", help="directory of a PEFT adapter for the language model")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, faults = load_strictly(given.directory)
    for fault in faults:
        print("FAULT", fault)
    good = not faults
    if given.peft:
        from peft import PeftModel

        model.language_model = PeftModel.from_pretrained(model.language_model, given.peft).eval().merge_and_unload()
    print("parameters", sum(parameter.numel() for parameter in model.parameters()))
    print("logits", logits_hash(model))
    if given.reference:
        good &= compare(model, given.reference.removesuffix(".safetensors"), given.tolerance)
    print("good" if good else "NOT GOOD")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
