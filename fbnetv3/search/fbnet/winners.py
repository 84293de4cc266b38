"""Writes the winners of a search as configs that ``train_net.py`` trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fbnetv3.config import get_cfg
from fbnetv3.config.archs import is_detector
from fbnetv3.config.changes import write_config
from fbnetv3.search.fbnet.bounds import budgets_from_config
from fbnetv3.search.fbnet.commands import train_command
from fbnetv3.search.fbnet.config import SearchSetup
from fbnetv3.search.fbnet.detector_costs import DetectorStatistics
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.fbnet.tasks import statistics_of
from fbnetv3.search.fbnet.trainings import winner_config
from fbnetv3.search.fbnet.winner_names import winner_name
from fbnetv3.search.fbnet.winner_trainings import choose_training, holds_run
from fbnetv3.search.result import SearchResult
from fbnetv3.search.space.constraints import Constraint
from fbnetv3.search.trial import Trial


@dataclass(frozen=True)
class Winner:
    """A candidate that was written as the config of a training.

    Attributes:
        path: Path of the config.
        facts: Lines about the candidate: its score, its cost and the like.
    """

    path: Path
    facts: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command that trains the winner."""
        return train_command(self.path)


@dataclass(frozen=True)
class BudgetWinner:
    """The trained candidate with the best score within a budget.

    Attributes:
        budget: The budget.
        winner: The candidate; None if no trained candidate meets the budget.
    """

    budget: Constraint
    winner: Winner | None


def write_winner(
    setup: SearchSetup, folder: RunFolder, name: str, config: dict[str, Any], facts: Sequence[str]
) -> Winner:
    """Writes ``NAME.yaml`` and ``NAME_full.yaml`` into a run's folder, and records the winner.

    The architecture of an FBNet is written to ``NAME_arch.yaml``, and the winner trains in the
    folder ``NAME``. If that holds the training of another candidate, these are ``NAME_2_arch.yaml``
    and ``NAME_2``, and so on.

    Args:
        setup: Config and space of the search.
        folder: Folder of the run.
        name: Name of the winner, such as ``best``.
        config: Value by variable.
        facts: Lines about the candidate; they become comments at the top of the file.
    """
    winner = _write(setup, folder.path / name, config, facts)
    folder.record_winner(name, winner.facts)
    return winner


def _write(setup: SearchSetup, stem: Path, config: dict[str, Any], facts: Sequence[str]) -> Winner:
    """Writes ``STEM.yaml`` and ``STEM_full.yaml``, and for an FBNet its architecture."""
    facts = [*facts, *_trained_cost(setup, config), *_cost_of_parts(setup, config)]
    folder = choose_training(setup, config, stem)
    if folder != stem:
        held = f"{stem.name}/ held the training of another candidate"
        facts.append(f"trains in {folder.name}/, since {held}")
    cfg = winner_config(setup, config, folder)
    path = stem.with_name(f"{stem.name}.yaml")
    write_config(path, cfg, get_cfg(), comments="".join(f"# {line}\n" for line in facts))
    return Winner(path, tuple(facts))


def _trained_cost(setup: SearchSetup, config: dict[str, Any]) -> list[str]:
    """Returns a line with the costs of a network with SEARCH.CLASSES classes.

    Returns [] if SEARCH.CLASSES or FINAL_CLASSES is 0, both are equal, or there are no costs.
    """
    classes, final = setup.cfg.SEARCH.CLASSES, setup.cfg.SEARCH.FINAL_CLASSES
    statistics = setup.space.statistics(classes) if classes and final else None
    if statistics is None or classes == final:
        return []
    costs = {name: float(values[0]) for name, values in statistics([config]).items()}
    text = cost_text(costs).removeprefix(", ")
    return [f"costs above: with {final} classes; with the search's {classes} classes: {text}"]


def _cost_of_parts(setup: SearchSetup, config: dict[str, Any]) -> list[str]:
    """Returns a line with the MACs of a detector's parts and its input size; [] if not known."""
    statistics = statistics_of(setup) if is_detector(setup.cfg) else None
    if not isinstance(statistics, DetectorStatistics):
        return []
    parts = ", ".join(f"{name} {macs:.4g}" for name, macs in statistics.of_parts(config).items())
    height, width = statistics.design(config)[3]
    return [f"macs of {parts}, for an image padded to {height} x {width} pixels"]


def write_best(setup: SearchSetup, folder: RunFolder, result: SearchResult) -> Winner:
    """Writes the trained candidate with the best score as ``best.yaml``.

    Raises:
        SearchError: No trial has a score and meets the constraints.
    """
    best = result.best
    return write_winner(setup, folder, "best", best.config, [score_line(best)])


def write_budget_winners(
    setup: SearchSetup, folder: RunFolder, result: SearchResult
) -> list[BudgetWinner]:
    """Writes the trained candidate with the best score within each of SEARCH.BUDGETS."""
    winners = []
    for budget in budgets_from_config(setup.cfg):
        best = result.best_within(budget)
        winner = None
        if best is not None:
            name, facts = winner_name([budget]), [score_line(best)]
            winner = write_winner(setup, folder, name, best.config, facts)
        winners.append(BudgetWinner(budget, winner))
    return winners


def write_front(setup: SearchSetup, folder: RunFolder, result: SearchResult) -> list[Winner]:
    """Writes a config for each trial on the Pareto front, such as ``front/trial_17.yaml``.

    Configs of trials that have left the front since an earlier run are removed, except the
    architectures of trainings that have begun.

    Returns:
        The winners in the order of :meth:`SearchResult.pareto`; [] if the search has one objective.
    """
    if not result.objectives.are_several:
        return []
    front = result.pareto()
    kept = {_front_name(trial) for trial in front}
    for path in folder.front.glob("trial_*.yaml"):
        # Files of a trial: NAME.yaml, NAME_full.yaml and NAME_arch.yaml (or NAME_2_arch.yaml).
        stem, _, suffix = path.stem.rpartition("_")
        is_read = suffix == "arch" and holds_run(path.with_name(stem))
        if not {path.stem, stem} & kept and not is_read:
            path.unlink()
    folder.front.mkdir(parents=True, exist_ok=True)
    return [
        _write(setup, folder.front / _front_name(trial), trial.config, [score_line(trial)])
        for trial in front
    ]


def _front_name(trial: Trial) -> str:
    """Returns the name of a trial's config; trials of a warm start have negative numbers."""
    number = trial.number
    return f"trial_{number}" if number >= 0 else f"trial_warm{-number}"


def score_line(trial: Trial) -> str:
    """Returns the score and the costs of a trained candidate as text."""
    others = "".join(f", {name} {value:.4f}" for name, value in trial.scores.items())
    return f"score {trial.score:.4f}{others}{cost_text(trial.statistics)}"


def cost_text(statistics: Mapping[str, float]) -> str:
    """Returns statistics as text to append, such as ``, macs 1.2e+06, params 3e+04``."""
    return "".join(f", {name} {value:.4g}" for name, value in sorted(statistics.items()))
