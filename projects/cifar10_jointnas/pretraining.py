"""Measures the effect of pre-training the predictor's encoder on real trainings (Fig. 5).

    python -m projects.cifar10_jointnas.pretraining

The labels are the scores of the random search in ``random/``, a sample of the space that does not
depend on a predictor. For several numbers of labels and 20 random splits each, predictors are
fitted with an encoder that was pre-trained on the costs of a pool, and with an encoder that was
not. Kendall's tau on the remaining candidates is written to ``pretraining.csv``, with a row for
each predictor, number of labels and split.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.stats import kendalltau

from fbnetv3.io import atomic_write
from fbnetv3.search.predictors.encoder import Pretrained
from fbnetv3.search.predictors.predictor import fit_function
from fbnetv3.search.space.encoding import Encoding
from projects.cifar10_jointnas.runs import open_log

HERE = Path(__file__).parent
COUNTS = (12, 24, 48, 72)
"""Numbers of labels."""
SPLITS = 20
"""Number of random splits into labelled and remaining candidates."""
COLUMNS = ("predictor", "labels", "unseen", "split", "pretrained", "plain")
Row = tuple[str, int, int, int, float, float]


def compare(log: Path) -> Iterator[Row]:
    """Yields the rows of ``pretraining.csv``.

    Args:
        log: Folder of the log of a random search.
    """
    run = open_log(log)
    trials = [t for t in run.search.result().trials if t.state == "complete"]
    space, encoding = run.space.space, Encoding(run.space.space)
    trained = run.search.plan.pretrained
    starts = (trained, Pretrained(trained.columns))
    features = encoding.encode(space.levels([t.config for t in trials]))
    labels = np.array([t.score for t in trials], dtype=np.float64)
    for kind in ("paper", "default"):
        for count in COUNTS:
            for split in range(SPLITS):
                order = np.random.default_rng([split, count]).permutation(len(trials))
                known, unseen = order[:count], order[count:]
                taus = [
                    kendalltau(
                        fit_function(kind)(features[known], labels[known], start, split).predict(
                            features[unseen]
                        ),
                        labels[unseen],
                    ).statistic
                    for start in starts
                ]
                yield kind, count, len(unseen), split, *map(float, taus)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--log", type=Path, default=HERE / "random", help="log of a random search")
    parser.add_argument("--csv", type=Path, default=HERE / "pretraining.csv", help="file to write")
    args = parser.parse_args()
    with atomic_write(args.csv) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in compare(args.log):
            writer.writerow((*row[:4], f"{row[4]:.4f}", f"{row[5]:.4f}"))


if __name__ == "__main__":
    main()
