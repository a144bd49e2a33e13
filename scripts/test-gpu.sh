#!/usr/bin/env bash
# Runs the tests of accelerators on this machine's GPU by WGSL, or, where there is none, on Mesa's lavapipe,
# a Vulkan driver that computes on the CPU and that is installed where it is missing. Slow there: a missing
# kernel, type, limit or synchronisation shows as it would on a card.
#
# usage: scripts/test-gpu.sh [quick]     by default everything, with and without fused kernels
set -euo pipefail
cd "$(dirname "$0")/.."
size=${1:-all}
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}} # Vulkan's loader prints a warning without it

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

# The packages of tests, compiled with one Burn, and the program beside them.
packages=(-p experiments -p model -p train -p tests)
build() {
  local features=$1
  cargo build --quiet --profile gpu "${packages[@]}" --no-default-features --features "$features"
  cargo test --quiet --profile gpu "${packages[@]}" --no-default-features --features "$features" --no-run
}

check() {
  local features=$1
  shift
  echo "== $features: $*"
  cargo test --quiet --profile gpu "${packages[@]}" --no-default-features --features "$features" "$@"
}

if [[ $(uname) != Darwin ]] && ! compgen -G '/usr/share/vulkan/icd.d/*.json' > /dev/null; then
  if command -v apt-get > /dev/null; then
    echo "installing with apt-get: mesa-vulkan-drivers"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends mesa-vulkan-drivers
  else
    echo "error: this machine has no Vulkan driver; install one, as Mesa's" >&2
    exit 1
  fi
fi

export RECAP_PROGRAM=target/gpu/experiments
export RECAP_DEVICE=wgpu BURN_DEVICE=wgpu
fused=tests/wgpu,experiments/wgpu,experiments/fusion
build $fused
"$RECAP_PROGRAM" doctor
# the test harness cannot name the adapter: Burn's default is a real one
if ! "$RECAP_PROGRAM" ablation freeze_vit --device list | grep 'device wgpu' | grep -qv software; then
  export CUBECL_WGPU_DEFAULT_DEVICE=Cpu
fi
if [[ $size == quick ]]; then
  check $fused --test devices --test gpu_parity -- --test-threads 1
  exit
fi
for features in $fused tests/wgpu,experiments/wgpu; do
  build $features
  check $features --test devices --test parity --test lavis
  check $features --test smoke --test resume every_ablation ctrl_c
done
