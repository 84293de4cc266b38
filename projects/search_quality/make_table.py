"""Makes the table of trainings: trains every candidate of the grid with each seed, on one thread.

    OMP_NUM_THREADS=1 python -m projects.search_quality.make_table train --seeds 3
    OMP_NUM_THREADS=1 python -m projects.search_quality.make_table noise
    python -m projects.search_quality.make_table pack

Run it in the root of the repository, with CIFAR-10 below ``FBNETV3_DATA``. ``train`` may be killed
at any time and called again: every training is a line that is appended to a log. Without a log,
``train`` continues from the table in the repository. All candidates are trained with one seed
before any is trained with the next, so that an interrupted run yields a complete table with fewer
seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import inspect
import io
import time
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fbnetv3.io import atomic_write
from fbnetv3.recipe import Recipe
from projects.search_quality import joint_table, micro_training
from projects.search_quality.joint_table import LOSS_UNIT
from projects.search_quality.micro_training import Score

NOISE_SEEDS = range(100, 108)
"""Seeds of the trainings that measure the noise; the table does not use them."""
NOISE_POINTS = 24
"""Number of candidates that ``noise`` trains again to measure the noise."""

Counts = npt.NDArray[np.uint16]


class Log:
    """Finished trainings, one per line: ``seed point right_1 .. right_E loss_1 .. loss_E seconds``.

    Losses are in units of ``joint_table.LOSS_UNIT``.

    Args:
        path: Path of the log, which is created if missing. An incomplete last line is dropped.

    Raises:
        SystemExit: The log was made with another space, recipe or version of the training code.
    """

    def __init__(self, path: Path) -> None:
        self._path, head = path, f"# {_fingerprint()}\n"
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1] or head
        if not whole.startswith(head):
            raise SystemExit(
                f"{path} was made by another version of the training code; move it away"
            )
        if whole != text:
            with atomic_write(path) as temporary:
                temporary.write_text(whole)

    def rows(self) -> list[list[float]]:
        """Returns the finished trainings."""
        lines = self._path.read_text().splitlines()[1:]
        return [[float(x) for x in line.split()] for line in lines]

    def add(self, seed: int, point: int, scores: list[Score], seconds: float) -> None:
        """Appends a training."""
        right = [score.right for score in scores]
        losses = [_in_units(score.loss) for score in scores]
        with self._path.open("a") as file:
            print(seed, point, *right, *losses, f"{seconds:.2f}", file=file)


def _in_units(loss: float) -> int:
    """Returns a loss as a 16-bit integer; the largest one stands for a diverged training."""
    largest = int(np.iinfo(np.uint16).max)
    return largest if not loss < largest * LOSS_UNIT else round(loss / LOSS_UNIT)


def _changes(recipe: Recipe) -> dict[str, Any]:
    """Returns the fields of a recipe that differ from the defaults of ``Recipe``.

    A field that is added to ``Recipe`` later thus leaves the fingerprint unchanged.
    """
    default = dataclasses.asdict(Recipe())
    values = dataclasses.asdict(recipe)
    return {key: value for key, value in values.items() if value != default[key]}


def _code(part: Any) -> str:
    """Returns the tokens of a module or function, without comments, docstrings and blank lines."""
    kept: list[str] = []
    is_start = True  # of a statement
    for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(part)).readline):
        is_text = is_start and token.type in (tokenize.STRING, tokenize.NEWLINE)
        if is_text or token.type in (tokenize.COMMENT, tokenize.NL):
            continue
        kept.append(token.string.strip() or tokenize.tok_name[token.type])
        is_start = token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    return " ".join(kept)


def _fingerprint() -> str:
    """Returns a hash of the space, the recipe and the code of the trainings."""
    parts = [
        (joint_table.FOLDER / "space.yaml").read_text(),
        _code(micro_training),
        _code(joint_table.joint_space),
        _code(joint_table.recipe_of),
        repr((_changes(joint_table.BASE), joint_table.RMSPROP_FACTOR)),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def train_all(plan: Iterator[tuple[int, int]], log: Log, cache: Path) -> None:
    """Trains the (seed, point) pairs that the log lacks.

    Args:
        plan: Pairs in the order of training.
        log: Log of the finished trainings, which is extended.
        cache: Path of the npz that caches the decoded images.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    space, fbnet = joint_table.joint_space(), joint_table.architectures()
    configs = space.configs(joint_table.grid(space))
    done = {(int(row[0]), int(row[1])) for row in log.rows()}
    images = None
    for seed, point in plan:
        if (seed, point) in done:
            continue
        arch = fbnet.arch(configs[point], joint_table.NUM_CLASSES)
        images = images or micro_training.load_images(arch.resolution, cache)
        start = time.process_time()
        recipe = joint_table.recipe_of(configs[point])
        scores = micro_training.train(arch, recipe, images, seed)
        log.add(seed, point, scores, time.process_time() - start)


def table_plan(seeds: int) -> Iterator[tuple[int, int]]:
    """Yields (seed, point): all points in random order with one seed, then with the next seed."""
    points = len(joint_table.grid(joint_table.joint_space()))
    order = np.random.default_rng(0).permutation(points)
    for seed in range(seeds):
        for point in order:
            yield seed, int(point)


