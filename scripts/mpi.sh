#!/usr/bin/env bash
# Builds the program with MPI into target/mpi/experiments; installs Debian's Open MPI where there is no MPI.
# Run it as `make mpi`. Another MPI is used where `mpicc` or MPI_PKG_CONFIG names it.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

has_mpi() {
  command -v mpirun >/dev/null || return 1
  [ -n "${MPI_PKG_CONFIG:-}" ] || command -v mpicc >/dev/null || pkg-config --exists ompi 2>/dev/null
}

if ! has_mpi; then
  if ! command -v apt-get >/dev/null; then
    echo "error: no MPI is installed; install Open MPI or MPICH with its mpicc, then run make mpi again" >&2
    exit 1
  fi
  echo "installing with apt-get: libopenmpi-dev openmpi-bin"
  as_root apt-get update -q
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends libopenmpi-dev openmpi-bin
fi

# the crate looks for MPICH first; the MPI of `mpirun` is meant
if [ -z "${MPI_PKG_CONFIG:-}" ] && [ -z "${MPICC:-}" ]; then
  if mpirun --version 2>/dev/null | grep -q "Open MPI" && pkg-config --exists ompi 2>/dev/null; then
    export MPI_PKG_CONFIG=ompi
  else
    export MPICC=mpicc
  fi
fi
cargo build -p experiments --features mpi
mkdir -p target/mpi
cp target/debug/experiments target/mpi/experiments
# another build of the plain program may have come in between
if ! ldd target/mpi/experiments | grep -q libmpi; then
  echo "error: target/mpi/experiments has no MPI: another build was running; run make mpi again" >&2
  exit 1
fi
echo "target/mpi/experiments, for: mpirun --bind-to none -n 2 target/mpi/experiments ablation freeze_vit"
