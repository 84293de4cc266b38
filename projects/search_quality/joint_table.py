"""A full grid of (architecture, recipe) pairs of a very small FBNet space, with real trainings.

A search of the table takes seconds. The score is the log-likelihood of held-out images, because its
noise is small relative to the differences between good candidates. An evaluation returns the scores
of a real training after each epoch; a search is judged by estimates of the true scores, which
``factorial.py`` computes from the table. Every point of the space is in the table.
``table/README.md`` describes how the table was made and how large its errors are.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3.recipe import Recipe
from fbnetv3.search import Choice, FloatRange, SearchError, SearchSpace, Trial
from fbnetv3.search.fbnet.space import FBNetSpace
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.space import keys_of, unique_rows
from projects.search_quality import factorial

Floats = npt.NDArray[np.float64]

FOLDER = Path(__file__).with_name("table")
SCORES = FOLDER / "scores.npz"
NUM_CLASSES = 10
BASE = Recipe(
    reference_batch=64,
    batch_size=64,
    epochs=4.0,
    schedule="cosine",
    warmup_epochs=0.5,
    weight_decay=1e-4,
    ema_decay=0.97,
    ema_warmup=True,
    drop_path=0.0,
    label_smoothing=0.0,
    auto_augment="none",
)
"""The part of the recipe that all candidates share."""
LOSS_UNIT = 1e-4
"""Unit of the stored 16-bit losses, in nats."""
RMSPROP_FACTOR = 1 / 16
"""Learning rate of RMSProp as a fraction of that of SGD, coupled as in Table 1 of the paper."""


def architectures() -> FBNetSpace:
    """Returns the space of the architectures."""
    return FBNetSpace.from_yaml(str(FOLDER / "space.yaml"))


def joint_space() -> SearchSpace:
    """Returns the space: the architectures' variables, then the recipe's."""
    recipe = [
        FloatRange("log2_lr", -5.0, -1.0, step=1.0),
        Choice("optimizer", ("rmsprop", "sgd")),
        FloatRange("mixup", 0.0, 0.2, step=0.2),
        FloatRange("dropout", 0.0, 0.2, step=0.2),
    ]
    return SearchSpace([*architectures().space.parameters, *recipe])


def recipe_of(config: Mapping[str, Any]) -> Recipe:
    """Returns the training recipe of a candidate."""
    factor = RMSPROP_FACTOR if config["optimizer"] == "rmsprop" else 1.0
    return dataclasses.replace(
        BASE,
        optimizer=config["optimizer"],
        lr=factor * 2 ** config["log2_lr"],
        mixup=config["mixup"],
        dropout=config["dropout"],
    )


def grid(space: SearchSpace) -> Levels:
    """Returns every candidate once, (points, variables), in the table's order."""
    levels = space.canonical(np.array(list(itertools.product(*map(range, space.sizes)))))
    return levels[unique_rows(levels)]


@dataclass(frozen=True)
class Table:
    """The trainings of the grid.

    Attributes:
        space: Space of the candidates.
        levels: (points, variables) levels, with every candidate once.
        right: (seeds, points, epochs) numbers of correctly classified held-out images.
        losses: (seeds, points, epochs) mean cross-entropies, in units of ``LOSS_UNIT``.
        asked: (epochs,) numbers of held-out images that are scored after each epoch.
        noise_points: (k,) points that were trained again to measure the noise.
        noise_right: (k, seeds, epochs) ``right`` of these points, for seeds outside the table.
        noise_losses: (k, seeds, epochs) ``losses`` of these points, for the same seeds.
        macs: (points,) multiply-adds.
    """

    space: SearchSpace
    levels: Levels
    right: npt.NDArray[np.uint16]
    losses: npt.NDArray[np.uint16]
    asked: npt.NDArray[np.uint16]
    noise_points: npt.NDArray[np.int64]
    noise_right: npt.NDArray[np.uint16]
    noise_losses: npt.NDArray[np.uint16]
    macs: Floats

    @property
    def scores(self) -> Floats:
        """(seeds, points, epochs) log-likelihoods of the correct class, in nats per image."""
        return -LOSS_UNIT * self.losses

    @property
    def top1(self) -> Floats:
        """(seeds, points, epochs) top-1 accuracies in percent."""
        return 100.0 * self.right / self.asked

    @property
    def noise_scores(self) -> Floats:
        """(noise points, seeds) log-likelihoods after the last epoch."""
        return -LOSS_UNIT * self.noise_losses[:, :, -1]

    @cached_property
    def noise(self) -> float:
        """Standard deviation of the final score of a training over seeds."""
        return float(np.sqrt(self.noise_scores.var(axis=1, ddof=1).mean()))

    @cached_property
    def truth(self) -> Floats:
        """(points,) estimated true final scores."""
        return self.truth_of(self.scores[:, :, -1].mean(axis=0), len(self.right))

    def truth_of(self, scores: Floats, seeds: int) -> Floats:
        """Estimates the true scores, (points,), from means of final scores over ``seeds`` seeds."""
        return denoised(self.space, self.levels, scores, self.noise**2 / seeds)


