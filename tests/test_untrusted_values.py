"""Untrusted values: each reader takes a mutated document, or refuses it in one line at once.

``--mutations N`` sets their number; ``make soak`` tries many.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fbnetv3.arch import get_arch
from fbnetv3.arch.latency import LatencyTable, MeasuredBlock
from fbnetv3.arch.latency_shapes import arch_shapes
from fbnetv3.benchmark.block_files import Part, write_manifest
from fbnetv3.benchmark.block_times import read_blocks
from fbnetv3.config import get_cfg
from fbnetv3.data.shards import INDEX, ShardSource
from fbnetv3.engine.metrics import last_scores
from fbnetv3.search import Constraint, Trial
from fbnetv3.search.enqueued import enqueued_candidate
from fbnetv3.search.fbnet.candidates_file import read_candidates
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.fbnet.space import FBNetSpace
from fbnetv3.search.history import check_stored
from fbnetv3.search.schedule import Schedule
from fbnetv3.search.settings import SearchSettings
from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.storage.batch_log import BatchLog
from fbnetv3.search.storage.warm_start import read_warm_start
from fbnetv3.search.trial import trial_from_json, trial_to_json
from fbnetv3.weights.files import decode_metadata
from fbnetv3.weights.metadata import check_metadata
from fbnetv3.weights.networks import preprocessing_of
from tests.label_documents import LABEL_DOCUMENTS
from tests.mutations import assert_refused_or_read, mutations
from tests.search import problem

SPACES = Path(__file__).resolve().parents[1] / "fbnetv3" / "search" / "fbnet" / "spaces"
SETTINGS = SearchSettings(batch_size=2, iterations=2, finalists=1, pool_size=50)


def _trials() -> list[dict[str, Any]]:
    """Returns the trials of a finished search as plain values."""
    space, trials = problem.space(), []
    for number in range(4):
        config = {"depth": number + 1, "kernel": 3, "lr": 0.01, "decay": 0.5, "optim": "sgd"}
        config |= dict.fromkeys(problem.WIDTHS, 16)
        levels = space.levels([config])
        trial = Trial(space.ids(levels)[0], number, number // 2, space.configs(levels)[0])
        trial.statistics = {"macs": 64.0 * (number + 1)}
        if number == 1:  # fields that most trials lack
            trial.enqueued, trial.earlier_reasons = "a guess", ["the GPU was lost"]
        trial.report(1, 0.5)
        trial.finish(0.5 + number)
        trials.append(json.loads(trial_to_json(trial)))
    return trials


def _read_trials(trials: Any, folder: Path) -> None:
    read = [trial_from_json(json.dumps(values)) for values in trials]
    check_stored(sorted(read, key=lambda t: t.number), problem.space(), Schedule(SETTINGS))


def _as_file(name: str, dump: Callable[[Any], str]) -> Callable[[Any, Path], Path]:
    def write(document: Any, folder: Path) -> Path:
        path = folder / name
        path.write_text(dump(document), encoding="utf-8", errors="replace")
        return path

    return write


_yaml = _as_file("x.yaml", lambda tree: yaml.safe_dump(tree, allow_unicode=True))
_json = _as_file("x.json", json.dumps)


def _read_latency(document: Any, folder: Path) -> None:
    table = LatencyTable.load(_json(document, folder))
    table.of_arch(get_arch("fbnetv3_nano_a"))


def _read_config(document: Any, folder: Path) -> None:
    get_cfg().merge_from_file(str(_yaml(document, folder)))


def _read_space(document: Any, folder: Path) -> None:
    FBNetSpace.from_yaml(str(_yaml(document, folder)))


def _read_arch(document: Any, folder: Path) -> None:
    get_arch(str(_yaml(document, folder)))


def _read_metadata(document: Any, folder: Path) -> None:
    metadata = decode_metadata({k: json.dumps(v) for k, v in dict(document).items()})
    check_metadata(metadata, "x.safetensors")
    preprocessing_of(metadata)


def _read_log(document: Any, folder: Path) -> None:
    lines = [json.dumps(line) for line in document]
    (folder / "batch_000.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    BatchLog(folder).read()


def _read_shards(document: Any, folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps(document))
    ShardSource(folder)


def _read_winners(document: Any, folder: Path) -> None:
    (folder / "winners.json").write_text(json.dumps(document))
    RunFolder(folder).winners()


def _read_files(document: Any, folder: Path) -> None:
    (folder / "files.json").write_text(json.dumps(document))
    RunFolder(folder).check_files({"SEARCH.SPACE": "0" * 64, "MODEL.ARCH": "1" * 64})


def _read_metrics(document: Any, folder: Path) -> None:
    (folder / "metrics.json").write_text("\n".join(json.dumps(row) for row in document))
    last_scores(folder / "metrics.json")


def _read_table(document: Any, folder: Path) -> None:
    document = [row if isinstance(row, list) else [row] for row in document]
    lines = [",".join(f'"{str(cell)[:300]}"' for cell in row) for row in document]
    path = folder / "warm.csv"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    read_warm_start(problem.space(), path)


def _space(name: str) -> Any:
    return yaml.safe_load((SPACES / f"{name}.yaml").read_text())


def _latency_document() -> dict[str, Any]:
    shapes = dict.fromkeys(arch_shapes(get_arch("fbnetv3_nano_a")))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.json"
        LatencyTable([MeasuredBlock(shape, 0.5) for shape in shapes]).save(path)
        document: dict[str, Any] = json.loads(path.read_text())
    return document


def _blocks_document() -> dict[str, Any]:
    """Returns the description of a folder of blocks: one network to fit, and one to check."""
    arch = get_arch("fbnetv3_nano_a")
    shapes = list(dict.fromkeys(arch_shapes(arch)[1:]))
    used = tuple(shapes.index(shape) for shape in arch_shapes(arch)[1:])
    parts = [Part(f"b{i}", (1,), 100, shape) for i, shape in enumerate(shapes)]
    parts += [Part("n", (1,), 100, None, used), Part("c", (1,), 100, is_check=True)]
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(Path(folder), parts, {"n": arch, "c": arch}, {"space": "nano"})
        document: dict[str, Any] = json.loads((Path(folder) / "blocks.json").read_text())
    return document


def _read_blocks(document: Any, folder: Path) -> None:
    (folder / "blocks.json").write_text(json.dumps(document))
    names = [*(f"b{i}" for i in range(99)), "n", "c"]
    rows = document.get("parts") if isinstance(document, dict) else None
    known = str(rows)
    lines = [f"{name},1.5" for name in names if f"'name': '{name}'" in known]
    (folder / "blocks.csv").write_text("\n".join(["name,ms", *lines]))
    read_blocks(folder / "blocks.csv", "phone")


def _read_enqueued(document: Any, folder: Path) -> None:
    constraints = (Constraint("macs", upper=problem.UPPER),)
    space = FeasibleSpace(Costs(problem.space(), problem.statistics), constraints)
    for config, reason in read_candidates(_yaml(document, folder)):
        enqueued_candidate(space, config, reason)


_LOG_HEAD = {"format": 1, "config": {"SEED": 1}, "settings": {"seed": 0}, "notes": {}}
_NAMES = [*problem.space().names, "score"]
DOCUMENTS: dict[str, tuple[Callable[[Any, Path], None], Callable[[], Any]]] = {
    "trials": (_read_trials, _trials),
    "log": (_read_log, lambda: [_LOG_HEAD, *_trials()[:2]]),
    "warm start": (
        _read_table,
        lambda: [_NAMES, *([*t["config"].values(), t["score"]] for t in _trials())],
    ),
    "enqueued candidates": (
        _read_enqueued,
        lambda: {"candidates": [{"config": t["config"], "reason": "a guess"} for t in _trials()]},
    ),
    "shards": (
        _read_shards,
        lambda: {
            "format": 1,
            "classes": ["cat", "dog"],
            "shards": ["shard-00000.tar"],
            "files": ["cat/0.jpg", "dog/0.jpg"],
            "targets": [0, 1],
            "places": [[0, 512, 900], [0, 2048, 700]],
        },
    ),
    "winners": (_read_winners, lambda: {"best": ["score 1", "macs 2"], "best_macs_1M": ["x"]}),
    "files": (_read_files, lambda: {"SEARCH.SPACE": "0" * 64, "MODEL.ARCH": "1" * 64}),
    "metrics": (_read_metrics, lambda: [{"iteration": 1, "val/top1": 0.5}, {"bbox/AP": 1.0}]),
    "metadata": (
        _read_metadata,
        lambda: {
            "classes": ["a", "b"],
            "resolution": 32,
            "resize": 36,
            "interpolation": "bilinear",
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "config": {"INPUT": {"RESOLUTION": 32, "MEAN": [0.5] * 3}},
        },
    ),
    **LABEL_DOCUMENTS,
    "latency table": (_read_latency, _latency_document),
    "blocks": (_read_blocks, _blocks_document),
    "architecture": (_read_arch, lambda: get_arch("fbnetv3_nano_a").to_dict()),
    "space": (_read_space, lambda: _space("nano")),
    "recipe space": (_read_space, lambda: _space("autotrain")),
    "config": (
        _read_config,
        lambda: {
            "MODEL": {"ARCH": "fbnetv3_a", "NUM_CLASSES": 10, "WIDTH": 1.0},
            "SOLVER": {"BASE_LR": 0.1, "IMS_PER_BATCH": 8, "STEPS": [1, 2]},
            "INPUT": {"MEAN": [0.5, 0.5, 0.5], "RESOLUTION": 32},
            "DATASETS": {"TRAIN": ["digits_train"], "TEST": ["digits_test"]},
            "SEED": 1,
        },
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_mutated_documents(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    read, make = DOCUMENTS[name]
    document = make()
    assert assert_refused_or_read(lambda: read(document, tmp_path), document)
    count = request.config.getoption("--mutations")
    for mutated in mutations(document, count):
        assert_refused_or_read(lambda mutated=mutated: read(mutated, tmp_path), mutated)
