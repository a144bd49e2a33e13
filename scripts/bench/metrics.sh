#!/bin/sh
# Times the whole suite, ours and pycocoevalcap's, one after the other on the same files, and prints time and peak memory of both.
# Usage: scripts/bench/metrics.sh PREDICTIONS REFERENCES   (as scripts/bench/pycocoevalcap_suite.py wants them)
# Needs Java and Python; pycocoevalcap and numpy go into a scratch environment under cache/bench.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
predictions=$1
references=$2
environment="$root/cache/bench/venv"

"$root/scripts/meteor-data.sh"
if [ ! -x "$environment/bin/python" ]; then
    python3 -m venv "$environment"
    # pycocotools is only imported by the part that reads COCO's files; the metrics don't need it.
    "$environment/bin/pip" install --quiet numpy
    "$environment/bin/pip" install --quiet --no-deps "$root/cache/meteor/pycocoevalcap-1.2-py3-none-any.whl"
fi

cd "$root"
cargo build --quiet -p metrics --example suite
target=${CARGO_TARGET_DIR:-target}
measure() {
    "$environment/bin/python" - "$@" <<'PYTHON'
import resource, subprocess, sys, time
start = time.time()
subprocess.run(sys.argv[1:], check=True)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(f"  wall {time.time() - start:.2f} s, cpu {usage.ru_utime + usage.ru_stime:.2f} s, peak {usage.ru_maxrss / 1024:.0f} MB")
PYTHON
}
"$target/debug/examples/suite" "$predictions" "$references" >/dev/null # the compact tables are made, the files are read once
echo "ours"
measure "$target/debug/examples/suite" "$predictions" "$references"
echo "pycocoevalcap"
measure "$environment/bin/python" "$root/scripts/bench/pycocoevalcap_suite.py" "$predictions" "$references"
