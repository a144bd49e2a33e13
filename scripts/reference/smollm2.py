"""A BLIP-2 around a real language model, SmolLM2-135M-Instruct: what scripts/smollm2.sh needs of Python.

    python scripts/reference/smollm2.py make MODEL.gguf WORK     # checkpoint, adapter, pictures with captions, settings
    python scripts/reference/smollm2.py caption WORK             # captions of the pictures by transformers, as JSON
    python scripts/reference/smollm2.py train WORK               # 100 steps in PyTorch
    python scripts/reference/smollm2.py compare WORK RUN         # against Recap's run: losses, weights, ids

The ViT and the Q-Former are small and random, the language model and its tokenizer are SmolLM2's (LLaMA's architecture,
grouped keys, byte-level BPE, tied embeddings), dequantised from GGUF to f32. LoRA of rank 8 on its queries and values is
PEFT's; it and the projection are trained. Each step learns from all 8 pictures, so the order of examples has no effect but rounding. PyTorch trains in f32
and, to tell how far rounding alone leads two programs apart, in f64.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

import training
from recap_reference import IGNORED, Stages, load_model
from train_captioner import file_name, pad

STEPS = 100
SIZE = 56
PICTURES = 8
PROMPT = "a video of"
MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]
SETTINGS = {
    "schedule": "cosine",
    "learning_rate": 2e-5,
    "min_learning_rate": 2e-6,
    "warmup_steps": 10,
    "max_grad_norm": 1.0,
    "beta_1": 0.9,
    "beta_2": 0.999,
    "epsilon": 1e-8,
    "weight_decay": 0.05,
}


def make(gguf, work):
    torch.manual_seed(3)
    work.mkdir(parents=True, exist_ok=True)
    options = {"gguf_file": gguf.name}
    language_model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **options)
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **options)
    vision = dict(hidden_size=96, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4)
    qformer = dict(hidden_size=96, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4)
    config = transformers.Blip2Config(
        vision_config=vision | dict(image_size=SIZE, patch_size=14, initializer_range=0.1),
        qformer_config=qformer | dict(encoder_hidden_size=96),
        text_config=language_model.config.to_dict(),
        num_query_tokens=8,
    )
    model = transformers.Blip2ForConditionalGeneration(config)
    model.language_model = language_model
    torch.nn.init.normal_(model.query_tokens, std=1.0)
    model.save_pretrained(work / "source")
    tokenizer.save_pretrained(work / "source")
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], lora_dropout=0.0)
    get_peft_model(model.language_model, lora).save_pretrained(work / "adapter")
    pictures(work / "pictures")
    (work / "train.toml").write_text(settings(work))


def pictures(folder):
    """Shapes in colours at the ViT's own size, so that nothing is resized; the captions name both."""
    folder.mkdir(exist_ok=True)
    colours = {"red": (210, 40, 40), "green": (40, 170, 60), "blue": (40, 70, 210), "yellow": (220, 200, 50)}
    rows = []
    for colour, value in colours.items():
        for shape in ("circle", "square"):
            image = Image.new("RGB", (SIZE, SIZE), (235, 235, 230))
            draw = ImageDraw.Draw(image)
            box = (12, 12, 44, 44)
            (draw.ellipse if shape == "circle" else draw.rectangle)(box, fill=value)
            name = f"{colour}-{shape}.png"
            image.save(folder / name)
            rows += [{"video": name, "caption": f"a {colour} {shape} on a pale wall", "split": "train"}]
    rows += [rows[0] | {"video": "test.png", "split": "test"}, rows[5] | {"video": "validate.png", "split": "validate"}]
    for row, source in ((rows[-2], rows[0]), (rows[-1], rows[5])):
        # one pixel differs: equal clips of two splits are refused
        image = Image.open(folder / source["video"])
        image.putpixel((0, 0), (0, 0, 0))
        image.save(folder / row["video"])
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def settings(work):
    train = "".join(f"{key} = {json.dumps(value)}\n" for key, value in SETTINGS.items())
    return f"""checkpoint = "{work}/start"
dataset = {{ name = "own", directory = "{work}/pictures" }}
frames.count = 1
model.fusion = "concat"
model.dropout = 0.0
text = {{ prompt = "{PROMPT}", max_tokens = 32 }}
generate = {{ max_new_tokens = 16, min_new_tokens = 0, num_beams = 3 }}

[train]
steps = {STEPS}
evaluate_every = {STEPS}
batch_size = {PICTURES}
micro_batches = 1
warmup_learning_rate = 0.0
group_by_length = false
parameters = {{ "*" = "frozen", "language_projection.*" = 1.0, "*.lora.*" = 1.0 }}
{train}"""


