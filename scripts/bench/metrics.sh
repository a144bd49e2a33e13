#!/bin/sh
# Times the whole suite, ours and pycocoevalcap's, alternately on the same files. Prints minimum and median of
# wall time, CPU time and peak memory of both, and their ratios; then the reward of a batch, cold and warm.
# Usage: scripts/bench/metrics.sh PREDICTIONS REFERENCES [ROUNDS]
#   files as for scripts/bench/pycocoevalcap_suite.py
# Needs Java and Python; pycocoevalcap and numpy go into a scratch environment under cache/bench.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
predictions=$1
references=$2
rounds=${3:-3}
environment="$root/cache/bench/venv"

"$root/scripts/meteor-data.sh"
if [ ! -x "$environment/bin/python" ]; then
    python3 -m venv "$environment"
    # pycocotools is only imported by the part that reads COCO's files; the metrics don't need it.
    "$environment/bin/pip" install --quiet numpy
    "$environment/bin/pip" install --quiet --no-deps "$root/cache/meteor/pycocoevalcap-1.2-py3-none-any.whl"
fi

cd "$root"
cargo build --quiet -p metrics --example suite --example reward
target=${CARGO_TARGET_DIR:-target}/debug/examples
"$target/suite" "$predictions" "$references" >/dev/null # the compact tables are made, the files are read once
"$environment/bin/python" - "$rounds" "$target/suite" "$environment/bin/python" "$root/scripts/bench/pycocoevalcap_suite.py" \
    "$predictions" "$references" <<'PYTHON'
import json, os, resource, statistics, subprocess, sys, tempfile, time

rounds, ours, python, suite, *files = sys.argv[1:]
programs = {"ours": [ours, *files], "pycocoevalcap": [python, suite, *files]}
figures = {name: [] for name in programs}
scores = {}
# /usr/bin/env would hide children's memory, so each run is measured by a process of its own: its children
# are the run's.
measure = """
import json, resource, subprocess, sys, time
start = time.time()
out = subprocess.run(sys.argv[1:], check=True, stdout=subprocess.PIPE, text=True).stdout
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([time.time() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, json.loads(out.splitlines()[-1])]))
"""
for round in range(int(rounds)):
    for name, command in programs.items():
        out = subprocess.run([python, "-c", measure, *command], check=True, stdout=subprocess.PIPE, text=True).stdout
        *figure, scores[name] = json.loads(out)
        figures[name].append(figure)
        print(f"round {round + 1} {name}: wall {figure[0]:.2f} s, processor {figure[1]:.2f} s, peak {figure[2]:.0f} MB", flush=True)
for place, what in enumerate(["wall s", "processor s", "peak MB"]):
    least = {name: min(figure[place] for figure in rows) for name, rows in figures.items()}
    median = {name: statistics.median(figure[place] for figure in rows) for name, rows in figures.items()}
    for kind, values in [("least", least), ("median", median)]:
        print(f"{what} {kind}: ours {values['ours']:.2f}, pycocoevalcap {values['pycocoevalcap']:.2f}, "
              f"ratio {values['pycocoevalcap'] / values['ours']:.1f}")
worst = max(abs(scores["ours"][key] - value) for key, value in scores["pycocoevalcap"].items())
print(f"largest difference of a corpus score: {worst:.1e}")
PYTHON
"$target/reward" "$predictions" "$references"
