"""Compares the noise of the scores of a search with their spread over candidates.

    python -m projects.cifar10_jointnas.noise output/cifar10_jointnas/joint

The candidates of the first batch cover the space of the search. Two candidates of its top quartile,
drawn at random, are trained again with five other seeds each, on the same data as in the search.
The noise is the standard deviation of the score of a candidate over these seeds (the root of the
mean of the two variances). The spread is the standard deviation of the quartile's scores in the
search, which includes noise. Each training and epoch is a row of ``noise.csv``. An interrupted
measurement continues when the command is run again.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.stats import f

from fbnetv3.data import build_dataset, list_datasets, register_dataset
from fbnetv3.io import atomic_write
from fbnetv3.search.fbnet.config import SearchSetup
from fbnetv3.search.fbnet.keys import get_search_cfg
from fbnetv3.search.fbnet.trainings import candidate_training
from fbnetv3.search.storage.batch_log import BatchLog
from fbnetv3.search.trial import Trial
from fbnetv3.training import train

SEEDS = (1, 2, 3, 4, 5)
"""Seeds of the repeated trainings."""
COLUMNS = ("id", "seed", "epoch", "score")
HERE = Path(__file__).parent
Scores = dict[int, float]
"""Score by epoch."""


def first_batch(run: Path) -> list[Trial]:
    """Returns the fully trained trials of the first batch of a search, best first."""
    trials = BatchLog(run / "log").read().trials
    complete = [t for t in trials if t.batch == 0 and t.final_score is not None]
    return sorted(complete, key=lambda t: -(t.final_score or 0.0))


def score(run: Path, trial: Trial, seed: int) -> Scores:
    """Trains a candidate of a search again on the same data; returns its scores.

    Args:
        run: Folder of the search.
        trial: Trial of the candidate.
        seed: Seed of the training.
    """
    search_cfg = get_search_cfg()
    search_cfg.merge_from_file(str(run / "config.yaml"))
    folder = run.parent / "noise" / f"{trial.id}_{seed}"
    cfg = candidate_training(SearchSetup(search_cfg), trial.config, folder)
    cfg.defrost()
    cfg.DATASETS.TRAIN = (_training_images(cfg),)
    cfg.DATA.TRAIN_LIMIT = 0
    cfg.SEED = seed
    cfg.freeze()
    scores: Scores = {}

    def on_eval(epoch: float, values: dict[str, float]) -> None:
        scores[round(epoch)] = values["val/top1_ema"]

    train(cfg, resume=True, on_eval=on_eval, pictures=False)
    return scores


def _training_images(cfg: Any) -> str:
    """Registers the training images of the search as a data set; returns its name."""
    source, limit, seed = cfg.DATASETS.TRAIN[0], cfg.DATA.TRAIN_LIMIT, cfg.SEED
    if not limit:
        return str(source)
    name = f"{source}:{limit}_images"
    if name not in list_datasets():
        register_dataset(name)(lambda: build_dataset(source).subset(limit, seed=seed))
    return name


def read(path: Path) -> dict[tuple[str, int], Scores]:
    """Returns the scores of the finished trainings, by candidate and seed."""
    scores: dict[tuple[str, int], Scores] = {}
    if path.is_file():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                key = row["id"], int(row["seed"])
                scores.setdefault(key, {})[int(row["epoch"])] = float(row["score"])
    return scores


def write(path: Path, known: dict[tuple[str, int], Scores]) -> None:
    """Writes the scores of all trainings, with a row for each training and epoch."""
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for (key, seed), scores in known.items():
            writer.writerows((key, seed, epoch, value) for epoch, value in scores.items())


def drawn(quartile: Sequence[Trial], count: int = 2) -> list[Trial]:
    """Returns the candidates to train again, drawn at random."""
    order = np.random.default_rng(0).permutation(len(quartile))
    return [quartile[i] for i in sorted(order[:count].tolist())]


def table(quartile: Sequence[Trial], known: dict[tuple[str, int], Scores]) -> list[dict[str, Any]]:
    """Returns a row for each epoch: noise, spread, and their ratio with its 95 % interval.

    Args:
        quartile: Trials of the top quartile of the first batch.
        known: Scores of the repeated trainings, by candidate and seed.
    """
    ids = {t.id for t in quartile}
    names = sorted({key for key, _ in known if key in ids})
    rows = []
    for epoch in sorted(quartile[0].reports):
        seeds = [[s[epoch] for (key, _), s in known.items() if key == name] for name in names]
        noise = float(np.sqrt(np.mean([np.var(values, ddof=1) for values in seeds])))
        spread = float(np.std([t.reports[epoch] for t in quartile], ddof=1))
        freedom = len(quartile) - 1, sum(len(values) - 1 for values in seeds)
        low, high = np.sqrt((spread / noise) ** 2 / f.ppf((0.975, 0.025), *freedom))
        rows.append(
            {
                "epoch": epoch,
                "noise": noise,
                "spread": spread,
                "without": float(np.sqrt(max(spread**2 - noise**2, 0.0))),
                "ratio": spread / noise,
                "low": float(low),
                "high": float(high),
            }
        )
    return rows


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the search")
    parser.add_argument("--csv", type=Path, default=HERE / "noise.csv", help="file of the scores")
    args = parser.parse_args()
    batch = first_batch(args.run)
    quartile = batch[: len(batch) // 4]
    known = read(args.csv)
    for trial in drawn(quartile):
        for seed in SEEDS:
            if (trial.id, seed) not in known:
                known[trial.id, seed] = score(args.run, trial, seed)
                write(args.csv, known)
    for row in table(quartile, known):
        print(
            "after epoch {epoch}: noise {noise:.2f}, spread {spread:.2f} ({without:.2f} without "
            "noise), {ratio:.1f} x ({low:.1f} to {high:.1f})".format(**row)
        )


if __name__ == "__main__":
    main()
