"""A preview of a search: its next batch and the cost of training it, without starting the batch."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fbnetv3.config import CfgNode, recipe_from_config
from fbnetv3.engine.schedule import num_steps
from fbnetv3.search.fbnet.config import SearchSetup
from fbnetv3.search.fbnet.evaluator import steps_per_epoch
from fbnetv3.search.fbnet.opening import build_search, open_search, plan_lines, setup_from_config
from fbnetv3.search.fbnet.preflight import check_trainings, on_cpu
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.fbnet.trainings import candidate_training
from fbnetv3.search.trial import Trial
from fbnetv3.training import prepare_task


@dataclass(frozen=True)
class Length:
    """The length of a candidate's training.

    Attributes:
        epochs: Number of epochs.
        steps: Number of optimizer steps.
    """

    epochs: float
    steps: int


@dataclass(frozen=True)
class SearchPreview:
    """The next trials of a search, and the lengths of their trainings.

    Attributes:
        trials: The trials that would be trained next.
        lengths: Length of the training of each trial; () if SEARCH.EVALUATOR is not ``train``.
        finished: Number of trials that have a score or have failed.
        total: Largest number of trials of the search, the finished ones included.
        max_hours: SEARCH.MAX_HOURS; 0: no limit.
        plan: Lines about the space, the constraints and the data.
    """

    trials: list[Trial]
    lengths: tuple[Length, ...]
    finished: int
    total: int
    max_hours: float
    plan: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.trials:
            return "\n".join([*self.plan, f"the search is done, after {self.finished} trials"])
        batch = self.trials[-1].batch
        count = f"batch {batch + 1}: {len(self.trials)} of at most {self.total} trials"
        done = f"; {self.finished} trials have finished" if self.finished else ""
        return "\n".join([*self.plan, f"{count}{done}", *self._table(), *self._cost()])

    def _table(self) -> list[str]:
        """Returns a line for each trial, below a line of headings."""
        names = sorted({name for trial in self.trials for name in trial.statistics})
        epochs = ["epochs"] if self.lengths else []
        rows = [["trial", "id", *names, *epochs, "enqueued"]]
        for i, trial in enumerate(self.trials):
            costs = [f"{trial.statistics[name]:.4g}" for name in names]
            length = [f"{self.lengths[i].epochs:g}"] if self.lengths else []
            rows.append([str(trial.number), trial.id, *costs, *length, trial.enqueued or ""])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]

    def _cost(self) -> list[str]:
        """Returns lines about the cost of the batch and the time of the run."""
        if self.lengths:
            epochs = sum(length.epochs for length in self.lengths)
            steps = sum(length.steps for length in self.lengths)
            cost = f"the batch takes {epochs:g} epochs, {steps:,} steps of the optimizer"
        else:
            cost = "the cost of an evaluation is unknown: SEARCH.EVALUATOR is not 'train'"
        hours = self.max_hours
        limit = f"ends after SEARCH.MAX_HOURS={hours:g}" if hours else "has no limit of time"
        return [cost, f"a run {limit}", "nothing was trained or written"]


def preview_search(cfg: CfgNode, folder: str | os.PathLike[str]) -> SearchPreview:
    """Returns the next batch of a search.

    Nothing is trained, and nothing is written to the folder or the storage. The config and the data
    are checked in the same way as at the start of a search.

    Args:
        cfg: Config of the search; see :func:`~fbnetv3.search.fbnet.read_search_config`.
        folder: Folder of the run, which need not exist; if it holds a search, the batch is the one
            with which that search continues.

    Raises:
        FBNetError: The config is invalid, the folder holds another search, or the data are missing.
    """
    run_folder = RunFolder(folder)
    setup = setup_from_config(cfg, run_folder)
    check_trainings(setup)
    is_started = run_folder.config.is_file()
    search = open_search(setup) if is_started else build_search(setup, in_memory=True)
    trials = search.preview()
    return SearchPreview(
        trials,
        _lengths(setup, trials),
        len(search.finished_trials()),
        search.size,
        setup.cfg.SEARCH.MAX_HOURS,
        tuple(plan_lines(setup, search)),
    )


def _lengths(setup: SearchSetup, trials: list[Trial]) -> tuple[Length, ...]:
    """Returns the length of each training, computed with the steps per epoch of the first one."""
    if setup.cfg.SEARCH.EVALUATOR != "train" or not trials:
        return ()
    with tempfile.TemporaryDirectory() as folder:
        configs = [candidate_training(setup, trial.config, Path(folder)) for trial in trials]
        experiment = prepare_task(configs[0])(configs[0], on_cpu(configs[0]))
    per_epoch = experiment.loader.iters_per_epoch
    lengths = []
    for trial, training in zip(trials, configs, strict=True):
        epochs = recipe_from_config(training, per_epoch).epochs
        if trial.max_epochs is not None:
            epochs = min(epochs, trial.max_epochs / steps_per_epoch(training))
        lengths.append(Length(epochs, num_steps(epochs, per_epoch)))
    return tuple(lengths)
