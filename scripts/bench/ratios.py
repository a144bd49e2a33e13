"""Prints, for each case that both sides timed, the medians over all turns and their ratio. Called by blip2.sh."""

import json
import statistics
import sys

PAIRS = [
    ("training step", "train", ["train", "train_in_halves"]),
    ("training step, ViT frozen", "train_frozen_vit", ["train_frozen_vit", "train_frozen_vit_in_halves"]),
    ("beam-5 captions of 8 clips", "caption", ["caption"]),
    ("of that the ViT", "caption_vit", ["caption_vit"]),
]


def main():
    times = {}
    for line in open(sys.argv[1]):
        run = json.loads(line)
        times.setdefault((run["side"], run["case"]), []).append(run["seconds_min"])
    print("| what | PyTorch, s | Recap, s | PyTorch / Recap |\n| --- | ---: | ---: | ---: |")
    for what, peer, ours in PAIRS:
        theirs = statistics.median(times["torch", peer])
        best = min((statistics.median(times["recap", case]), case) for case in ours)
        note = " (two halves side by side)" if best[1].endswith("halves") else ""
        print(f"| {what}{note} | {theirs:.2f} | {best[0]:.2f} | {theirs / best[0]:.2f} |")
    turns = len(times["torch", "train"])
    print(f"\nmedians of {turns} turns, each the least of its rounds; spread of PyTorch's training step "
          f"{min(times['torch', 'train']):.2f} to {max(times['torch', 'train']):.2f} s")


if __name__ == "__main__":
    main()
