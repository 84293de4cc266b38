"""Values of a space's yaml are read by the type of what they are for, and checked by variable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fbnetv3.search.fbnet.space as space_module
from fbnetv3.plain_yaml import parse_yaml
from fbnetv3.search import Choice, FloatRange, IntRange, SearchError
from fbnetv3.search.fbnet.space import FBNetSpace, list_spaces
from fbnetv3.search.fbnet.space_values import SpaceLoader
from fbnetv3.search.space.space import Parameter

NANO = (Path(space_module.__file__).parent / "spaces/nano.yaml").read_text()
ROW = "op: mbconv\n    k: {choices: [3, 5]}"
OTHER = "lr: {range: [0.01, 0.1]}"


def _variable(line: str) -> Parameter:
    name = line.split(":")[0]
    table = parse_yaml(f"recipe:\n  {line}\n  momentum: {{choices: [0.8, 0.9]}}", SpaceLoader)
    return FBNetSpace(table).space[name]


@pytest.mark.parametrize(
    ("line", "parameter"),
    [
        ("mixup: {range: [0, 1]}", FloatRange("mixup", 0.0, 1.0)),
        ("mixup: {range: [0, 1, 1]}", IntRange("mixup", 0, 1)),
        ("mixup: {range: [0, 0.4, 0.1]}", FloatRange("mixup", 0.0, 0.4, 0.1)),
        ("lr: {range: [1e-6, 1e-1], log: true}", FloatRange("lr", 1e-6, 0.1, log=True)),
        ("lr: {range: ['1e-6', 1], log: True}", FloatRange("lr", 1e-6, 1.0, log=True)),
        ("batch_size: {range: [016, 64, 16]}", IntRange("batch_size", 16, 64, 16)),
        ("batch_size: {choices: [16, '32']}", Choice("batch_size", (16, 32))),
        ("weight_decay: {choices: [1e-5, 4e-5]}", Choice("weight_decay", (1e-5, 4e-5))),
        ("ema: {choices: [yes, no]}", Choice("ema", (True, False))),
        ("ema: {choices: [true, off]}", Choice("ema", (True, False))),
        ("optimizer: {choices: [sgd, rmsprop]}", Choice("optimizer", ("sgd", "rmsprop"))),
    ],
)
def test_a_recipe_is_read_by_the_types_of_its_fields(line: str, parameter: Parameter) -> None:
    assert repr(_variable(line)) == repr(parameter)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("lr: {range: [0.1, 0.2], log: 'false'}", "lr: log='false' is not allowed"),
        ("lr: {range: [0.1, 0.2], log: no}", "lr: log='no' is not allowed"),
        ("lr: {range: [0.1, 0.2], log: 1}", "lr: log=1 is not allowed"),
        ("lr: {choices: [0.1, 0.2], log: true}", "lr: log is for a range"),
        ("lr: {range: [1:30, 100.5]}", "lr: range ['1:30', 100.5] must hold numbers only"),
        ("lr: {range: [true, 1]}", "must hold numbers only"),
        ("lr: {range: [0.1, .inf]}", "must hold numbers only"),
        ("lr: {range: [0.1, 1e999]}", "lr: high=inf"),
        ("lr: {choices: [0.1, on]}", "recipe lr='on' is not allowed; allowed: a number"),
        ("lr: {choices: [2020-01-01, 0.1]}", "recipe lr='2020-01-01'"),
        ("lr: {choices: [0.1, true]}", "recipe lr=True"),
        ("batch_size: {choices: [16, 32.5]}", "recipe batch_size=32.5"),
        ("ema: {range: [0, 1]}", "recipe ema: a range is for numbers"),
        ("ema: {choices: [0, 1]}", "recipe ema=0 is not allowed; allowed: true or false"),
        ("optimizer: {range: [0, 1]}", "recipe optimizer: a range is for numbers"),
        ("steps: {range: [0, 1]}", "this is a list of numbers; write"),
        ("optimizer: {choices: [sgd, 3]}", "recipe optimizer=3"),
        ("lr: {choices: [0.1, 0.2], tie: 3}", "tie=3"),
    ],
)
def test_other_types_are_refused_on_one_line(line: str, text: str) -> None:
    with pytest.raises(SearchError) as error:
        _variable(line)
    assert text in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "text"),
    [("ema: 'perhaps'", "recipe ema='perhaps'"), ("lr: '1:30'", "recipe lr='1:30'")],
)
def test_fixed_values_have_types_too(line: str, text: str) -> None:
    table = parse_yaml(f"recipe:\n  {line}\n  mixup: {{range: [0, 1]}}", SpaceLoader)
    with pytest.raises(SearchError) as error:
        FBNetSpace(table)
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (ROW, f"{ROW}\n    act: {{choices: [relu, hswish]}}", "stage1_act cannot vary"),
        (ROW, f"{ROW}\n    se: {{choices: [sigmoid, hsigmoid]}}", "stage1_se cannot vary"),
        ("n: {range: [1, 3]}", "n: {range: [0, 3]}", "stage1_n=0 is not allowed"),
        ("n: {range: [1, 3]}", "n: {choices: [1, two]}", "stage1_n='two' is not allowed"),
        ("n: {range: [1, 3]}", "n: {choices: [1, 2.5]}", "stage1_n=2.5 is not allowed"),
        ("n: {range: [1, 3]}", "n: 0", "stage1_n=0 is not allowed"),
        ("n: {range: [1, 3]}", "n: two", "stage1_n='two' is not allowed"),
        ("k: {choices: [3, 5]}", "k: {choices: [3, 4, 5]}", "stage1_k=4 is not allowed"),
        ("k: {choices: [3, 5]}", "k: {range: [3, 5]}", "stage1_k=4 is not allowed"),
        ("k: {choices: [3, 5]}", "k: {choices: [3, '5']}", "stage1_k='5' is not allowed"),
        ("c: {range: [12, 24, 4]}", "c: {range: [0, 24, 4]}", "stage1_c=0 is not allowed"),
        ("c: {range: [12, 24, 4]}", "c: {range: [12.0, 24.0]}", "stage1_c=12.0"),
        ("first: {range: [2, 6]}", "first: {range: [0, 6]}", "stage1_e=0 is not allowed"),
        ("[16, 32, 4]", "[0, 32, 4]", "resolution=0 is not allowed"),
        ("[16, 32, 4]", "[16.0, 32.0]", "resolution=16.0 is not allowed"),
    ],
)
def test_values_that_cannot_be_priced_are_named(old: str, new: str, text: str) -> None:
    assert old in NANO
    with pytest.raises(SearchError) as error:
        FBNetSpace(parse_yaml(NANO.replace(old, new, 1)))
    assert text in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_a_single_activation_can_be_written_as_a_choice() -> None:
    table = parse_yaml(NANO.replace(ROW, f"{ROW}\n    act: {{choices: [relu]}}", 1))
    space = FBNetSpace(table)
    statistics = space.statistics(10)
    assert statistics is not None
    config = space.space.configs(space.space.sizes[None] * 0)
    assert statistics(config)["macs"].shape == (1,)
    assert space.arch(config[0]).blocks[1].to_dict()["act"] == "relu"


@pytest.mark.parametrize(
    ("fixed", "value"),
    [({"lr": "1e-2"}, 0.01), ({"stage1_k": 3}, 3), ({"stage1_n": "2"}, 2), ({"dropout": 0}, 0)],
)
def test_fixed_variables_are_read_by_their_type(fixed: dict[str, Any], value: Any) -> None:
    space = FBNetSpace(parse_yaml(NANO), fixed).space
    (name,) = fixed
    assert space[name].value(0) == value


@pytest.mark.parametrize("fixed", [{"lr": "fast"}, {"lr": True}, {"lr": None}, {"stage1_n": "two"}])
def test_fixed_variables_of_another_type_are_refused(fixed: dict[str, Any]) -> None:
    with pytest.raises(SearchError, match="is not a number; the variable has"):
        FBNetSpace(parse_yaml(NANO), fixed)


@pytest.mark.parametrize("name", list_spaces())
def test_packaged_spaces_are_the_same_in_both_versions_of_yaml(name: str) -> None:
    text = Path(space_module.__file__).with_name("spaces").joinpath(f"{name}.yaml").read_text()
    assert parse_yaml(text, SpaceLoader) == parse_yaml(text)


def test_the_space_for_photographs_spans_networks_under_100m_macs() -> None:
    space = FBNetSpace.from_yaml("photos")
    statistics = space.statistics(10)
    assert statistics is not None
    levels = space.space.sizes[None] - 1
    smallest, largest = space.space.configs(levels * 0), space.space.configs(levels)
    assert statistics(smallest)["macs"][0] < 5e6
    assert 1e8 < statistics(largest)["macs"][0] < 3e8
