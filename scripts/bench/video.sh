#!/bin/sh
# Times our video reader, PyAV and decord on the same clips in alternating rounds, and prints clips per
# second. Usage: scripts/bench/video.sh [PARALLEL [ROUNDS [FILE...]]]
#   defaults: 2 clips at once, 7 rounds, and MSR-VTT's mp4 clips in ../shared/data/clips (decord reads no GIF)
# PyAV and decord go into a scratch environment under cache/bench.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
parallel=${1:-2}
rounds=${2:-7}
[ $# -gt 2 ] && shift 2 || set -- "$root"/../shared/data/clips/msrvtt*.mp4
if [ ! -e "$1" ]; then
    echo "skipped: no clips; name some: scripts/bench/video.sh $parallel $rounds FILE..."
    exit 0
fi

environment="$root/cache/bench/video"
if [ ! -x "$environment/bin/python" ]; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet av==18.1.0 decord==0.6.0 numpy
fi
cd "$root"
cargo build --quiet -p data --example decode_clips
exec "$environment/bin/python" scripts/bench/video.py \
    "${CARGO_TARGET_DIR:-target}/debug/examples/decode_clips" "$parallel" "$rounds" "$@"
