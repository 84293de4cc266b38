"""projects/cifar10_jointnas: configs from the logs of searches, trainings, and estimates."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from fbnetv3.arch import count_cost
from fbnetv3.config import get_cfg
from fbnetv3.config.archs import arch_from_config
from fbnetv3.search import JointNAS, SearchError
from fbnetv3.search.fbnet.config import SearchSetup, settings_from_config, space_from_config
from fbnetv3.search.fbnet.evaluator import TrainEvaluator
from fbnetv3.search.fbnet.identity import values_affecting_scores
from fbnetv3.search.fbnet.keys import get_search_cfg
from fbnetv3.search.storage.batch_log import BatchLog
from fbnetv3.search.trial import Trial
from projects.cifar10_jointnas import cases, family, figures, noise, trainings
from projects.cifar10_jointnas.runs import open_log, share_first_batch
from tests.forked import ForkedCommand

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "model_zoo" / "search" / "fbnetv3_cifar10_nano.yaml"
SMALL: list[Any] = ["SEARCH.POOL_SIZE", 300, "SEARCH.BATCH_SIZE", 8, "SEARCH.ITERATIONS", 2]
SMALL += ["SEARCH.FINALISTS", 4, "SEARCH.CLASSES", 10]


def _evaluate(trial: Any) -> float:
    """Returns a score that rewards large networks and a learning rate near 0.02.

    Early epochs have the same order as the last one.
    """
    score = float(
        40 + 3 * trial.statistics["macs"] / 1e6 - 5 * abs(math.log(trial.config["lr"] / 0.02))
    )
    for epoch in (1, 2, 3):
        trial.report(epoch, score * (1 - 0.5**epoch))
    return score


def _search(log: Path, *opts: Any) -> JointNAS:
    """Runs a small search and writes its log."""
    cfg = get_search_cfg()
    cfg.merge_from_file(str(CONFIG))
    cfg.merge_from_list([*SMALL, *opts])
    space = space_from_config(cfg)
    search = JointNAS(
        space.space, settings_from_config(cfg), statistics=space.statistics(num_classes=10)
    )
    search.run(_evaluate)
    BatchLog(log).write(search.trials, search.settings, search.order, values_affecting_scores(cfg))
    return search


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, JointNAS]:
    """The log of a finished search, and the search."""
    log = tmp_path_factory.mktemp("logs") / "joint"
    return log, _search(log)


@pytest.fixture(scope="module")
def logs(joint: tuple[Path, JointNAS]) -> tuple[Path, Path]:
    random = joint[0].parent / "random"
    _search(random, "SEARCH.PREDICTOR", "random", "SEARCH.ITERATIONS", 3, "SEARCH.FINALISTS", 0)
    return joint[0], random


def test_a_search_is_restored_from_its_log(joint: tuple[Path, JointNAS]) -> None:
    log, search = joint
    restored = open_log(log)
    assert [(t.id, t.score) for t in restored.search.trials] == [
        (t.id, t.score) for t in search.trials
    ]
    assert restored.search.result().best.id == search.result().best.id
    assert restored.cfg.SEARCH.BATCH_SIZE == 8


def test_cases_have_the_best_candidates_within_their_budgets(
    logs: tuple[Path, Path], tmp_path: Path
) -> None:
    joint, random = map(open_log, logs)
    folder = tmp_path / "configs"
    folder.mkdir()
    (tmp_path / "final.yaml").write_text((Path(cases.__file__).parent / "final.yaml").read_text())
    rows = {row["case"]: row for row in cases.write_cases(joint, random, folder)}
    assert len(rows) == 14
    by_id = {t.id: t for t in [*joint.search.result().trials, *random.search.result().trials]}
    for budget in cases.BUDGETS:
        for kind in ("joint", "coarse", "random"):
            name = cases.name_of(kind, budget)
            cfg = get_cfg()
            cfg.merge_from_file(str(folder / f"{rows[name]['config']}.yaml"))
            assert (cfg.SOLVER.MAX_EPOCHS, cfg.DATA.TRAIN_LIMIT) == (15.0, 10000)
            arch = arch_from_config(cfg)
            assert not isinstance(arch, str)
            macs = count_cost(arch.replace(num_classes=10), 32).macs
            assert macs == int(rows[name]["macs"]) <= budget
            config = by_id[rows[name]["architecture"]].config
            factor = 4 if config["optimizer"] == "sgd" else 1
            assert pytest.approx(factor * config["lr"]) == cfg.SOLVER.BASE_LR
            assert config["mixup"] == cfg.INPUT.MIXUP
        scores = [float(rows[cases.name_of(k, budget)]["score"]) for k in ("joint", "coarse")]
        assert scores[0] >= scores[1]
    configs = {r["config"]: (r["architecture"], r["recipe"]) for r in rows.values()}
    assert len(configs) == len(set(configs.values()))
    # random search is compared after 20 of its 24 trainings, as many as the joint search has
    compared = [t for t in random.search.result().trials[:20] if t.statistics["macs"] <= 8e6]
    assert rows["random_8M"]["architecture"] == max(compared, key=lambda t: t.score or 0).id


@pytest.mark.slow
def test_unfinished_searches_are_not_compared(logs: tuple[Path, Path], tmp_path: Path) -> None:
    unfinished = tmp_path / "log"
    unfinished.mkdir()
    for name in ("batch_000.jsonl.gz", "batch_001.jsonl.gz"):
        (unfinished / name).write_bytes((logs[0] / name).read_bytes())
    with pytest.raises(SearchError, match="joint has 16 of 20 trials: resume the search"):
        cases.write_cases(open_log(unfinished), open_log(logs[1]), tmp_path)


def test_two_cases_swap_the_recipes_of_winners(logs: tuple[Path, Path], tmp_path: Path) -> None:
    joint, random = map(open_log, logs)
    cases.write_cases(joint, random, tmp_path)

    def parts(name: str) -> tuple[Any, Any]:
        tree = yaml.safe_load((tmp_path / f"{name}.yaml").read_text())
        del tree["MODEL"]["ARCH"]
        return yaml.safe_load((tmp_path / f"{name}_arch.yaml").read_text()), tree

    (small, small_recipe), (large, large_recipe) = parts("joint_3M"), parts("joint_8M")
    assert parts("small_net_large_recipe") == (small, large_recipe)
    assert parts("large_net_small_recipe") == (large, small_recipe)
    assert small != large


def _tiny_config(folder: Path) -> Path:
    """Writes the config of a training that takes a second."""
    config = folder / "tiny.yaml"
    config.write_text(
        "_BASE_: " + str(ROOT / "model_zoo" / "digits.yaml") + "\n"
        "SOLVER: {MAX_EPOCHS: 2.0, WARMUP_EPOCHS: 0.5}\nTEST: {EVAL_EPOCHS: 1.0}\n"
        "DATA: {TRAIN_LIMIT: 64}\nMODEL: {WIDTH: 0.25, DEPTH: 0.3}\n"
    )
    return config


def _arguments(folder: Path, *configs: Path) -> list[str]:
    """Returns the command line that trains configs with seed 3 and writes ``t.csv``."""
    return [
        *map(str, configs),
        *("--csv", str(folder / "t.csv"), "--seeds", "3", "--out", str(folder / "out")),
        *("--processes", "1", "--opts", "SOLVER.IMS_PER_BATCH", "32"),
    ]


def _run_trainings(folder: Path, *configs: Path) -> int:
    """Runs the command line here, and its trainings as processes that need not import anything."""

    def forked(command: list[str], env: dict[str, str], **options: Any) -> None:
        output = folder / "forked"
        output.mkdir(exist_ok=True)
        status = ForkedCommand(command, ROOT, env, output).wait(300)
        if status:
            raise subprocess.CalledProcessError(status, command)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["trainings", *_arguments(folder, *configs)])
        patch.setattr(trainings.subprocess, "run", forked)
        return trainings.main()


@pytest.mark.slow
def test_finished_trainings_are_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, table = _tiny_config(tmp_path), tmp_path / "t.csv"
    bad = tmp_path / "bad.yaml"
    bad.write_text("MODEL: {ARCH: none_such}\n")
    assert _run_trainings(tmp_path, config) == 0
    assert capsys.readouterr().out.startswith("tiny, seed 3: ")
    rows = trainings.read(table)
    assert [(r.case, r.seed, r.epoch) for r in rows] == [("tiny", 3, 1.0), ("tiny", 3, 2.0)]
    assert all(0 <= r.top1 <= 100 for r in rows)
    assert _run_trainings(tmp_path, config) == 0
    assert capsys.readouterr().out == ""
    assert trainings.read(table) == rows
    command = [sys.executable, "-m", "projects.cifar10_jointnas.trainings"]
    command += _arguments(tmp_path, config, bad)
    with_bad = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert with_bad.returncode == 1
    assert "bad, seed 3 failed; see" in with_bad.stdout
    assert trainings.read(table) == rows
    # a case whose config has changed is trained again
    config.write_text(config.read_text().replace("MAX_EPOCHS: 2.0", "MAX_EPOCHS: 1.0"))
    assert _run_trainings(tmp_path, config, bad) == 1
    changed = trainings.read(table)
    assert [(r.case, r.epoch) for r in changed] == [("tiny", 1.0)]
    assert changed[0].config != rows[0].config


def test_another_search_reuses_the_results_of_the_first_batch(
    logs: tuple[Path, Path], tmp_path: Path
) -> None:
    first = [t for t in BatchLog(logs[0]).read().trials if t.batch == 0]
    assert share_first_batch(logs[0], tmp_path) == len(first) == 8
    evaluator = TrainEvaluator(SearchSetup(get_search_cfg()), str(tmp_path))
    trial = first[0].unfinished()
    assert evaluator(trial) == first[0].final_score
    assert trial.reports == first[0].reports


def test_noise_is_compared_with_the_spread_of_the_quartile() -> None:
    random = np.random.default_rng(0)
    quartile = [
        Trial(f"{i}", i, 0, {}, reports={1: float(s)}) for i, s in enumerate([5, 4, 3, 2, 1, 0])
    ]
    chosen = noise.drawn(quartile)
    assert len({t.id for t in chosen}) == 2
    known = {(t.id, s): {1: float(random.normal())} for t in chosen for s in noise.SEEDS}
    (row,) = noise.table(quartile, known)
    variances = [np.var([known[t.id, s][1] for s in noise.SEEDS], ddof=1) for t in chosen]
    assert row["noise"] == pytest.approx(np.sqrt(np.mean(variances)))
    assert row["spread"] == pytest.approx(np.std(np.arange(6), ddof=1))
    assert row["without"] ** 2 + row["noise"] ** 2 == pytest.approx(row["spread"] ** 2)
    assert row["low"] < row["ratio"] < row["high"]
    # at the lower end of the 95 % interval, so high a ratio of variances has a probability of 2.5 %
    tail = stats.f.sf((row["ratio"] / row["low"]) ** 2, 5, 8)
    assert tail == pytest.approx(0.025)


def test_the_family_has_scaled_winners_and_peers_with_three_recipes(
    logs: tuple[Path, Path], tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    cases.write_cases(*map(open_log, logs), tmp_path)
    rows = {row[0]: row for row in family.write_family(tmp_path)}
    assert len(rows) == len(family.SCALED) + 3 * len(family.PEERS)
    for macs in family.SCALED:
        assert rows[cases.name_of("scaled", macs)][1] == pytest.approx(macs, rel=0.1)
    winner = yaml.safe_load((tmp_path / "joint_8M.yaml").read_text())
    for case in ("scaled_12M", "efficientnet_b0_searched", "mobilenetv3_small_050_plain"):
        tree = yaml.safe_load((tmp_path / "family" / f"{case}.yaml").read_text())
        has_winner_recipe = not case.endswith("_plain")
        assert (tree["SOLVER"]["BASE_LR"] == winner["SOLVER"]["BASE_LR"]) == has_winner_recipe
        assert tree["MODEL"]["ARCH"].startswith("scaled" if "scaled" in case else "timm/")


def test_estimates_have_intervals_of_students_t() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, 12).tolist()
    result = figures.estimate(values)
    half = stats.t.ppf(0.975, 11) * np.std(values, ddof=1) / math.sqrt(12)
    assert result.mean == pytest.approx(np.mean(values))
    assert (result.low, result.high) == pytest.approx((result.mean - half, result.mean + half))
    assert math.isnan(figures.estimate([1.0]).low)
    # overlapping splits have less information than independent values
    wide = figures.estimate(values, overlap=0.25)
    assert wide.high - wide.mean == pytest.approx(half * math.sqrt(1 + 12 * 0.25))


def test_differences_pair_seeds() -> None:
    scores = {("a", 0): 3.0, ("a", 1): 5.0, ("a", 2): 9.0, ("b", 0): 1.0, ("b", 1): 1.5}
    assert figures.differences(scores, "a", "b") == [2.0, 3.5]


def test_finals_compare_cases_by_budget_and_on_average(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(figures, "HERE", tmp_path)
    lines = ["case,config,architecture,recipe,macs,params,predicted,score"]
    rows = []
    for i, budget in enumerate(figures.BUDGETS):
        for kind in figures.KINDS:
            name = cases.name_of(kind, budget)
            # at the last budget, the best candidate of stage 1 is that of the whole search
            config = "joint_8M" if name == "coarse_8M" else name
            score = {"joint": 50 + i, "coarse": 40, "random": 30}[kind]
            lines.append(f"{name},{config},a,a,{budget:g},1,,{score}")
            for s in range(3) if config == name else ():
                gain = {"joint": 2.0 + i + s / 2, "coarse": 1.0, "random": 0.0}[kind]
                rows.append(trainings.Row(name, "x", s, 3.0, 50.0, 60 + gain))
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n")
    trainings.write(tmp_path / "finals.csv", rows)
    figures.finals()
    output = capsys.readouterr().out
    assert "joint minus coarse, 8M: the same candidate" in output
    for other, gains in (("random", [3.5, 4.0, 4.5]), ("coarse", [1.5, 1.875, 2.25])):
        mean = f"mean of the budgets: {figures.estimate(gains)}, 3 seeds"
        assert f"joint minus {other}, {mean}" in output
    assert "Kendall's tau 1.00 (p 0.000, 11 candidates)" in output
    assert (tmp_path / "finals.png").stat().st_size > 1000


def test_last_returns_the_scores_after_the_last_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "HERE", tmp_path)
    rows = [trainings.Row("a", "1f", 0, e, 50 + e, 60 + e) for e in (1.0, 10.0, 9.0)]
    trainings.write(tmp_path / "x.csv", rows)
    assert figures.last("x.csv") == {("a", 0): 70.0}
    with (tmp_path / "x.csv").open() as file:
        assert [r["epoch"] for r in csv.DictReader(file)] == ["1", "9", "10"]
    assert figures.last("x.csv", "top1") == {("a", 0): 60.0}


def test_transfer_compares_with_the_plain_recipe_with_and_without_ema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(figures, "HERE", tmp_path)
    rows = []
    for lead, net in enumerate(("fbnetv3", "resnet18", "densenet")):
        for seed in range(3):
            rows.append(trainings.Row(f"{net}_searched", "x", seed, 9.0, 50.0, 64.0 + lead + seed))
            rows.append(trainings.Row(f"{net}_plain", "x", seed, 9.0, 60.0 + seed, 63.0 + seed))
    trainings.write(tmp_path / "transfer.csv", rows)
    figures.transfer()
    output = capsys.readouterr().out
    unseen = "on networks that the search did not use"  # all but fbnetv3
    assert f"searched minus plain, {unseen}: {figures.estimate([5.0, 6.0])}, 2 networks" in output
    assert (
        f"searched minus plain with EMA, {unseen}: {figures.estimate([2.0, 3.0])}, 2 networks"
        in output
    )
