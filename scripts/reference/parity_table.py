"""Runs `experiments verify` on every parity fixture and prints the largest relative difference of each stage.

    cargo build -p experiments && python scripts/reference/parity_table.py target/debug/experiments
"""

import json
import subprocess
import sys
from pathlib import Path

FIXTURES = Path(__file__).resolve().parents[2] / "model/tests/fixtures/parity"
STAGES = ["vision_features", "fused_features", "query_output", "projected", "logits", "loss", "scores", "gradients", "ids"]


def stage(name):
    if name.startswith("grad_"):
        return "gradients"
    if name.endswith("scores"):
        return "scores"
    return "ids" if name.endswith(".ids") or name.startswith("generated") else name


def main():
    print("| model | references | " + " | ".join(STAGES) + " |\n| --- | ---: |" + " ---: |" * len(STAGES))
    for folder in sorted(FIXTURES.iterdir()):
        references = [path for path in sorted(folder.glob("*.safetensors")) if path.stem != "model"]
        if not (folder / "config.json").exists():
            continue
        worst, sequences, differing = {}, 0, 0
        for reference in references:
            command = [sys.argv[1], "verify", "--json", "--checkpoint", folder, "--reference", reference]
            compared = json.loads(subprocess.run(command, capture_output=True, check=False).stdout)
            for tensor in compared["tensors"]:
                name = stage(tensor["name"])
                if name == "ids":
                    sequences += tensor["shape"][0]
                    differing += int(tensor["absolute"])
                else:
                    worst[name] = max(worst.get(name, 0.0), tensor["relative"])
        cells = [f"{worst[name]:.0e}" if name in worst else "" for name in STAGES[:-1]]
        print(f"| {folder.name} | {len(references)} | " + " | ".join(cells) + f" | {differing} of {sequences} differ |")


if __name__ == "__main__":
    main()
