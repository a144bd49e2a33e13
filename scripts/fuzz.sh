#!/usr/bin/env bash
# Runs the fuzz targets of fuzz/, each for an equal part of the given minutes. Prints what each target did,
# and exits with 1 after the last one if any found something. Building (about 10 CPU minutes the first time)
# does not count. See docs/testing.md.
#
# Usage: scripts/fuzz.sh MINUTES [TARGET...]   (default: all targets)
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=${1:?usage: scripts/fuzz.sh MINUTES [TARGET...]}
shift

# An input may take this long (seconds) and this much memory (megabytes): in total, and in one allocation. It
# has at most this length (bytes).
limits() {
  time_limit=10 memory_limit=1024 allocation_limit=256 length_limit=10000
  case "$1" in
    # A still image of 512 MiB is decoded, converted and resized.
    images) time_limit=60 memory_limit=2048 allocation_limit=640 length_limit=4000 ;;
    # Their time grows faster than the length; captions are short.
    meteor | ptb) length_limit=1000 ;;
  esac
}

case "$minutes" in
  '' | *[!0-9]* | 0) echo "error: expected a number of minutes, got \"$minutes\": make fuzz MINUTES=60" >&2; exit 2 ;;
esac
if ! cargo +nightly --version >/dev/null 2>&1; then
  echo "error: fuzzing needs Rust's nightly toolchain; install it with: rustup toolchain install nightly --profile minimal" >&2
  exit 2
fi
export PATH="$PWD/target/tools/bin:$PATH"
if ! command -v cargo-fuzz >/dev/null; then
  echo "error: found no cargo-fuzz; install it with: make tools" >&2
  exit 2
fi

known=$(cargo +nightly fuzz list)
targets=("$@")
[ $# -gt 0 ] || readarray -t targets <<<"$known"
for target in "${targets[@]}"; do
  if ! grep -qx "$target" <<<"$known"; then
    echo "error: no fuzz target \"$target\", expected one of" $known >&2
    exit 2
  fi
done
nice -n 10 cargo +nightly fuzz build
host=$(rustc +nightly --version --verbose | sed -n 's/^host: //p')

# Inputs are written to files: in memory, where possible.
scratch=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")" recap-fuzz.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
export TMPDIR="$scratch" RAYON_NUM_THREADS=1 ASAN_OPTIONS="detect_odr_violation=0:detect_leaks=0:quarantine_size_mb=16"
seconds=$((minutes * 60 / ${#targets[@]}))
logs=fuzz/target/logs
mkdir -p "$logs"
TIMEFORMAT='%U %S %R'
findings=()
for target in "${targets[@]}"; do
  limits "$target"
  # New inputs go to the first folder, which is not committed.
  learned=fuzz/target/corpus/$target
  mkdir -p "$learned" "fuzz/artifacts/$target"
  before=$(ls "fuzz/artifacts/$target")
  # As `cargo fuzz run` does, which would build again if a source has changed since.
  { time nice -n 15 "fuzz/target/$host/release/$target" "$learned" "fuzz/corpus/$target" \
      -artifact_prefix="fuzz/artifacts/$target/" -max_total_time="$seconds" -timeout="$time_limit" -report_slow_units="$time_limit" -rss_limit_mb="$memory_limit" \
      -malloc_limit_mb="$allocation_limit" -max_len="$length_limit" -print_final_stats=1 \
      >"$logs/$target" 2>&1 || true; } 2>"$logs/$target.time"
  read -r user system wall <<<"$(tail -n 1 "$logs/$target.time")"
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$logs/$target")
  echo "$target: ${runs:-?} inputs in ${user} s + ${system} s of CPU, ${wall} s"
  new=$(comm -13 <(sort <<<"$before") <(ls "fuzz/artifacts/$target" | sort))
  if [ -n "$new" ]; then
    findings+=("$target")
    echo "  FOUND: fuzz/artifacts/$target/$new"
    echo "  report: $logs/$target"
    echo "  again: cargo +nightly fuzz run $target fuzz/artifacts/$target/$new"
  elif [ -z "$runs" ]; then
    echo "error: $target did not run:" >&2
    tail -n 20 "$logs/$target" >&2
    exit 2
  fi
done
if [ ${#findings[@]} -gt 0 ]; then
  echo "findings in ${#findings[@]} of ${#targets[@]} targets: ${findings[*]}" >&2
  exit 1
fi
echo "no findings in ${#targets[@]} targets"
