#!/usr/bin/env bash
# On a machine with a GPU: tests the device, compares its results with the references of transformers, and
# times a BLIP-2 of full size, beside transformers on the same GPU. `scripts/cuda.sh` builds programs for
# CUDA.
#
# usage: scripts/gpu-check.sh [--device WORD] [--programs FOLDER] [--python PYTHON] [--tiny]
#
# --device WORD      cuda by default; wgpu, vulkan and metal are timed alone
# --programs FOLDER  contains `experiments` and `full_size`; by default they are built here for the device
# --python PYTHON    has torch with CUDA, transformers and safetensors; else nothing is compared
# --tiny             a model of a few thousand weights, for a device that computes in software
#
# Prints markdown for docs/benchmarks/gpu.md: machine, versions, the device's self-test, every parity
# reference on the device, and clips per second and memory of FLAN-T5-XL BLIP-2 (random weights, bf16 where
# the device has it, 8 frames) for beam-5 captioning and a training step of the Q-Former.
set -euo pipefail
cd "$(dirname "$0")/.."
arguments=$*
device=cuda folder= python=python3
sizes=(--preset blip2-flan-t5-xl --batch 8 --frames 8 --rounds 5)
while (($#)); do
  case $1 in
    --device) device=$2; shift 2 ;;
    --programs) folder=$2; shift 2 ;;
    --python) python=$2; shift 2 ;;
    --tiny)
      sizes=(--config model/tests/fixtures/parity/t5-flan/config.json --batch 2 --frames 2 --rounds 1)
      shift ;;
    *) echo "error: $1: expected --device, --programs, --python or --tiny" >&2; exit 2 ;;
  esac
done
kind=${device%%:*}
if [[ -n $folder ]]; then
  program=$folder/experiments
  full_size=$folder/full_size
else
  cargo build --quiet -p experiments --features "$kind"
  program=target/debug/experiments
  full_size=$(cargo bench -p experiments --features "$kind" --profile dev --bench full_size --no-run 2>&1 |
    sed -n 's/.*Executable .*(\(.*\))/\1/p')
fi
found=$("$program" ablation freeze_vit --device list | sed -n "s/^device $kind:[0-9]* *//p" | head -1)
if [[ -z $found ]]; then
  echo "error: no $kind device here; \`$program doctor\` prints what there is" >&2
  exit 1
fi

# The peak memory that any program holds on an NVIDIA GPU while a command runs.
watch_memory() {
  if ! command -v nvidia-smi > /dev/null; then
    "$@"
    return
  fi
  local most=0 used
  "$@" &
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
echo "- device: $found"
echo "- Recap: $(git rev-parse --short HEAD 2> /dev/null || echo unknown), $("$program" --version)"
echo "- command: scripts/gpu-check.sh $arguments"
failed=0
self_test=$("$program" doctor | sed -n "s/^device $kind:[0-9]* *//p" | head -1)
echo "- self-test: $self_test"
[[ $self_test == *"passed its self-test"* ]] || failed=1
echo
echo "## Parity of $device with transformers on the CPU"
echo
for reference in model/tests/fixtures/parity/{opt,t5-flan,t5-v1.0,llama,llama-grouped}/*.safetensors; do
  [[ $(basename "$reference") == model.safetensors ]] && continue
  checkpoint=$(dirname "$reference")
  if verdict=$("$program" verify --device "$device" --checkpoint "$checkpoint" --reference "$reference" 2>&1); then
    echo "- ${reference#model/tests/fixtures/parity/}: $(tail -1 <<< "$verdict")"
  else
    echo "- ${reference#model/tests/fixtures/parity/}: FAILED: $(tail -3 <<< "$verdict" | tr '\n' ' ')"
    failed=1
  fi
done
echo
echo "## Throughput with random weights: ${sizes[*]}"
echo
echo '```'
watch_memory "$full_size" "${sizes[@]}" --device "$device" --weights bf16 || failed=1
if [[ $kind == cuda ]] &&
  "$python" -c 'import sys, torch, transformers; sys.exit(not torch.cuda.is_available())' 2> /dev/null; then
  watch_memory "$python" scripts/bench/full_size_torch.py --batch 8 --frames 8 --rounds 5 || failed=1
else
  echo "transformers on the same GPU: not run ($python has no torch with CUDA, or no transformers)"
fi
echo '```'
exit $failed
