"""The paper's search as printed: its configs, its budgets, and the costs of the final networks."""

from __future__ import annotations

import functools
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fbnetv3.arch import count_cost, get_arch
from fbnetv3.data import build_dataset
from fbnetv3.errors import FBNetError
from fbnetv3.search import (
    Constraint,
    EvolutionSettings,
    JointNAS,
    SearchError,
    SearchSettings,
    Trial,
)

pytest.importorskip("detectron2")

from fbnetv3.resources import model_zoo_path
from fbnetv3.search.fbnet import read_search_config, report_run, run_search
from fbnetv3.search.fbnet.bounds import parse_bounds
from fbnetv3.search.fbnet.config import SearchSetup, settings_from_config
from fbnetv3.search.fbnet.config_file import read_run_config
from fbnetv3.search.fbnet.datasets import num_classes_from_config, register_search_split
from fbnetv3.search.fbnet.evaluator import TrainEvaluator
from fbnetv3.search.fbnet.evolve import evolve_winners
from fbnetv3.search.fbnet.identity import default_values, evaluator_config, values_affecting_scores
from fbnetv3.search.fbnet.keys import ADDED_KEYS, get_search_cfg
from fbnetv3.search.fbnet.opening import build_search
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.fbnet.space import FBNetSpace

PAPER = model_zoo_path() / "search" / "fbnetv3_paper.yaml"
OPTS: list[Any] = [
    *("SEARCH.BATCH_SIZE", 6, "SEARCH.ITERATIONS", 1, "SEARCH.FINALISTS", 0),
    *("SEARCH.WORKERS", 0, "SEARCH.POOL_SIZE", 200, "SEARCH.PREDICTOR", "random"),
    *("SEARCH.PRETRAIN", False, "SEARCH.EVOLUTION.CHILDREN", 4, "SEARCH.EVOLUTION.TOP", 8),
    *("SEARCH.CONSTRAINTS", ["5e5 <= macs <= 1e6"], "SEARCH.CLASSES", 5, "DATA.TRAIN_LIMIT", 64),
]


def _cfg(path: Path | str = PAPER, *opts: Any) -> Any:
    return read_search_config(str(path), opts)


@pytest.mark.parametrize("name", ["fbnetv3_paper", "autotrain_paper"])
def test_the_settings_are_those_that_the_paper_prints(name: str) -> None:
    settings = settings_from_config(_cfg(PAPER.with_name(f"{name}.yaml")))
    evolution = settings.evolution
    assert (settings.pool_size, settings.batch_size) == (20_000, 48)  # section 4.1
    assert settings.iterations == (5 if name == "fbnetv3_paper" else 4)
    assert (settings.predictor, settings.finalists) == ("paper", 0)  # Algorithm 1
    assert (settings.early_stop_threshold, settings.early_stop_over) == (0.92, "all")
    # A.2
    assert (evolution.best, evolution.random, evolution.children, evolution.top) == (50, 50, 12, 40)
    assert (evolution.crossover_fitness, evolution.redraw) == ("better_parent", True)
    assert settings.pretrain == (name == "fbnetv3_paper")  # no embedding for AutoTrain


def test_the_space_has_as_many_candidates_as_the_paper_counts() -> None:
    space = FBNetSpace.from_yaml("fbnetv3_paper").space
    without_resolution = space.log10_cardinality_of("architecture") - np.log10(
        space["resolution"].size
    )
    assert int(without_resolution) == 17
    assert round(space.log10_cardinality_of("recipe")) == 7
    drop_path = space["drop_path"]
    ends = [drop_path.value(level) for level in (0, drop_path.size - 1)]
    assert ends == pytest.approx([0.10, 0.31])  # (10, 31) as printed


@pytest.mark.parametrize("name", ["fbnetv3_imagenet", "autotrain"])
def test_the_default_forms_stay_beside_the_papers(name: str) -> None:
    settings = settings_from_config(_cfg(PAPER.with_name(f"{name}.yaml")))
    assert settings.predictor == "default"
    assert settings.describe(_space()).keys() == SearchSettings().describe(_space()).keys()


