"""Makes data/tests/fixtures/resize.bin: what BLIP's image processor (transformers) makes of a picture given by a formula.

    pip install pillow numpy transformers==5.23.0
    python scripts/reference/resize.py

The file holds, for each of the CASES (width, height, size), size x size x 3 bytes: the picture resized by Pillow,
bicubic, as BlipImageProcessor does before it scales and normalises. The script checks that against the processor.
"""

from pathlib import Path

import numpy as np
from PIL import Image

CASES = [(61, 47, 24), (20, 33, 48), (128, 96, 32), (50, 50, 50), (3, 200, 16), (320, 240, 64)]
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def picture(width, height):
    """Slopes, edges and fine grain, all in whole numbers: the test makes the same."""
    x, y, c = np.meshgrid(np.arange(width), np.arange(height), np.arange(3), indexing="xy")
    slope = (x * 5 + y * 3 + c * 40) % 256
    edge = np.where((x // 9 + y // 7) % 2 == 0, 255, 0)
    grain = (x * 2654435761 + y * 40503 + c * 97) % 65536 // 256
    return ((slope * 2 + edge + grain) // 4).astype(np.uint8)


def main():
    out = b""
    for width, height, size in CASES:
        pixels = picture(width, height)
        resized = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))
        out += resized.tobytes()
        try:
            from transformers import BlipImageProcessor
            processor = BlipImageProcessor(size={"height": size, "width": size}, image_mean=MEAN, image_std=STD)
            theirs = np.asarray(processor(pixels, return_tensors="np")["pixel_values"])[0]
            ours = ((resized / np.float32(255) - MEAN) / STD).transpose(2, 0, 1)
            print(width, height, size, "largest difference from the processor", np.abs(theirs - ours).max())
        except ImportError as reason:
            print("processor not checked:", reason)
    path = Path(__file__).parents[2] / "data/tests/fixtures/resize.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out)


main()
