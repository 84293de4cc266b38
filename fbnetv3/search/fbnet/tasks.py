"""The task of a search: the costs of its candidates, and whether its space fits its config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fbnetv3.arch.latency import LatencyTable
from fbnetv3.config import CfgNode
from fbnetv3.config.archs import is_detector
from fbnetv3.config.effects import unread_reason
from fbnetv3.config.recipes import RECIPE_KEYS
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.config import SearchSetup, settings_from_config
from fbnetv3.search.fbnet.datasets import num_classes_from_config
from fbnetv3.search.fbnet.detector_costs import (
    check_final,
    check_input_size,
    detector_statistics,
    final_training,
)
from fbnetv3.search.fbnet.network_space import NetworkSpace
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.fbnet.rungs import check_rungs
from fbnetv3.search.fbnet.space import FBNetSpace
from fbnetv3.search.fbnet.space_table import Ref
from fbnetv3.search.fbnet.statistics import with_registered
from fbnetv3.search.fbnet.table_space import TableSpace
from fbnetv3.search.objectives import name_of
from fbnetv3.search.space.constraints import StatisticsFn
from fbnetv3.search.trial import SCORE


def statistics_of(setup: SearchSetup) -> StatisticsFn | None:
    """Returns the function that computes the costs of a search's candidates.

    Returns:
        The function; None if the space does not search the architecture or, for detectors, anything
        that their costs depend on.

    Raises:
        FBNetError: The costs of the config's detector are unknown, the latency table cannot be read
            or does not fit the search, or the number of classes depends on a data set that cannot
            be opened.
    """
    cfg = setup.cfg
    table = cfg.SEARCH.LATENCY_TABLE
    if is_detector(cfg):
        return detector_statistics(
            space_of_detectors(setup),
            final_training(cfg, setup.training),
            num_classes_from_config(cfg),
            cfg.SEARCH.ASPECT_RATIO,
            _detector_table(table, cfg.SEARCH.ASPECT_RATIO) if table else None,
        )
    space = setup.space
    if not space.has_architecture:
        return None
    latency = LatencyTable.load(table) if table else None
    num_classes = num_classes_from_config(cfg)
    if isinstance(space, NetworkSpace):
        space.costs(num_classes).read_file(RunFolder(cfg.OUTPUT_DIR).costs)
    statistics = space.statistics(num_classes, latency)
    if statistics is not None and isinstance(space, FBNetSpace | NetworkSpace):
        settings = settings_from_config(cfg)
        bounds = [bound.name for bound in (*settings.constraints, *settings.budgets)]
        costs = [name_of(text) for text in settings.objectives if text != SCORE]
        return with_registered(statistics, space, [*bounds, *costs], num_classes)
    return statistics


def _detector_table(path: str, aspect_ratio: float) -> LatencyTable:
    """Reads the latency table of detectors.

    Raises:
        ArchError: The file cannot be read, or is not a latency table.
        SearchError: The table was measured for classifiers, or for images of another aspect ratio.
    """
    table = LatencyTable.load(path)
    measured = table.about.get("aspect_ratio")
    if measured != aspect_ratio:
        kind = "a classifier" if measured is None else f"images of aspect ratio {measured:g}"
        raise SearchError(
            f"SEARCH.LATENCY_TABLE={path} was measured for {kind}, but SEARCH.ASPECT_RATIO of this "
            f"search over detectors is {aspect_ratio:g}; measure one: fbnetv3-benchmark "
            "--latency-table FILE --config-file CONFIG"
        )
    return table


def keep_costs(setup: SearchSetup, path: Path) -> None:
    """Writes the costs of a NetworkSpace to a file, now and whenever there are new ones.

    It does nothing for a space of another class.

    Args:
        setup: Config and space of the search.
        path: Path of the file.
    """
    if isinstance(setup.space, NetworkSpace):
        setup.space.costs(num_classes_from_config(setup.cfg)).keep_in(path)


def latency_lines(setup: SearchSetup) -> list[str]:
    """Returns a line, for the plan of a search, about the latency table; [] if there is none."""
    path = setup.cfg.SEARCH.LATENCY_TABLE
    if not path:
        return []
    table = LatencyTable.load(path)
    cpu = table.about.get("cpu", "a CPU")
    return [f"latency_ms: from blocks timed in {table.runtime} on {cpu} ({path})"]


def refusal_lines(setup: SearchSetup) -> list[str]:
    """Returns lines about networks that cannot be built, for the plan that a search prints."""
    if not isinstance(setup.space, NetworkSpace):
        return []
    return setup.space.costs(num_classes_from_config(setup.cfg)).refusal_lines()


def space_of_detectors(setup: SearchSetup) -> FBNetSpace:
    """Returns the space of a search over detectors.

    Raises:
        SearchError: The networks of the space are not FBNets.
    """
    if not isinstance(setup.space, FBNetSpace):
        raise SearchError(
            f"the space {setup.space.name} has networks of classifiers only; a detector needs a "
            "space with rows, or with a recipe alone"
        )
    return setup.space


def check_task(setup: SearchSetup) -> None:
    """Checks that the trainings of a search read all that its space sets, and can be compared.

    Raises:
        SearchError: The space sets a value that the trainings do not read or that SEARCH.FINAL sets
            too; the space sets the length of the trainings twice, or although SEARCH.RUNGS,
            SEARCH.EARLY_STOP or the schedule forbids it; or the search is over detectors, and the
            networks of its space are not FBNets, or INPUT.MIN_SIZE_TEST is 0 although their costs
            or sizes depend on it. The message names the cause.
        ConfigError: SEARCH.FINAL of a search over detectors has an unknown key, or a value of the
            wrong type.
    """
    cfg = setup.cfg
    check_rungs(cfg, [*setup.space.recipe_fields, *setup.space.detector])
    if not is_detector(cfg):
        if setup.space.detector:
            raise SearchError(
                f"the space {cfg.SEARCH.SPACE} has the group detector, but "
                "MODEL.META_ARCHITECTURE is ImageClassifier; remove the group, or give the config "
                "of a detector"
            )
        _check_resolution(setup)
        _check_length(setup)
        return
    space = space_of_detectors(setup)
    check_final(space, list(cfg.SEARCH.FINAL))
    check_input_size(space, final_training(cfg, setup.training))
    for field in space.recipe_fields:
        reason = unread_reason(cfg, RECIPE_KEYS.get(field, ""))
        if reason.startswith("not read"):
            raise SearchError(
                f"the space's recipe sets {field}, which is {reason}; remove it from SEARCH.SPACE"
            )
    _check_length(setup)


def _check_resolution(setup: SearchSetup) -> None:
    """Raises a SearchError if a space of classifiers searches the resolution, not the network."""
    space = setup.space
    if not isinstance(space, FBNetSpace) or space.has_architecture:
        return
    if isinstance(space.resolution, Ref):
        raise SearchError(
            f"the space {setup.cfg.SEARCH.SPACE} searches the resolution, which has no effect on "
            "classifiers in a space without rows; add rows, or remove the resolution"
        )


def _check_length(setup: SearchSetup) -> None:
    """Checks a space that searches the length of the trainings.

    Raises:
        SearchError: Both epochs and iterations are set, early stopping would compare trainings of
            different lengths, or the schedule has steps, which do not follow the length.
    """
    cfg, space = setup.cfg, setup.space
    fields: Mapping[str, Any] = {**space.recipe_fields, **space.detector}
    if "epochs" in fields and "iterations" in fields:
        raise SearchError(
            "the space sets both epochs and iterations, of which one is the length of a training; "
            "remove one of the two"
        )
    searched = [n for n in ("epochs", "iterations") if _is_searched(space, fields.get(n))]
    if not searched:
        return
    if cfg.SEARCH.EARLY_STOP:
        raise SearchError(
            f"the space searches {searched[0]}, but SEARCH.EARLY_STOP={cfg.SEARCH.EARLY_STOP:g} "
            f"compares trainings after the same number of {searched[0]}; set it to 0 (in another "
            "OUTPUT_DIR if the search has begun)"
        )
    if "steps" in _schedules(cfg, space):
        raise SearchError(
            f"the space searches {searched[0]}, but SOLVER.STEPS do not follow the length of a "
            "training; set SOLVER.LR_SCHEDULER_NAME, or the space's schedule, to others, such as "
            "cosine"
        )


def _is_searched(space: TableSpace, value: Any) -> bool:
    """Returns whether a field's value differs between candidates; SEARCH.FIX fixes variables."""
    return isinstance(value, Ref) and space.space[value.name].size > 1


def _schedules(cfg: CfgNode, space: TableSpace) -> list[str]:
    """Returns the schedules of the learning rate that candidates may have."""
    given = cfg.SOLVER.LR_SCHEDULER_NAME
    value = space.recipe_fields.get("schedule", given)
    if not isinstance(value, Ref):
        return [value]
    parameter = space.space[value.name]
    values = [parameter.value(level) for level in range(parameter.size)]
    return [*values, given] if parameter.active_if else values
