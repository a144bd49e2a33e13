"""Makes model/tests/fixtures/parity/instructblip*: tiny random InstructBLIPs of transformers and what they compute.

    pip install torch==2.15 transformers==5.23 safetensors
    python scripts/reference/instructblip.py

A Q-Former of InstructBLIP reads the instruction beside its queries (its own vocabulary, padded on the right). Models:

    instructblip-t5, instructblip-llama   InstructBlipForConditionalGeneration, one frame
    instructblipvideo-llama               InstructBlipVideoForConditionalGeneration, four frames: each goes through the
                                          Q-Former alone, then the queries of all frames stand one after the other

Each directory holds the model and `reference.{safetensors,json}` in the format of reference.py, with `qformer_input_ids` and
`qformer_attention_mask` [b,l] beside; query_output is [b*f,q,d], projected [b,f*q,d]. The features are those of
transformers' own get_image_features and get_video_features; the rest is as in reference.py.
"""

import json
import shutil

import torch
import transformers
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration
from transformers import InstructBlipVideoConfig, InstructBlipVideoForConditionalGeneration

from fixtures import LONG, OUT, QFORMER, VISION, VOCABULARY, draw_weights, llama, swap_tokens, t5
from recap_reference import IGNORED, Stages, gradients, random_ids, save

COMMAND = "python scripts/reference/instructblip.py"


class InstructStages(Stages):
    """Stages of an InstructBLIP; `instruction` is the Q-Former's text and its mask."""

    def __init__(self, model, pixel_values, instruction, *rest):
        self.instruction = instruction
        super().__init__(model, pixel_values, None, *rest)

    def see(self, pixel_values, fusion):
        ids, mask = self.instruction
        is_video = hasattr(self.model, "get_video_features")
        look = self.model.get_video_features if is_video else self.model.get_image_features
        pixels = pixel_values if is_video else pixel_values[:, 0]
        seen = look(pixels, qformer_input_ids=ids, qformer_attention_mask=mask, return_dict=True)
        self.vision_features = seen.last_hidden_state
        self.query_output = seen.qformer_outputs.last_hidden_state[:, : self.model.config.num_query_tokens]
        self.projected = seen.pooler_output


MODELS = {
    "instructblip-t5": (
        lambda: t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False, dense_act_fn="gelu"),
        InstructBlipConfig,
        InstructBlipForConditionalGeneration,
        1,
    ),
    "instructblip-llama": (llama, InstructBlipConfig, InstructBlipForConditionalGeneration, 1),
    "instructblipvideo-llama": (llama, InstructBlipVideoConfig, InstructBlipVideoForConditionalGeneration, 4),
}


def build(name, seed):
    text, config_kind, kind, frames = MODELS[name]
    token = "video_token_index" if frames > 1 else "image_token_index"
    config = config_kind(
        vision_config=dict(VISION),
        qformer_config={**QFORMER, "max_position_embeddings": 11},
        text_config=text(),
        num_query_tokens=5,
        **{token: VOCABULARY - 1},
    )
    torch.manual_seed(seed)
    model = kind(config).eval()
    head = model.language_model.lm_head
    head.weight = torch.nn.Parameter(torch.zeros_like(head.weight))
    draw_weights(model, seed, True)
    return model


def inputs(model, frames):
    generator, text, size = torch.Generator().manual_seed(41), model.config.text_config, VISION["image_size"]
    pixel_values = torch.randn(2, frames, 3, size, size, generator=generator)
    instruction = torch.randint(1, QFORMER["vocab_size"], (2, 6), generator=generator)
    mask = torch.ones_like(instruction)
    mask[1, 4:] = 0
    instruction = instruction.masked_fill(mask == 0, 0)
    special = [text.pad_token_id, VOCABULARY - 1]
    input_ids = random_ids(generator, (2, 4), VOCABULARY, special)
    labels = random_ids(generator, (2, 6), VOCABULARY, special)
    labels[1, 4:] = IGNORED
    return pixel_values, (instruction, mask), input_ids, None, labels


def lively_model(name):
    """The first draw of weights with a caption that ends midway and another that does not."""
    for seed in range(51, 1000):
        model = build(name, seed)
        stages = InstructStages(model, *inputs(model, MODELS[name][3]))
        greedy, _ = stages.generate(num_beams=1, end_tokens=[], **LONG)
        rows = [row[int(stages.has_encoder) :] for row in greedy.tolist()]
        own = model.language_model.generation_config
        good = [token for token in rows[0][2:8] if token not in rows[0][:2] and token not in rows[1]]
        good = [token for token in good if token not in (own.pad_token_id, own.bos_token_id, own.eos_token_id)]
        if good and min(len(set(row)) for row in rows) >= 5:
            swap_tokens(model, own.eos_token_id, good[0])
            print(name, "weights of seed", seed)
            return model
    raise SystemExit(f"{name}: no seed gives captions that vary")


def make(name):
    _, _, kind, frames = MODELS[name]
    directory = OUT / name
    shutil.rmtree(directory, ignore_errors=True)
    lively_model(name).save_pretrained(directory)
    loaded = {
        dtype: kind.from_pretrained(directory, dtype=dtype, attn_implementation="eager").eval()
        for dtype in (torch.float32, torch.float64)
    }
    model, given = loaded[torch.float32], inputs(loaded[torch.float32], frames)
    stages = InstructStages(model, *given)
    exact = InstructStages(loaded[torch.float64], given[0].double(), *given[1:4])
    pixel_values, (instruction, mask), input_ids, _, labels = given
    tensors = {
        "pixel_values": pixel_values,
        "qformer_input_ids": instruction,
        "qformer_attention_mask": mask,
        "input_ids": input_ids,
        "labels": labels,
        "vision_features": stages.vision_features,
        "query_output": stages.query_output,
        "projected": stages.projected,
        "logits": stages.logits,
        "loss": stages.loss[None],
    }
    beam = {"num_beams": 5, "length_penalty": 1.0}
    for key, setting in {"greedy": {"num_beams": 1}, "beam": beam}.items():
        tensors[f"generated_{key}"], tensors[f"generated_{key}_scores"] = stages.generate(**setting, **LONG)
        if not torch.equal(exact.generate(**setting, **LONG)[0], tensors[f"generated_{key}"]):
            raise SystemExit(f"{name}: {key} hangs on rounding, draw other weights")
    tensors |= gradients(model, stages.loss)
    word_embeddings = model.qformer.embeddings.word_embeddings.weight
    tensors["grad_qformer_word_embeddings"] = word_embeddings.grad
    description = {
        "fusion": "concat_queries",
        "frames": frames,
        **beam,
        **LONG,
        "end_tokens": [model.language_model.generation_config.eos_token_id],
        "command": COMMAND,
    }
    save(directory / "reference", tensors, description)
    size = sum(path.stat().st_size for path in directory.iterdir())
    print(f"{name}: {size / 1000:.0f} kB, loss {stages.loss.item():.4f}, logits' std {stages.logits.std():.2f}")
    print("  greedy", tensors["generated_greedy"].tolist(), "beam", tensors["generated_beam"].tolist())


def main():
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    for name in MODELS:
        make(name)
    print(json.dumps({"bytes": sum(p.stat().st_size for p in OUT.rglob("*") if p.is_file())}))


if __name__ == "__main__":
    main()
