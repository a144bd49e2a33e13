#!/usr/bin/env bash
# Runs the tests that read only sources and pages: import cycles, file sizes, comment widths, links. They use
# the standard library only, so that rustc compiles them in a second, without the workspace. `cargo test`
# runs them too.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p target/rules
for test in structure links; do
  CARGO_MANIFEST_DIR="$PWD/tests" rustc --edition 2024 --test "tests/tests/$test.rs" -o "target/rules/$test"
  RUST_BACKTRACE=0 "target/rules/$test" --quiet
done
