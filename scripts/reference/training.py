"""What the scripts share that record how PyTorch trains: 20 steps of AdamW with LAVIS's groups and either schedule.

A case is a file CASE.json and the trained weights at its end, CASE.safetensors. In the JSON

    train               the settings, under the keys of Recap's own training configuration
    batches             what each step learns from; `clips` are rows of clips.safetensors
    steps               of each step the loss, the joint norm of the gradients before clipping, the highest learning rate
    without_gradient    tensors whose gradient is zero in exact arithmetic (see `without_gradient`)
    float64             how far PyTorch in f64, from the same weights and batches, ends from PyTorch in f32: the largest
                        relative difference of a step's loss, and of a weight to the largest of its tensor
"""

import importlib.util
import json
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parents[2] / "train/tests/fixtures/parity"
STEPS = 20
CLIPS = 8


def lavis_schedules(source):
    """LAVIS's own `lavis.common.optims`, its registry replaced by one that registers nothing."""

    class Registry:
        def __getattr__(self, _):
            return lambda *_: lambda kind: kind

    sys.modules["lavis.common.registry"] = types.ModuleType("lavis.common.registry")
    sys.modules["lavis.common.registry"].registry = Registry()
    spec = importlib.util.spec_from_file_location("lavis_optims", Path(source) / "lavis/common/optims.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def groups(parameters, decay, scale):
    """LAVIS's two groups (runners/runner_base.py), each split by the learning-rate scale of its tensors."""
    made = {}
    for name, parameter in parameters.items():
        decays = not (parameter.ndim < 2 or "bias" in name or "ln" in name or "bn" in name)
        made.setdefault((decays, scale(name)), []).append(parameter)
    return [
        {"params": members, "weight_decay": decay if decays else 0.0, "times": times}
        for (decays, times), members in made.items()
    ]


def schedule(optimizer, settings, lavis):
    """Sets the learning rates of a step, counted from 0, and gives the rate that is not scaled."""
    peak, last, warmup = (settings[key] for key in ("learning_rate", "min_learning_rate", "warmup_steps"))
    if settings["schedule"] == "lavis":
        length = settings["evaluate_every"]
        theirs = lavis_schedules(lavis).LinearWarmupCosineLRScheduler(
            optimizer,
            max_epoch=STEPS // length,
            min_lr=last,
            init_lr=peak,
            warmup_steps=warmup,
            warmup_start_lr=settings["warmup_learning_rate"],
        )

        def set_rates(step):
            theirs.step(cur_epoch=step // length, cur_step=step % length)
            rate = optimizer.param_groups[0]["lr"]
            for group in optimizer.param_groups:
                group["lr"] = rate * group["times"]
            return rate

        return set_rates
    curves = torch.optim.lr_scheduler
    rise = curves.LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)
    fall = curves.CosineAnnealingLR(optimizer, T_max=STEPS - warmup - 1, eta_min=last)
    both = curves.SequentialLR(optimizer, [rise, fall], milestones=[warmup])

    def advance(step):
        assert all(group["times"] == 1.0 for group in optimizer.param_groups), "eta_min would not be scaled"
        if step > 0:
            both.step()
        return optimizer.param_groups[0]["lr"]

    return advance


def train(parameters, parts, settings, lavis, scale=lambda _: 1.0, groups=groups, optimizer=torch.optim.AdamW):
    """20 steps. `parts(step)` yields the parts of a step's loss, to be added up. Gives what was seen of each step, and the
    largest gradient that each tensor ever had."""
    assert (settings["beta_1"], settings["beta_2"], settings["epsilon"]) == (0.9, 0.999, 1e-8)
    optimizer = optimizer(
        groups(parameters, settings["weight_decay"], scale),
        lr=settings["learning_rate"],
        betas=(settings["beta_1"], settings["beta_2"]),
        eps=settings["epsilon"],
    )
    set_rates = schedule(optimizer, settings, lavis)
    steps, largest = [], dict.fromkeys(parameters, 0.0)
    for step in range(STEPS):
        rate = set_rates(step)
        optimizer.zero_grad()
        loss, figures = 0.0, {}
        for part in parts(step):
            part, more = part if isinstance(part, tuple) else (part, {})
            part.backward()
            loss += part.item()
            figures |= more
        for name, parameter in parameters.items():
            assert parameter.grad is not None, f"{name} has no gradient"
            largest[name] = max(largest[name], parameter.grad.abs().max().item())
        limit = settings["max_grad_norm"] or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(list(parameters.values()), limit).item()
        optimizer.step()
        steps.append({"loss": loss, **figures, "gradient_norm": norm, "learning_rate": rate})
    return steps, largest


def without_gradient(largest):
    """Tensors whose gradient is zero but for rounding, given the largest gradients in f64. They are the biases of
    attention's keys: a softmax does not see what is added to all of its inputs. What rounding makes of their gradient in
    f32 Adam divides by itself, so that they wander by up to the learning rate a step, and change nothing. (transformers
    computes OPT's softmax in f32 even in an f64 model, hence the threshold.)"""
    threshold = 1e-7 * max(largest.values())
    names = [name for name, gradient in largest.items() if gradient < threshold]
    assert all(name.endswith(("key.bias", "k_proj.bias")) for name in names), names
    return names


def record(case, description, single, double, names=lambda name: name):
    """Writes a case. `single` and `double` are (trained parameters, steps, largest gradients) in f32 and f64; `names` are
    those that the weights get in the file."""
    (weights, steps, _), (exact, exact_steps, largest) = single, double
    still = without_gradient(largest)
    differences = {
        name: ((weights[name] - exact[name]).abs().max() / exact[name].abs().max()).item()
        for name in weights
        if name not in still
    }
    assert all(step["loss"] == step["loss"] and step["gradient_norm"] > 0 for step in steps)
    loss = max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(steps, exact_steps))
    description = {
        **description,
        "steps": steps,
        "without_gradient": sorted(names(name) for name in still),
        "float64": {"loss": loss, "weights": max(differences.values())},
        "torch": torch.__version__,
    }
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{case}.json").write_text(one_line_a_row(description))
    save_file({names(k): v.detach().clone().contiguous() for k, v in weights.items()}, OUT / f"{case}.safetensors")
    worst = max(differences, key=differences.get)
    print(f"{case}: loss {steps[0]['loss']:.4f} to {steps[-1]['loss']:.4f}, norms {steps[0]['gradient_norm']:.2f} to "
          f"{steps[-1]['gradient_norm']:.2f}; f64 is off by {loss:.1e} (loss), {differences[worst]:.1e} ({worst}); "
          f"{len(still)} of {len(weights)} tensors without gradient")


def one_line_a_row(description):
    """JSON with every batch and every step on a line of its own."""
    lines = []
    for key, value in description.items():
        if isinstance(value, list) and value:
            rows = ",\n".join("    " + json.dumps(row) for row in value)
            lines.append(f"  {json.dumps(key)}: [\n{rows}\n  ]")
        else:
            lines.append(f"  {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
