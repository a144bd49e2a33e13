"""Prints, for each case, the medians of all sides over all turns, and their ratios. Called by blip2.sh."""

import json
import statistics
import sys

CASES = {
    "train": "training step, all weights",
    "train_frozen_vit": "the same, ViT frozen",
    "scst": "SCST step, ViT frozen",
    "first_stage": "ITC, ITM and ITG step",
    "caption": "beam-5 captions of 8 clips",
    "caption_vit": "of that the ViT",
    "caption_generate": "of that all after the ViT",
}


def main():
    times, peaks, work = {}, {}, {}
    for line in open(sys.argv[1]):
        run = json.loads(line)
        times.setdefault((run["side"], run["case"]), []).append(run["seconds_min"])
        peaks.setdefault((run["side"], run["case"]), []).append(run["peak_mb"])
        if "gflop" in run:
            work[run["case"]] = run["gflop"]
    print("| case | PyTorch, s | compiled, s | ONNX Runtime, s | Recap, s | Recap / PyTorch | GFLOP/s | peak memory, MB: PyTorch | Recap |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for case, title in CASES.items():
        median = {side: statistics.median(times[side, case]) for side in ("torch", "compiled", "onnxruntime", "recap") if (side, case) in times}
        cell = {side: f"{seconds:.3f}" for side, seconds in median.items()}
        ours, theirs = median["recap"], median["torch"]
        print(
            f"| {title} | {cell['torch']} | {cell.get('compiled', '')} | {cell.get('onnxruntime', '')} | {cell['recap']} "
            f"| {ours / theirs:.2f} | {work[case] / ours:.0f} | {max(peaks['torch', case])} | {max(peaks['recap', case]):.0f} |"
        )
    spread = times["torch", "train"]
    print(f"\nmedians of {len(spread)} turns, each the least of its rounds; spread of PyTorch's training step "
          f"{min(spread):.2f} to {max(spread):.2f} s\n")
    print("| case, on one core | s | GFLOP/s in products | products | attention | activations | norms | biases | losses | the rest |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")


if __name__ == "__main__":
    main()
