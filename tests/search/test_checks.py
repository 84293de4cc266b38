"""Arguments of every type end in a search that runs, or in one line that names the argument."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fbnetv3.errors import FBNetError
from fbnetv3.search import (
    Choice,
    Constraint,
    EvolutionSettings,
    FloatRange,
    IntRange,
    JointNAS,
    LocalWorkers,
    SearchError,
    SearchSettings,
    SearchSpace,
    When,
)

X = FloatRange("x", 0, 1.0)


def _search(**changes: Any) -> JointNAS:
    settings = {"pool_size": 64, "batch_size": 2, "iterations": 1, "finalists": 0}
    return JointNAS(changes.pop("space", SearchSpace([X])), **{**settings, **changes})


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "Choice of NaN": (lambda: Choice("c", [math.nan]), "c: the value nan is not a finite"),
    "Choice of infinity": (lambda: Choice("c", [1.0, math.inf]), "inf is not a finite"),
    "Choice of a number": (lambda: Choice("c", 3), "c: values=3"),
    "Choice of a text": (lambda: Choice("c", "abc"), "c: values='abc'"),
    "Choice of a set": (lambda: Choice("c", {"a", "b"}), "c: values="),
    "Choice of a dict": (lambda: Choice("c", {"a": 1}), "c: values="),
    "Choice of bytes": (lambda: Choice("c", b"ab"), "c: values="),
    "name of two lines": (lambda: FloatRange("a\nb", 0, 1), "on one line"),
    "Choice of lists": (lambda: Choice("c", [[1], [2]]), "not a string, number, boolean or None"),
    "Choice of nothing": (lambda: Choice("c", []), "at least one value"),
    "Choice of a huge int": (lambda: Choice("c", [10**5000, 1]), "c: value"),
    "Choice that is not UTF-8": (lambda: Choice("c", ["a\udcff", "b"]), "UTF-8"),
    "Choice of equal numbers of numpy": (lambda: Choice("c", [np.int64(1), 1]), "occurs twice"),
    "name": (lambda: FloatRange(3, 0, 1), "name of a variable=3"),
    "no name": (lambda: FloatRange("", 0, 1), "name of a variable=''"),
    "part": (lambda: FloatRange("x", 0, 1, part=["a"]), "part"),
    "condition": (lambda: FloatRange("x", 0, 1, active_if="depth > 1"), "x: active_if"),
    "relation": (lambda: When("x", ["=="], 1), "relation"),
    "range of texts": (lambda: FloatRange("x", "1e-4", 0.1), "x: low='1e-4'"),
    "range from None": (lambda: FloatRange("x", None, 1), "x: low=None"),
    "range of booleans": (lambda: FloatRange("x", False, True), "x: low=False"),
    "range to infinity": (lambda: FloatRange("x", 0, math.inf), "x: high=inf"),
    "range to 10^400": (lambda: FloatRange("x", 0, 10**400), "x: high="),
    "log as a text": (lambda: FloatRange("x", 0.1, 1, log="false"), "x: log='false'"),
    "log of an int as a text": (lambda: IntRange("x", 1, 9, log="no"), "x: log='no'"),
    "tiny step": (lambda: FloatRange("x", 0.0, 1.0, step=1e-30), "x: step=1e-30"),
    "step NaN": (lambda: FloatRange("x", 0.0, 1.0, step=math.nan), "x: step=nan"),
    "negative step": (lambda: FloatRange("x", 0.0, 1.0, step=-0.1), "x: step=-0.1"),
    "step of a logarithm": (lambda: FloatRange("x", 0.1, 1.0, step=0.1, log=True), "step"),
    "IntRange of floats": (lambda: IntRange("i", 0.0, 2.0), "i: low=0.0"),
    "IntRange to 2**63": (lambda: IntRange("i", 0, 2**63), "i: high="),
    "IntRange to 2**1030": (lambda: IntRange("i", 1, 2**1030, log=True), "i: high="),
    "IntRange with step 0": (lambda: IntRange("i", 0, 4, step=0), "i: step=0"),
    "space of names": (lambda: SearchSpace(["x"]), "variables"),
    "space of one variable": (lambda: SearchSpace(X), "variables"),
    "config as a list": (lambda: SearchSpace([X]).levels([[0.5]]), "is not a config"),
    "unknown variable": (lambda: SearchSpace([X])["y"], "no variable 'y'"),
    "bound as a text": (lambda: Constraint("m", upper="1e9"), "the bound '1e9' is not a finite"),
    "bound of a list": (lambda: Constraint("m", [1]), "is not a finite"),
    "name of a bound": (lambda: Constraint(None, upper=1), "statistic"),
    "batch_size": (lambda: SearchSettings(batch_size=3.0), "batch_size=3.0"),
    "batch_size as a text": (lambda: SearchSettings(batch_size="8"), "batch_size='8'"),
    "batch_size as a boolean": (lambda: SearchSettings(batch_size=True), "batch_size=True"),
    "iterations": (lambda: SearchSettings(iterations=None), "iterations=None"),
    "pool_size": (lambda: SearchSettings(pool_size=2.5), "pool_size=2.5"),
    "negative seed": (lambda: SearchSettings(seed=-1), "seed=-1"),
    "no seed": (lambda: SearchSettings(seed=None), "seed=None"),
    "early stop": (lambda: SearchSettings(early_stop_threshold=2.0), "early_stop_threshold=2.0"),
    "early stop 0": (lambda: SearchSettings(early_stop_threshold=0), "above 0"),
    "early stop NaN": (lambda: SearchSettings(early_stop_threshold=math.nan), "=nan"),
    "pretrain": (lambda: SearchSettings(pretrain="no"), "pretrain='no'"),
    "predictor": (lambda: SearchSettings(predictor=["paper"]), "predictor"),
    "one constraint": (lambda: SearchSettings(constraints=Constraint("m")), "constraints"),
    "texts": (lambda: SearchSettings(constraints=["macs <= 1"]), "constraints such as"),
    "evolution": (lambda: SearchSettings(evolution={"top": 3}), "EvolutionSettings"),
    "top": (lambda: EvolutionSettings(top=2.5), "evolution top=2.5"),
    "epsilon": (lambda: EvolutionSettings(epsilon=math.nan), "evolution epsilon=nan"),
    "space": (lambda: JointNAS([X]), "space="),
    "settings": (lambda: JointNAS(SearchSpace([X]), {"seed": 1}), "settings="),
    "executor": (lambda: _search(executor="local"), "executor='local'"),
    "storage": (lambda: _search(storage=3), "storage=3"),
    "empty storage": (lambda: _search(storage=""), "storage=''"),
    "study": (lambda: _search(storage="sqlite://", study=""), "study=''"),
    "evaluate": (lambda: _search().run(1.0), "evaluate=1.0"),
    "callback": (lambda: _search().run(lambda t: 1.0, callbacks=[3]), "callback=3"),
    "score None": (lambda: _search(warm_start=[({"x": 0.5}, None)]), "warm start: the score None"),
    "score NaN": (lambda: _search(warm_start=[({"x": 0.5}, math.nan)]), "warm start: the score"),
    "one config": (lambda: _search(warm_start={"x": 0.5}), "warm_start="),
    "a number": (lambda: _search(warm_start=3), "warm_start=3"),
    "configs": (lambda: _search(warm_start=[{"x": 0.5}]), "neither a trial nor a pair"),
    "statistics": (lambda: _search(statistics={"m": 1}), "statistics="),
    "statistics of texts": (
        lambda: _search(statistics=lambda cs: {"m": ["a"] * len(cs)}),
        "statistic 'm' is",
    ),
    "statistics as a list": (
        lambda: _search(statistics=lambda cs: [1.0] * len(cs)),
        "must return",
    ),
    "ragged statistics": (
        lambda: _search(statistics=lambda cs: {"m": [[1.0], [1.0, 2.0]]}),
        "statistic 'm' is",
    ),
    "nameless statistics": (lambda: _search(statistics=lambda cs: {3: [1.0]}), "name of a stat"),
    "workers": (lambda: LocalWorkers(1.5), "count=1.5"),
    "workers as a text": (lambda: LocalWorkers("2"), "count='2'"),
    "threads": (lambda: LocalWorkers(1, threads=0), "threads=0"),
    "timeout": (lambda: LocalWorkers(1, timeout="10"), "timeout='10'"),
    "endless timeout": (lambda: LocalWorkers(1, timeout=math.inf), "timeout=inf"),
    "top_k": (lambda: _search().evolve(top_k=0), "top_k=0"),
    "evolve": (lambda: _search().evolve("macs <= 3"), "constraints="),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_wrong_arguments_are_refused_on_one_line(name: str) -> None:
    call, text = WRONG[name]
    with pytest.raises(SearchError) as error:
        call()
    assert text in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    assert isinstance(error.value, FBNetError)


def test_numbers_of_numpy_are_those_of_python(tmp_path: Any) -> None:
    plain = _search(seed=3, space=SearchSpace([X, IntRange("i", 1, 9), Choice("c", [1, 2.5])]))
    space = SearchSpace(
        [
            FloatRange("x", np.float64(0), np.float32(1)),
            IntRange("i", np.int32(1), np.uint8(9), step=np.int64(1), log=np.bool_(False)),
            Choice("c", np.array([1, 2.5], dtype=object)),
        ]
    )
    numbers: dict[str, Any] = {
        "batch_size": np.int64(2),
        "pool_size": np.array(64),
        "early_stop_threshold": np.float64(0.92),
        "pretrain": np.bool_(True),
        "seed": np.int64(3),
    }
    url = f"sqlite:///{tmp_path / 'search.db'}"
    search = _search(space=space, storage=url, **numbers)
    assert (search.settings, search.identity) == (plain.settings, plain.identity)
    trials = [t.config for t in search.run(lambda t: np.float32(t.config["x"])).trials]
    assert trials == [t.config for t in plain.ask()]
    assert space.levels([{"x": np.float32(0.5), "i": np.int64(3), "c": np.float64(2.5)}]).tolist()
