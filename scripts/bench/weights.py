"""Times beam-5 captions of a clip of two frames with weights in f32, bf16 and int8, for T5s of several sizes.

usage: scripts/bench/weights.py PROGRAM     the benchmark full_size, which
    cargo bench --workspace --profile dev --bench full_size --no-run
builds and names. Weights are random. Prints the better of two medians of five captions, in turns.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

FIXTURE = pathlib.Path(__file__).parents[2] / "model/tests/fixtures/parity/t5-flan/config.json"
# width, width of the feed-forward layers, width and number of heads, blocks of each stack, vocabulary
SIZES = {
    "4 + 4 blocks of 256": (256, 512, 32, 8, 4, 2000),
    "6 + 6 blocks of 512": (512, 1024, 64, 8, 6, 8000),
    "12 + 12 blocks of 768": (768, 2048, 64, 12, 12, 32128),
}


def config(d_model, d_ff, d_kv, heads, layers, vocabulary):
    sizes = json.loads(FIXTURE.read_text())
    sizes["text_config"] |= dict(
        d_model=d_model, d_ff=d_ff, d_kv=d_kv, num_heads=heads, num_layers=layers, num_decoder_layers=layers,
        vocab_size=vocabulary, tie_word_embeddings=False)
    sizes["vision_config"] |= dict(
        hidden_size=192, intermediate_size=768, num_hidden_layers=4, num_attention_heads=3, image_size=224,
        patch_size=16)
    sizes["qformer_config"] |= dict(
        hidden_size=192, intermediate_size=768, num_attention_heads=3, encoder_hidden_size=192, vocab_size=100)
    return sizes | dict(num_query_tokens=32, image_token_index=vocabulary - 1)


def seconds(program, path, weights):
    command = [program, "--config", path, "--device", "cpu", "--weights", weights, "--batch", "1", "--frames", "2",
               "--rounds", "5", "--captions-only"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    count = int(re.search(r"parameters: (\d+)", output)[1])
    return float(re.search(r"recap caption: .* least, ([\d.]+) s median", output)[1]), count


def main(program):
    print("| language model | all values | f32, s | bf16, s | int8, s |")
    print("| --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for name, sizes in SIZES.items():
            path = pathlib.Path(folder) / "config.json"
            path.write_text(json.dumps(config(*sizes)))
            times = {"f32": [], "bf16": [], "int8": []}
            for _ in range(2):
                for weights, own in times.items():
                    median, count = seconds(program, str(path), weights)
                    own.append(median)
            cells = " | ".join(f"{min(own):.3f}" for own in times.values())
            print(f"| {name} | {count / 1e6:.0f} M | {cells} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
