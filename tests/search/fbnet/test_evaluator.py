"""Candidates as trainings: in workers, with torn files, and where the disk is full."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.search import InProcess, LocalWorkers, Trial
from fbnetv3.search.errors import PlaceError
from tests.search.executors.ray_clusters import ray_workers
from tests.search.executors.running import evaluate_all

pytest.importorskip("detectron2")

OPTS: list[Any] = [
    *("SEARCH.FIX", ["resolution", 16, "stage1_n", 1, "stage2_n", 1, "stage3_n", 1]),
    *("SOLVER.MAX_EPOCHS", 2.0, "DATA.TRAIN_LIMIT", 128),
]
Made = tuple[Any, Trial]
_WORKERS: dict[str, Callable[[], Any]] = {
    "local": lambda: LocalWorkers(1),
    "ray": lambda: ray_workers(1),
}


def _made(folder: Path, *opts: Any) -> Made:
    """Returns an evaluation that keeps its files in a folder, and a candidate."""
    from fbnetv3.resources import find_config
    from fbnetv3.search.fbnet.evaluator import TrainEvaluator, get_search_cfg, space_from_config

    cfg = get_search_cfg()
    cfg.merge_from_file(str(find_config("search/digits.yaml")))
    cfg.merge_from_list([*OPTS, *opts])
    space = space_from_config(cfg).space
    levels = space.canonical(space.sizes[None] // 2)
    trial = Trial(space.ids(levels)[0], 0, 0, space.configs(levels)[0])
    return TrainEvaluator(cfg.dump(), str(folder)), trial


def _run(executor: Any, made: Made) -> tuple[Any, ...]:
    evaluate, trial = made
    (finished,) = evaluate_all(executor, evaluate, [trial])
    return finished.score, finished.reason, trial.reports


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """Score, reason and reports of an undisturbed training, in this process."""
    found = _run(InProcess(), _made(tmp_path_factory.mktemp("wanted")))
    assert sorted(found[2]) == [1, 2]
    return found


@pytest.mark.parametrize("kind", list(_WORKERS))
def test_a_training_in_a_worker_has_data_workers(
    kind: str, tmp_path: Path, wanted: tuple[Any, ...]
) -> None:
    workers = _WORKERS[kind]()
    found = _run(workers, _made(tmp_path, "DATALOADER.NUM_WORKERS", 1))
    workers.close()
    assert found == wanted


@pytest.mark.parametrize("name", ["result.json", "scores.json"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_torn_file_is_as_if_it_were_not_there(
    tmp_path: Path,
    wanted: tuple[Any, ...],
    name: str,
    share: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _run(InProcess(), _made(tmp_path))
    path = next(tmp_path.glob(f"*/{name}"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert _run(InProcess(), _made(tmp_path)) == wanted
    assert path.read_bytes() == whole
    assert f"{path} is torn" in caplog.text


def test_torn_scores_of_a_training_that_was_killed(tmp_path: Path, wanted: tuple[Any, ...]) -> None:
    evaluate, trial = _made(tmp_path)

    def kill(epoch: int, score: float) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    trial.on_report = kill
    with pytest.raises(KeyboardInterrupt):
        evaluate(trial)
    assert list(tmp_path.glob("*/checkpoint_*.pt"))
    next(tmp_path.glob("*/scores.json")).write_bytes(b"")
    assert _run(InProcess(), _made(tmp_path)) == wanted


@pytest.mark.parametrize("kind", ["in process", *_WORKERS])
@pytest.mark.parametrize("fault", ["size=100k", pytest.param("ro", marks=pytest.mark.slow)])
def test_where_the_disk_is_full_or_forbidden_no_candidate_fails(
    small_disk: Path, wanted: tuple[Any, ...], kind: str, fault: str
) -> None:
    """And once that is mended, the same candidate has the same scores."""
    executor = InProcess() if kind == "in process" else _WORKERS[kind]()
    subprocess.run(["mount", "-o", f"remount,{fault}", str(small_disk)], check=True)
    with pytest.raises(PlaceError, match="free space") as error:
        _run(executor, _made(small_disk))
    assert str(small_disk) in str(error.value)
    assert "\n" not in str(error.value)
    subprocess.run(["mount", "-o", "remount,rw,size=64m", str(small_disk)], check=True)
    found = _run(executor, _made(small_disk))
    executor.close()
    assert found == wanted
