"""What would fail in every candidate, told before the first one trains."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fbnetv3.config import CfgNode, recipe_from_config
from fbnetv3.errors import FBNetError
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.evaluator import candidate_training, open_training_set, winner_config
from fbnetv3.search.fbnet.space import FBNetSpace


def check_trainings(cfg: CfgNode, space: FBNetSpace) -> None:
    """Makes a candidate ready for training, and a winner's config, and drops both.

    Args:
        cfg: of the search.
        space: of the candidates.

    Raises:
        FBNetError: the data are missing or fewer than the config asks for, no candidate can be
            trained, or SEARCH.FINAL makes a config that can't be.
    """
    from fbnetv3.config.ranges import check_numbers

    check_numbers(cfg)
    check_data(cfg)
    sizes = space.space.sizes
    levels = space.space.canonical(np.stack([sizes * 0, sizes - 1]))
    first, last = space.space.configs(levels)
    with tempfile.TemporaryDirectory() as folder:
        _check_candidates(cfg, space, [first, last], Path(folder))
        _check_winner(cfg, space, first, Path(folder))


def check_data(cfg: CfgNode) -> None:
    """Checks that the training set has the classes and images that a search asks for.

    Raises:
        FBNetError: names the key, its value, and what the data have.
    """
    train, classes, held = open_training_set(cfg), cfg.SEARCH.CLASSES, cfg.SEARCH.HOLD_OUT
    where, found = train.name, len(train.classes)
    if classes > found:
        raise SearchError(
            f"SEARCH.CLASSES={classes}: {where} has {found} classes; allowed: 1 to {found}, or 0 "
            "for all"
        )
    if classes:
        train = train.select_classes(classes, cfg.SEED)
        where = f"the part of {where} with {classes} classes"
    if held >= len(train):
        raise SearchError(
            f"SEARCH.HOLD_OUT={held}: {where} has {len(train)} images; allowed: 1 to "
            f"{len(train) - 1}, or 0 to score on DATASETS.TEST"
        )


def _check_candidates(
    cfg: CfgNode, space: FBNetSpace, configs: list[dict[str, Any]], folder: Path
) -> None:
    """Raises an error where none of some candidates can be trained; one that can is enough."""
    from fbnetv3.classification.prepare import prepare_classifier
    from fbnetv3.engine.process import runtime_context

    for config in configs:
        try:
            training = candidate_training(cfg, space, config, folder)
            prepare_classifier(training, runtime_context(training))
        except FBNetError as error:
            reason = error
        else:
            return
    raise SearchError(f"candidates can't be trained: {reason}") from reason


def _check_winner(cfg: CfgNode, space: FBNetSpace, config: dict[str, Any], folder: Path) -> None:
    """Raises an error where SEARCH.FINAL changes what can't be, or to what can't be."""
    from fbnetv3.config.ranges import check_numbers

    try:
        found = winner_config(cfg, space, config, folder / "winner")
        check_numbers(found)
        recipe_from_config(found, iters_per_epoch=1)
    except FBNetError as error:
        raise SearchError(f"SEARCH.FINAL: {error}") from error
