"""Different budgets have winners of different names, which a run's folder accepts."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from fbnetv3.search.fbnet.bounds import parse_bounds
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.fbnet.winner_names import winner_name
from fbnetv3.search.space.constraints import Constraint


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("macs <= 1.5e6", "best_macs_1.5M"),
        ("macs <= 4.5e8", "best_macs_450M"),
        ("macs <= 1.2e12", "best_macs_1.2e+06M"),
        ("params <= 10", "best_params_1e-05M"),
        ("params <= 0", "best_params_0M"),
        ("latency_ms <= 2.5", "best_latency_2.5ms"),
        ("macs <= 1.5e6, latency_ms <= 2.5", "best_macs_1.5M_latency_2.5ms"),
        ("top5_ms <= 2", "best_top5_2ms"),
        # all digits
        ("macs <= 1234567", "best_macs_1.234567M"),
        ("latency_ms <= 2.50000001", "best_latency_2.50000001ms"),
        ("macs <= 1.23456789e20", "best_macs_1.23456789e+14M"),
        # lower bounds
        ("macs <= 1e6, params >= 1e5", "best_macs_1M_params_from_0.1M"),
        ("1e6 <= macs <= 2e6", "best_macs_from_1M_to_2M"),
        ("latency_ms >= 1, latency_ms <= 2", "best_latency_from_1ms_to_2ms"),
        ("grösse <= 2e6", "best_grösse_2M"),
        # names of statistics that could be read in two ways
        ("x_M <= 2", "best_x_2M_105a5d38"),
    ],
)
def test_winners_are_named_by_their_budget(text: str, name: str, tmp_path: Path) -> None:
    found = winner_name(parse_bounds(text))
    assert found == name
    RunFolder(tmp_path).record_winner(found, ["line"])
    assert RunFolder(tmp_path).winners() == {found: ["line"]}


def test_dropped_constraints_are_named() -> None:
    macs, lower = Constraint("macs", upper=2e6), Constraint("macs", lower=1e6)
    assert winner_name([macs], ["params"]) == "best_macs_2M_drop_params"
    assert winner_name([macs], ["params", "macs"]) == "best_macs_2M_drop_macs_drop_params"
    assert winner_name([]) == winner_name([Constraint("macs")]) == "best_evolved"
    assert winner_name([], ["macs"]) == "best_evolved_drop_macs"
    assert winner_name([lower]) == "best_macs_from_1M"


def test_different_budgets_have_different_names(tmp_path: Path) -> None:
    statistics = [
        "macs",
        "x",
        "x_M",
        "x_m",
        "x_e3",
        "x_",
        "_x",
        "to",
        "x_to",
        "a_b",
        "a_2b",
        "a_b_c",
    ]
    statistics += ["c", "grösse", "a/b", "a:b", "µ_ms", "x" * 300, "x" * 299 + "y"]
    values = [None, 0.0, -1.0, 1.0, 12.0, 1e6, 2e6, 1234567.0, 1234568.0, 0.1, 0.1 + 0.2, 5e-324]
    bounds = [
        Constraint(name, lower, upper)
        for name in statistics
        for lower, upper in itertools.product(values, values)
        if (lower, upper) != (None, None) and (None in (lower, upper) or lower <= upper)
    ]
    budgets = [[bound] for bound in bounds]
    few = [b for b in bounds if {b.lower, b.upper} <= {None, 1.0, 2e6}]
    budgets += [[a, b] for a, b in itertools.product(few, few) if a.name != b.name]
    names = [winner_name(budget) for budget in budgets]
    names += [winner_name([few[0]], drop) for drop in (["a", "b_c"], ["a_b", "c"], ["a"], ["to"])]
    assert len({name.lower() for name in names}) == len(names)
    (tmp_path / "winners.json").write_text(
        "{" + ", ".join(f'"{name}": []' for name in names) + "}", encoding="utf-8"
    )
    assert len(RunFolder(tmp_path).winners()) == len(names)
    assert max(len(f"{name}_full.yaml".encode()) for name in names) <= 255