def examples(work, split):
    lines = (work / "pictures/captions.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["split"] == split]


def pixels(work, rows):
    """`[b, 1, 3, S, S]`, normalised as CLIP's."""
    images = [np.asarray(Image.open(work / "pictures" / row["video"]).convert("RGB")) for row in rows]
    values = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    values = (values - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    return values[:, None]


def prompt_ids(tokenizer, count):
    return torch.tensor([tokenizer(PROMPT).input_ids] * count)


def caption(work, model=None):
    """Beam search over the projected queries and the prompt, decoded by the tokenizer."""
    model = model or load_model(work / "source")
    tokenizer = transformers.AutoTokenizer.from_pretrained(work / "source")
    rows = examples(work, "train")[:4]
    stages = Stages(model, pixels(work, rows), "concat", prompt_ids(tokenizer, len(rows)))
    ids = stages.generate(num_beams=3, max_new_tokens=16)[0]
    return {row["video"]: text.strip() for row, text in zip(rows, tokenizer.batch_decode(ids, skip_special_tokens=True))}


def train_in(work, dtype):
    """PyTorch's losses, and the weights under the names of a run's files."""
    model = load_model(work / "source")
    model.language_model = PeftModel.from_pretrained(model.language_model, work / "adapter", is_trainable=True)
    model = model.to(dtype).eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith("language_projection.") or "lora_" in name
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    tokenizer = transformers.AutoTokenizer.from_pretrained(work / "source")
    rows = examples(work, "train")
    end = model.config.text_config.eos_token_id
    # the caption continues the prompt: its first token contains the space
    labels = pad([tokenizer(" " + row["caption"]).input_ids + [end] for row in rows], IGNORED)
    seen, ids = pixels(work, rows).to(dtype), prompt_ids(tokenizer, len(rows))

    def parts(_):
        logits = Stages(model, seen, "concat", ids, None, labels).logits
        yield torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)

    steps, _ = training.train(parameters, parts, SETTINGS, None)
    weights = {file_name(name): value.detach().clone().contiguous() for name, value in parameters.items()}
    return [step["loss"] for step in steps], weights, caption(work, model) if dtype == torch.float32 else None


def train(work):
    training.STEPS = STEPS
    losses, weights, captions = train_in(work, torch.float32)
    exact_losses, exact, _ = train_in(work, torch.float64)
    save_file(weights, work / "trained.safetensors")
    rounding = {"losses": exact_losses, "weights": differences(weights, exact)[0]}
    (work / "trained.json").write_text(json.dumps({"losses": losses, "captions": captions, "float64": rounding}))


def largest(losses, others):
    return max(abs(a - b) / b for a, b in zip(losses, others, strict=True))


def differences(weights, others):
    """The largest difference of a weight, of its tensor's largest, and the tensor."""
    return max(((weights[n] - others[n]).abs().max().item() / weights[n].abs().max().item(), n) for n in weights)


def recap_losses(run):
    """The losses that the dashboard's log has, one a step and the mean at the end."""
    (file,) = (run / "dashboard/train").rglob("Loss.log")
    return [float(line.split(",")[0]) for line in file.read_text().splitlines() if not line.endswith(",final")]


def compare(work, run):
    ours = load_file(run / "best/trained.safetensors")
    # PEFT wrapped the language model here, and the whole BLIP-2 in a run's files
    adapter = load_file(run / "best/adapter_model.safetensors")
    ours |= {name.replace("base_model.model.language_model.", "base_model.model."): value for name, value in adapter.items()}
    theirs, expected = load_file(work / "trained.safetensors"), json.loads((work / "trained.json").read_text())
    start = load_file(work / "source/model.safetensors") | load_file(work / "adapter/adapter_model.safetensors")
    moved = max((theirs[name] - start[name]).abs().max().item() for name in theirs)
    losses, single, double = recap_losses(run), expected["losses"], expected["float64"]["losses"]
    print(f"{len(theirs)} tensors, largest movement {moved:.1e}\nstep  Recap     PyTorch   difference  PyTorch in f64: difference")
    for step in (1, 10, 20, 50, STEPS):
        own, other, exact = losses[step - 1], single[step - 1], double[step - 1]
        print(f"{step:4}  {own:.6f}  {other:.6f}  {abs(own / other - 1):.1e}     {abs(exact / other - 1):.1e}")
    (weight, name), rounding = differences(theirs, ours), expected["float64"]["weights"]
    print(f"largest difference of a weight, of its tensor's largest: {weight:.1e}, {name} (PyTorch in f64: {rounding:.1e})")
    if largest(losses, single) > 10 * largest(double, single) or weight > 10 * rounding:
        raise SystemExit("training differs by more than rounding explains")


def main():
    torch.set_num_threads(2)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    match sys.argv[1:]:
        case ["make", gguf, work]:
            make(Path(gguf), Path(work))
        case ["caption", work]:
            print(json.dumps(caption(Path(work)), indent=1))
        case ["train", work]:
            train(Path(work))
        case ["compare", work, run]:
            compare(Path(work), Path(run))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
