"""Finished batches as small compressed files: a search goes on from them alone."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fbnetv3.io import atomic_write, open_regular
from fbnetv3.search.errors import SearchError
from fbnetv3.search.trial import Trial, trial_from_json, trial_to_json

_FORMAT = 1
_MOST_BYTES = 2**28
"""What a batch of others may have, unpacked: some 30,000 trials."""
_UNREADABLE = (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, RecursionError)


class Logged(NamedTuple):
    """What a log holds.

    Attributes:
        config: what its scores follow from, by key; {} where only the engine was used.
        settings: of the search, as :attr:`JointNAS.settings`.
        notes: of the order in which batches were proposed; see :attr:`JointNAS.order`.
        trials: finished ones, by number.
    """

    settings: dict[str, Any]
    notes: dict[str, Any]
    trials: list[Trial]
    config: dict[str, Any] = {}


_NAME = re.compile(r"batch_(\d{3,9})\.jsonl\.gz")
RUNNING_AT = "running_at_batch_"
"""Begins the note of which trials ran when a batch was proposed, where the search went ahead."""


def repeatable(logged: Logged, batch_size: int) -> Logged:
    """Returns what can be repeated of a search with trials ahead.

    A batch was proposed from results of others that were not finished as a whole, and so are not
    in the log: it is left out, and those after it.

    Args:
        logged: of it.
        batch_size: of a batch of stage 1.
    """
    known, notes = {t.number for t in logged.trials}, {}
    for number in range(1, len(logged.notes) + 1):
        name = f"{RUNNING_AT}{number}"
        # a batch is smaller where the space was exhausted: what follows it says where it ended
        own = [t.number for t in logged.trials if t.batch == number]
        before = min(own, default=number * batch_size)
        seen = set(range(before)) - set(logged.notes.get(name, ()))
        if name not in logged.notes or not seen <= known:
            break
        notes[name] = logged.notes[name]
    trials = [t for t in logged.trials if t.batch <= len(notes)]
    return Logged(logged.settings, notes, trials)


class BatchLog:
    """A folder with a file for each finished batch, to be kept where a run's machine may be lost.

    A file is written once, without the time of day: a repository gets one new file a
    batch, some hundred bytes a trial. Of the notes it has those that no file before it has.

    Args:
        path: of the folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._noted: set[str] | None = None

    def write(
        self,
        trials: Sequence[Trial],
        settings: Mapping[str, Any],
        notes: Mapping[str, Any],
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the batches that are finished and have no file yet.

        Args:
            trials: all that were proposed.
            settings, notes, config: see :class:`Logged`.

        Raises:
            WriteError: the folder can't be written.
        """
        batches: dict[int, list[Trial]] = {}
        for trial in trials:
            batches.setdefault(trial.batch, []).append(trial)
        for number, batch in batches.items():
            path = self.path / f"batch_{number:03d}.jsonl.gz"
            if path.exists() or any(t.state == "running" for t in batch):
                continue
            noted = self._names()
            head = {
                "format": _FORMAT,
                "config": config or {},
                "settings": settings,
                "notes": {name: note for name, note in notes.items() if name not in noted},
            }
            lines = [json.dumps(head), *(trial_to_json(t) for t in batch)]
            with atomic_write(path) as temporary:
                # without the time of day
                packed = gzip.compress("\n".join(lines).encode(), mtime=0)
                temporary.write_bytes(packed)
            noted.update(notes)

    def _names(self) -> set[str]:
        """Returns the names of the notes that the files have."""
        if self._noted is None:
            self._noted = {name for path in self._paths() for name in _read(path).notes}
        return self._noted

    def _paths(self) -> list[Path]:
        return sorted(p for p in self.path.glob("batch_*.jsonl.gz") if _NAME.fullmatch(p.name))

    def check(self, trials: Sequence[Trial]) -> None:
        """Refuses a folder whose batches are not this search's.

        Args:
            trials: finished ones that the search knows.

        Raises:
            SearchError: a file holds others, or is none.
        """
        known = {t.number: trial_to_json(t) for t in trials}
        for path in self._paths():
            if any(known.get(t.number) != trial_to_json(t) for t in _read(path).trials):
                raise SearchError(
                    f"{path} holds trials that the search's storage has not: it was replaced, or "
                    f"lost; move {self.path} away, and take it over with --restore, or begin anew"
                )

    def read(self) -> Logged:
        """Returns what the files hold.

        Raises:
            SearchError: there are none, one is no such file, or they are of several searches.
        """
        paths = self._paths()
        if not paths:
            raise SearchError(
                f"{self.path} holds no log of a search (batch_000.jsonl.gz, ...); name the folder "
                "log/ of a run, or a copy of it"
            )
        parts = [_read(path) for path in paths]
        for path, part in zip(paths, parts, strict=True):
            if (part.settings, part.config) != (parts[0].settings, parts[0].config):
                raise SearchError(
                    f"{path} is of another search than {paths[0].name} beside it: its settings "
                    "differ; keep the files of one search in a folder"
                )
        notes = {key: value for part in parts for key, value in part.notes.items()}
        trials = sorted((t for part in parts for t in part.trials), key=lambda t: t.number)
        if not notes:
            # each batch was proposed from all before it: beyond a file that is missing none counts
            whole = next(i for i in range(len(parts) + 1) if i not in map(_number, paths))
            trials = [t for t in trials if t.batch < whole]
        return Logged(parts[0].settings, notes, trials, parts[0].config)


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _read(path: Path) -> Logged:
    try:
        with open_regular(path, _MOST_BYTES) as packed, gzip.open(packed) as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ValueError(f"it holds more than {_MOST_BYTES} bytes")
        lines = io.StringIO(text.decode("utf-8"))
        head = json.loads(lines.readline())
        if head["format"] != _FORMAT:
            raise ValueError(f"its format is {head['format']!r}, this program reads {_FORMAT}")
        if not all(isinstance(head[key], dict) for key in ("config", "settings", "notes")):
            raise ValueError("its first line has no config, settings and notes")
        for name, value in head["notes"].items():
            is_list = isinstance(value, list) and all(isinstance(n, int) for n in value)
            if not re.fullmatch(rf"{RUNNING_AT}\d+", name) or not is_list:
                raise ValueError(f"its note {name[:40]!r} is none of the order of batches")
        trials = [trial_from_json(row.strip(), "log") for row in lines]
        if any(t.batch != _number(path) for t in trials):
            raise ValueError("it holds trials of another batch")
        return Logged(head["settings"], head["notes"], trials, head["config"])
    except (*_UNREADABLE, SearchError) as error:
        told = str(error) or type(error).__name__
        raise SearchError(f"{path} is no log of a batch: {told}; leave it out") from error
