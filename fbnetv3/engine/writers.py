"""Writers: where the numbers of a training go in addition to metrics.json.

``WRITERS`` in a config names them, ``fbnetv3.train(writers=...)`` takes objects. A search gives
each of its trials the same writers, except for TensorBoard. A trial's run is linked to the search's
run as its child (MLflow), by a common group (W&B), or by lying in the search's folder (csv).
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import netrc
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from detectron2.utils.events import EventWriter, TensorboardXWriter, get_event_storage

from fbnetv3.io import atomic_write, is_disk_fault, read_text
from fbnetv3.registries import WRITERS
from fbnetv3.requires import require

_WINDOW = 20  # number of latest iterations whose median is written, as in metrics.json
_log = logging.getLogger("fbnetv3")


@dataclass(frozen=True)
class WriterRun:
    """The run that a writer records.

    Attributes:
        folder: Folder of the run, OUTPUT_DIR.
        config: Value by key of the config, as plain values.
        start_iter: First iteration that is recorded; above 0 in a resumed training, and for a
            search, whose iterations are trials, numbered from 1.
        search: Folder of the search that the run is a trial of, or of the search itself if
            ``is_search``; "" for a training that is no trial.
        is_search: Whether the run is the search itself.
    """

    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    start_iter: int = 0
    search: str = ""
    is_search: bool = False

    @property
    def name(self) -> str:
        """Name of the run: the name of its folder."""
        return self.folder.resolve().name

    @property
    def group(self) -> str:
        """Folder name and path hash of the search; "" for a training that is no trial."""
        if not self.search:
            return ""
        path = str(Path(self.search).resolve())
        return f"{Path(path).name}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"

    def saved_id(self, writer: str) -> str:
        """Returns the id that a writer continues, which :meth:`save_id` kept; "" for a new run.

        A training that starts at iteration 0 records a new run, even if an earlier attempt, which
        left no checkpoint, has recorded one.
        """
        is_continued = self.is_search or self.start_iter > 0
        return str(self._ids().get(writer, "")) if is_continued else ""

    def save_id(self, writer: str, value: str) -> None:
        """Keeps the id of a run in ``writers.json``, so that a resumed training continues it."""
        with atomic_write(self._ids_path) as temporary:
            values = self._ids() | {writer: value}
            temporary.write_text(json.dumps(values, indent=1), encoding="utf-8")

    @property
    def _ids_path(self) -> Path:
        return self.folder / "writers.json"

    def _ids(self) -> dict[str, Any]:
        if not self._ids_path.is_file():
            return {}
        try:
            content = json.loads(read_text(self._ids_path, "record"))
        except (OSError, ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            _log.warning("%s is damaged: writers start new runs", self._ids_path)
            return {}
        return content


@runtime_checkable
class Writer(Protocol):
    """A place that numbers are written to."""

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Records numbers by name, such as ``loss``, ``lr`` and ``val/top1_ema``."""

    def close(self) -> None:
        """Ends the recording, also after an error."""


class StorageWriter(EventWriter):
    """An event writer of detectron2 that hands the latest numbers to a :class:`Writer`.

    An error of the writer is logged once, and the writer is not used any more: a tracking server
    that fails, or cannot be reached, does not end a training. A full or read-only disk does.

    Args:
        writer: The writer.
        name: Name of the writer in messages.
    """

    def __init__(self, writer: Writer, name: str) -> None:
        self._writer, self._name = writer, name
        self._last, self._works = -1, True

    def write(self) -> None:
        """Hands over each number that was recorded after the last call.

        It is the latest value, or for smoothed numbers the median of the latest ones.
        """
        rows: dict[int, dict[str, float]] = {}
        for name, (value, iteration) in (
            get_event_storage().latest_with_smoothing_hint(_WINDOW).items()
        ):
            if iteration > self._last:
                rows.setdefault(iteration, {})[name] = float(value)
        self._last = max([self._last, *rows])
        for iteration in sorted(rows):
            self._call(lambda i=iteration: self._writer.log(rows[i], i))

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Hands numbers to the writer directly."""
        self._call(lambda: self._writer.log(values, iteration))

    def close(self) -> None:
        """Closes the writer."""
        self._call(self._writer.close)

    def _call(self, function: Any) -> None:
        if not self._works:
            return
        try:
            function()
        except Exception as error:
            if is_disk_fault(error):
                raise  # a full disk ends the training, as for all its other files
            self._works = False
            text = " ".join(str(error).split())[:300]
            _log.warning(
                "writer %s failed and is not used any more (%s: %s)",
                *(self._name, type(error).__name__, text),
            )


@WRITERS.register("tensorboard")
def _tensorboard(run: WriterRun) -> EventWriter:
    writer: EventWriter = TensorboardXWriter(str(run.folder), purge_step=run.start_iter)
    return writer


@WRITERS.register("csv")
class CsvWriter:
    """Appends rows ``iteration,name,value`` to metrics.csv."""

    def __init__(self, run: WriterRun) -> None:
        path = run.folder / "metrics.csv"
        kept = [["iteration", "name", "value"]]
        if run.start_iter and path.is_file():
            rows = list(csv.reader(read_text(path, "metrics").splitlines()))[1:]
            kept += [r for r in rows if len(r) == 3 and _is_before(r[0], run.start_iter)]
        with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows(kept)
        self._file = path.open("a", newline="", encoding="utf-8")

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Appends one row for each number."""
        rows = ([iteration, name, value] for name, value in sorted(values.items()))
        csv.writer(self._file).writerows(rows)
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _is_before(text: str, iteration: int) -> bool:
    return text.isdecimal() and int(text) < iteration


