"""Training a candidate: in workers, with damaged files, and where the disk is full."""

from __future__ import annotations

import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.resources import find_config
from fbnetv3.search import InProcess, LocalWorkers, Trial
from fbnetv3.search.errors import StorageUnavailableError
from tests.search.executors.running import evaluate_all

pytest.importorskip("detectron2")

from fbnetv3.engine.checkpoint import Checkpointer
from fbnetv3.engine.folder import state_to_resume
from fbnetv3.search.fbnet.config import SearchSetup
from fbnetv3.search.fbnet.evaluator import TrainEvaluator
from fbnetv3.search.fbnet.identity import values_affecting_scores
from fbnetv3.search.fbnet.keys import get_search_cfg

OPTS: list[Any] = [
    *("SEARCH.FIX", ["resolution", 16, "stage1_n", 1, "stage2_n", 1, "stage3_n", 1]),
    *("SOLVER.MAX_EPOCHS", 2.0, "DATA.TRAIN_LIMIT", 128),
]
Candidate = tuple[TrainEvaluator, Trial]
Outcome = tuple[float | None, str | None, dict[int, float]]
"""Score, reason of failure and scores by epoch of a trial."""
_KINDS = ("local", "ray")  # of executors with workers


def _setup(*opts: Any) -> SearchSetup:
    cfg = get_search_cfg()
    cfg.merge_from_file(str(find_config("search/digits.yaml")))
    cfg.merge_from_list([*OPTS, *opts])
    return SearchSetup(cfg)


