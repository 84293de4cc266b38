"""Writes the configs of the final comparison of the joint search with random search.

    python -m projects.cifar10_jointnas.cases

Reads ``joint/`` and ``random/``, the logs of the two searches, and writes to ``configs/``. For each
budget of multiply-adds there are three cases, such as for 3M: ``joint_3M`` is the candidate with
the best score of the whole joint search, ``coarse_3M`` the best of its stage 1, and ``random_3M``
the best of equally many trainings of the random search. Two further cases are the smallest and the
largest winner of the joint search with each other's recipe. ``cases.csv`` lists all cases with
their candidates. A candidate may be the best for two budgets, or for the whole search and stage 1;
such cases share a config.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from fbnetv3.config import recipe_from_config, recipe_to_config
from fbnetv3.io import atomic_write
from fbnetv3.search import Constraint, SearchError
from fbnetv3.search.trial import Trial
from projects.cifar10_jointnas.runs import Run, open_log

HERE = Path(__file__).parent
BUDGETS = (3e6, 4.5e6, 6e6, 8e6)
"""Upper limits of the multiply-adds."""
COLUMNS = ("case", "config", "architecture", "recipe", "macs", "params", "predicted", "score")


def name_of(kind: str, budget: float) -> str:
    """Returns the name of a case, such as ``joint_4.5M``."""
    return f"{kind}_{budget / 1e6:g}M"


def write_case(
    run: Run, name: str, architecture: Mapping[str, Any], recipe: Mapping[str, Any], folder: Path
) -> None:
    """Writes the config of a case, ``NAME.yaml``, and its architecture, ``NAME_arch.yaml``.

    Args:
        run: Search that the candidates belong to.
        name: Name of the case.
        architecture: Candidate whose architecture is used.
        recipe: Candidate whose recipe is used.
        folder: Folder of the files.
    """
    base = recipe_from_config(run.cfg)
    plain = recipe_to_config(base)
    keys = recipe_to_config(run.space.recipe(dict(recipe), base))
    # the other keys, such as those of the schedule, come from final.yaml
    keys = {key: value for key, value in keys.items() if value != plain.get(key)}
    keys["MODEL.ARCH"] = f"{name}_arch.yaml"
    write_config(folder / f"{name}.yaml", "../final.yaml", keys)
    with atomic_write(folder / f"{name}_arch.yaml") as temporary:
        temporary.write_text(run.space.arch(dict(architecture)).to_yaml(), encoding="utf-8")


def write_config(path: Path, base: str, keys: Mapping[str, Any]) -> None:
    """Writes a config that inherits from a base file.

    Args:
        path: Path of the config.
        base: Path of the base file, relative to that of the config.
        keys: Overridden keys, such as ``SOLVER.BASE_LR``.
    """
    with atomic_write(path) as temporary:
        text = yaml.safe_dump(as_tree(base, keys), sort_keys=False)
        temporary.write_text(text, encoding="utf-8")


def as_tree(base: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested dict of a config that inherits from a base file; see ``write_config``."""
    tree: dict[str, Any] = {"_BASE_": base}
    for key, value in keys.items():
        node = tree
        *groups, leaf = key.split(".")
        for group in groups:
            node = node.setdefault(group, {})
        node[leaf] = list(value) if isinstance(value, tuple) else value
    return tree


def write_cases(joint: Run, random: Run, folder: Path) -> list[dict[str, Any]]:
    """Writes the configs of all cases; returns their rows of ``cases.csv``.

    Raises:
        SearchError: A search is unfinished, or the two stop early after different epochs.
    """
    joint_result, random_result = joint.search.result(), random.search.result()
    check_comparable(joint, random)
    results = {
        "joint": joint_result,
        "coarse": replace(
            joint_result, trials=[t for t in joint_result.trials if t.stage == "coarse"]
        ),
        "random": replace(random_result, trials=random_result.trials[: len(joint_result.trials)]),
    }
    rows, winners = [], []
    # names of configs by (architecture, recipe), since cases may share a config
    written: dict[tuple[str, str], str] = {}

    def add(name: str, arch: Trial, recipe: Trial, predicted: float | None, score: Any) -> None:
        pair = arch.id, recipe.id
        if pair not in written:
            written[pair] = name
            write_case(joint, name, arch.config, recipe.config, folder)
        scores = ["" if value is None else f"{value:.2f}" for value in (predicted, score)]
        costs = [round(arch.statistics[key]) for key in ("macs", "params")]
        row = (name, written[pair], *pair, *costs, *scores)
        rows.append(dict(zip(COLUMNS, row, strict=True)))

    for budget in BUDGETS:
        for kind, result in results.items():
            best = result.best_within(Constraint("macs", upper=budget))
            assert best is not None  # the first batch has candidates within each budget
            add(name_of(kind, budget), best, best, best.predicted, best.score)
            if kind == "joint":
                winners.append(best)
    small, large = winners[0], winners[-1]
    add("small_net_large_recipe", small, large, None, None)
    add("large_net_small_recipe", large, small, None, None)
    return rows


def check_comparable(joint: Run, random: Run) -> None:
    """Checks that both searches are finished and stop trainings after the same epoch.

    Raises:
        SearchError: A search is unfinished, or the epochs differ.
    """
    results = [run.search.result() for run in (joint, random)]
    count = joint.cfg.SEARCH.BATCH_SIZE * joint.cfg.SEARCH.ITERATIONS + joint.cfg.SEARCH.FINALISTS
    for name, result in zip(("joint", "random"), results, strict=True):
        if len(result.trials) < count:
            raise SearchError(
                f"{name} has {len(result.trials)} of {count} trials: resume the search"
            )
    stops = [None if r.early_stop is None else r.early_stop.epoch for r in results]
    if stops[0] != stops[1]:
        raise SearchError(
            "the searches stop trainings after different epochs: "
            f"joint after {stops[0]}, random after {stops[1]}"
        )


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--joint", type=Path, default=HERE / "joint", help="log of the search")
    parser.add_argument(
        "--random", type=Path, default=HERE / "random", help="log of the random search"
    )
    parser.add_argument("--configs", type=Path, default=HERE / "configs", help="folder to write")
    parser.add_argument("--csv", type=Path, default=HERE / "cases.csv", help="table to write")
    args = parser.parse_args()
    args.configs.mkdir(exist_ok=True)
    for old in args.configs.glob("*.yaml"):
        old.unlink()  # may belong to an earlier state of the searches
    rows = write_cases(open_log(args.joint), open_log(args.random), args.configs)
    with atomic_write(args.csv) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
