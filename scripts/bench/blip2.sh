#!/usr/bin/env bash
# Times a training step and beam-5 captioning of a mid-size BLIP-2, ours and PyTorch's, alternately in one
# run.
#
# usage: scripts/bench/blip2.sh [TURNS] [PYTHON]     PYTHON has torch, transformers and safetensors
set -euo pipefail
turns=${1:-3}
python=${2:-python3}
cd "$(dirname "$0")/../.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cargo bench --quiet --workspace --profile dev --bench blip2 --no-run
"$python" scripts/bench/blip2_torch.py --save "$folder" --rounds 1 > /dev/null
for turn in $(seq "$turns"); do
  echo "turn $turn of $turns" >&2
  "$python" scripts/bench/blip2_torch.py --save "$folder" --rounds 3 | sed 's/^{/{"side": "torch", /' >> "$folder/times.jsonl"
  cargo bench --quiet --workspace --profile dev --bench blip2 -- "$folder" --rounds 3 | grep '^{' >> "$folder/times.jsonl"
done
"$python" scripts/bench/ratios.py "$folder/times.jsonl"
