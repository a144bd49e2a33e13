"""Makes a reference for `experiments verify` out of a BLIP-2 checkpoint of transformers, tiny or real, in f32 on the CPU.

    pip install torch==2.15 transformers==5.23 safetensors
    python scripts/reference/reference.py --checkpoint DIR_OR_HUB_NAME --out STEM --frames 3 --fusion concat
    experiments verify --checkpoint DIR --reference STEM.safetensors

Writes STEM.safetensors and STEM.json. Pixels, prompt and labels are drawn by --seed. Tensors:

    pixel_values [b,f,3,S,S]; input_ids and input_mask [b,l] with a prompt (mask only with --padded-prompts);
    labels [b,t], -100 is ignored; vision_features (after ln_vision) [b*f,n,d]; fused_features; query_output; projected;
    logits [b,t,v], those that predict the labels; loss [1], the mean over labels that are not -100;
    generated_greedy, generated_beam: raw output of `generate`, padded with `pad_token_id`, T5's with the decoder's
    start token in front; generated_beam_scores; the gradients of the loss at three tensors;
    with --bfloat16 also logits_bfloat16, of the same model with its weights and arithmetic in bf16.

A decoder-only LM reads [projected; embed(input_ids); embed(labels)], T5's encoder [projected; embed(input_ids)].
No BOS is added. Padded prompts hold their padding on the left for a decoder-only LM (masked tokens take no position, as
in `generate`) and on the right for T5. The JSON says the rest; an empty list of end tokens means that nothing ends.

transformers 5.23 fills what stands behind the end of a beam with the end token, not with padding, where `pad_token_id` is
0: everything behind the first end token is to be left out of a comparison.
"""

import argparse
import sys

import torch

from recap_reference import IGNORED, Stages, gradients, load_model, random_ids, save


def draw_inputs(config, *, frames, batch, prompt_length, label_length, seed, padded_prompts=False, image_size=None):
    """Pixels, prompt, mask of the prompt, labels. Later clips have shorter captions, padded with -100."""
    generator = torch.Generator().manual_seed(seed)
    text, size = config.text_config, image_size or config.vision_config.image_size
    pixel_values = torch.randn(batch, frames, 3, size, size, generator=generator)
    special = [text.pad_token_id, getattr(config, "image_token_index", None)]
    input_ids = input_mask = None
    if prompt_length:
        input_ids = random_ids(generator, (batch, prompt_length), text.vocab_size, special)
        if padded_prompts:
            place = torch.arange(prompt_length).expand(batch, -1)
            missing = torch.arange(batch)[:, None] % prompt_length
            is_kept = place < prompt_length - missing if text.is_encoder_decoder else place >= missing
            input_mask = is_kept.long()
            input_ids = input_ids.masked_fill(~is_kept, text.pad_token_id or 0)
    labels = random_ids(generator, (batch, label_length), text.vocab_size, special)
    for clip in range(1, batch):
        labels[clip, max(1, label_length - 2 * clip) :] = IGNORED
    return pixel_values, input_ids, input_mask, labels