def _space() -> Any:
    return FBNetSpace.from_yaml("nano").space


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("macs <= 4.5e8", (Constraint("macs", upper=4.5e8),)),
        (
            "macs <= 4.5e8, latency_ms <= 5",
            (Constraint("macs", upper=4.5e8), Constraint("latency_ms", upper=5)),
        ),
        ("macs >= 1,macs<=2", (Constraint("macs", 1, 2),)),
    ],
)
def test_several_bounds_at_once(text: str, bounds: tuple[Constraint, ...]) -> None:
    assert parse_bounds(text) == bounds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("macs <= 1, macs <= 2", "two upper bounds"),
        ("macs >= 5", "has no upper bound"),
        ("macs <= 5,", "cannot parse the constraint ''"),
        ("macs <= 1 latency_ms <= 5", "cannot parse"),
        ("", "cannot parse"),
    ],
)
def test_bounds_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        parse_bounds(text)


def test_the_papers_four_budgets_stay_above_the_floor_of_the_search() -> None:
    space = FBNetSpace.from_yaml("fbnetv3_paper")
    settings = settings_from_config(_cfg(PAPER, "SEARCH.POOL_SIZE", 400, "SEARCH.BATCH_SIZE", 8))
    small = EvolutionSettings(8, 8, children=4, top=10, redraw=True)
    search = JointNAS(
        space.space, settings, statistics=space.statistics(1000), iterations=1, evolution=small
    )
    trials = search.ask()
    search.tell(trials, [70 - trial.statistics["macs"] / 1e8 for trial in trials])  # small is good
    for upper in (4.5e8, 5.5e8, 6.5e8, 7.5e8):
        (best,) = search.evolve([Constraint("macs", upper=upper)], top_k=1)
        assert 4e8 <= best.statistics["macs"] <= upper
    with pytest.raises(SearchError, match=r"no constraint on 'params' to drop; .* on: macs"):
        search.evolve(drop=["params"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search of the digits on 5 of the 10 classes, whose scores are made up."""
    folder = tmp_path_factory.mktemp("search") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainEvaluator, "__call__", lambda _, trial: _score(trial))
        run_search(_cfg("search/digits.yaml", *OPTS), folder)
    return folder


def _score(trial: Trial) -> float:
    return 99.0 - trial.statistics["macs"] / 1e6


def test_costs_are_those_of_the_final_network(run: Path) -> None:
    cfg = read_search_config(str(run / "config.yaml"), ["OUTPUT_DIR", str(run)])
    assert (cfg.SEARCH.CLASSES, cfg.SEARCH.FINAL_CLASSES) == (5, 10)
    comments = (run / "best.yaml").read_text()
    assert "costs above: with 10 classes; with the search's 5 classes: activations" in comments
    report = report_run(run).read_text()
    line = "candidates train on 5 classes; their costs are those of networks with 10 classes"
    assert line in report
    assert "num_classes: 10" in (run / "best_arch.yaml").read_text()
    parts = [float(part) for part in _numbers(comments, "params")]
    assert parts[0] > parts[1]  # the final network has the larger classifier


def _numbers(text: str, name: str) -> list[str]:
    return [part.split()[0].rstrip(",") for part in text.split(f"{name} ")[1:]]


def test_winners_meet_the_budgets_and_the_constraints(run: Path) -> None:
    folder = RunFolder(run)
    setup = SearchSetup(read_run_config(folder))
    evolve = partial(evolve_winners, setup, folder, build_search(setup, read_only=True))
    budgets = [parse_bounds("macs <= 8e5, params <= 3e5"), Constraint("macs", upper=7e5), ()]
    pair, single, free = evolve(budgets)
    assert pair.path.name == "best_macs_0.8M_params_0.3M.yaml"
    assert "meets 500000 <= macs <= 1e+06 and macs <= 800000 and params <= 300000" in pair.facts
    assert single.path.name == "best_macs_0.7M.yaml"
    assert free.path.name == "best_evolved.yaml"
    for winner, upper in ((pair, 8e5), (single, 7e5), (free, 1e6)):
        assert 5e5 <= float(_numbers(winner.facts[0], "macs")[0]) <= upper
    (same,) = evolve([Constraint("macs", lower=5e5, upper=1e6)])
    assert "meets 500000 <= macs <= 1e+06" in same.facts
    below = [Constraint("macs", upper=4e5)]
    with pytest.raises(FBNetError, match=r"\(--drop-constraint macs lifts the constraint"):
        evolve(below)
    (winner,) = evolve(below, drop=["macs"])
    assert "meets macs <= 400000" in winner.facts
    with pytest.raises(FBNetError, match=r"no constraint on 'params' to drop; .*: macs$"):
        evolve([Constraint("macs", upper=7e5)], drop=["params"])


def test_b_has_the_published_parameters_with_its_final_classes() -> None:
    costs = {n: count_cost(get_arch("fbnetv3_b").replace(num_classes=n)) for n in (200, 1000)}
    assert {n: round(cost.params / 1e6, 2) for n, cost in costs.items()} == {200: 7.01, 1000: 8.60}


@pytest.mark.parametrize(
    ("opts", "number"),
    [
        ([], 10),
        (["SEARCH.CLASSES", 5], 5),
        (["SEARCH.CLASSES", 5, "SEARCH.FINAL_CLASSES", 1000], 1000),
        (["SEARCH.FINAL_CLASSES", 7], 7),
    ],
)
def test_the_classes_of_the_costs(opts: list[Any], number: int) -> None:
    assert num_classes_from_config(_cfg("search/digits.yaml", *opts)) == number


def test_a_run_of_an_earlier_version_keeps_its_costs(run: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    cfg = _cfg("search/digits.yaml", *OPTS, "OUTPUT_DIR", str(folder.path))
    tree = yaml.safe_load(cfg.dump())
    for key in ADDED_KEYS:
        *groups, last = key.split(".")
        functools.reduce(dict.__getitem__, groups, tree).pop(last)
    old = yaml.safe_dump(tree)
    folder.path.mkdir()
    folder.write_config(old, {})
    folder.check_config(cfg.dump(), (), default_values())
    assert "SEARCH.FINAL_CLASSES" not in folder.stored_config()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainEvaluator, "__call__", lambda _, trial: _score(trial))
        result = run_search(cfg, folder.path).result
    space = SearchSetup(cfg).space
    statistics = space.statistics(5)
    assert statistics is not None
    for trial in result.trials:
        assert trial.statistics["params"] == statistics([trial.config])["params"][0]


def test_added_keys_do_not_change_what_identifies_a_search() -> None:
    cfg = get_search_cfg()
    assert not {*ADDED_KEYS} & {*values_affecting_scores(cfg)}
    cfg.SEARCH.CLASSES = cfg.SEARCH.FINAL_CLASSES = 5  # as earlier versions computed costs
    assert not {*ADDED_KEYS} & {*values_affecting_scores(cfg), *evaluator_config(SearchSetup(cfg))}
    cfg.SEARCH.FINAL_CLASSES = 10
    assert evaluator_config(SearchSetup(cfg))["SEARCH.FINAL_CLASSES"] == 10
    cfg.SEARCH.HOLD_OUT_SAMPLING = "random"
    assert values_affecting_scores(cfg)["SEARCH.HOLD_OUT_SAMPLING"] == "random"
    assert evaluator_config(SearchSetup(cfg))["SEARCH.HOLD_OUT_SAMPLING"] == "random"


def test_images_are_held_out_at_random() -> None:
    cfg = get_search_cfg()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("digits_train",), ("digits_test",)
    cfg.SEARCH.HOLD_OUT = 200
    counts = {}
    for sampling in ("stratified", "random"):
        cfg.SEARCH.HOLD_OUT_SAMPLING = sampling
        train, held = (build_dataset(name) for name in register_search_split(cfg))
        assert (len(held), len(train) + len(held)) == (200, 1437)
        counts[sampling] = np.bincount(held.targets)
        again = build_dataset(register_search_split(cfg)[1])
        assert again.targets == held.targets
    assert np.ptp(counts["stratified"]) <= 2 < np.ptp(counts["random"])