def _candidate(folder: Path, *opts: Any) -> Candidate:
    """Returns an evaluator that keeps its files in a folder, and a candidate's trial."""
    setup = _setup(*opts)
    space = setup.space.space
    levels = space.canonical(space.sizes[None] // 2)
    trial = Trial(space.ids(levels)[0], 0, 0, space.configs(levels)[0])
    return TrainEvaluator(setup, str(folder)), trial


def _run(executor: Any, candidate: Candidate) -> tuple[Any, ...]:
    evaluate, trial = candidate
    (finished,) = evaluate_all(executor, evaluate, [trial])
    return finished.score, finished.reason, trial.reports


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the candidates after an undisturbed training in this process."""
    folder = tmp_path_factory.mktemp("candidates")
    _run(InProcess(), _candidate(folder))
    return folder


@pytest.fixture(scope="module")
def expected(finished: Path) -> Outcome:
    """The outcome of the undisturbed training."""
    outcome = _run(InProcess(), _candidate(finished))
    assert sorted(outcome[2]) == [1, 2]
    return outcome


@pytest.mark.parametrize("kind", _KINDS)
def test_a_training_in_a_worker_uses_data_loader_workers(
    kind: str, tmp_path: Path, expected: Outcome, shared_executors: Any
) -> None:
    workers = shared_executors(kind, 1)
    outcome = _run(workers, _candidate(tmp_path, "DATALOADER.NUM_WORKERS", 1))
    assert outcome == expected


@pytest.mark.parametrize("kind", _KINDS)
def test_a_training_in_parts_is_that_in_one_go_bit_for_bit(
    kind: str, tmp_path: Path, shared_executors: Any
) -> None:
    opts = ["SOLVER.MAX_EPOCHS", 4.0, "MODEL_EMA.ENABLED", True, "SEARCH.KEEP_WEIGHTS", True]
    whole = _candidate(tmp_path / "whole", *opts, "SEARCH.RUNGS", [1, 2, 4])
    whole[1].max_epochs = 4
    expected = _run(InProcess(), whole)
    folder = tmp_path / "whole" / whole[1].id
    assert not list(folder.glob("checkpoint_*"))
    for epochs in (1, 2, 4):
        evaluate, trial = _candidate(tmp_path / "parts", *opts, "SEARCH.RUNGS", [1, 2, 4])
        trial.max_epochs = epochs
        outcome = _run(shared_executors(kind, 1), (evaluate, trial))
        assert outcome[2] == {e: s for e, s in expected[2].items() if e <= epochs}
        parts = tmp_path / "parts" / trial.id
        assert bool(list(parts.glob("checkpoint_*"))) == (epochs < 4)
    assert outcome == expected
    for path in folder.glob("*.safetensors"):
        assert (parts / path.name).read_bytes() == path.read_bytes()
    # a candidate that has gone on still knows the score of its earlier part
    evaluate, trial = _candidate(tmp_path / "parts", *opts, "SEARCH.RUNGS", [1, 2, 4])
    trial.max_epochs = 2
    score, _, reports = _run(InProcess(), (evaluate, trial))
    assert (score, reports) == (expected[2][2], {1: expected[2][1], 2: expected[2][2]})


def test_replicates_train_with_other_seeds_in_folders_of_their_own(tmp_path: Path) -> None:
    outcomes = []
    for replicate in (0, 1):
        evaluate, trial = _candidate(tmp_path)
        trial.replicate = replicate
        outcomes.append(_run(InProcess(), (evaluate, trial)))
    assert outcomes[0][2] != outcomes[1][2]
    assert sorted(path.name for path in tmp_path.iterdir()) == [trial.id, f"{trial.id}_seed1"]
    seed = evaluate.setup.cfg.SEED
    evaluate, trial = _candidate(tmp_path / "other", "SEED", seed + 1)
    assert _run(InProcess(), (evaluate, trial)) == outcomes[1]


def test_a_copy_for_a_worker_builds_the_space_once() -> None:
    setup = _setup()
    payload = pickle.dumps(setup)
    assert setup.space is setup.space
    assert pickle.dumps(setup) == payload  # a built space does not travel
    copy = pickle.loads(payload)
    assert copy.cfg.is_frozen()
    assert values_affecting_scores(copy.cfg) == values_affecting_scores(setup.cfg)
    assert copy.space is copy.space
    assert copy.space.space.describe() == setup.space.space.describe()


@pytest.mark.parametrize("name", ["result.json", "scores.json"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_damaged_file_is_ignored(
    tmp_path: Path,
    finished: Path,
    expected: Outcome,
    name: str,
    share: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    path = next(tmp_path.glob(f"*/{name}"))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert _run(InProcess(), _candidate(tmp_path)) == expected
    assert path.read_bytes() == content
    assert f"{path} is damaged" in caplog.text


@pytest.mark.parametrize(
    ("name", "content"),
    [("scores.json", '{"x": 1.0}'), ("result.json", '{"max_epochs": null}'), ("result.json", "[]")],
)
def test_other_content_than_scores_trains_again(
    tmp_path: Path, finished: Path, expected: Outcome, name: str, content: str
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    next(tmp_path.glob(f"*/{name}")).write_text(content)
    assert _run(InProcess(), _candidate(tmp_path)) == expected


def _interrupt(folder: Path) -> None:
    """Trains a candidate until it is interrupted after two epochs."""
    evaluate, trial = _candidate(folder)

    def interrupt(epoch: int, score: float) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    trial.on_report = interrupt
    with pytest.raises(KeyboardInterrupt):
        evaluate(trial)


def test_damaged_scores_of_an_interrupted_training(tmp_path: Path, expected: Outcome) -> None:
    _interrupt(tmp_path)
    assert list(tmp_path.glob("*/checkpoint_*.pt"))
    next(tmp_path.glob("*/scores.json")).write_bytes(b"")
    assert _run(InProcess(), _candidate(tmp_path)) == expected


@pytest.mark.parametrize("is_deleted", [True, False])
def test_a_candidate_without_a_readable_checkpoint_is_trained_again(
    tmp_path: Path, expected: Outcome, is_deleted: bool
) -> None:
    _interrupt(tmp_path)
    for path in tmp_path.glob("*/checkpoint_*.pt"):
        path.unlink() if is_deleted else path.write_bytes(path.read_bytes()[:-200])
        (path.parent / "model.safetensors").write_bytes(b"")
    assert _run(InProcess(), _candidate(tmp_path)) == expected


@pytest.mark.parametrize("is_best_intact", [True, False])
def test_a_candidate_with_damaged_checkpoints_goes_on_from_the_best_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_best_intact: bool
) -> None:
    evaluate, trial = _candidate(tmp_path)
    keeper, steps = Checkpointer(tmp_path / trial.name), []
    for path in (keeper.save({}, 6), keeper.save_best({}, 3))[: 1 if is_best_intact else 2]:
        path.write_bytes(path.read_bytes()[:-20])

    def train(cfg: Any, on_eval: Any, **options: Any) -> None:
        state = state_to_resume(Checkpointer(cfg.OUTPUT_DIR), resume=True)
        steps.append(state and state["iteration"])
        on_eval(2.0, {"val/top1_ema": 50.0})

    monkeypatch.setattr("fbnetv3.training.train", train)
    assert evaluate(trial) == 50.0
    assert steps == [3 if is_best_intact else None]


def test_checkpoints_that_cannot_be_read_for_now_stay(tmp_path: Path, expected: Outcome) -> None:
    _interrupt(tmp_path)
    moved = {path: path.rename(f"{path}.moved") for path in tmp_path.glob("*/checkpoint_*.pt")}
    for path in moved:
        path.symlink_to(path.name)  # too many levels of symbolic links
    score, reason, _ = _run(InProcess(), _candidate(tmp_path))
    assert score is None
    assert "no checkpoint that can be read" in str(reason)
    for path, place in moved.items():
        place.replace(path)
    assert _run(InProcess(), _candidate(tmp_path)) == expected


@pytest.mark.parametrize(
    "kind", ["in process", "local", pytest.param("ray", marks=pytest.mark.slow)]
)
def test_no_candidate_fails_by_a_full_or_read_only_disk(
    small_disk: Path,
    expected: Outcome,
    forked_workers: None,
    shared_executors: Any,
    kind: str,
) -> None:
    """Once the disk is repaired, the same candidate gets the same scores."""
    made: dict[str, Callable[[], Any]] = {
        "in process": InProcess,
        "local": lambda: LocalWorkers(1),
        "ray": lambda: shared_executors("ray", 1),
    }
    executor = made[kind]()
    for fault in ("size=100k", "ro"):
        subprocess.run(["mount", "-o", f"remount,{fault}", str(small_disk)], check=True)
        with pytest.raises(StorageUnavailableError, match="free space") as error:
            _run(executor, _candidate(small_disk))
        assert str(small_disk) in str(error.value)
        assert "\n" not in str(error.value)
        subprocess.run(["mount", "-o", "remount,rw,size=64m", str(small_disk)], check=True)
        assert _run(executor, _candidate(small_disk)) == expected
        for path in small_disk.iterdir():  # The next fault meets a candidate without files, too.
            shutil.rmtree(path)
    if kind != "ray":
        executor.close()
