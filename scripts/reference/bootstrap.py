"""Makes experiments/tests/data/bootstrap.json: intervals and p of paired differences, by SciPy and NumPy.

    pip install numpy==2.4.6 scipy==1.17.1
    python scripts/reference/bootstrap.py experiments/tests/data/bootstrap.json

Means: scipy.stats.bootstrap (percentile) on the clips' differences; p is twice the smaller share of its resamples on
either side of 0, and beside it stands the p of scipy.stats.permutation_test, which asks the same by flipping signs.
Counts (a figure that is a ratio of sums, as BLEU's precision is): resampled with NumPy alone.
"""

import json
import sys
from pathlib import Path

import numpy as np
from scipy import stats

RESAMPLES = 50_000


def two_sided(resampled: np.ndarray) -> float:
    at_most, at_least = (resampled <= 0).sum(), (resampled >= 0).sum()
    return min(1.0, 2 * (1 + min(at_most, at_least)) / (len(resampled) + 1))


def case(name: str, first: np.ndarray, second: np.ndarray, rng: np.random.Generator, step: float = 0.0) -> dict:
    first, second = first.round(4), second.round(4)
    difference = first - second
    boot = stats.bootstrap(
        (difference,), np.mean, n_resamples=RESAMPLES, method="percentile", vectorized=True, rng=rng, batch=5_000
    )
    permuted = stats.permutation_test(
        (first, second),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=RESAMPLES,
        vectorized=True,
        rng=rng,
        batch=5_000,
    )
    return {
        "name": name,
        "first": first.tolist(),
        "second": second.tolist(),
        "expected": {
            "difference": float(difference.mean()),
            "interval": [float(boot.confidence_interval.low), float(boot.confidence_interval.high)],
            "standard_error": float(boot.standard_error),
            "p": float(two_sided(boot.bootstrap_distribution)),
            "step": step,
        },
        "permutation_p": float(permuted.pvalue),
    }


def corpus(rng: np.random.Generator) -> dict:
    clips = 50
    guessed = rng.integers(5, 15, size=(clips, 2))
    correct = rng.binomial(guessed, [0.55, 0.47])
    drawn = rng.integers(0, clips, size=(RESAMPLES, clips))
    ratio = lambda system: correct[drawn, system].sum(axis=1) / guessed[drawn, system].sum(axis=1)
    resampled = ratio(0) - ratio(1)
    whole = correct.sum(axis=0) / guessed.sum(axis=0)
    counts = lambda system: np.stack([correct[:, system], guessed[:, system]], axis=1).astype(float).tolist()
    return {
        "first": counts(0),
        "second": counts(1),
        "expected": {
            "difference": float(whole[0] - whole[1]),
            "interval": np.percentile(resampled, [2.5, 97.5]).tolist(),
            "standard_error": float(resampled.std(ddof=1)),
            "p": float(two_sided(resampled)),
            "step": 0.0,
        },
    }


def main() -> None:
    rng = np.random.default_rng(20261124)
    clips = 80
    shared = rng.gamma(2.0, 0.6, clips)
    noise = lambda scale: rng.normal(0.0, scale, clips)
    cases = [
        case("a clear difference", shared + 0.35 + noise(0.4), shared + noise(0.4), rng),
        case("a doubtful difference", shared - 0.05 + noise(0.35), shared + noise(0.35), rng),
        case("none, skewed", shared, rng.permutation(shared), rng),
        case("shares of right ones", (rng.random(clips) < 0.6) * 1.0, (rng.random(clips) < 0.5) * 1.0, rng, 1 / clips),
    ]
    fixture = {"resamples": RESAMPLES, "cases": cases, "corpus": corpus(rng)}
    Path(sys.argv[1]).write_text(json.dumps(fixture, indent=1) + "\n")
    for one in [*cases, {"name": "counts", **fixture["corpus"]}]:
        print(one["name"], one["expected"], one.get("permutation_p"))


if __name__ == "__main__":
    main()
