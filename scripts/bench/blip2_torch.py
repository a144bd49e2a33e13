"""Times PyTorch and transformers on a mid-size random BLIP-2, the peer of our own benchmark on the CPU.

    pip install torch==2.15 transformers==5.23 safetensors onnx onnxruntime
    python scripts/bench/blip2_torch.py --save DIR [--rounds 5] [--threads 2] [--only CASE] [--compile] [--onnx]

Model: ViT 12x384, 6 heads, MLP 1536, patch 14, pictures of 112 px (65 tokens); Q-Former 6x256, 4 heads, MLP 1024, 32
queries; FLAN-like T5 6+6x256, 4 heads of 64, gated MLP 1024, vocabulary 8000, head of its own. f32, no dropout. The tokens
of 8 frames are joined before the Q-Former (concat).

    train              forward, backward and AdamW on every weight, 4 clips, captions of 12 tokens
    train_frozen_vit   the same with ViT and ln_vision without a graph and without updates
    scst               frozen ViT; 5 samples of 12 tokens a clip, the gradient of their log-probabilities, AdamW
    first_stage        frozen ViT; ITC, ITM (96 rows) and ITG of 32 pictures and texts of 12 tokens, AdamW
    caption            8 clips: ViT, Q-Former and `language_model.generate` with 5 beams, 20 new tokens, no end token
    caption_vit        of that the ViT alone
    caption_generate   of that all after the ViT

Each case is a warm-up and --rounds rounds; each line of output is JSON. --compile runs what is inside the optimizer's step,
and the ViT, through torch.compile; --onnx times the ViT in ONNX Runtime. DIR gets the model and the inputs; the losses of
the first three steps stand in train.losses.json and train_frozen_vit.losses.json: learning rate 1e-4, betas 0.9 and 0.999,
eps 1e-8, weight decay 0.05 on all.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import torch
import transformers
from transformers import Blip2Config, Blip2ForConditionalGeneration, T5Config
from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerModel, Blip2TextEmbeddings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reference"))
from recap_reference import Stages, save  # noqa: E402

FRAMES, SIZE, VOCABULARY = 8, 112, 8000
SIDE = "torch"
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


def measure(name, rounds, act, side=None):
    """Times `act` and prints a line."""
    act()
    wall, cpu = [], []
    for _ in range(rounds):
        start, start_cpu = time.perf_counter(), time.process_time()
        act()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    figures = {
        "side": side or SIDE,
        "case": name,
        "seconds_min": round(min(wall), 4),
        "seconds_median": round(statistics.median(wall), 4),
        "cpu_seconds_min": round(min(cpu), 4),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    print(json.dumps(figures), flush=True)


def train(directory, name, rounds, wrap):
    """Steps from the saved weights; the losses of the first three are kept."""
    model = Blip2ForConditionalGeneration.from_pretrained(directory).train()
    is_frozen = name != "train"
    if is_frozen:
        model.vision_model.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], **ADAMW)
    pixel_values, labels, _ = inputs()
    kind, losses = FrozenVit if is_frozen else Stages, []

    def caption_loss():
        return kind(model, pixel_values, "concat", labels=labels).loss

    def self_critical_loss():
        projected = kind(model, pixel_values, "concat").projected
        with torch.no_grad():
            mask = torch.ones(projected.shape[:2], dtype=torch.long)
            ids = model.language_model.generate(
                inputs_embeds=projected.detach(), attention_mask=mask, do_sample=True, top_k=0, num_return_sequences=5,
                max_new_tokens=12, min_new_tokens=12, eos_token_id=None,
            )[:, 1:].contiguous()
        scored = model.language_model(inputs_embeds=projected.repeat_interleave(5, 0), labels=ids).logits.log_softmax(-1)
        chosen = scored.gather(-1, ids[..., None])[..., 0]
        rewards = torch.tensor([1.0, -1.0]).repeat(len(ids) // 2)[:, None]
        return -(chosen * rewards).mean()

    loss_of = wrap(self_critical_loss if name == "scst" else caption_loss)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    measure(name, rounds, step)
    if name != "scst" and wrap is eager:
        said = {"losses": losses[:3], "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad)}
        (Path(directory) / f"{name}.losses.json").write_text(json.dumps(said, indent=2) + "\n")


def first_stage(model, rounds, wrap):
    """ITC, ITM and ITG as LAVIS computes them, on transformers' Q-Former with its text path."""
    b, t, queries = 32, 12, 32
    config = model.config.qformer_config.__class__(**{**model.config.qformer_config.to_dict(), "use_qformer_text_input": True,
                                                      "vocab_size": VOCABULARY, "max_position_embeddings": 32})
    torch.manual_seed(3)
    qformer, embeddings = Blip2QFormerModel(config).train(), Blip2TextEmbeddings(config).train()
    query_tokens = torch.nn.Parameter(torch.randn(1, queries, 256) * 0.02)
    heads = torch.nn.ModuleDict({"vision": torch.nn.Linear(256, 256), "text": torch.nn.Linear(256, 256),
                                 "itm": torch.nn.Linear(256, 2), "dense": torch.nn.Linear(256, 256),
                                 "norm": torch.nn.LayerNorm(256), "norm_vision": torch.nn.LayerNorm(384)})
    bias, temperature = torch.nn.Parameter(torch.zeros(VOCABULARY)), torch.nn.Parameter(torch.tensor(0.07))
    words = embeddings.word_embeddings.weight
    parameters = [*qformer.parameters(), *embeddings.parameters(), *heads.parameters(), query_tokens, bias, temperature]
    optimizer = torch.optim.AdamW(parameters, **ADAMW)
    pixels = inputs()[0].flatten(0, 1)[:b]
    ids = torch.randint(2, VOCABULARY - 2, (b, t), generator=torch.Generator().manual_seed(4))
    unit, cross_entropy = torch.nn.functional.normalize, torch.nn.functional.cross_entropy
    wrong = (torch.arange(b) + 1) % b

    def read(ids, image, mask=None):
        """Queries and text together, or the text alone."""
        query = query_tokens.expand(len(ids), -1, -1) if image is not None else None
        both = embeddings(input_ids=ids, query_embeds=query)
        return qformer(query_embeds=both, query_length=0 if query is None else queries, attention_mask=mask,
                       encoder_hidden_states=image).last_hidden_state

    def loss_of():
        with torch.no_grad():
            tokens = model.vision_model.encoder(model.vision_model.embeddings(pixels)).last_hidden_state
        image = heads["norm_vision"](tokens)
        seen = qformer(query_embeds=query_tokens.expand(b, -1, -1), encoder_hidden_states=image).last_hidden_state
        of_image = unit(heads["vision"](seen), dim=-1)
        of_text = unit(heads["text"](read(ids, None)[:, 0]), dim=-1)
        to_text = (of_image @ of_text.T).amax(1) / temperature
        to_image = (of_image @ of_text.T).amax(1).T / temperature
        targets = torch.arange(b)
        itc = (cross_entropy(to_text, targets, label_smoothing=0.1) + cross_entropy(to_image, targets, label_smoothing=0.1)) / 2
        images, texts = torch.cat([image, image[wrong], image]), torch.cat([ids, ids, ids[wrong]])
        logits = heads["itm"](read(texts, images)[:, :queries]).mean(1)
        itm = cross_entropy(logits, torch.cat([torch.ones(b), torch.zeros(2 * b)]).long())
        order = torch.ones(queries + t, queries + t, dtype=torch.bool).tril()
        order[:queries, :queries], order[:queries, queries:] = True, False
        written = read(ids, image, order.expand(b, 1, -1, -1))[:, queries:]
        hidden = heads["norm"](torch.nn.functional.gelu(heads["dense"](written)))
        scores = (hidden @ words.T + bias)[:, :-1]
        itg = cross_entropy(scores.flatten(0, 1), ids[:, 1:].flatten(), label_smoothing=0.1)
        return itc + itm + itg

    compiled = wrap(loss_of)

    def step():
        optimizer.zero_grad(set_to_none=True)
        compiled().backward()
        optimizer.step()

    measure("first_stage", rounds, step)