def denoised(
    space: SearchSpace, levels: Levels, scores: Floats, variance: float | None = None
) -> Floats:
    """Estimates true scores from noisy ones.

    Args:
        space: Space of the grid.
        levels: (points, variables) levels of the whole grid.
        scores: (points,) noisy scores.
        variance: Variance of the noise. None estimates it from the interactions of five and more
            factors.
    """
    shape, cells = _factors(space, levels)
    full = np.empty(shape)
    full[cells] = scores
    if variance is None:
        variance = factorial.noise_variance(full, order=5)
    return factorial.denoised(full, variance)[cells]


def _factors(space: SearchSpace, levels: Levels) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """Returns the grid as a full factorial design: its shape, and the indices of every point.

    Depth and the expansion that has an effect only from depth 2 on form one factor.
    """
    tied = [space.names.index(name) for name in ("depth", "expansion_rest")]
    _, form = np.unique(levels[:, tied], axis=0, return_inverse=True)
    rest = [levels[:, i] for i in range(len(space)) if i not in tied]
    cells = (form.reshape(-1), *rest)
    return tuple(int(c.max()) + 1 for c in cells), cells


def load_table(path: Path = SCORES) -> Table:
    """Reads the table.

    Raises:
        SearchError: The table was made for another space.
    """
    space, fbnet = joint_space(), architectures()
    levels = grid(space)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != "fingerprint"}
    if arrays["right"].shape[1] != len(levels):
        raise SearchError(
            f"{path} has {arrays['right'].shape[1]} candidates, but the space has "
            f"{len(levels)}; make the table again with make_table.py"
        )
    statistics = fbnet.statistics(NUM_CLASSES)
    assert statistics is not None
    macs = np.asarray(statistics.of_columns(space.values_by_name(levels))["macs"], dtype=np.float64)
    return Table(space, levels, macs=macs, **arrays)


class JointTable:
    """The table as a problem for a search, with true scores to judge it by.

    Args:
        table: Table to search. None reads it by :func:`load_table`.
        seed: Seed of the trainings that evaluations return, with their noise. None returns the mean
            of all seeds.

    Attributes:
        space: Space of the search.
        noise: Standard deviation of the score of one training.
        best: Highest estimated true score.
    """

    def __init__(self, table: Table | None = None, seed: int | None = 0) -> None:
        self.table = table or load_table()
        self.space, self.noise = self.table.space, self.table.noise
        self._rows = {key: i for i, key in enumerate(keys_of(self.table.levels))}
        scores = self.table.scores
        if seed is not None and not 0 <= seed < len(scores):
            raise SearchError(f"the table has no seed {seed}; it has 0 to {len(scores) - 1}")
        self._curves = scores.mean(axis=0) if seed is None else scores[seed]
        self._statistics = architectures().statistics(NUM_CLASSES)

    def points(self, configs: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.int64]:
        """Returns the index of each config in the table.

        Raises:
            SearchError: A config is not in the space; values are not rounded to those of the space.
        """
        return np.array([self._rows[key] for key in keys_of(self.space.levels(configs))])

    def statistics(self, configs: list[dict[str, Any]]) -> dict[str, npt.NDArray[Any]]:
        """Returns MACs, params and activations."""
        assert self._statistics is not None
        return self._statistics(configs)

    def curve(self, config: Mapping[str, Any]) -> Floats:
        """Returns the score after each epoch."""
        return self._curves[self.points([config])[0]]

    def evaluate(self, trial: Trial) -> float:
        """Reports each epoch up to ``trial.max_epochs``, and returns the last score."""
        curve = self.curve(trial.config)[: trial.max_epochs]
        for epoch, score in enumerate(curve, 1):
            trial.report(epoch, score)
        return float(curve[-1])

    def true_score(self, configs: Sequence[Mapping[str, Any]]) -> Floats:
        """Returns the estimated true scores."""
        return self.table.truth[self.points(configs)]

    @property
    def best(self) -> float:
        """Highest estimated true score of the space."""
        return float(self.table.truth.max())
