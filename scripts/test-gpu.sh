#!/usr/bin/env bash
# Runs the tests of accelerators on this machine's GPU by WGSL, or, where there is none, on Mesa's lavapipe,
# a Vulkan driver that computes on the CPU and that is installed where it is missing. Slow there: a missing
# kernel, type, limit or synchronisation shows as it would on a card.
#
# usage: scripts/test-gpu.sh [quick]     by default everything, without and with fused kernels (hours on
# lavapipe): parity, training steps, one variant of every study, resuming
set -euo pipefail
cd "$(dirname "$0")/.."
size=${1:-all}
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}} # Vulkan's loader prints a warning without it

# The packages of tests, compiled with one Burn, and the program beside them.
packages=(-p experiments -p model -p train -p tests)
build() {
  cargo build --quiet --profile gpu "${packages[@]}" --no-default-features --features "$1"
}

check() {
  local features=$1
  shift
  echo "== $features: $*"
  cargo test --quiet --profile gpu "${packages[@]}" --no-default-features --features "$features" "$@"
}

scripts/vulkan.sh
export RECAP_PROGRAM=target/gpu/experiments
export RECAP_DEVICE=wgpu BURN_DEVICE=wgpu
plain=tests/wgpu,experiments/wgpu
build $plain
"$RECAP_PROGRAM" doctor
# Burn's default device is a real adapter unless it is told otherwise
if ! "$RECAP_PROGRAM" ablation freeze_vit --device list | grep 'device wgpu' | grep -qv software; then
  export CUBECL_WGPU_DEFAULT_DEVICE=Cpu
fi
if [[ $size == quick ]]; then
  check $plain --test devices --test lavis -- --skip every_ablation
  check $plain --test parity updates_of_peft
  exit
fi
for features in $plain $plain,experiments/fusion; do
  build $features
  check $features --test devices --test parity --test lavis -- --nocapture
  check $features --test resume ctrl_c
done
