#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: compares the GPU's results with the references and times a full-size
# BLIP-2.
#
# usage: scripts/gpu-check.sh [FOLDER] [PYTHON]
#
# FOLDER   contains `experiments` and `full_size`, built with `--features cuda`; by default they are built
# here PYTHON   has torch with CUDA, transformers and safetensors; without them the comparison is skipped
#
# Prints markdown for docs/benchmarks/gpu.md: machine, versions, every parity reference on the GPU, and clips
# per second and memory of FLAN-T5-XL BLIP-2 (random weights, bf16, 8 frames) for training and beam-5
# captioning.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-}
python=${2:-python3}
if ! command -v nvidia-smi > /dev/null; then
  echo "no NVIDIA GPU here: nvidia-smi is missing; nothing was run" >&2
  exit 1
fi
if [[ -n $folder ]]; then
  program=$folder/experiments
  full_size=$folder/full_size
else
  cargo build --quiet -p experiments --features cuda
  program=target/debug/experiments
  full_size=$(cargo bench -p experiments --features cuda --profile dev --bench full_size --no-run 2>&1 |
    sed -n 's/.*Executable .*(\(.*\))/\1/p')
fi

# The peak memory that any program holds on the GPU while a command runs.
watch_memory() {
  local most=0 used log
  log=$(mktemp)
  "$@" | tee "$log" &
  local running=$!
  while kill -0 "$running" 2> /dev/null; do
    used=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | head -1)
    ((used > most)) && most=$used
    sleep 0.2
  done
  wait "$running"
  echo "most GPU memory in use: $most MiB"
}

echo "# GPU check of $(date -u +%Y-%m-%d)"
echo
echo "- GPU: $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | head -1)"
echo "- Recap: $(git rev-parse --short HEAD 2> /dev/null || echo unknown), $("$program" --version)"
echo "- command: scripts/gpu-check.sh $*"
echo
echo "## Parity of CUDA with transformers on the CPU"
echo
failed=0
for reference in model/tests/fixtures/parity/{opt,t5-flan,t5-v1.0,llama,llama-grouped}/*.safetensors; do
  [[ $(basename "$reference") == model.safetensors ]] && continue
  if verdict=$("$program" verify --device cuda --checkpoint "$(dirname "$reference")" --reference "$reference" 2>&1 | tail -1); then
    echo "- ${reference#model/tests/fixtures/parity/}: $verdict"
  else
    echo "- ${reference#model/tests/fixtures/parity/}: FAILED: $verdict"
    failed=1
  fi
done
echo
echo "## Throughput of full-size BLIP-2 (FLAN-T5-XL, random weights, 8 frames of 224 px)"
echo
echo '```'
watch_memory "$full_size" --preset blip2-flan-t5-xl --device cuda --bf16 --batch 8 --frames 8 --rounds 5
if "$python" -c 'import sys, torch, transformers; sys.exit(not torch.cuda.is_available())' 2> /dev/null; then
  watch_memory "$python" scripts/bench/full_size_torch.py --batch 8 --frames 8 --rounds 5
else
  echo "transformers on the same GPU: not run ($python has no torch with CUDA, or no transformers)"
fi
echo '```'
exit $failed
