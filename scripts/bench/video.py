"""Times the reading of 8 frames at 224 px from each clip: ours, PyAV and decord, in alternating rounds.

    scripts/bench/video.sh [PARALLEL [ROUNDS]] [FILE...]     sets everything up and calls this

Each reader keeps PARALLEL workers, one clip a worker and one thread a decoder; each round every reader reads all clips
once. PyAV decodes from the start and stops after the last frame wanted, as LAVIS's readers do; decord seeks by itself.
All give RGB bytes [8, 224, 224, 3] of the same frame indices. PyAV also runs with its own choice of threads, one clip at
a time, its most common use.
"""

import multiprocessing
import statistics
import subprocess
import sys
import time

FRAMES, SIZE = 8, 224


def wanted(total):
    return [i * total // FRAMES for i in range(FRAMES)]


def with_pyav(path, threads="NONE"):
    import av
    import numpy as np
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = threads
        total = stream.frames
        if not total:  # the header does not say: count the packets
            total = sum(1 for packet in container.demux(stream) if packet.size)
            container.seek(0)
        indices = wanted(total)
        kept = {}
        for index, frame in enumerate(container.decode(stream)):
            if index in indices:
                kept[index] = frame.reformat(SIZE, SIZE, "rgb24").to_ndarray()
            if index == indices[-1]:
                break
        return np.stack([kept[i] for i in indices]).nbytes


def with_pyav_auto(path):
    return with_pyav(path, "AUTO")


def with_decord(path):
    import decord
    reader = decord.VideoReader(path, ctx=decord.cpu(0), width=SIZE, height=SIZE, num_threads=1)
    return reader.get_batch(wanted(len(reader))).asnumpy().nbytes


class Ours:
    """Our reader, a process that reads all clips for each line it gets."""

    def __init__(self, program, parallel, where, files):
        self.process = subprocess.Popen(
            [program, str(parallel), where, *files], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.count = len(files)

    def round(self):
        print("go", file=self.process.stdin, flush=True)
        seconds, size = self.process.stdout.readline().split()
        assert int(size) == self.count * FRAMES * SIZE * SIZE * 3, size
        return float(seconds)


class Theirs:
    """A Python reader in worker processes, so that Python's lock does not hold it up."""

    def __init__(self, read, parallel, files):
        self.read, self.files = read, files
        self.pool = multiprocessing.get_context("spawn").Pool(parallel)
        self.pool.map(read, files[:parallel], chunksize=1)  # imports are not what we time

    def round(self):
        start = time.perf_counter()
        sizes = list(self.pool.imap_unordered(self.read, self.files, chunksize=1))
        assert set(sizes) == {FRAMES * SIZE * SIZE * 3}, sizes
        return time.perf_counter() - start


def main():
    program, parallel, rounds, *files = sys.argv[1:]
    parallel, rounds = int(parallel), int(rounds)
    readers = {
        "ours": Ours(program, parallel, "processes", files),
        "ours, threads": Ours(program, parallel, "threads", files),
        "PyAV": Theirs(with_pyav, parallel, files),
        "decord": Theirs(with_decord, parallel, files),
        "PyAV, AUTO threads, 1 clip": Theirs(with_pyav_auto, 1, files),
    }
    times = {name: [] for name in readers}
    for reader in readers.values():
        reader.round()  # files are in the page cache, plug-ins are loaded
    for _ in range(rounds):
        for name, reader in readers.items():
            times[name].append(reader.round())
    rates = {name: [len(files) / t for t in taken] for name, taken in times.items()}
    print(f"{len(files)} clips, {parallel} at once, {rounds} rounds; clips a second")
    print(f"{'':28} {'best':>6} {'median':>6} {'worst':>6}")
    for name, values in rates.items():
        print(f"{name:28} {max(values):6.1f} {statistics.median(values):6.1f} {min(values):6.1f}")
    for name in ("ours, threads", "PyAV", "decord"):
        ratios = [ours / other for ours, other in zip(rates["ours"], rates[name])]
        print(f"ours / {name}: of the best rounds {max(rates['ours']) / max(rates[name]):.2f}, "
              f"median of the rounds' ratios {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
