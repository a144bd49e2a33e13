#!/bin/sh
# Downloads METEOR's tables: the wheel of pycocoevalcap 1.2, in which the metrics crate reads them.
# Usage: scripts/meteor-data.sh [DIRECTORY]   (default cache/meteor; does nothing if the wheel exists)
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
directory=${1:-"$here/cache/meteor"}
wheel="$directory/pycocoevalcap-1.2-py3-none-any.whl"
expected=083ed7910f1aec000b0a237ef6665f74edf19954204d0b1cbdb8399ed132228d

sum() {
    if command -v sha256sum >/dev/null 2>&1; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

if [ -f "$wheel" ] && [ "$(sum "$wheel")" = "$expected" ]; then
    echo "METEOR's tables are in $wheel"
    exit 0
fi

if command -v pip3 >/dev/null 2>&1; then pip=pip3
elif command -v pip >/dev/null 2>&1; then pip=pip
elif command -v python3 >/dev/null 2>&1; then pip="python3 -m pip"
else
    echo "meteor-data: pip not found; install Python's pip, or put pycocoevalcap-1.2-py3-none-any.whl into $directory" >&2
    exit 1
fi

mkdir -p "$directory"
# Downloaded to a draft and renamed, so that an interrupted download is never used.
draft=$(mktemp -d "$directory/draft.XXXXXX")
trap 'rm -rf "$draft"' EXIT
if ! $pip download --quiet --no-deps --dest "$draft" pycocoevalcap==1.2; then
    echo "meteor-data: pip could not download pycocoevalcap==1.2 (no network?); put the wheel into $directory" >&2
    exit 1
fi
got=$(sum "$draft/pycocoevalcap-1.2-py3-none-any.whl")
if [ "$got" != "$expected" ]; then
    echo "meteor-data: the wheel's sha256 is $got, expected $expected" >&2
    exit 1
fi
mv "$draft/pycocoevalcap-1.2-py3-none-any.whl" "$wheel"
echo "METEOR's tables are in $wheel"
