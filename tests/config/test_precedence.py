"""Keys that exclude each other: defaults, bases, files and command lines in their order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fbnetv3.config import get_cfg, get_value, iter_keys, recipe_from_config
from fbnetv3.config.effects import unread_keys
from fbnetv3.config.precedence import EXCLUSIVE_KEYS
from fbnetv3.config.ranges import check_length
from tests.config.helpers import error_of, write

PAIRS = EXCLUSIVE_KEYS.items()


def as_yaml(*pairs: tuple[str, object]) -> str:
    """Returns a file with keys of two parts."""
    groups: dict[str, list[str]] = {}
    for key, value in pairs:
        group, name = key.split(".")
        groups.setdefault(group, []).append(f"{name}: {value}")
    return "\n".join(f"{group}: {{{', '.join(keys)}}}" for group, keys in groups.items())


@pytest.mark.parametrize(("epochs", "iterations"), PAIRS)
@pytest.mark.parametrize(
    ("base", "file", "line", "expected"),
    [
        # of each source: epochs, iterations; of the result: epochs, iterations
        ((None, None), (None, 40_000), (None, None), (0, 40_000)),  # over the default
        ((7, None), (None, 4), (None, None), (0, 4)),
        ((None, 4), (7, None), (None, None), (7, None)),
        ((None, None), (7, None), (None, 4), (0, 4)),
        ((7, None), (None, None), (None, 4), (0, 4)),
        ((None, None), (None, 4), (7, None), (7, None)),
        ((None, 4), (None, None), (7, None), (7, None)),
        ((None, None), (7, 4), (None, None), (7, None)),  # a whole tree
        ((None, None), (0, 4), (None, None), (0, 4)),
        ((7, 4), (None, None), (0, 5), (0, 5)),
        ((None, None), (None, 0), (None, None), (None, 0)),  # 0 gives no length
        ((None, None), (7, None), (None, 0), (7, 0)),
    ],
)
def test_the_later_source_wins(
    tmp_path: Path, epochs: str, iterations: str, base: tuple, file: tuple, line: tuple,
    expected: tuple,
) -> None:  # fmt: skip
    def given(values: tuple) -> list[tuple[str, object]]:
        keys = (epochs, iterations)
        return [(k, v) for k, v in zip(keys, values, strict=True) if v is not None]

    cfg = get_cfg()
    default = get_value(cfg, epochs)
    write(tmp_path, as_yaml(*given(base)) or "SEED: 1", "base.yaml")
    cfg.merge_from_file(write(tmp_path, "_BASE_: base.yaml\n" + as_yaml(*given(file))))
    cfg.merge_from_list([str(x) for pair in given(line) for x in pair])
    assert get_value(cfg, epochs) == (default if expected[0] is None else expected[0])
    assert expected[1] is None or get_value(cfg, iterations) == expected[1]


@pytest.mark.parametrize(("epochs", "iterations"), PAIRS)
@pytest.mark.parametrize("turned", [False, True])
def test_both_on_a_command_line(epochs: str, iterations: str, turned: bool) -> None:
    pairs = [(epochs, "3"), (iterations, "4")]
    text = error_of(
        get_cfg().merge_from_list, [x for p in sorted(pairs, reverse=turned) for x in p]
    )
    assert f"{epochs} 3 and {iterations} 4 exclude each other" in text


def test_the_whole_tree_of_a_config_gives_the_same_config(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(write(tmp_path, as_yaml(("SOLVER.MAX_ITER", 50), ("SOLVER.STEPS", [9]))))
    cfg.merge_from_list(["SOLVER.MAX_EPOCHS", 3])
    again = get_cfg()
    again.merge_from_file(write(tmp_path, cfg.dump(), "whole.yaml"))
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())


def test_a_length_in_iterations_cuts_the_warm_up() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.MAX_ITER", "4"])
    recipe = recipe_from_config(cfg, iters_per_epoch=10)
    assert (recipe.epochs, recipe.warmup_epochs) == (0.4, 0.4)


@pytest.mark.parametrize(
    ("pairs", "is_valid"),
    [
        (["SOLVER.MAX_EPOCHS", "0"], False),
        (["SOLVER.MAX_EPOCHS", "0.0", "SOLVER.MAX_ITER", "0"], True),
        (["SOLVER.MAX_EPOCHS", "0", "SOLVER.MAX_ITER", "40000"], True),
        (["SOLVER.MAX_EPOCHS", "0", "SOLVER.MAX_ITER", "4"], True),
        (["SOLVER.MAX_ITER", "40000"], True),
        (["SOLVER.MAX_EPOCHS", "1"], True),
    ],
)
def test_a_training_has_a_length(pairs: list[str], is_valid: bool) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(pairs)
    for config in (cfg, cfg.clone()):
        if is_valid:
            check_length(config)
        else:
            assert "SOLVER.MAX_ITER, which is not given" in error_of(check_length, config)


def test_a_length_that_is_set_in_code() -> None:
    cfg = get_cfg()
    cfg.SOLVER.MAX_EPOCHS, cfg.SOLVER.MAX_ITER = 0.0, 10
    check_length(cfg)


@pytest.mark.parametrize(("epochs", "iterations"), PAIRS)
@pytest.mark.parametrize(
    ("source", "assigned", "expected"),
    [
        # of a file, then of each assignment: key of epochs (0) or iterations (1), and value
        ((), [(1, 4)], (0, 4)),  # over the default
        (((0, 7),), [(1, 4)], (0, 4)),
        (((0, 7),), [(1, 0)], (7, 0)),
        (((1, 5),), [(1, 4)], (0, 4)),
        (((1, 5),), [(0, 3)], (3, 5)),
        ((), [(0, 0), (1, 4)], (0, 4)),
        ((), [(1, 4), (0, 3)], (3, 4)),  # both: the epochs count, in any order
        ((), [(0, 3), (1, 4)], (3, 4)),
    ],
)
def test_an_assignment_in_code_is_the_last_source(
    tmp_path: Path, epochs: str, iterations: str, source: tuple, assigned: list, expected: tuple
) -> None:
    keys = (epochs, iterations)
    cfg = get_cfg()
    given = as_yaml(*((keys[i], value) for i, value in source))
    cfg.merge_from_file(write(tmp_path, given or "SEED: 1"))
    for i, value in assigned:
        group, name = keys[i].split(".")
        setattr(cfg[group], name, value)
    assert (get_value(cfg, epochs), get_value(cfg, iterations)) == expected
    is_default = get_value(get_cfg(), iterations) == expected[1]
    assert (iterations in unread_keys(cfg)) == (expected[0] > 0 and not is_default)


@pytest.mark.parametrize("order", [list, sorted])
def test_a_tree_that_is_copied_by_assignments_keeps_its_epochs(order: Callable) -> None:
    source, cfg = get_cfg(), get_cfg()
    source.merge_from_list(["SOLVER.MAX_ITER", "5", "TEST.EVAL_PERIOD", "4"])
    source.merge_from_list(["SOLVER.MAX_EPOCHS", "3"])
    for key, value in order(iter_keys(source)):
        *path, name = key.split(".")
        setattr(get_value(cfg, ".".join(path)) if path else cfg, name, value)
    assert cfg == source


def test_the_default_length_in_iterations_may_be_assigned() -> None:
    cfg = get_cfg()
    cfg.SOLVER.MAX_ITER = cfg.SOLVER.MAX_ITER
    assert cfg.SOLVER.MAX_EPOCHS == 0
    check_length(cfg.clone())
