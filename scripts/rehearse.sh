#!/usr/bin/env bash
# Runs every variant of every study in the profile `paper` with models of the official sizes and random
# weights, on four real clips and on the CPU, and records memory, disk and time beside the estimates of
# `experiments show`. Takes hours, 24 GB of memory and 60 GB of disk; variants that do not fit are named.
#
# usage: scripts/rehearse.sh WORK SHARED [PYTHON]
#
# WORK    a folder for checkpoints, clips, runs and results; what is there already is not made again
# SHARED  has tokenizers/, clips/ and annotations/msrvtt/ (docs/results/rehearsal.md)
# PYTHON  has torch 2.15, transformers 5.23 and safetensors
#
# Each variant: one step on one clip, one clip of validation and one of test. RESUMED have two steps of two
# clips each, in two micro-batches at a time; they are interrupted after the first step and resumed. Prints
# the tables for docs/results/rehearsal.md.
set -euo pipefail
work=$(mkdir -p "$1" && cd "$1" && pwd)
shared=$(cd "$2" && pwd)
python=${3:-python3}
cd "$(dirname "$0")/.."
scripts=$PWD/scripts/reference
if [[ -z ${RECAP:-} ]]; then
  cargo build --quiet -p experiments
  RECAP=$PWD/target/debug/experiments
fi
cd "$work"

MODELS=(blip2-flan-t5-xl blip2-opt-2.7b instructblip-vicuna-7b)
STUDIES=(lm_size vqa frames resolution headline pretraining_size seeds fusion temporal freeze_vit scst)
RESUMED=" freeze_vit/qformer_only scst/scst vqa/qformer_only "

for model in "${MODELS[@]}"; do
  [[ -d checkpoints/$model ]] && continue
  "$python" "$scripts/random_checkpoint.py" "$model" "source/$model" --tokenizers "$shared/tokenizers"
  /usr/bin/time -f "import of $model: %e s, peak %M kB" "$RECAP" import "source/$model" --out "checkpoints/$model"
  rm -r "source/$model"
done
# the two that no hub has: of the same sizes
for alias in blip2-opt-2.7b-4m:blip2-opt-2.7b blip2-vicuna-7b:instructblip-vicuna-7b; do
  [[ -e checkpoints/${alias%%:*} ]] || ln -s "${alias##*:}" "checkpoints/${alias%%:*}"
done
[[ -d data ]] || python3 "$scripts/rehearsal.py" data "$shared" data
touch results.jsonl

# Runs a variant until the state of its first step is saved, and interrupts it.
interrupt() {
  local states=$1
  shift
  setsid "$@" &
  local running=$!
  while kill -0 $running 2> /dev/null; do
    if compgen -G "$states/step-1" > /dev/null; then
      kill -INT -- -$running
      wait $running || true
      return
    fi
    sleep 1
  done
  wait $running
}

rehearse() {
  local study=$1 variant=$2 stages=$3 steps=1
  local run=runs/$study/$variant/seed-1
  local dataset=msrvtt=data/msrvtt
  [[ $study == vqa ]] && dataset=msrvtt-qa=data/msrvtt-qa
  [[ $RESUMED == *" $study/$variant "* ]] && steps=2
  local stage sets=(--set dataset.own_split=true --set generate.max_new_tokens=8)
  for stage in train scst.train; do
    [[ $stage == scst.train && $stages != *self-critical* ]] && continue
    sets+=(--set "$stage.steps=$steps" --set "$stage.evaluate_every=$steps" --set "$stage.save_every=1")
    sets+=(--set "$stage.keep_checkpoints=$steps")
    sets+=(--set "$stage.batch_size=$steps" --set "$stage.micro_batches=$steps")
  done
  [[ -n ${DRY:-} ]] && echo "$study/$variant: $stages" && return
  local options=(--profile paper --dataset "$dataset" "${sets[@]}")
  "$RECAP" show "$study" "${options[@]}" --json > plan.json
  local command=("$RECAP" ablation "$study" --only "$variant" --resume --no-tui --device cpu --cache cache "${options[@]}")
  rm -f peak.log log.txt && touch peak.log log.txt
  if [[ $steps == 2 ]]; then
    interrupt "$run/checkpoints" /usr/bin/time -v -a -o peak.log "${command[@]}" >> log.txt 2>&1 || true
  fi
  /usr/bin/time -v -a -o peak.log "${command[@]}" >> log.txt 2>&1 || true
  local note=""
  if [[ ! -f $run/result.json ]] && grep -q "terminated by signal 9" log.txt peak.log; then
    note="ended by the system, which had no more memory"
  elif [[ ! -f $run/result.json ]]; then
    note=$(grep -o "$variant.*needs .* of memory, and there is [0-9.]* GB" log.txt | head -1 || true)
    [[ -n $note ]] || note="failed: $(grep -v "^$" log.txt | tail -1)"
  elif grep -q "which was copied" log.txt; then
    note="the equal run of another study"
  elif [[ $steps == 2 ]]; then
    note="interrupted and resumed"
  fi
  python3 "$scripts/rehearsal.py" record "$study" "$variant" plan.json "$run" "$note" peak.log >> results.jsonl
  tail -1 results.jsonl
  # the states of a run with everything trained take 20 GB
  rm -rf "$run/checkpoints" "$run/cross_entropy/checkpoints"
}

for study in "${STUDIES[@]}"; do
  dataset=msrvtt
  [[ $study == vqa ]] && dataset=msrvtt-qa
  "$RECAP" show "$study" --profile paper --dataset "$dataset=data/$dataset" --json > variants.json
  python3 "$scripts/rehearsal.py" variants variants.json | while read -r variant stages _; do
    grep -q "\"study\": \"$study\", \"variant\": \"$variant\"" results.jsonl && continue
    rehearse "$study" "$variant" "$stages" < /dev/null
  done
done
python3 "$scripts/rehearsal.py" table results.jsonl