def make_reference(
    model,
    *,
    out,
    frames=1,
    fusion="concat",
    batch=2,
    prompt_length=0,
    label_length=6,
    padded_prompts=False,
    image_size=None,
    num_beams=5,
    max_new_tokens=10,
    length_penalty=1.0,
    repetition_penalty=None,
    min_new_tokens=None,
    early_stopping=None,
    end_tokens=None,
    generations=(),
    bfloat16=None,
    double=None,
    forward_only=False,
    seed=0,
    command=None,
):
    """Runs `model` and writes the reference. `generations` are further settings of `generate`, each a dict, whose ids
    and scores are stored as `generations.INDEX.ids` and `.scores`. `bfloat16` is the same model in bf16, or None.
    `double` is the same in f64: ids that hang on rounding are refused. `forward_only` leaves out generation and gradients,
    for a model that fills the memory."""
    pixel_values, input_ids, input_mask, labels = draw_inputs(
        model.config,
        frames=frames,
        batch=batch,
        prompt_length=prompt_length,
        label_length=label_length,
        seed=seed,
        padded_prompts=padded_prompts,
        image_size=image_size,
    )
    with torch.set_grad_enabled(not forward_only):
        stages = Stages(model, pixel_values, fusion, input_ids, input_mask, labels)
    tensors = {"pixel_values": pixel_values, "input_ids": input_ids, "input_mask": input_mask, "labels": labels}
    for name in ("vision_features", "fused_features", "query_output", "projected", "logits"):
        tensors[name] = getattr(stages, name)
    tensors["loss"] = stages.loss[None]
    settings = {"repetition_penalty": repetition_penalty, "min_new_tokens": min_new_tokens}
    settings = {name: value for name, value in settings.items() if value is not None}
    shared = {"max_new_tokens": max_new_tokens, "end_tokens": end_tokens, **settings}
    stopping = {} if early_stopping is None else {"early_stopping": early_stopping}
    beam = {"num_beams": num_beams, "length_penalty": length_penalty, **shared, **stopping}
    asked = {"generated_greedy": {"num_beams": 1, **shared}, "generated_beam": beam}
    asked |= {f"generations.{index}.ids": generation for index, generation in enumerate(generations)}
    asked = {} if forward_only else asked
    for name, generation in asked.items():
        tensors[name], scores = stages.generate(**generation)
        tensors[f"{name.removesuffix('.ids')}{'.' if '.' in name else '_'}scores"] = scores
    if double is not None:
        exact = Stages(double, pixel_values.double(), fusion, input_ids, input_mask)
        for name, generation in asked.items():
            if not torch.equal(exact.generate(**generation)[0], tensors[name]):
                raise SystemExit(f"{out}: {name} differs in f64, {generation}: draw other weights")
    tensors |= {} if forward_only else gradients(model, stages.loss)
    if bfloat16 is not None:
        halved = Stages(bfloat16, pixel_values.bfloat16(), fusion, input_ids, input_mask, labels)
        tensors["logits_bfloat16"] = halved.logits
    own = model.language_model.generation_config
    description = {
        "fusion": fusion,
        "frames": frames,
        "num_beams": num_beams,
        "max_new_tokens": max_new_tokens,
        "length_penalty": length_penalty,
        **settings,
        **stopping,
        "end_tokens": as_list(own.eos_token_id if end_tokens is None else end_tokens),
        "pad_token_id": own.pad_token_id,
        "decoder_start_token_id": own.decoder_start_token_id,
        "generations": [dict(generation) for generation in generations],
        "command": command,
    }
    save(out, tensors, description)
    return tensors, description


def as_list(tokens):
    return tokens if tokens is None or isinstance(tokens, list) else [tokens]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--out", required=True, help="path without its ending")
    parser.add_argument("--frames", type=int, default=1)
    parser.add_argument("--fusion", choices=["concat", "average"], default="concat")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--prompt-length", type=int, default=0)
    parser.add_argument("--padded-prompts", action="store_true", help="prompts of different lengths")
    parser.add_argument("--label-length", type=int, default=6)
    parser.add_argument("--image-size", type=int, help="another size than the ViT's own: its positions are interpolated")
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--max-new-tokens", type=int, default=10)
    parser.add_argument("--length-penalty", type=float, default=1.0)
    parser.add_argument("--repetition-penalty", type=float)
    parser.add_argument("--min-new-tokens", type=int)
    parser.add_argument("--early-stopping", action="store_true", default=None)
    parser.add_argument("--end-tokens", type=int, nargs="+", help="instead of the model's own")
    parser.add_argument("--forward-only", action="store_true", help="no generation, no gradients")
    parser.add_argument("--bfloat16", action="store_true", help="logits in bf16 too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    tensors, description = make_reference(
        load_model(given.checkpoint),
        out=given.out,
        frames=given.frames,
        fusion=given.fusion,
        batch=given.batch,
        prompt_length=given.prompt_length,
        padded_prompts=given.padded_prompts,
        label_length=given.label_length,
        image_size=given.image_size,
        num_beams=given.beams,
        max_new_tokens=given.max_new_tokens,
        length_penalty=given.length_penalty,
        repetition_penalty=given.repetition_penalty,
        min_new_tokens=given.min_new_tokens,
        early_stopping=given.early_stopping,
        end_tokens=given.end_tokens,
        bfloat16=load_model(given.checkpoint, torch.bfloat16) if given.bfloat16 else None,
        forward_only=given.forward_only,
        seed=given.seed,
        command=" ".join(["python", *sys.argv]),
    )
    for name, tensor in tensors.items():
        if tensor is not None:
            print(f"{name:34} {tuple(tensor.shape)}")
    print("loss", tensors["loss"].item(), "end tokens", description["end_tokens"])


if __name__ == "__main__":
    main()
