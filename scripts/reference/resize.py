"""Makes data/tests/fixtures/resize.bin and resize_lavis.bin: a picture given by a formula, resized as BLIP's image
processor and as LAVIS's video transform do it. Given image files too, it compares what our reader makes of them with
BLIP's image processor.

    pip install torch pillow numpy transformers==5.23.0
    python scripts/reference/resize.py                                   # the fixtures
    cargo build -p data --example preprocess
    python scripts/reference/resize.py --compare target/debug/examples/preprocess 224 FRAME.jpg...

Each file holds, for each of the CASES (width, height, size), size x size x 3 bytes. For `resize.bin` these are Pillow's,
bicubic, as BlipImageProcessor makes them before it scales and normalises (checked against it here); for
`resize_lavis.bin` torch's `interpolate(mode="bicubic", align_corners=False)` of floats, then `.to(torch.uint8)`, which
is LAVIS's RandomResizedCropVideo with the whole frame as its crop, then its ToUint8.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import BlipImageProcessor

CASES = [(61, 47, 24), (20, 33, 48), (128, 96, 32), (50, 50, 50), (3, 200, 16), (320, 240, 64)]
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
FIXTURES = Path(__file__).parents[2] / "data/tests/fixtures"


def picture(width, height):
    """Slopes, edges and fine grain, all in whole numbers: the test makes the same."""
    x, y, c = np.meshgrid(np.arange(width), np.arange(height), np.arange(3), indexing="xy")
    slope = (x * 5 + y * 3 + c * 40) % 256
    edge = np.where((x // 9 + y // 7) % 2 == 0, 255, 0)
    grain = (x * 2654435761 + y * 40503 + c * 97) % 65536 // 256
    return ((slope * 2 + edge + grain) // 4).astype(np.uint8)


def processor(size):
    return BlipImageProcessor(size={"height": size, "width": size}, image_mean=MEAN.tolist(), image_std=STD.tolist())


def processed(pixels, size):
    """What BLIP's image processor makes of a picture, float32 [3, size, size]."""
    return np.asarray(processor(size)(Image.fromarray(pixels), return_tensors="pt")["pixel_values"])[0]


def in_levels(difference):
    """A difference of normalised pixels in steps of 1/255."""
    return np.abs(difference * STD[:, None, None] * 255).max()


def fixtures():
    blip, lavis = b"", b""
    for width, height, size in CASES:
        pixels = picture(width, height)
        resized = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))
        blip += resized.tobytes()
        ours = ((resized / np.float32(255) - MEAN) / STD).transpose(2, 0, 1)
        off = in_levels(processed(pixels, size) - ours)
        print(width, height, size, f"Pillow against the processor: {off:.3f} levels")
        frames = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
        frames = torch.nn.functional.interpolate(frames, (size, size), mode="bicubic", align_corners=False)
        lavis += frames.to(torch.uint8)[0].permute(1, 2, 0).numpy().tobytes()
    FIXTURES.mkdir(parents=True, exist_ok=True)
    (FIXTURES / "resize.bin").write_bytes(blip)
    (FIXTURES / "resize_lavis.bin").write_bytes(lavis)


def compare(program, size, files):
    with tempfile.TemporaryDirectory() as folder:
        # JPEG decoders differ by a level or two; PNG has one reading.
        pictures = [Image.open(file).convert("RGB") for file in files]
        copies = [str(Path(folder) / f"{i}.png") for i in range(len(files))]
        for image, copy in zip(pictures, copies):
            image.save(copy)
        out = subprocess.run([program, str(size), *copies], check=True, capture_output=True).stdout
    ours = np.frombuffer(out, np.float32).reshape(len(files), 3, size, size)
    worst, off = 0.0, 0
    for image, values in zip(pictures, ours):
        difference = values - processed(np.asarray(image), size)
        worst = max(worst, in_levels(difference))
        off += (np.abs(difference * STD[:, None, None] * 255) > 0.5).mean() / len(files)
    print(f"{len(files)} images at {size}: largest difference {worst:.3f} of 255, {off:.3%} of values differ by one level")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--compare"]:
        compare(sys.argv[2], int(sys.argv[3]), sys.argv[4:])
    else:
        fixtures()
