"""Trains configs with several seeds, and records their scores.

    python -m projects.cifar10_jointnas.trainings --csv projects/cifar10_jointnas/finals.csv \\
        projects/cifar10_jointnas/configs/*M.yaml --opts SOLVER.MAX_EPOCHS 15.0

The csv has a row for each evaluation: case (name of the config), config (hash of the config and the
architecture), seed, epoch, top1 and top1_ema (equal to top1 if the config has no EMA). Trainings
that have rows are not repeated, and interrupted trainings are resumed. If the config of a case has
changed, its rows are dropped and it is trained again. All cases are trained with the first seed,
then with the second, and so on, so that intermediate results can be compared.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from fbnetv3.config import get_cfg
from fbnetv3.engine.metrics import read_metrics
from fbnetv3.io import atomic_write

ROOT = Path(__file__).parents[2]
COLUMNS = ("case", "config", "seed", "epoch", "top1", "top1_ema")


class Row(NamedTuple):
    """Scores of a training in percent after a whole or fractional number of epochs."""

    case: str
    config: str
    seed: int
    epoch: float
    top1: float
    top1_ema: float


def read(path: Path) -> list[Row]:
    """Returns the rows of a csv, or an empty list if it does not exist."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [
            Row(r["case"], r["config"], int(r["seed"]), *(float(r[key]) for key in COLUMNS[3:]))
            for r in csv.DictReader(file)
        ]


def write(path: Path, rows: Sequence[Row]) -> None:
    """Writes the sorted rows to a csv."""
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for r in sorted(rows):
            scores = (f"{r.epoch:g}", f"{r.top1:.2f}", f"{r.top1_ema:.2f}")
            writer.writerow((r.case, r.config, r.seed, *scores))


def digest(config: Path, opts: Sequence[str]) -> str:
    """Returns eight hex digits that identify a config and the content of its architecture file.

    Args:
        config: Path of a config of ``train_net.py``.
        opts: Overridden keys and values, in turn.
    """
    cfg = get_cfg()
    cfg.merge_from_file(str(config))
    cfg.merge_from_list(list(opts))
    arch = Path(cfg.MODEL.ARCH)
    if arch.suffix == ".yaml":
        cfg.MODEL.ARCH = arch.read_text(encoding="utf-8")
    return hashlib.sha256(cfg.dump().encode()).hexdigest()[:8]


def train(config: Path, seed: int, folder: Path, opts: Sequence[str]) -> list[Row]:
    """Trains in a new process, or resumes; returns a row for each evaluation.

    Args:
        config: Path of a config of ``train_net.py``.
        seed: Seed of the training.
        folder: Output folder of the training.
        opts: Overridden keys and values, in turn.

    Raises:
        subprocess.CalledProcessError: The training failed; its output is in ``output.txt``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--resume", "--config-file", str(config), *opts]
    with (folder / "output.txt").open("a") as output:
        subprocess.run(
            [
                *(sys.executable, str(ROOT / "tools" / "train_net.py"), *options),
                *("SEED", str(seed), "OUTPUT_DIR", str(folder)),
            ],
            check=True,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": "1", **os.environ},
        )
    scores = [row for row in read_metrics(folder / "metrics.json") if "val/top1" in row]
    cfg = get_cfg()
    cfg.merge_from_file(str(folder / "config.yaml"))
    last = max(row["iteration"] for row in scores) + 1
    return [
        Row(
            config.stem,
            digest(config, opts),
            seed,
            round((row["iteration"] + 1) / last * cfg.SOLVER.MAX_EPOCHS, 3),
            row["val/top1"],
            row.get("val/top1_ema", row["val/top1"]),
        )
        for row in scores
    ]


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("configs", nargs="+", type=Path, help="yaml files of train_net.py")
    parser.add_argument("--csv", type=Path, required=True, help="file of the scores")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of each config"
    )
    parser.add_argument("--processes", type=int, default=2, help="number of simultaneous trainings")
    parser.add_argument(
        "--out", type=Path, default=Path("output/cifar10_jointnas"), help="output folder"
    )
    parser.add_argument(
        "--opts", nargs="*", default=[], metavar="KEY VALUE", help="overrides of all configs"
    )
    return parser


def main() -> int:
    """Runs the command line; returns 1 if a training failed."""
    args = make_parser().parse_args()
    digests = {config.stem: digest(config, args.opts) for config in args.configs}
    rows = [r for r in read(args.csv) if r.config == digests.get(r.case, r.config)]
    done, lock, failed = {(r.case, r.seed) for r in rows}, threading.Lock(), []

    def run(job: tuple[Path, int]) -> None:
        config, seed = job
        name = f"{config.stem}_{digests[config.stem]}_seed{seed}"
        folder = args.out / args.csv.stem / name
        try:
            scores = train(config, seed, folder, args.opts)
        except subprocess.CalledProcessError:
            print(f"{config.stem}, seed {seed} failed; see {folder / 'output.txt'}", flush=True)
            failed.append(job)
            return
        with lock:
            rows.extend(scores)
            write(args.csv, rows)
        print(f"{config.stem}, seed {seed}: {scores[-1].top1_ema:.2f} (EMA)", flush=True)

    jobs = [(c, s) for s in args.seeds for c in args.configs if (c.stem, s) not in done]
    with ThreadPoolExecutor(args.processes) as pool:
        list(pool.map(run, jobs))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
