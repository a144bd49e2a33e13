#!/usr/bin/env bash
# What the CPU can do at most, and training steps, pretraining and captioning of a mid-size BLIP-2: ours,
# PyTorch's and ONNX Runtime's, alternately in one run. Prints the tables of docs/benchmarks/blip2-cpu.md.
#
# usage: scripts/bench/blip2.sh [TURNS] [PYTHON]     PYTHON has torch, transformers, safetensors, onnxruntime
set -euo pipefail
turns=${1:-3}
python=${2:-python3}
cd "$(dirname "$0")/../.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
peer=("$python" scripts/bench/blip2_torch.py --save "$folder" --threads "$(nproc)")
ours() { cargo bench --quiet --workspace --profile dev --bench blip2 -- "$@"; }
cargo bench --quiet --workspace --profile dev --bench blip2 --no-run
"${peer[@]}" --rounds 1 --only caption_vit > /dev/null

ours
cases=(train train_frozen_vit scst first_stage caption caption_vit caption_generate)
for turn in $(seq "$turns"); do
  echo "turn $turn of $turns" >&2
  for case in "${cases[@]}"; do # a process each, whose peak memory is the case's
    "${peer[@]}" --rounds 3 --only "$case" >> "$folder/times.jsonl"
    ours "$folder" --rounds 3 --only "$case" | grep '^{' >> "$folder/times.jsonl"
  done
  "${peer[@]}" --rounds 3 --onnx >> "$folder/times.jsonl" || echo "ONNX Runtime failed" >&2
done
for case in train train_frozen_vit caption_vit; do # its compiler takes minutes
  timeout 900 "${peer[@]}" --rounds 3 --only "$case" --compile >> "$folder/times.jsonl" \
    || echo "torch.compile failed: $case" >&2
done
"$python" scripts/bench/ratios.py "$folder/times.jsonl"
ours "$folder" --breakdown
