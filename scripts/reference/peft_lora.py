"""Makes model/tests/fixtures/parity/lora: adapters written by PEFT for the models of fixtures.py, and what they change.

    pip install torch==2.15 transformers==5.23 peft==0.21.2 safetensors
    python scripts/reference/peft_lora.py [NAME ...]

Each of t5-flan, opt, llama-grouped gets an adapter of rank 4, alpha 8 on the query and value projections of the language
model, A and B random. lora/MODEL/ holds adapter_config.json, adapter_model.safetensors (the adapter wraps the language
model alone: names begin base_model.model.) and `reference.{safetensors,json}` in the format of reference.py, computed with
the adapter, plus

    merged.NAME      a weight of the language model with the adapter merged into it
    grad.NAME        gradients of the loss at one A and one B, under the adapter file's names

lora/opt-rslora/ is rank-stabilised, with other ranks and alphas in some layers (rank_pattern, alpha_pattern).
lora/llama-grouped-whole/ is the same adapter saved from a PEFT model around the whole BLIP-2 (base_model.model.language_model.).
"""

import shutil
import sys

import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from fixtures import LONG, OUT
from recap_reference import Stages, gradients, load_model, save
from reference import draw_inputs

COMMAND = "python scripts/reference/peft_lora.py"
PATTERNS = {
    "use_rslora": True,
    "rank_pattern": {"layers.1.self_attn.q_proj": 2, "^model.decoder.layers.2.self_attn.v_proj": 3},
    "alpha_pattern": {"layers.0.self_attn.v_proj": 5, "self_attn.q_proj": 3},
}
# directory: base, targets, task, layer whose gradients are compared, other settings
CASES = {
    "t5-flan": ("t5-flan", ["q", "v"], "SEQ_2_SEQ_LM", "decoder.block.1.layer.1.EncDecAttention.v", {}),
    "opt": ("opt", ["q_proj", "v_proj"], "CAUSAL_LM", "model.decoder.layers.2.self_attn.q_proj", {}),
    "opt-rslora": ("opt", ["q_proj", "v_proj"], "CAUSAL_LM", "model.decoder.layers.2.self_attn.v_proj", PATTERNS),
    "llama-grouped": ("llama-grouped", ["q_proj", "v_proj"], "CAUSAL_LM", "model.layers.1.self_attn.v_proj", {}),
}


def adapter(targets, task, others):
    return LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.05, target_modules=targets, bias="none", task_type=task, **others
    )


def draw(model, scale=0.6):
    """Random A and B, in the order of their names."""
    generator = torch.Generator().manual_seed(61)
    for name, parameter in sorted(model.named_parameters(), key=lambda pair: pair[0].split("language_model.")[-1]):
        if "lora_" in name:
            parameter.data = scale * torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5


def save_adapter(peft_model, directory, base):
    peft_model.peft_config["default"].base_model_name_or_path = base
    shutil.rmtree(directory, ignore_errors=True)
    peft_model.save_pretrained(directory)
    (directory / "README.md").unlink()


def make(name):
    base, targets, task, layer, others = CASES[name]
    directory = OUT / "lora" / name
    model = load_model(OUT / base)
    inputs = draw_inputs(model.config, frames=2, batch=2, prompt_length=3, label_length=6, seed=62)
    plain = Stages(model, inputs[0], "concat", *inputs[1:]).logits.detach()
    model.language_model = get_peft_model(model.language_model, adapter(targets, task, others)).eval()
    draw(model.language_model)
    save_adapter(model.language_model, directory, f"../../{base}")
    for parameter in model.parameters():
        parameter.requires_grad = True
    stages = Stages(model, inputs[0], "concat", *inputs[1:])
    names = ("pixel_values", "input_ids", "input_mask", "labels")
    tensors = dict(zip(names, inputs)) | {
        stage: getattr(stages, stage)
        for stage in ("vision_features", "fused_features", "query_output", "projected", "logits")
    }
    tensors["loss"] = stages.loss[None]
    beam = {"num_beams": 3, "length_penalty": 1.0}
    tensors["generated_greedy"], _ = stages.generate(num_beams=1, **LONG)
    tensors["generated_beam"], tensors["generated_beam_scores"] = stages.generate(**beam, **LONG)
    tensors |= gradients(model, stages.loss)
    parameters = dict(model.language_model.named_parameters())
    for part in ("A", "B"):
        gradient = parameters[f"base_model.model.{layer}.lora_{part}.default.weight"].grad
        tensors[f"grad.base_model.model.{layer}.lora_{part}.weight"] = gradient.clone()
    merged = model.language_model.merge_and_unload()
    tensors[f"merged.language_model.{layer}.weight"] = merged.get_submodule(layer).weight
    model.language_model = merged
    after = Stages(model, inputs[0], "concat", *inputs[1:])
    assert (after.logits - stages.logits).abs().max() < 1e-4
    for setting, key in (({"num_beams": 1}, "generated_greedy"), (beam, "generated_beam")):
        exact = Stages(model.double(), inputs[0].double(), "concat", *inputs[1:3])
        assert torch.equal(exact.generate(**setting, **LONG)[0], tensors[key]), "hangs on rounding"
    description = {
        "fusion": "concat",
        "frames": 2,
        **beam,
        **LONG,
        "end_tokens": [merged.generation_config.eos_token_id],
        "base": f"../../{base}",
        "command": COMMAND,
    }
    save(directory / "reference", tensors, description)
    change = (tensors["logits"] - plain).norm() / plain.norm()
    print(f"{name}: loss {stages.loss.item():.4f}, the adapter moves the logits by {change:.2f} of their norm")
    return tensors["logits"], inputs


def make_whole(name, logits, inputs):
    """The adapter around the whole BLIP-2: the same numbers, other names."""
    _, targets, _, _, others = CASES[name]
    model = get_peft_model(load_model(OUT / name), adapter(targets, None, others)).eval()
    draw(model)
    save_adapter(model, OUT / "lora" / f"{name}-whole", f"../../{name}")
    found = Stages(model.base_model.model, inputs[0], "concat", *inputs[1:]).logits
    assert (found - logits).abs().max() < 1e-5
    print(list(load_file(OUT / "lora" / f"{name}-whole" / "adapter_model.safetensors"))[:2])


def main():
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    for name in sys.argv[1:] or CASES:
        made = make(name)
        if name == "llama-grouped":
            make_whole(name, *made)


if __name__ == "__main__":
    main()
