#!/usr/bin/env bash
# Compiles the CUDA kernels of captioning and training to machine code, without a GPU: with a driver that runs
# nothing (tests/cuda/driver.c) and NVRTC from PyPI. Kernels that a card would be the first to compile are
# found here. Numbers are not: scripts/gpu-check.sh compares them on a card.
#
# usage: scripts/cuda-check.sh [COMPUTE CAPABILITY ...]     by default 80 90 100 (A100, H100, B200)
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/target/tools/cuda
capabilities=("$@")
((${#capabilities[@]})) || capabilities=(80 90 100)

if [[ ! -e $tools/lib/libnvrtc.so ]]; then
  echo "installing NVRTC and CUDA's headers from PyPI in $tools"
  rm -rf "$tools"
  mkdir -p "$tools/wheels" "$tools/lib" "$tools/include"
  python3 -m pip download --quiet --no-deps -d "$tools/wheels" nvidia-cuda-nvrtc-cu12==12.9.86 \
    nvidia-cuda-runtime-cu12==12.9.79 nvidia-cuda-cccl-cu12==12.9.27 nvidia-cuda-nvcc-cu12==12.9.86
  for wheel in "$tools"/wheels/*.whl; do
    python3 -m zipfile -e "$wheel" "$tools/unpacked"
  done
  cp -r "$tools/unpacked/nvidia/cuda_runtime/include/." "$tools/include"
  cp -r "$tools/unpacked/nvidia/cuda_nvcc/include/crt" "$tools/include/crt"
  cp -r "$tools/unpacked/nvidia/cuda_cccl/include" "$tools/include/cccl"
  cp "$tools"/unpacked/nvidia/cuda_nvrtc/lib/libnvrtc*.so* "$tools/lib"
  rm -r "$tools/wheels" "$tools/unpacked"
  ln -s libnvrtc.so.12 "$tools/lib/libnvrtc.so"
fi
# apart from NVRTC, which looks for a libcuda.so.1 beside itself and calls more of it than this driver has
mkdir -p "$tools/driver"
cc -shared -fPIC -O1 -Wall -Wextra -Werror -o "$tools/driver/libcuda.so" tests/cuda/driver.c

export CUDA_PATH=$tools LD_LIBRARY_PATH=$tools/driver:$tools/lib BURN_DEVICE=cuda RECAP_COMPILE_ONLY=1
tests=(test --quiet --profile gpu -p experiments -p model -p train -p tests --no-default-features
  --features tests/cuda,experiments/cuda,experiments/fusion --test cuda --test parity)
LD_LIBRARY_PATH= scripts/cuda.sh "${tests[@]}" --no-run
for capability in "${capabilities[@]}"; do
  export RECAP_CUDA_ARCH=$capability RECAP_CUDA_COUNT=$tools/loaded-$capability
  rm -f "$RECAP_CUDA_COUNT"
  scripts/cuda.sh "${tests[@]}" -- --test-threads 1 every_kernel cross_entropy self_critical first_stage
  echo "sm_$capability: $(wc -c < "$RECAP_CUDA_COUNT") kernels compiled"
done
