"""Published tables of trainings: made-up files of their formats, and the problems made of them."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fbnetv3.search import Choice, SearchSpace
from projects.search_quality import public_problems, public_tables
from projects.search_quality.public_tables import Arrays, Source, Table, TableError


def test_macro_reads_blocks_trainings_and_macs(tmp_path: Path) -> None:
    rows = {
        "20120012": {"test_acc": [90.5, 91.0, 92.0], "flops": 47_000_000, "params": 1},
        "00000000": {"test_acc": [50.0, 51.0, 52.0], "flops": 3_000_000, "params": 1},
    }
    path = tmp_path / "macro.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    arrays = public_tables.macro(path)
    assert arrays.levels.tolist() == [[0] * 8, [2, 0, 1, 2, 0, 0, 1, 2]]
    assert arrays.scores.tolist() == [[50.0, 51.0, 52.0], [90.5, 91.0, 92.0]]
    assert arrays.cost.tolist() == [3e6, 47e6]


def _cells(tmp_path: Path, runs: Any) -> list[Path]:
    paths = [tmp_path / name for name in ("runs.pkl", "index.pt", "latency.pt")]
    paths[0].write_bytes(pickle.dumps(runs, protocol=4))
    texts = (
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
        "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_3x3~0|none~1|none~2|",
    )
    torch.save({text: i for i, text in enumerate(texts)}, paths[1])
    torch.save([1.5, 4.5], paths[2])
    return paths


def test_nasbench201_groups_the_trainings_of_a_network(tmp_path: Path) -> None:
    runs = {
        "cifar100": {
            "loss": np.array([40.0, 42.0, 30.0, 31.0, 32.0]),
            "runtime": np.array([1.0, 1.0, 2.0, 2.0, 2.0]),
            "size_in_mb": np.array([0.1, 0.1, 0.1, 0.1, 0.1]),
        }
    }
    arrays = public_tables.nasbench201(*_cells(tmp_path, runs))
    assert arrays.levels.tolist() == [[0] * 6, [4, 2, 1, 3, 0, 0]]
    assert arrays.scores[0, :2].tolist() == [60.0, 58.0]
    assert np.isnan(arrays.scores[0, 2])
    assert arrays.scores[1].tolist() == [70.0, 69.0, 68.0]
    assert arrays.cost.tolist() == [1.5, 4.5]


def test_nasbench201_refuses_files_of_different_lengths(tmp_path: Path) -> None:
    runs = {"cifar100": {k: np.array([1.0]) for k in ("loss", "runtime", "size_in_mb")}}
    with pytest.raises(TableError, match="describe 1, 2 and 2 networks"):
        public_tables.nasbench201(*_cells(tmp_path, runs))


def test_a_pickle_that_could_run_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"contains pathlib\.\w+"):
        public_tables.nasbench201(*_cells(tmp_path, Path("x")))


def _network(expansion: int, top1: float, latency: float | None) -> bytes:
    architecture: dict[str, Any] = {}
    for block in range(7):
        architecture |= {f"block{block}_e": expansion, f"block{block}_k": 5}
        architecture |= {f"block{block}_l": 3, f"block{block}_se": True}
    row = {
        "architecture": architecture,
        "metrics": {"val_top1": top1},
        "platform_perf": {"latency_zcu102": {"latency_mean": latency}},
    }
    return json.dumps(row).encode()


def test_accel_leaves_out_networks_without_a_latency(tmp_path: Path) -> None:
    archive = tmp_path / "networks.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        documents = [_network(4, 60.0, 5.5), _network(6, 61.0, None)]
        for i, document in enumerate(documents):
            info = tarfile.TarInfo(f"./result_{i}.json")
            info.size = len(document)
            tar.addfile(info, io.BytesIO(document))
    seeds = []
    for seed, values in enumerate(((60.0, 50.0), (62.0, 50.0))):
        seeds.append(tmp_path / f"seed{seed}.csv")
        rows = [f"{i},7,0,0,{value},80,1,1,1,4,{i}" for i, value in enumerate(values)]
        # the same networks in another order
        seeds[-1].write_text("\n".join(rows[:: 1 - 2 * seed]), encoding="utf-8")
    arrays = public_tables.accel(archive, *seeds)
    assert arrays.levels.tolist() == [[1, 1, 2, 1] * 7]
    assert arrays.scores.tolist() == [[60.0]]
    assert arrays.cost.tolist() == [5.5]
    assert arrays.noise == pytest.approx(1.0)  # variances 2 and 0


def test_arrays_are_written_from_published_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "macro.json"
    path.write_text('{"00000001": {"test_acc": [1.0, 2.0], "flops": 3}}', encoding="utf-8")
    with pytest.raises(TableError, match=r"fetch it from github\.com/xiusu"):
        public_tables.write("nasbench_macro", [path], tmp_path)
    with pytest.raises(TableError, match="no file"):
        public_tables.write("nasbench_macro", [tmp_path / "absent.json"], tmp_path)
    with pytest.raises(TableError, match="needs 3 files, not 1"):
        public_tables.write("nasbench201", [path], tmp_path)
    source = Source("here", "MIT", hashlib.sha256(path.read_bytes()).hexdigest())
    table = Table(public_tables.macro, (source,))
    monkeypatch.setitem(public_tables.SOURCES, "nasbench_macro", table)
    public_tables.write("nasbench_macro", [path], tmp_path / "public")
    arrays = public_tables.read("nasbench_macro", tmp_path / "public")
    assert arrays.levels.tolist() == [[0, 0, 0, 0, 0, 0, 0, 1]]
    assert np.isnan(arrays.noise)


def test_missing_arrays_state_the_command(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="public_tables accel_nasbench FILES"):
        public_tables.read("accel_nasbench", tmp_path)


def _tiny() -> tuple[SearchSpace, Arrays]:
    space = SearchSpace([Choice(f"layer{i}", ("a", "b"), part="architecture") for i in range(2)])
    levels = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    scores = np.array([[1.0, 3.0], [2.0, np.nan], [8.0, 9.0], [9.0, 9.5]])
    return space, Arrays(levels, scores, np.array([1.0, 2.0, 3.0, 4.0]))


def test_a_problem_of_a_whole_table_measures_its_trainings() -> None:
    problem = public_problems.TableOfAll(*_tiny(), "macs").problem("tiny")
    configs = problem.space.configs(np.array([[0, 1], [0, 0]]))
    assert problem.truth(configs).tolist() == [2.0, 2.0]
    random = np.random.default_rng(0)
    drawn = np.array([problem.measure(configs, random) for _ in range(40)])
    assert set(drawn[:, 0]) == {2.0}
    assert set(drawn[:, 1]) == {1.0, 3.0}
    assert problem.best == 2.0  # the others cost more than the median of 2.5
    assert problem.allowed(np.array([[0, 1], [1, 0]])).tolist() == [True, False]
    assert problem.usual == {"layer0": "a", "layer1": "a"}


def test_an_incomplete_table_is_refused() -> None:
    space, arrays = _tiny()
    part = Arrays(arrays.levels[:3], arrays.scores[:3], arrays.cost[:3])
    with pytest.raises(TableError, match=r"has 3 networks.*each of the 4 networks"):
        public_problems.TableOfAll(space, part, "macs")


def _made_up_accel(count: int) -> Arrays:
    space, random = public_problems.accel_space(), np.random.default_rng(1)
    levels = random.integers(0, space.sizes, (count, len(space)))
    scores = 60 + levels[:, :1] + 0.5 * levels[:, 2:3]
    return Arrays(levels, scores, 1 + 0.1 * levels.sum(1), 0.3)


def test_a_sum_over_blocks_finds_costs_of_unseen_networks() -> None:
    arrays = _made_up_accel(1200)
    model = public_problems.SumOverBlocks((3, 2, 4, 2)).fit(arrays.levels, arrays.cost)
    unseen = np.random.default_rng(2).integers(0, public_problems.accel_space().sizes, (50, 28))
    np.testing.assert_allclose(model.predict(unseen), 1 + 0.1 * unseen.sum(1), atol=0.02)


def test_a_fitted_table_states_its_errors_and_makes_a_problem() -> None:
    arrays = _made_up_accel(400)
    errors = public_problems.errors(arrays)
    assert errors["accuracy"][0] < 0.3
    assert errors["latency"][1] > 0.95
    problem = public_problems.FittedTable(public_problems.accel_space(), arrays).problem("accel")
    assert problem.noise == 0.3
    assert problem.allowed(np.zeros((1, 28), dtype=np.int64))[0]
    assert len(problem.truth([problem.usual])) == 1
