"""Conditions of variables in the yaml of a space."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fbnetv3.recipe import Recipe
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.space import FBNetSpace
from fbnetv3.search.space.space import Choice, SearchSpace, When

TABLE: dict[str, Any] = {
    "optimizer": {"choices": ["sgd", "adamw", "lion"]},
    "beta2": {"choices": [0.9, 0.99], "when": {"optimizer": ["adamw", "lion"]}},
    "mixup": {"choices": [0.0, 0.2]},
    "cutmix": {"choices": [0.5, 1.0], "when": {"mixup": "> 0"}},
    "batch_size": {"choices": [32, 64]},
    "epochs": {"choices": [2, 3]},
}


def test_conditions_are_those_of_python() -> None:
    space = FBNetSpace({"recipe": TABLE}).space
    python = SearchSpace(
        [
            Choice("optimizer", ("sgd", "adamw", "lion"), "recipe"),
            Choice(
                "beta2",
                (0.9, 0.99),
                "recipe",
                (When("optimizer", "==", "adamw"), When("optimizer", "==", "lion")),
            ),
            Choice("mixup", (0.0, 0.2), "recipe"),
            Choice("cutmix", (0.5, 1.0), "recipe", (When("mixup", ">", 0),)),
            Choice("batch_size", (32, 64), "recipe"),
            Choice("epochs", (2, 3), "recipe"),
        ]
    )
    assert space.parameters == python.parameters
    levels = np.zeros((2, 6), int)
    levels[1, 1] = levels[1, 3] = 1
    assert len(set(space.ids(levels))) == 1  # they differ in variables that do not matter


def test_a_field_whose_condition_fails_keeps_the_value_of_the_config() -> None:
    space, base = FBNetSpace({"recipe": TABLE}), Recipe(cutmix=0.0)
    config = {"optimizer": "sgd", "beta2": 0.99, "mixup": 0.0, "cutmix": 1.0}
    config |= {"batch_size": 32, "epochs": 3}
    recipe = space.recipe(config, Recipe(warmup_epochs=0.0))
    assert (recipe.beta2, recipe.cutmix) == (base.beta2, base.cutmix)
    assert (recipe.batch_size, recipe.epochs) == (32, 3)
    config |= {"optimizer": "lion", "mixup": 0.2}
    recipe = space.recipe(config, Recipe(warmup_epochs=0.0))
    assert (recipe.beta2, recipe.cutmix) == (0.99, 1.0)


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ({"optimizer": "adam"}, "optimizer is never 'adam'; allowed: 'sgd', 'adamw'"),
        ({"optimiser": "sgd"}, "not an earlier variable of the space.*did you mean optimizer"),
        ("adamw", "allowed: one earlier variable and its value"),
        ({}, "allowed: one earlier variable and its value"),
        ({"optimizer": []}, "allowed: one earlier variable and its value"),
        ({"optimizer": "sgd", "mixup": 0.0}, "allowed: one earlier variable and its value"),
    ],
)
def test_conditions_that_are_refused(when: Any, message: str) -> None:
    table = {"optimizer": {"choices": ["sgd", "adamw"]}}
    table["beta2"] = {"choices": [0.9, 0.99], "when": when}
    with pytest.raises(SearchError, match=message):
        FBNetSpace({"recipe": table})
