"""The rungs of a search's config: epochs after which only the best candidates train on."""

from __future__ import annotations

from collections.abc import Iterable

from fbnetv3.config import CfgNode
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.datasets import counts_iterations
from fbnetv3.search.rungs import as_rungs


def rungs_from_config(cfg: CfgNode) -> tuple[int, ...]:
    """Returns SEARCH.RUNGS; () if candidates train in one go.

    Raises:
        SearchError: The rungs are not at least two ascending whole numbers above 0, the last one is
            not SOLVER.MAX_EPOCHS, or trainings are not scored after whole epochs.
    """
    given = list(cfg.SEARCH.RUNGS)
    try:
        rungs = as_rungs(given)
    except SearchError as error:
        raise SearchError(f"SEARCH.RUNGS={given}: {error}") from None
    if not rungs:
        return ()
    if counts_iterations(cfg):
        raise SearchError(
            f"SEARCH.RUNGS={given} are epochs, but the detectors of this config are scored after "
            "numbers of iterations; set SOLVER.MAX_EPOCHS, and set TEST.EVAL_EPOCHS to 1"
        )
    if rungs[-1] != cfg.SOLVER.MAX_EPOCHS:
        raise SearchError(
            f"SEARCH.RUNGS={given} ends after {rungs[-1]} epochs, but SOLVER.MAX_EPOCHS="
            f"{cfg.SOLVER.MAX_EPOCHS:g}: the last rung is the whole training; set both to the same "
            "number"
        )
    return rungs


def check_rungs(cfg: CfgNode, fields: Iterable[str]) -> None:
    """Checks that all candidates of a search with rungs train for the same number of epochs.

    Args:
        cfg: Config of the search.
        fields: Names of the fields of the recipe and of the group ``detector`` that the space sets.

    Raises:
        SearchError: The space sets the length of the trainings.
    """
    names = {"epochs", "iterations"} & set(fields)
    if cfg.SEARCH.RUNGS and names:
        raise SearchError(
            f"the space sets {min(names)}, but SEARCH.RUNGS={list(cfg.SEARCH.RUNGS)} "
            "compares trainings of one length; remove one of the two"
        )