@WRITERS.register("wandb")
class WandbWriter:
    """Records a run in Weights & Biases; a search and its trials share a group.

    Mode, project and account come from W&B's environment variables and its login. Without a
    login, and if WANDB_MODE is not set, the run is recorded offline, in the folder ``wandb`` of the
    run, for ``wandb sync``.
    """

    def __init__(self, run: WriterRun) -> None:
        wandb = require("wandb", "wandb")
        run_id = run.saved_id("wandb") or uuid.uuid4().hex[:12]
        self._run = wandb.init(
            dir=str(run.folder),
            project=os.environ.get("WANDB_PROJECT", "fbnetv3"),
            mode=os.environ.get("WANDB_MODE") or ("online" if _has_login() else "offline"),
            id=run_id,
            resume="allow",
            name=run.name,
            group=run.group or None,
            job_type="search" if run.is_search else "trial" if run.search else "training",
            config=dict(run.config),
            reinit="create_new",
            save_code=False,
            settings=wandb.Settings(console="off", silent=True, x_disable_meta=True),
        )
        run.save_id("wandb", run_id)

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Logs the numbers at a step."""
        self._run.log(dict(values), step=iteration)

    def close(self) -> None:
        """Finishes the run."""
        self._run.finish()


def _has_login() -> bool:
    """Returns whether a key for W&B is in the environment, or in the file that its login writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


@WRITERS.register("mlflow")
class MlflowWriter:
    """Records a run in MLflow; trials of a search are children of its run.

    The server and its credentials come from MLflow's environment variables. Without
    MLFLOW_TRACKING_URI the run is recorded in the folder ``mlruns`` of the training or search.
    """

    def __init__(self, run: WriterRun) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        tracking = require("mlflow.tracking", "mlflow")
        root = Path(run.search or run.folder).resolve() / "mlruns"
        uri = os.environ.get("MLFLOW_TRACKING_URI") or root.as_uri()
        self._client = tracking.MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "fbnetv3")
        experiment = self._client.get_experiment_by_name(name)
        self._experiment = (
            experiment.experiment_id if experiment else self._client.create_experiment(name)
        )
        self._id = run.saved_id("mlflow") or self._create(run)
        self._client.set_terminated(self._id, "RUNNING")

    def _create(self, run: WriterRun) -> str:
        tags = {"fbnetv3.search": run.group} if run.group else {}
        if run.is_search:
            tags["fbnetv3.is_search"] = "true"
        elif run.group:
            tags |= {"mlflow.parentRunId": parent} if (parent := self._parent(run)) else {}
        run_id: str = self._client.create_run(
            self._experiment, run_name=run.name, tags=tags
        ).info.run_id
        for key, value in run.config.items():
            self._client.log_param(run_id, key, str(value)[:500])
        run.save_id("mlflow", run_id)
        return run_id

    def _parent(self, run: WriterRun) -> str:
        """Returns the id of the run of the search; "" if it has none."""
        query = f"tags.`fbnetv3.search` = '{run.group}' and tags.`fbnetv3.is_search` = 'true'"
        runs = self._client.search_runs([self._experiment], query, max_results=1)
        return str(runs[0].info.run_id) if runs else ""

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Logs the numbers at a step."""
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=iteration)

    def close(self) -> None:
        """Marks the run as finished."""
        self._client.set_terminated(self._id)
