#!/usr/bin/env bash
# Builds the program with the feature `cuda`: target/debug/experiments runs on NVIDIA GPUs, and needs their
# driver and CUDA's NVRTC and headers where it runs (CUDA_PATH).
#
# usage: scripts/cuda.sh [CARGO ARGUMENTS]     by default: build -p experiments --features cuda
#
# Burn 0.22's CUDA crate always links LLVM, whose build script downloads it from github.com. With
# `cubecl/cuda-cpp`, which `cuda` enables, kernels go through NVRTC and LLVM is never called. Where github.com
# cannot be reached, Debian's LLVM 22 is linked instead (RECAP_SYSTEM_LLVM=1 forces it).
set -euo pipefail
cd "$(dirname "$0")/.."
prefix=${XDG_DATA_HOME:-$HOME/.local/share}/tracel/tracel-llvm-23.1.0-4

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

use_system_llvm() {
  if [[ ! -x /usr/lib/llvm-22/bin/llvm-config || ! -f /usr/lib/llvm-22/lib/libPolly.a ]]; then
    local packages=(llvm-22-dev libpolly-22-dev libzstd-dev libxml2-dev libz3-dev zlib1g-dev)
    echo "installing with apt-get: ${packages[*]}"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${packages[@]}"
  fi
  mkdir -p "$prefix/bin"
  # the linker finds libraries by -l only, not by their paths
  cat > "$prefix/bin/llvm-config" << 'END'
#!/bin/sh
/usr/lib/llvm-22/bin/llvm-config "$@" | sed -E "s#[^ ]*/lib([A-Za-z0-9_+-]+)\.so[0-9.]*#-l\1#g"
END
  chmod +x "$prefix/bin/llvm-config"
  touch "$prefix/.tracel-llvm-installed"
}

if [[ ! -e $prefix/.tracel-llvm-installed ]]; then
  if [[ ${RECAP_SYSTEM_LLVM:-} == 1 ]] || ! curl -sfI -m 10 https://github.com > /dev/null; then
    use_system_llvm
  fi
fi
if (($# == 0)); then
  set -- build -p experiments --features cuda
fi
exec cargo "$@"
