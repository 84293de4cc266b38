"""Winners for budgets: trained ones, and of stage 2 from the trials that a search has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fbnetv3.errors import FBNetError
from fbnetv3.search.fbnet.winners import costs, report_run, train_command, write_winner

if TYPE_CHECKING:
    from fbnetv3.search.fbnet.run_folder import RunFolder
    from fbnetv3.search.jointnas import JointNAS
    from fbnetv3.search.result import Candidate, SearchResult
    from fbnetv3.search.trial import Trial

# what a budget may bound, and what it counts
BUDGETS = {
    "macs": "multiply-adds",
    "params": "parameters",
    "activations": "activations",
    "latency_ms": "milliseconds, where the run has a SEARCH.LATENCY_TABLE",
}


def flag(statistic: str) -> str:
    """Returns the option of a budget, such as ``--latency-ms``."""
    return "--" + statistic.replace("_", "-")


def evolve_budgets(
    cfg: Any, folder: RunFolder, search: JointNAS, budgets: Sequence[tuple[str, float]]
) -> None:
    """Writes and prints the winner of each budget, and the report.

    Args:
        cfg: of the search.
        folder: of the run.
        search: on the folder's storage.
        budgets: (statistic, largest value).

    Raises:
        FBNetError: there are too few scores to predict from, the run has no such statistic, or
            nothing in the space meets a budget.
    """
    from fbnetv3.search.space.constraints import Constraint

    trials = search.result().trials
    for statistic, budget in budgets:
        try:
            found = search.evolve([Constraint(statistic, upper=budget)], top_k=1)[0]
        except FBNetError as error:
            raise FBNetError(f"{flag(statistic)} {budget:g}: {error}") from None
        near = _nearest(search, found, trials)
        told = [
            f"predicted score {found.predicted:.4f}{costs(found.statistics)}",
            *(f"nearest trial {t.id}: score {t.score:.4f}{costs(t.statistics)}" for t in near),
        ]
        path = write_winner(cfg, folder, winner_name(statistic, budget), found.config, told)
        print(f"{path}:", *told, f"train it with: {train_command(path)}", sep="\n  ")
    print(f"report: {report_run(cfg, folder, search)}")


def write_trained(cfg: Any, folder: RunFolder, result: SearchResult) -> None:
    """Writes and prints the best trained candidate within each of SEARCH.BUDGETS."""
    from fbnetv3.search.fbnet.config import settings_from_config

    for budget in settings_from_config(cfg).budgets:
        assert budget.upper is not None  # as parse_budget has checked
        found = result.best_within(budget)
        if found is None:
            print(f"{budget}: no candidate that was trained meets it")
            continue
        told = [f"score {found.score:.4f}{costs(found.statistics)}"]
        path = write_winner(cfg, folder, winner_name(budget.name, budget.upper), found.config, told)
        print(f"{path}:", *told, f"train it with: {train_command(path)}", sep="\n  ")


def winner_name(statistic: str, budget: float) -> str:
    """Returns ``best_macs_1.5M`` or ``best_latency_2ms``."""
    what, _, unit = statistic.partition("_")
    return f"best_{what}_{budget:g}{unit}" if unit else f"best_{what}_{budget / 1e6:g}M"


def _nearest(
    search: JointNAS, found: Candidate, trials: list[Trial], count: int = 3
) -> list[Trial]:
    """Returns the trained candidates that are most alike."""
    import numpy as np

    from fbnetv3.search.space.encoding import Encoding

    complete = [t for t in trials if t.state == "complete"]
    levels = search.space.levels([found.config, *(t.config for t in complete)])
    features = Encoding(search.space).encode(levels)
    distance = np.square(features[1:] - features[0]).sum(1)
    return [complete[i] for i in np.argsort(distance, kind="stable")[:count]]
