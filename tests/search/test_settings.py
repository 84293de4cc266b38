"""The settings of a search: checked when they are made, and stored in a stable form."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fbnetv3.search import (
    Choice,
    Constraint,
    EvolutionSettings,
    FloatRange,
    IntRange,
    JointNAS,
    SearchError,
    SearchSettings,
    SearchSpace,
    When,
)
from tests.search import problem

SPACE = SearchSpace(
    [
        IntRange("depth", 1, 3, part="architecture"),
        Choice("act", ("relu", "swish"), active_if=When("depth", ">", 1)),
        FloatRange("lr", 0.1, 0.3, step=0.1),
    ]
)
# what a storage of an earlier version holds; a search can be resumed only while this is stable
DEFAULTS: dict[str, Any] = {
    "space": {
        "depth": "whole numbers from 1 to 3",
        "act": "'relu', 'swish'; if depth > 1",
        "lr": "numbers from 0.1 to 0.3 in steps of 0.1",
    },
    "constraints": [],
    "pool_size": 20_000,
    "batch_size": 48,
    "iterations": 4,
    "predictor": "default",
    "early_stop_threshold": 0.92,
    "finalists": 8,
    "evolution": {
        "best": 50,
        "random": 50,
        "children": 12,
        "top": 40,
        "epsilon": 1e-6,
        "patience": 1,
        "max_generations": 500,
    },
    "pretrain": True,
    "warm_start": [],
    "seed": 0,
}


def test_the_description_is_that_of_existing_storages() -> None:
    described = SearchSettings().describe(SPACE)
    assert described == DEFAULTS
    assert list(described) == list(DEFAULTS)


def test_every_setting_is_described() -> None:
    settings = SearchSettings(
        constraints=(Constraint("macs", 4e8, 8e8),),
        budgets=(Constraint("params", upper=5e6),),
        pool_size=300,
        batch_size=8,
        iterations=2,
        predictor="paper",
        early_stop_threshold=None,
        finalists=3,
        ahead=5,
        first_parts=2,
        evolution=EvolutionSettings(best=10, random=20, patience=3),
        pretrain=False,
        seed=7,
    )
    changed = {
        "constraints": ["4e+08 <= macs <= 8e+08"],
        "budgets": ["params <= 5e+06"],
        "pool_size": 300,
        "batch_size": 8,
        "iterations": 2,
        "predictor": "paper",
        "early_stop_threshold": None,
        "finalists": 3,
        "ahead": 5,
        "first_parts": 2,
        "evolution": {**DEFAULTS["evolution"], "best": 10, "random": 20, "patience": 3},
        "pretrain": False,
        "seed": 7,
    }
    assert settings.describe(SPACE) == {**DEFAULTS, **changed}
    order = "space constraints budgets pool_size batch_size iterations predictor"
    order += " early_stop_threshold finalists ahead first_parts evolution pretrain warm_start seed"
    assert list(settings.describe(SPACE)) == order.split()


def test_a_search_stores_its_settings_and_warm_start() -> None:
    config = {"depth": 2, "act": "swish", "lr": 0.2}
    search = JointNAS(SPACE, batch_size=4, warm_start=[(config, 0.5)])
    (key,) = SPACE.ids(SPACE.levels([config]))
    assert search.settings == {**DEFAULTS, "batch_size": 4, "warm_start": [[key, 0.5]]}
    assert json.loads(json.dumps(search.settings)) == search.settings


def test_keywords_replace_fields_of_the_settings() -> None:
    settings = SearchSettings(batch_size=8, pool_size=512, seed=3)
    as_value = JointNAS(problem.space(), settings, seed=4).settings
    as_keywords = JointNAS(problem.space(), batch_size=8, pool_size=512, seed=4).settings
    assert as_value == as_keywords
    assert as_value == JointNAS(problem.space(), replace(settings, seed=4)).settings
    with pytest.raises(TypeError, match="batchsize"):
        JointNAS(problem.space(), settings, batchsize=4)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"batch_size": 600, "pool_size": 512}, "batch_size=600 is larger than the pool"),
        ({"batch_size": 0}, "at least 1"),
        ({"iterations": 0}, "at least 1"),
        ({"finalists": -1}, "finalists=-1"),
        ({"ahead": -1}, "ahead=-1"),
        ({"predictor": "gp"}, "allowed: default, paper"),
    ],
)
def test_wrong_settings_are_refused_on_one_line(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(SearchError, match=text) as error:
        SearchSettings(**changes)
    assert "\n" not in str(error.value)


def test_lists_become_tuples() -> None:
    budget = Constraint("macs", upper=1)
    assert SearchSettings(budgets=[budget]) == SearchSettings(budgets=(budget,))  # type: ignore[arg-type]
