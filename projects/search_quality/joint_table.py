"""A full grid of (architecture, recipe) pairs of a micro FBNet space, each really trained.

A search of it takes seconds, and every point has trainings of its own: there is no surrogate whose
kind could favour a search method. ``table/README.md`` says how it was made and how noisy it is.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fbnetv3.recipe import Recipe
from fbnetv3.search import Choice, FloatRange, SearchSpace
from fbnetv3.search.fbnet_space import FBNetSpace
from fbnetv3.search.parameters import Levels
from fbnetv3.search.space import unique_rows

FOLDER = Path(__file__).with_name("table")
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
"""What all candidates have in common: batches of 64, four epochs, cosine, EMA."""
RMSPROP_FACTOR = 1 / 16
"""RMSProp's lr as a share of SGD's; Table 1 ties them the same way."""


def architectures() -> FBNetSpace:
    """Returns the space's architectures."""
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
