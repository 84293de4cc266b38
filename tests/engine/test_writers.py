"""Writers of a training and of a search: their files, resumption, failures and secrets."""

from __future__ import annotations

import csv
import errno
import importlib.util
import json
import logging
import time
import urllib.error
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from detectron2.utils.events import EventWriter

from fbnetv3 import train
from fbnetv3.config import ConfigError
from fbnetv3.engine.writers import CsvWriter, StorageWriter, WriterRun
from fbnetv3.registries import HOOKS, WRITERS
from fbnetv3.search.fbnet.keys import get_search_cfg
from fbnetv3.search.fbnet.search_writers import SearchWriters
from fbnetv3.search.trial import Trial
from fbnetv3.training import train as train_config

SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef" * 2 + "deadbeef",
    "MLFLOW_TRACKING_PASSWORD": "pass-word-of-the-tracking-server",
    "MLFLOW_TRACKING_TOKEN": "token-of-the-tracking-server",
}


def _needs(package: str) -> pytest.MarkDecorator:
    is_missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(is_missing, reason=f"{package} is not installed: fbnetv3[{package}]")


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")


def _assert_no_secret(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        content = path.read_bytes()
        for value in SECRETS.values():
            assert value.encode() not in content, path


def _trial_of(folder: Path, start_iter: int = 0) -> WriterRun:
    trial = folder / "candidates" / "0a1b"
    trial.mkdir(parents=True, exist_ok=True)
    return WriterRun(trial, {"SOLVER.BASE_LR": 0.1}, start_iter, search=str(folder))


def _search_cfg(folder: Path, *writers: str):
    cfg = get_search_cfg()
    cfg.OUTPUT_DIR, cfg.WRITERS = str(folder), list(writers)
    return cfg


class Recorder:
    """A writer that keeps what it gets."""

    def __init__(self, fails_at: int = -1) -> None:
        self.rows: dict[int, dict[str, float]] = {}
        self.is_closed, self.fails_at = False, fails_at

    def log(self, values, iteration):
        if iteration >= self.fails_at >= 0:
            raise RuntimeError("the server\nis gone")
        self.rows[iteration] = dict(values)

    def close(self):
        self.is_closed = True


def test_objects_get_the_numbers_of_metrics_json(tiny, tmp_path) -> None:
    writer = Recorder()
    result = train(tiny(WRITERS=[]), writers=[writer])
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.json").open()]
    assert [line["iteration"] for line in lines] == list(writer.rows)
    for line in lines:
        row = writer.rows[line.pop("iteration")]
        for times in ("time", "data_time", "eta_seconds", "images_per_second"):
            row.pop(times, None), line.pop(times, None)
        assert row == {name: pytest.approx(value) for name, value in line.items()}
    assert writer.is_closed
    assert result.folder == tmp_path / "out"
    assert result.weights == tmp_path / "out" / "model_ema.safetensors"
    assert result["val/top1"] == result.scores["val/top1"]
    assert not list(result.folder.glob("events*"))


def test_a_writer_that_fails_is_left_out_and_the_training_goes_on(tiny, caplog) -> None:
    logging.getLogger("fbnetv3").propagate = True
    writer, other = Recorder(fails_at=6), Recorder()
    with caplog.at_level(logging.WARNING, "fbnetv3"):
        train(tiny(WRITERS=[]), writers=[writer, other])
    texts = [r.getMessage() for r in caplog.records if "Recorder" in r.getMessage()]
    text = "writer Recorder failed and is not used any more (RuntimeError: the server is gone)"
    assert texts == [text]
    assert max(other.rows) > max(writer.rows)


class _Failing:
    """A writer whose calls raise an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def log(self, values: Any, iteration: int) -> None:
        raise self._error

    def close(self) -> None:
        raise self._error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(errno.ECONNRESET, "reset"),
        TimeoutError(errno.ETIMEDOUT, "timed out"),
        urllib.error.URLError("no route"),
        OSError("no number"),
    ],
)
def test_a_lost_connection_is_no_reason_to_end_a_training(error: Exception, caplog) -> None:
    logging.getLogger("fbnetv3").propagate = True
    writer = StorageWriter(_Failing(error), "far")
    with caplog.at_level(logging.WARNING, "fbnetv3"):
        writer.log({"loss": 1.0}, 1)
        writer.close()
    assert len([r for r in caplog.records if "writer far failed" in r.getMessage()]) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_broken_disk_ends_a_training(number: int) -> None:
    writer = StorageWriter(_Failing(OSError(number, "disk")), "near")
    with pytest.raises(OSError, match="disk"):
        writer.log({"loss": 1.0}, 1)


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        (
            {"WRITERS": ["tensorbord"]},
            {},
            "WRITERS: writer 'tensorbord' is unknown; .*mean tensorb",
        ),
        ({"HOOKS": ["my_hook"]}, {}, "HOOKS: hook 'my_hook' is unknown; allowed"),
        ({"HOOKS": ["test/no_hook"]}, {}, "HOOKS: test/no_hook: a int is no hook; allowed: an obj"),
        (
            {"WRITERS": ["test/none"]},
            {},
            r"test/none made a int; allowed: .*log\(values, iteration",
        ),
        ({"WRITERS": ["test/down"]}, {}, r"test/down cannot start \(ValueError: no server\); corr"),
        ({}, {"writers": [3]}, "writers: a int is no writer; allowed: an object with the methods"),
        ({}, {"hooks": [3]}, "hooks: a int is no hook; allowed: an object of a class that derives"),
        ({}, {"model": "net"}, r"model: a str is no network; allowed: a torch\.nn\.Module"),
    ],
)
def test_what_is_no_hook_writer_or_network_gives_one_line(
    tiny, changes, arguments, message
) -> None:
    def down(run):
        raise ValueError("no server\nat all")

    HOOKS.register("test/no_hook")(lambda cfg: 3)
    WRITERS.register("test/none")(lambda run: 3)
    WRITERS.register("test/down")(down)
    with pytest.raises(ConfigError, match=message) as caught:
        train(tiny(**changes), **arguments)
    assert "\n" not in str(caught.value)


def test_the_csv_of_a_resumed_training_has_each_row_once(tiny, tmp_path) -> None:
    for name, stops in (("a", [None]), ("b", [2, None])):
        cfg = tiny(OUTPUT_DIR=str(tmp_path / name), WRITERS=["csv"])
        for stop in stops:
            train_config(cfg, resume=True, stop_after=stop)

    def rows(name):
        content = csv.DictReader((tmp_path / name / "metrics.csv").read_text().splitlines())
        times = ("time", "data_time", "eta_seconds", "images_per_second", "peak_memory_mb")
        return [tuple(r.values()) for r in content if r["name"] not in times]

    assert rows("a") == rows("b")
    assert len(rows("a")) > 20


def test_the_csv_drops_what_a_resumed_run_writes_again(tmp_path) -> None:
    (tmp_path / "metrics.csv").write_text("iteration,name,value\n1,a,1\n5,a,2\nx,y\n")
    writer = CsvWriter(WriterRun(tmp_path, start_iter=5))
    writer.log({"b": 3.0, "a": 2.5}, 6)
    writer.close()
    lines = (tmp_path / "metrics.csv").read_text().split()
    assert lines == ["iteration,name,value", "1,a,1", "6,a,2.5", "6,b,3.0"]


@pytest.mark.parametrize("counts", [(3, 2), (1, 1), (0, 2), (2, 0)])
def test_the_csv_of_a_resumed_search_has_a_row_for_every_trial(tmp_path, counts) -> None:
    finished = 0
    for count in counts:
        writers = SearchWriters(_search_cfg(tmp_path, "csv"), finished)
        for number in range(finished, finished + count):
            trial = Trial(f"id{number}", number, 0, {})
            trial.finish(10.0 + number)
            writers(SimpleNamespace(trials=[]), SimpleNamespace(kind="finish", trial=trial))
        writers.close()
        finished += count
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    scores = {int(r["iteration"]): float(r["value"]) for r in rows if r["name"] == "search/score"}
    assert scores == {i + 1: 10.0 + i for i in range(finished)}


def test_event_writers_of_detectron2_are_left_out_of_a_search_with_a_warning(
    tmp_path, caplog
) -> None:
    logging.getLogger("fbnetv3").propagate = True
    closed = []

    class Events(EventWriter):
        def write(self):
            raise AssertionError

        def close(self):
            closed.append(self)

    WRITERS.register("test/events")(lambda run: Events())
    with caplog.at_level(logging.WARNING, "fbnetv3"):
        SearchWriters(_search_cfg(tmp_path, "test/events", "csv")).close()
    assert "test/events records trainings only" in caplog.text
    assert len(closed) == 1


@_needs("mlflow")
def test_mlflow_records_trials_as_children_in_a_local_store(tmp_path, secrets) -> None:
    from mlflow.tracking import MlflowClient

    SearchWriters(_search_cfg(tmp_path, "mlflow", "tensorboard")).close()
    for value in (1.0, 2.0):  # the second time, the trial is resumed
        writer = WRITERS.get("mlflow")(_trial_of(tmp_path, start_iter=int(value) - 1))
        writer.log({"val/top1": value, "loss": 0.5}, int(value))
        writer.close()
    client = MlflowClient((tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("fbnetv3")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2
    child = next(run for run in runs if run.data.metrics)
    parent = next(run for run in runs if run is not child)
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (child.info.run_name, child.info.status) == ("0a1b", "FINISHED")
    assert child.data.params == {"SOLVER.BASE_LR": "0.1"}
    history = client.get_metric_history(child.info.run_id, "val/top1")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 2.0)]
    _assert_no_secret(tmp_path)


@_needs("wandb")
def test_wandb_records_trials_of_a_group_offline(tmp_path, secrets) -> None:
    SearchWriters(_search_cfg(tmp_path, "wandb")).close()
    run = _trial_of(tmp_path)
    writer = WRITERS.get("wandb")(run)
    writer.log({"val/top1": 12.5}, 3)
    writer.close()
    deadline = time.monotonic() + 60  # W&B's own process writes the files, perhaps a little later
    while True:
        files = {path.parts[-4]: path.read_bytes() for path in tmp_path.rglob("run-*.wandb")}
        if b"val/top1" in files.get("0a1b", b"") or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert set(files) == {tmp_path.name, "0a1b"}
    assert b"val/top1" in files["0a1b"]
    assert all(run.group.encode() in content for content in files.values())
    saved = json.loads((run.folder / "writers.json").read_text())
    assert saved["wandb"].encode() in files["0a1b"]
    _assert_no_secret(tmp_path)


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_names_its_extra(tiny, monkeypatch, name) -> None:
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(Exception, match=rf"{name} is not installed.*fbnetv3\[{name}\]"):
        train(tiny(WRITERS=[name]))


def test_damaged_ids_start_new_runs(tmp_path, caplog) -> None:
    (tmp_path / "writers.json").write_text("[]")
    logging.getLogger("fbnetv3").propagate = True
    run = WriterRun(tmp_path, start_iter=3)
    assert run.saved_id("mlflow") == ""
    assert "writers.json is damaged: writers start new runs" in caplog.text
    run.save_id("mlflow", "abc")
    assert run.saved_id("mlflow") == "abc"


@pytest.mark.parametrize(
    ("options", "is_continued"),
    [
        ({}, False),  # an earlier attempt left no checkpoint
        ({"start_iter": 4}, True),
        ({"search": "runs/a"}, False),
        ({"search": "runs/a", "start_iter": 4}, True),
        ({"search": "runs/a", "start_iter": 1, "is_search": True}, True),
    ],
)
@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_only_what_is_resumed_continues_its_run(
    tmp_path, monkeypatch, name, options, is_continued
) -> None:
    tracking = _Tracking()
    monkeypatch.setattr("fbnetv3.engine.writers.require", lambda *names: tracking)
    WriterRun(tmp_path).save_id(name, "earlier")
    WRITERS.get(name)(WriterRun(tmp_path, **options)).close()
    (run_id,) = tracking.ids
    assert (run_id == "earlier") == is_continued
    assert WriterRun(tmp_path, start_iter=9).saved_id(name) == run_id


class _Tracking:
    """Stands for the packages of W&B and MLflow; ``ids`` has the runs that were opened."""

    def __init__(self) -> None:
        self.ids: set[str] = set()

    def Settings(self, **options: object) -> None: ...

    def init(self, id: str, **options: object) -> SimpleNamespace:
        self.ids.add(id)
        return SimpleNamespace(finish=lambda: None)

    def MlflowClient(self, tracking_uri: str) -> _Tracking:
        return self

    def get_experiment_by_name(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(experiment_id="1")

    def create_run(self, *args: object, **options: object) -> SimpleNamespace:
        return SimpleNamespace(info=SimpleNamespace(run_id="new"))

    def search_runs(self, *args: object, **options: object) -> list[object]:
        return []

    def set_terminated(self, run_id: str, status: str = "") -> None:
        self.ids.add(run_id)
