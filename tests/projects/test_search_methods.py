"""The compared search methods: feasible batches of the wanted size, and the tables of results."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fbnetv3.search import Choice, Constraint, FloatRange, IntRange, SearchSpace
from projects.search_quality import compare, ranking, report
from projects.search_quality.methods import METHODS, jointnas, method
from projects.search_quality.methods.method import Budget
from projects.search_quality.problem import Configs, Problem

_PACKAGES = {
    "TPE": "optuna",
    "GP (Optuna)": "optuna",
    "CMA-ES": "cmaes",
    "SMAC3": "smac",
    "HEBO": "hebo",
    "Ax": "ax",
    "BoTorch qLogNEI": "botorch",
    "CQR (Syne Tune)": "syne_tune",
    "BORE (Syne Tune)": "syne_tune",
    "NePS": "neps",
}
_BATCH = 6


def _space() -> SearchSpace:
    return SearchSpace(
        [
            Choice("block", ("a", "b", "c"), part="architecture"),
            IntRange("depth", 1, 4, part="architecture"),
            Choice("fixed", ("only",), part="architecture"),
            FloatRange("lr", 1e-3, 1.0, log=True),
            FloatRange("mixup", 0.0, 0.8),
        ]
    )


def _score(configs: Configs) -> Any:
    return np.array([c["depth"] - abs(np.log10(c["lr"]) + 1) - c["mixup"] for c in configs])


def _problem() -> Problem:
    return Problem(
        "tiny",
        _space(),
        _score,
        lambda configs: {"macs": np.array([float(c["depth"]) for c in configs])},
        (Constraint("macs", upper=3.0),),
    )


@pytest.mark.parametrize("name", ["JointNAS", "random", "random forest", *_PACKAGES])
def test_batches_are_feasible_and_have_the_wanted_size(name: str) -> None:
    if name in _PACKAGES:
        pytest.importorskip(_PACKAGES[name])
    problem = _problem()
    # BoTorch looks for the candidates of a batch in turn, for seconds each
    batch = 3 if name == "BoTorch qLogNEI" else _BATCH
    search = METHODS[name](problem, 0, Budget(4 * batch, batch))
    count = 0
    for _ in range(2):
        configs = search.ask(batch)
        levels = problem.space.levels(configs)
        assert problem.allowed(levels).all()
        search.tell(configs, problem.truth(configs))
        count += len(configs)
    # the batches of JointNAS give up candidates for the finalists
    assert count == 2 * batch or name == "JointNAS"


def test_values_of_peers_are_converted_both_ways() -> None:
    space = _space()
    config = space.configs(np.array([[2, 3, 0, 2**19, 2**18]]))[0]
    values = method.values_of(space, config)
    assert values["block"] == 2
    assert values["depth"] == 3
    assert "fixed" not in values
    assert method.config_from(space, values) == config
    beyond = method.config_from(space, values | {"lr": 5.0})  # a rounding error of the peer
    assert beyond["lr"] == 1.0


@pytest.mark.parametrize(
    ("batch", "schedule"), [(48, (4, 46, 8)), (16, (11, 16, 16)), (8, (23, 8, 8))]
)
def test_jointnas_has_the_total_of_its_peers(batch: int, schedule: tuple[int, int, int]) -> None:
    rounds, size, finalists = jointnas._schedule(192, batch, 8)
    assert (rounds, size, finalists) == schedule
    assert rounds * size + finalists == 192


def _row(name: str, seed: int, regret: float, batch: int = 48) -> dict[str, Any]:
    curve = [0.5] * 12 + [regret] * 12
    return {
        "problem": "continuous", "method": name, "seed": seed, "batch": batch, "regret": curve,
        "cpu_seconds": [0.0, 1.0, 3.0, 2.0],
    }  # fmt: skip


def _line(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"| {name} "))


def test_the_tables_state_who_is_first() -> None:
    rows = [_row("JointNAS", seed, 0.2) for seed in range(3)]
    rows += [_row("TPE", seed, 0.3) for seed in range(3)] + [_row("Ax", 1, 0.1)]
    text = ranking.text_of(rows, (48, 1))
    table = text.partition("### continuous")[2]
    assert "| `continuous` | level: Ax 0.500 and 0.500 (1); TPE 0.500 and 0.500 (3) |" in text
    assert "| not shown: Ax 0.100 and 0.200 (1) | 3 | 2 |" in text
    tpe, ax = (_line(table, name) for name in ("TPE", "Ax"))
    assert "| 1.5, 1.5, 2.0, 2.0 | 0 of 3 (3 equal), 3 of 3 | 2.0 | 3 |" in tpe
    assert ax.endswith("| - | 0 of 1 (1 equal), 0 of 1 | 2.0 | 1 |")


def test_a_peer_is_ahead_if_the_interval_excludes_equal_regrets() -> None:
    rows = [_row("JointNAS", seed, 0.2 + 0.01 * seed) for seed in range(4)]
    rows += [_row("Ax", seed, 0.1) for seed in range(4)]
    rows += [_row("TPE", seed, regret) for seed, regret in enumerate([0.1, 0.3, 0.2, 0.1])]
    text = ranking.first(report.by_problem(rows)["continuous"], 192)
    assert text == "no: Ax 0.100 and 0.215 (4); TPE 0.175 and 0.215 (4)"


def test_the_default_is_compared_with_each_peer_over_all_problems() -> None:
    rows = [_row("JointNAS", 0, 0.2), _row("TPE", 0, 0.3), _row("TPE", 1, 0.0)]
    rows += [
        row | {"problem": "hartmann6"} for row in (_row("JointNAS", 0, 0.2), _row("Ax", 0, 0.1))
    ]
    rows += [_row("JointNAS", 0, 0.4) | {"problem": "ackley5"}]
    rows += [_row("TPE", 0, 0.4) | {"problem": "ackley5"}]
    text = ranking.against(report.by_problem(rows))
    tpe, ax = (_line(text, name) for name in ("TPE", "Ax"))
    assert tpe.startswith("| TPE | 2 | 2 | 0.500 (0.500 to 0.500) | 0.750 (")
    assert ax == "| Ax | 1 | 1 | 0.500 | 0.000 | 0.000 | -0.100 |"


def test_forgotten_searches_run_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    rows = [_row("JointNAS", 0, 0.2), _row("JointNAS", 0, 0.2, batch=8), _row("TPE", 0, 0.3)]
    rows.append(_row("JointNAS", 0, 0.2) | {"parts": 3})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    arguments = argparse.Namespace(
        results=str(path), problems=["continuous"], methods=["JointNAS"], batch=48, parts=1
    )
    compare.forget(arguments)
    kept = [(row["method"], *compare.division_of(row)) for row in compare.finished_runs(path)]
    assert kept == [("JointNAS", 8, 1), ("TPE", 48, 1), ("JointNAS", 48, 3)]


def test_a_search_of_small_batches_counts_its_cpu_seconds() -> None:
    row = compare.run_one("continuous", "random", 0, Budget(192, 16))
    assert row["evaluations"] == 192
    assert len(row["cpu_seconds"]) == 12
    assert len(row["regret"]) == 24


@pytest.mark.parametrize(
    ("budget", "sizes"),
    [
        (Budget(192, 48), [48] * 4),
        (Budget(192, 48, parts=3), [16, 16, 16, 48, 48, 48]),
        (Budget(100, 40, parts=3), [14, 13, 13, 40, 20]),
        (Budget(20, 48), [20]),
    ],
)
def test_a_budget_is_divided_into_batches(budget: Budget, sizes: list[int]) -> None:
    assert budget.sizes() == sizes


def test_every_method_is_told_the_scores_after_each_part() -> None:
    asked: list[int] = []

    class Asked(METHODS["random"]):  # type: ignore[misc, name-defined]
        def ask(self, count: int) -> Configs:
            asked.append(count)
            return super().ask(count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "random", Asked)
        compare.run_one("continuous", "random", 0, Budget(192, 48, parts=3))
    assert asked == [16, 16, 16, 48, 48, 48]
