"""Times PyTorch and transformers on a mid-size random BLIP-2, the peer of our own benchmark on the CPU.

    pip install torch==2.15 transformers==5.23 safetensors
    python scripts/bench/blip2_torch.py --save DIR [--rounds 5] [--threads 2] [--only train|train_frozen_vit|caption]

Model: ViT 12x384, 6 heads, MLP 1536, patch 14, pictures of 112 px (65 tokens); Q-Former 6x256, 4 heads, MLP 1024, 32
queries; FLAN-like T5 6+6x256, 4 heads of 64, gated MLP 1024, vocabulary 8000, head of its own. f32, no dropout. The tokens of 8
frames are joined before the Q-Former (concat).

    train              forward, backward and AdamW on every weight, 4 clips, captions of 12 tokens
    train_frozen_vit   the same with ViT and ln_vision without a graph and without updates
    caption            8 clips: ViT, Q-Former and `language_model.generate` with 5 beams, 20 new tokens, no end token
    caption_vit        of that the ViT alone
    caption_generate   of that `generate` alone

Each case is a warm-up and --rounds rounds; each line of output is JSON: wall seconds (least, median) and the least CPU
seconds of the process, which tell when other work disturbed. DIR gets the model (`config.json`, `model.safetensors`) and
train.{safetensors,json}, caption.{safetensors,json}: exact inputs and results, in the format of scripts/reference/reference.py,
so that the other side does the same work and can prove it. Losses of the first three steps stand in train.losses.json and
train_frozen_vit.losses.json; learning rate 1e-4, betas 0.9 and 0.999, eps 1e-8, weight decay 0.05 on all.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
import transformers
from transformers import Blip2Config, Blip2ForConditionalGeneration, T5Config

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reference"))
from recap_reference import Stages, save  # noqa: E402

FRAMES, SIZE, VOCABULARY = 8, 112, 8000
BEAM = {"num_beams": 5, "length_penalty": 1.0, "max_new_tokens": 20, "end_tokens": []}
ADAMW = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.05}


def build():
    text = T5Config(
        vocab_size=VOCABULARY,
        d_model=256,
        d_kv=64,
        d_ff=1024,
        num_layers=6,
        num_decoder_layers=6,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        dropout_rate=0.0,
    )
    config = Blip2Config(
        vision_config={
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 12,
            "num_attention_heads": 6,
            "image_size": SIZE,
            "patch_size": 14,
            "initializer_range": 0.02,
        },
        qformer_config={
            "hidden_size": 256,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "intermediate_size": 1024,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        text_config=text,
        num_query_tokens=32,
        image_token_index=VOCABULARY - 1,
    )
    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration(config)
    torch.nn.init.normal_(model.query_tokens, std=0.02)
    head = model.language_model.lm_head
    head.weight = torch.nn.Parameter(torch.randn_like(head.weight) * 256**-0.5)
    return model


class FrozenVit(Stages):
    """The ViT and ln_vision run without a graph."""

    def see(self, pixel_values, fusion):
        forward = self.model.vision_model.forward
        self.model.vision_model.forward = torch.no_grad()(forward)
        super().see(pixel_values, fusion)
        self.model.vision_model.forward = forward


def inputs():
    generator = torch.Generator().manual_seed(1)
    train = torch.randn(4, FRAMES, 3, SIZE, SIZE, generator=generator)
    labels = torch.randint(2, VOCABULARY - 1, (4, 12), generator=generator)
    return train, labels, torch.randn(8, FRAMES, 3, SIZE, SIZE, generator=generator)


def measure(name, rounds, act):
    """Times `act` and prints a line."""
    act()
    wall, cpu = [], []
    for _ in range(rounds):
        start, start_cpu = time.perf_counter(), time.process_time()
        act()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    figures = {
        "case": name,
        "seconds_min": round(min(wall), 4),
        "seconds_median": round(statistics.median(wall), 4),
        "cpu_seconds_min": round(min(cpu), 4),
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    print(json.dumps(figures), flush=True)


def train(directory, name, rounds):
    """Steps from the saved weights; the losses of the first three are kept."""
    model = Blip2ForConditionalGeneration.from_pretrained(directory).train()
    is_frozen = name == "train_frozen_vit"
    if is_frozen:
        model.vision_model.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], **ADAMW)
    pixel_values, labels, _ = inputs()
    kind, losses = FrozenVit if is_frozen else Stages, []

    def step():
        optimizer.zero_grad(set_to_none=True)
        stages = kind(model, pixel_values, "concat", labels=labels)
        stages.loss.backward()
        optimizer.step()
        losses.append(stages.loss.item())
        return stages

    measure(name, rounds, step)
    said = {"losses": losses[:3], "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad)}
    (Path(directory) / f"{name}.losses.json").write_text(json.dumps(said, indent=2) + "\n")


def write_inputs(directory, model):
    """What both sides read, and what they ought to find."""
    pixel_values, labels, clips = inputs()
    with torch.no_grad():
        stages = Stages(model, pixel_values, "concat", labels=labels)
        said = {"fusion": "concat", "frames": FRAMES, **BEAM}
        tensors = {"pixel_values": pixel_values, "labels": labels, "logits": stages.logits, "loss": stages.loss[None]}
        save(directory / "train", tensors, said)
        ids, scores = Stages(model, clips, "concat").generate(**BEAM)
        tensors = {"pixel_values": clips, "generated_beam": ids, "generated_beam_scores": scores}
        save(directory / "caption", tensors, said)


@torch.no_grad()
def caption(model, rounds):
    _, _, clips = inputs()
    stages = Stages(model, clips, "concat")
    measure("caption", rounds, lambda: Stages(model, clips, "concat").generate(**BEAM))
    measure("caption_vit", rounds, lambda: model.vision_model(clips.flatten(0, 1)))
    measure("caption_generate", rounds, lambda: stages.generate(**BEAM))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", required=True, type=Path, help="directory for the model and the inputs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["train", "train_frozen_vit", "caption"])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if not (given.save / "caption.json").exists():
        build().save_pretrained(given.save)
        write_inputs(given.save, Blip2ForConditionalGeneration.from_pretrained(given.save).eval())
    model = Blip2ForConditionalGeneration.from_pretrained(given.save).eval()
    for name in ("train", "train_frozen_vit"):
        if given.only in (None, name):
            train(given.save, name, given.rounds)
    if given.only in (None, "caption"):
        caption(model, given.rounds)


if __name__ == "__main__":
    main()
