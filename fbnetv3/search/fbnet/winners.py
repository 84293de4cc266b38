"""Writes the winners of a search as configs that ``train_net.py`` trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fbnetv3.config import get_cfg
from fbnetv3.config.changes import write_config
from fbnetv3.search.fbnet.commands import train_command
from fbnetv3.search.fbnet.config import SearchSetup, budgets_from_config
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.fbnet.trainings import winner_config
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
    """The trained candidate with the highest score within a budget.

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

    Args:
        setup: Config and space of the search.
        folder: Folder of the run.
        name: Name of the winner, such as ``best``.
        config: Value by variable.
        facts: Lines about the candidate; they become comments at the top of the file.
    """
    cfg = winner_config(setup, config, folder.path / name)
    path = folder.path / f"{name}.yaml"
    write_config(path, cfg, get_cfg(), comments="".join(f"# {line}\n" for line in facts))
    folder.record_winner(name, facts)
    return Winner(path, tuple(facts))


def write_best(setup: SearchSetup, folder: RunFolder, result: SearchResult) -> Winner:
    """Writes the trained candidate with the highest score as ``best.yaml``.

    Raises:
        SearchError: Every trial failed.
    """
    best = result.best
    return write_winner(setup, folder, "best", best.config, [score_line(best)])


def write_budget_winners(
    setup: SearchSetup, folder: RunFolder, result: SearchResult
) -> list[BudgetWinner]:
    """Writes the trained candidate with the highest score within each of SEARCH.BUDGETS."""
    winners = []
    for budget in budgets_from_config(setup.cfg):
        best = result.best_within(budget)
        winner = None
        if best is not None:
            name, facts = winner_name(budget), [score_line(best)]
            winner = write_winner(setup, folder, name, best.config, facts)
        winners.append(BudgetWinner(budget, winner))
    return winners


def winner_name(budget: Constraint) -> str:
    """Returns the name of the winner for a budget: ``best_macs_1.5M`` or ``best_latency_2ms``."""
    statistic, _, unit = budget.name.partition("_")
    if unit:
        return f"best_{statistic}_{budget.upper:g}{unit}"
    return f"best_{statistic}_{(budget.upper or 0.0) / 1e6:g}M"


def score_line(trial: Trial) -> str:
    """Returns the score and the costs of a trained candidate as text."""
    return f"score {trial.score:.4f}{cost_text(trial.statistics)}"


def cost_text(statistics: Mapping[str, float]) -> str:
    """Returns statistics as text to append, such as ``, macs 1.2e+06, params 3e+04``."""
    return "".join(f", {name} {value:.4g}" for name, value in sorted(statistics.items()))
