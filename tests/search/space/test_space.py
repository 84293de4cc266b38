"""Search spaces: values and levels, ids, inactive variables, encodings, error messages."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbnetv3.search import Choice, FloatRange, IntRange, SearchError, SearchSpace, When
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.parameters import Parameter
from fbnetv3.search.space.space import unique_rows
from tests.search import problem


@st.composite
def parameters(draw: st.DrawFn, name: str) -> Parameter:
    kind = draw(st.sampled_from(["choice", "int", "float", "step", "log", "intlog"]))
    part = draw(st.sampled_from(["architecture", "recipe"]))
    low = draw(st.integers(1, 50))
    count, step = draw(st.integers(0, 12)), draw(st.integers(1, 5))
    if kind == "choice":
        values = draw(st.lists(st.sampled_from([1, True, "1", None, 2.5, "a"]), unique_by=repr))
        return Choice(name, tuple(values) or (0,), part=part)
    if kind in ("int", "intlog"):
        return IntRange(name, low, low + count * step, step, kind == "intlog", part)
    if kind == "step":
        return FloatRange(name, low / 100, (low + count * step) / 100, step / 100, part=part)
    return FloatRange(name, low / 1000, low / 1000 + count, log=kind == "log", part=part)


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    count = draw(st.integers(1, 6))
    drawn = [draw(parameters(f"p{i}")) for i in range(count)]
    depth = IntRange("depth", 1, 3)
    kernel = Choice("kernel", (3, 5), active_if=When("depth", ">", 1))
    return SearchSpace([*drawn, depth, kernel])


@st.composite
def populations(draw: st.DrawFn) -> tuple[SearchSpace, np.ndarray]:
    space = draw(spaces())
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels = random.integers(0, space.sizes, (9, len(space)))
    levels[0], levels[1] = 0, space.sizes - 1
    return space, space.canonical(levels)


@settings(deadline=None)
@given(populations())
def test_configs_and_features_identify_the_levels(given: Any) -> None:
    space, levels = given
    assert (space.levels(space.configs(levels)) == levels).all()
    encoding = Encoding(space)
    features = encoding.encode(levels)
    assert features.min() >= 0
    assert features.max() <= 1
    assert features.shape == (len(levels), encoding.width)
    # different candidates have different features
    assert len(np.unique(features, axis=0)) == len(np.unique(levels, axis=0))
    texts = json.loads(json.dumps(space.configs(levels)))
    assert (space.levels(texts) == levels).all()


@settings(deadline=None)
@given(populations())
def test_ids_are_equal_only_for_equal_candidates(given: Any) -> None:
    space, levels = given
    ids = space.ids(levels)
    assert len(set(ids)) == len(unique_rows(levels))


def test_candidates_that_differ_in_inactive_variables_are_one() -> None:
    space = SearchSpace([IntRange("n", 1, 2), Choice("k", (3, 5), active_if=When("n", ">", 1))])
    flat = space.levels([{"n": 1, "k": 3}, {"n": 1, "k": 5}, {"n": 1}])
    assert len(set(space.ids(flat))) == 1
    assert len(set(space.ids(space.levels([{"n": 2, "k": 3}, {"n": 2, "k": 5}])))) == 2


def test_a_variable_is_inactive_if_its_condition_names_an_inactive_one() -> None:
    space = SearchSpace(
        [
            Choice("se", (False, True)),
            Choice("gate", ("hard", "soft"), active_if=When("se", "==", True)),
            IntRange("slope", 1, 3, active_if=When("gate", "==", "soft")),
        ]
    )
    off = space.levels([{"se": False, "gate": "soft", "slope": 3}])
    assert space.configs(off) == [{"se": False, "gate": "hard", "slope": 1}]


def test_any_of_several_conditions_activates() -> None:
    either = (When("a", ">", 1), When("b", ">", 1))
    space = SearchSpace(
        [IntRange("a", 1, 2), IntRange("b", 1, 2), Choice("k", (3, 5), active_if=either)]
    )
    configs = [{"a": a, "b": b, "k": 5} for a in (1, 2) for b in (1, 2)]
    assert space.active(space.levels(configs))[:, 2].tolist() == [False, True, True, True]


def test_old_names_of_methods_warn_and_work() -> None:
    space = problem.space()
    levels = space.levels([{**space.configs(np.zeros((1, len(space)), dtype=np.int64))[0]}])
    with pytest.warns(FutureWarning, match="indices_of_part"):
        assert space.columns_of("recipe") == space.indices_of_part("recipe") == [6, 7, 8]
    with pytest.warns(FutureWarning, match="log10_cardinality_of"):
        assert space.log10_of("recipe") == space.log10_cardinality_of("recipe")
    with pytest.warns(FutureWarning, match="values_by_name"):
        assert space.columns(levels)["lr"].tolist() == space.values_by_name(levels)["lr"].tolist()


def test_the_id_does_not_depend_on_the_order_of_variables_or_on_ranges() -> None:
    narrow = SearchSpace([IntRange("a", 0, 3), IntRange("b", 0, 3)])
    wide = SearchSpace([IntRange("b", 0, 9), IntRange("a", 0, 9)])
    config = {"a": 1, "b": 2}
    assert narrow.ids(narrow.levels([config])) == wide.ids(wide.levels([config]))


def test_log_ranges_are_even_in_the_logarithm() -> None:
    lr = FloatRange("lr", 1e-4, 1e-1, log=True)
    middle = (lr.size - 1) // 2
    assert lr.value(middle) == pytest.approx(10**-2.5)
    assert lr.value(0) == 1e-4
    assert lr.value(lr.size - 1) == 1e-1


def test_a_value_of_a_continuous_range_has_the_nearest_level() -> None:
    lr = FloatRange("lr", 1e-4, 1e-1, log=True)
    assert lr.value(lr.level(0.0123)) == pytest.approx(0.0123, rel=1e-5)


def _message(make: Any) -> str:
    with pytest.raises(SearchError) as error:
        make()
    assert "\n" not in str(error.value)
    return str(error.value)


def _with_condition_on_a_continuous_range() -> SearchSpace:
    lr = FloatRange("lr", 0.1, 1.0)
    return SearchSpace([lr, IntRange("d", 1, 2, active_if=When("lr", ">", 0.5))])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: IntRange("d", 5, 1), ["d", "low=5", "high=1"]),
        (lambda: IntRange("d", 1, 6, step=2), ["high=6", "steps of 2"]),
        (lambda: FloatRange("lr", 0.0, 1.0, log=True), ["lr", "log"]),
        (lambda: FloatRange("lr", 0.0, float("nan")), ["lr", "finite"]),
        (lambda: Choice("o", ()), ["o", "at least one"]),
        (lambda: Choice("o", ("a", "a")), ["twice"]),
        (lambda: Choice("o", ([1],)), ["[1]"]),
        (lambda: IntRange("d", 1, 2, part="arch"), ["'arch'", "architecture"]),
        (lambda: SearchSpace([]), ["only one candidate"]),
        (lambda: SearchSpace([IntRange("d", 1, 1)]), ["only one candidate", "d"]),
        (lambda: SearchSpace([IntRange("d", 1, 2), IntRange("d", 1, 2)]), ["two", "'d'"]),
        (lambda: SearchSpace([IntRange("d", 1, 2, active_if=When("x", ">", 1))]), ["'x'"]),
        (_with_condition_on_a_continuous_range, ["'lr'", "fewer than 1048577 values"]),
        (lambda: When("d", "=>", 1), ["'=>'", ">="]),
        (lambda: problem.space().levels([{"depht": 1}]), ["'depht'", "depth"]),
        (lambda: problem.space().levels([{"depth": 1}]), ["lacks", "'w0'"]),
        (lambda: IntRange("d", 1, 3).level(True), ["d=True", "from 1 to 3"]),
        (lambda: IntRange("d", 1, 3).level(4), ["d=4", "from 1 to 3"]),
        (lambda: FloatRange("p", 0, 1, step=0.1).level(0.55), ["p=0.55", "steps of 0.1"]),
    ],
)
def test_wrong_spaces_and_configs_are_refused_on_one_line(make: Any, words: list[str]) -> None:
    message = _message(make)
    assert all(word in message for word in words), message


def test_true_and_1_are_distinct_choices() -> None:
    choice = Choice("x", (1, True))
    assert (choice.level(1), choice.level(True)) == (0, 1)
