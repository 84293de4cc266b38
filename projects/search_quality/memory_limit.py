"""Counts the candidates that exceed a simulated memory, with and without predicted failures.

The space is the paper's, with the synthetic objective of ``problems.py``. A training of a candidate
needs 4 bytes for each of its activations per image, three times (forward, backward, workspace), and
for each parameter, four times (weights, average, gradient, moment). The limit is the memory that
the given share of feasible random candidates stays below. A search recognises a lack of memory by
the reason of a failure. To switch the prediction off, the same search is told a reason that does
not mention memory.

    python -m projects.search_quality.memory_limit --seeds 5
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from fbnetv3.search import JointNAS
from projects.search_quality import problems

_BATCH = 256
"""Images per step of a training."""
_REASONS = {
    True: "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
    False: "RuntimeError: the training failed",
}
"""Reason of a failure that the search is told, by whether it may predict failures."""
Floats = problems.Floats


def memory(problem: problems.Problem, configs: problems.Configs) -> Floats:
    """Returns the bytes that a training of each candidate needs, (candidates,)."""
    assert problem.statistics is not None
    costs = problem.statistics(configs)
    return np.asarray(4.0 * (3 * _BATCH * costs["activations"] + 4 * costs["params"]))


def run(seed: int, share: float, *, predicted: bool) -> tuple[list[int], float]:
    """Returns the number of failures in each batch of a search, and the best true score.

    Args:
        seed: Random seed of the search and of the noise.
        share: Share of random candidates that fit into the memory.
        predicted: Whether the search may predict failures.
    """
    problem = problems.get("synthetic")
    random = np.random.default_rng(seed)
    sample = problem.space.configs(problems.random_levels(problem, 2000, np.random.default_rng(9)))
    limit = float(np.quantile(memory(problem, sample), share))
    search = JointNAS(
        problem.space,
        statistics=problem.statistics,
        constraints=problem.constraints,
        batch_size=24,
        iterations=4,
        pool_size=4096,
        early_stop_threshold=None,
        seed=seed,
    )
    failures: list[int] = []
    while trials := search.ask():
        configs = [trial.config for trial in trials]
        fails = memory(problem, configs) > limit
        measured = problem.measure(configs, random)
        scores = [None if f else float(s) for f, s in zip(fails, measured, strict=True)]
        search.tell(trials, scores, [_REASONS[predicted] if f else None for f in fails])
        failures.append(int(fails.sum()))
    complete = [t.config for t in search.trials if t.state == "complete"]
    return failures, float(problem.truth(complete).max())


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="number of searches of each kind")
    parser.add_argument("--share", type=float, default=0.6, help="share of candidates that fit")
    arguments = parser.parse_args()
    print("| seed | failures predicted | failures by batch | all | best true score |")
    print("|---|---|---|---|---|")
    for seed in range(arguments.seeds):
        for predicted in (False, True):
            failures, best = run(seed, arguments.share, predicted=predicted)
            by_batch = ", ".join(map(str, failures))
            name = "yes" if predicted else "no"
            print(f"| {seed} | {name} | {by_batch} | {sum(failures)} | {best:.2f} |", flush=True)


if __name__ == "__main__":
    main()