def eager(function):
    return function


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
def caption(model, rounds, only, wrap):
    _, _, clips = inputs()
    if only in (None, "caption"):
        measure("caption", rounds, lambda: Stages(model, clips, "concat").generate(**BEAM))
    if only in (None, "caption_vit"):
        vit = wrap(model.vision_model)
        measure("caption_vit", rounds, lambda: vit(clips.flatten(0, 1)))
    if only in (None, "caption_generate"):
        seen, forward = model.vision_model(clips.flatten(0, 1)), model.vision_model.forward
        model.vision_model.forward = lambda *_, **__: seen
        measure("caption_generate", rounds, lambda: Stages(model, clips, "concat").generate(**BEAM))
        model.vision_model.forward = forward


@torch.no_grad()
def onnx_vit(model, directory, rounds, threads):
    """The ViT in ONNX Runtime."""
    import onnxruntime

    clips, path = inputs()[2].flatten(0, 1), Path(directory) / "vit.onnx"
    if not path.exists():
        class Encoder(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.vit = model.vision_model

            def forward(self, pixels):
                return self.vit(pixels).last_hidden_state

        torch.onnx.export(Encoder(), (clips,), str(path), input_names=["pixels"], dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    measure("caption_vit", rounds, lambda: session.run(None, {"pixels": clips.numpy()}), side="onnxruntime")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", required=True, type=Path, help="directory for the model and the inputs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--onnx", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if not (given.save / "caption.json").exists():
        build().save_pretrained(given.save)
        write_inputs(given.save, Blip2ForConditionalGeneration.from_pretrained(given.save).eval())
    model = Blip2ForConditionalGeneration.from_pretrained(given.save).eval()
    if given.onnx:
        onnx_vit(model, given.save, given.rounds, given.threads)
        return
    wrap = eager
    if given.compile:
        globals()["SIDE"], wrap = "compiled", torch.compile
    for name in ("train", "train_frozen_vit", "scst"):
        if given.only in (None, name):
            train(given.save, name, given.rounds, wrap)
    if given.only in (None, "first_stage"):
        first_stage(model, given.rounds, wrap)
    caption(model, given.rounds, given.only, wrap)


if __name__ == "__main__":
    main()
