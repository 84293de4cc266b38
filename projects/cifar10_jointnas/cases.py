"""Writes the configs of what is trained to the end: winners of searches, and what they meet.

    python -m projects.cifar10_jointnas.cases

From ``joint/`` and ``random/``, the logs of the two searches, to ``configs/``. For each budget of
multiply-adds: ``joint_3M`` by evolution on the predictor of all trials; ``coarse_3M``, the best
that stage 1 trained; ``random_3M``, the best of as many trainings of the random search. And the
smallest and the largest winner with each other's recipe. ``cases.csv`` says where
each is from, and which config is its: one candidate may be the best of two budgets.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fbnetv3.config import recipe_from_config, recipe_to_config
from fbnetv3.io import atomic_write
from fbnetv3.search import Constraint
from fbnetv3.search.trials import Trial
from projects.cifar10_jointnas.runs import Run, open_log

HERE = Path(__file__).parent
BUDGETS = (3e6, 4.5e6, 6e6, 8e6)
COLUMNS = ("case", "config", "architecture", "recipe", "macs", "params", "predicted", "score")


def name_of(kind: str, budget: float) -> str:
    """Returns ``joint_4.5M``."""
    return f"{kind}_{budget / 1e6:g}M"


def best_within(trials: Sequence[Trial], budget: float) -> Trial:
    """Returns the best trained candidate of at most so many multiply-adds."""
    found = [t for t in trials if t.state == "complete" and t.statistics["macs"] <= budget]
    return max(found, key=lambda t: (t.score or 0.0, -t.number))


def write_case(
    run: Run, name: str, architecture: Mapping[str, Any], recipe: Mapping[str, Any], folder: Path
) -> None:
    """Writes ``NAME.yaml`` and ``NAME_arch.yaml``.

    Args:
        run: of the search.
        name: of the case.
        architecture, recipe: candidates, of which one and the other are taken.
        folder: for the files.
    """
    base = recipe_from_config(run.cfg)
    plain = recipe_to_config(base)
    keys = recipe_to_config(run.space.recipe(dict(recipe), base))
    # the schedule is final.yaml's
    keys = {key: value for key, value in keys.items() if value != plain[key]}
    keys["MODEL.ARCH"] = f"{name}_arch.yaml"
    write_config(folder / f"{name}.yaml", "../final.yaml", keys)
    with atomic_write(folder / f"{name}_arch.yaml") as temporary:
        temporary.write_text(run.space.arch(dict(architecture)).to_yaml(), encoding="utf-8")


def write_config(path: Path, base: str, keys: Mapping[str, Any]) -> None:
    """Writes a yaml that changes some keys, as ``SOLVER.BASE_LR``, of another."""
    with atomic_write(path) as temporary:
        text = yaml.safe_dump(as_tree(base, keys), sort_keys=False)
        temporary.write_text(text, encoding="utf-8")


def as_tree(base: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a yaml says that changes so many keys, as ``SOLVER.BASE_LR``, of another."""
    tree: dict[str, Any] = {"_BASE_": base}
    for key, value in keys.items():
        node = tree
        *groups, leaf = key.split(".")
        for group in groups:
            node = node.setdefault(group, {})
        node[leaf] = list(value) if isinstance(value, tuple) else value
    return tree


def write_cases(joint: Run, random: Run, folder: Path) -> list[dict[str, Any]]:
    """Writes all cases; returns a row for each."""
    result = joint.search.result()
    coarse = [t for t in result.trials if t.stage == "coarse"]
    drawn = random.search.result().trials[: len(result.trials)]
    rows, winners = [], []
    written: dict[tuple[str, str], str] = {}  # config by candidate: one may be best of two budgets

    def add(name: str, one: Any, other: Any, predicted: float | None, score: float | None) -> None:
        if (one.id, other.id) not in written:
            written[one.id, other.id] = name
            write_case(joint, name, one.config, other.config, folder)
        told = ["" if value is None else f"{value:.2f}" for value in (predicted, score)]
        costs = [round(one.statistics[key]) for key in ("macs", "params")]
        row = (name, written[one.id, other.id], one.id, other.id, *costs, *told)
        rows.append(dict(zip(COLUMNS, row, strict=True)))

    for budget in BUDGETS:
        winner = joint.search.evolve([Constraint("macs", upper=budget)], top_k=1)[0]
        winners.append(winner)
        add(name_of("joint", budget), winner, winner, winner.predicted, None)
        for kind, trials in (("coarse", coarse), ("random", drawn)):
            best = best_within(trials, budget)
            add(name_of(kind, budget), best, best, best.predicted, best.score)
    small, large = winners[0], winners[-1]
    add("small_net_large_recipe", small, large, None, None)
    add("large_net_small_recipe", large, small, None, None)
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--joint", type=Path, default=HERE / "joint", help="log of the search")
    parser.add_argument("--random", type=Path, default=HERE / "random", help="log of the baseline")
    parser.add_argument("--configs", type=Path, default=HERE / "configs")
    args = parser.parse_args()
    args.configs.mkdir(exist_ok=True)
    rows = write_cases(open_log(args.joint), open_log(args.random), args.configs)
    path = args.configs / "cases.csv"
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