def noise_plan(log: Log) -> Iterator[tuple[int, int]]:
    """Yields (seed, point) of the trainings that measure the noise.

    Two thirds of the points are drawn from the best quarter of the candidates.

    Raises:
        SystemExit: Not every candidate has been trained.
    """
    _, losses = complete_passes(log)
    means = -losses[:, :, -1].mean(axis=0)
    # rank by denoised scores, since the highest noisy means are partly luck
    space = joint_table.joint_space()
    ranked = np.argsort(-joint_table.denoised(space, joint_table.grid(space), means), kind="stable")
    quarter = len(ranked) // 4
    random = np.random.default_rng(1)
    top = random.choice(ranked[:quarter], NOISE_POINTS * 2 // 3, replace=False)
    rest = random.choice(ranked[quarter:], NOISE_POINTS // 3, replace=False)
    for seed in NOISE_SEEDS:
        for point in (*top, *rest):
            yield seed, int(point)


def complete_passes(log: Log) -> tuple[Counts, Counts]:
    """Returns the scores of those seeds with which every candidate has been trained.

    Returns:
        (seeds, points, epochs) numbers of correctly classified images, and losses in units of
        ``LOSS_UNIT``.

    Raises:
        SystemExit: No seed has trainings of every candidate.
    """
    points = len(joint_table.grid(joint_table.joint_space()))
    passes: list[Counts] = []
    rows = np.array(log.rows())
    for seed in range(min(NOISE_SEEDS)):
        of_seed = rows[rows[:, 0] == seed] if len(rows) else rows
        if len(of_seed) < points:
            break
        passes.append(of_seed[np.argsort(of_seed[:, 1]), 2:-1].astype(np.uint16))
    if not passes:
        raise SystemExit("not every candidate has been trained yet; run: make_table train")
    right, losses = np.split(np.stack(passes), 2, axis=2)
    return right, losses


def pack(log: Log) -> None:
    """Writes the table of the repository, ``table/scores.npz``, from the log.

    Raises:
        SystemExit: Trainings are missing.
    """
    right, losses = complete_passes(log)
    rows = np.array(log.rows())
    noisy = rows[rows[:, 0] >= min(NOISE_SEEDS)]
    points = np.unique(noisy[:, 1]).astype(np.int64)
    scores = np.array([[_training(noisy, point, seed) for seed in NOISE_SEEDS] for point in points])
    noise_right, noise_losses = np.split(scores.astype(np.uint16), 2, axis=2)
    early, last = micro_training.EARLY, micro_training.HELD_OUT
    asked = np.array([early] * (right.shape[2] - 1) + [last], dtype=np.uint16)
    with atomic_write(joint_table.SCORES) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            fingerprint=np.array(_fingerprint()),
            right=right,
            losses=losses,
            asked=asked,
            noise_points=points,
            noise_right=noise_right,
            noise_losses=noise_losses,
        )


def _training(rows: npt.NDArray[np.float64], point: int, seed: int) -> npt.NDArray[np.float64]:
    """Returns the scores of a training.

    Raises:
        SystemExit: The candidate has not been trained with the seed.
    """
    matches = rows[(rows[:, 0] == seed) & (rows[:, 1] == point)]
    if not len(matches):
        raise SystemExit(
            f"candidate {point} has no training with seed {seed}; run: make_table noise"
        )
    return np.asarray(matches[0, 2:-1])


def unpack(path: Path) -> None:
    """Writes the trainings of the repository's table to a log, from which ``train`` continues.

    Raises:
        SystemExit: The table was made by another version of the training code.
    """
    with np.load(joint_table.SCORES) as table:
        if str(table["fingerprint"]) != _fingerprint():
            raise SystemExit(
                f"{joint_table.SCORES} was made by another version of the training code"
            )
        passes = np.concatenate([table["right"], table["losses"]], axis=2)
        noise_scores = np.concatenate([table["noise_right"], table["noise_losses"]], axis=2)
        points = table["noise_points"]
    lines = [f"# {_fingerprint()}"]
    for seed, scores in enumerate(passes):
        lines += [_line(seed, point, row) for point, row in enumerate(scores)]
    for point, scores in zip(points, noise_scores, strict=True):
        pairs = zip(NOISE_SEEDS, scores, strict=True)
        lines += [_line(seed, point, row) for seed, row in pairs]
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def _line(seed: int, point: int, row: Counts) -> str:
    return f"{seed} {point} {' '.join(map(str, row))} nan"


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "command",
        choices=["train", "noise", "pack"],
        help="train the grid, train candidates again to measure the noise, or write the table",
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of trainings per candidate")
    parser.add_argument(
        "--folder", type=Path, default=Path("output/joint_table"), help="folder of the log"
    )
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    path = args.folder / "trainings.log"
    if not path.exists() and joint_table.SCORES.exists():
        unpack(path)
    log = Log(path)
    if args.command == "pack":
        pack(log)
        return
    plan = table_plan(args.seeds) if args.command == "train" else noise_plan(log)
    train_all(plan, log, args.folder / "pixels.npz")


if __name__ == "__main__":
    main()
