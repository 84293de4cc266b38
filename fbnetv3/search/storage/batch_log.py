"""A log of finished batches in small compressed files, from which a search can be continued."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fbnetv3.io import MAX_BYTES, atomic_write, open_regular
from fbnetv3.search.errors import SearchError
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import (
    Trial,
    identity_differences,
    settings_differences,
    trial_from_json,
    trial_to_json,
    without_iterations,
)

_FORMAT = 1
_ORDER = "notes"
"""Key, in the first line of a file, of :attr:`LoggedSearch.order`."""
_MAX_BYTES = MAX_BYTES["log"]
_UNREADABLE = (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, RecursionError)
_NAME = re.compile(r"batch_(\d{3,9})\.jsonl\.gz")
RUNNING_AT = "running_at_batch_"
"""Prefix of the keys of :attr:`LoggedSearch.order`; the number of the batch follows."""


class LoggedSearch(NamedTuple):
    """Content of a log.

    Attributes:
        settings: Settings of the search, as :attr:`JointNAS.settings` returns them.
        order: For each batch N, under the key ``running_at_batch_N``, the numbers of the trials
            that were running when the batch was proposed; see :attr:`JointNAS.order`. {} if every
            batch was proposed after all earlier batches had finished.
        trials: Finished trials, sorted by number.
        config: Config values that the scores depend on, by key; {} if the search has no config.
        identity: Values on which the scores depend, as :attr:`JointNAS.identity` returns them; {}
            in logs of earlier versions of this package.
    """

    settings: dict[str, Any]
    order: dict[str, Any]
    trials: list[Trial]
    config: dict[str, Any] = {}
    identity: dict[str, Any] = {}


def repeatable(logged: LoggedSearch, batch_size: int) -> LoggedSearch:
    """Returns the part of a log whose batches can be proposed again, for SEARCH.AHEAD above 0.

    SEARCH.AHEAD is the number of trials that may still run when a batch is proposed. A batch may
    therefore have been proposed from results of a batch that is not in the log, since the log has
    finished batches only. The first batch for which this holds and all later ones are left out.

    Args:
        logged: Content of the log; its ``order`` is not empty.
        batch_size: Number of trials of a batch in stage 1.
    """
    known, order = {t.number for t in logged.trials}, {}
    for batch in range(1, len(logged.order) + 1):
        key = f"{RUNNING_AT}{batch}"
        # All trials with lower numbers than the batch's were proposed before it. Its first number
        # is below batch * batch_size if the space ran out of candidates for earlier batches.
        numbers = [t.number for t in logged.trials if t.batch == batch]
        proposed_before = range(min(numbers, default=batch * batch_size))
        finished_before = set(proposed_before) - set(logged.order.get(key, ()))
        if key not in logged.order or not finished_before <= known:
            break
        order[key] = logged.order[key]
    trials = [t for t in logged.trials if t.batch <= len(order)]
    return logged._replace(order=order, trials=trials)


def check_agreement(logged: LoggedSearch, stored: Sequence[Trial]) -> set[int]:
    """Checks that a log and a storage do not contradict each other.

    Args:
        logged: Log of a search.
        stored: Trials of the storage.

    Returns:
        The numbers of the stored trials.

    Raises:
        SearchError: Under the same number, the log and the storage have different candidates or
            results.
    """
    texts = {trial.number: trial_to_json(trial) for trial in stored}
    for trial in logged.trials:
        if trial.number in texts and texts[trial.number] != trial_to_json(trial):
            raise SearchError(
                f"trial {trial.number} of the storage differs from that in the log; restore "
                "the log into an empty storage"
            )
    return set(texts)


def check_log(
    logged: LoggedSearch,
    space: SearchSpace,
    settings: Mapping[str, Any],
    identity: Mapping[str, Any],
) -> None:
    """Checks that a log belongs to a search.

    Args:
        logged: Content of the log.
        space: Space of the search.
        settings: Settings of the search.
        identity: Values on which the scores of the search depend.

    Raises:
        SearchError: The log belongs to another search, or one of its trials was edited.
    """
    parts = [
        settings_differences(logged.settings, settings),
        identity_differences(logged.identity, identity),
    ]
    if any(parts):
        different = "; ".join(filter(None, parts))
        raise SearchError(
            f"the log belongs to a search with other settings: {different}; use those of the log"
        )
    for trial in logged.trials:
        if space.ids(space.levels([trial.config])) != [trial.id]:
            raise SearchError(
                f"the config of trial {trial.id} in the log does not match its id: the log is "
                "damaged or was edited; use an unmodified copy"
            )


class BatchLog:
    """A folder with one file per finished batch, for a backup on another machine.

    A file is written again only if a failed trial of its batch was evaluated again. It contains no
    time of day, so that the same content gives the same bytes. Each key of
    :attr:`LoggedSearch.order` is only in the first file that is written after the key was added.

    Args:
        path: Path of the folder.
        changeable: Keys of the config that may differ between the files.
    """

    def __init__(self, path: str | os.PathLike[str], changeable: Collection[str] = ()) -> None:
        self.path, self._changeable = Path(path), changeable
        self._written_order: set[str] | None = None

    def write(
        self,
        trials: Sequence[Trial],
        settings: Mapping[str, Any],
        order: Mapping[str, Any],
        config: Mapping[str, Any] | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the batches that have finished and have no file yet.

        Args:
            trials: All proposed trials.
            settings: Settings of the search; see :class:`LoggedSearch`.
            order: Order of the batches; see :class:`LoggedSearch`.
            config: Config values that the scores depend on; None for a search without a config.
            identity: Values on which the scores depend, see :class:`LoggedSearch`; None: left out.

        Raises:
            WriteError: The folder cannot be written to.
            SearchError: A file of the log cannot be read.
        """
        batches: dict[int, list[Trial]] = {}
        for trial in trials:
            batches.setdefault(trial.batch, []).append(trial)
        for number, batch in batches.items():
            path = self.path / f"batch_{number:03d}.jsonl.gz"
            if path.exists() or any(t.state == "running" for t in batch):
                continue
            written = self._order_keys()
            new_order = {key: value for key, value in order.items() if key not in written}
            head = {"format": _FORMAT, "config": config or {}, "settings": settings}
            head |= {"identity": identity} if identity else {}
            _write(path, {**head, _ORDER: new_order}, batch)
            written.update(order)

    def _order_keys(self) -> set[str]:
        """Returns the keys of :attr:`LoggedSearch.order` that are in one of the files."""
        if self._written_order is None:
            self._written_order = {key for path in self._paths() for key in _read(path).order}
        return self._written_order

    def _fixed(self, part: LoggedSearch) -> tuple[Any, ...]:
        """Returns the settings and config values that must be equal in all files of a search."""
        config = {k: v for k, v in part.config.items() if k not in self._changeable}
        return without_iterations(part.settings), config

    def _paths(self) -> list[Path]:
        return sorted(p for p in self.path.glob("batch_*.jsonl.gz") if _NAME.fullmatch(p.name))

    def drop_outdated(self, retries: Mapping[int, Sequence[str]]) -> None:
        """Removes files with an outdated result of a trial, so that :meth:`write` replaces them.

        A result is outdated if the trial failed and is evaluated again.

        Args:
            retries: Reasons of all failures so far, by the number of each failed trial that is
                evaluated again.

        Raises:
            SearchError: A file cannot be read.
        """
        for path in self._paths():
            trials = _read(path).trials
            if any(len(t.earlier_reasons) < len(retries.get(t.number, ())) for t in trials):
                path.unlink()
                self._written_order = None

    def check(self, trials: Sequence[Trial]) -> None:
        """Checks that the logged batches belong to a search.

        Args:
            trials: Finished trials in the storage of the search.

        Raises:
            SearchError: A file cannot be read, or has a trial that the storage lacks or holds with
                other values.
        """
        known = {t.number: trial_to_json(t) for t in trials}
        for path in self._paths():
            if any(known.get(t.number) != trial_to_json(t) for t in _read(path).trials):
                raise SearchError(
                    f"{path} holds trials that the storage of the search lacks or holds with other "
                    f"values: the storage was replaced or lost. Move {self.path} away; then "
                    "restore the search from it with --restore, or start from scratch"
                )

    def read(self) -> LoggedSearch:
        """Returns the content of all files.

        Raises:
            SearchError: The folder has no files of a log, a file cannot be read, or the files
                belong to several searches.
        """
        paths = self._paths()
        if not paths:
            raise SearchError(
                f"{self.path} holds no log of a search (batch_000.jsonl.gz, ...); name the folder "
                "log/ of a run, or a copy of it"
            )
        parts = [_read(path) for path in paths]
        # Files of earlier versions of this package have no identity.
        identity = next((part.identity for part in parts if part.identity), {})
        for path, part in zip(paths, parts, strict=True):
            is_same = self._fixed(part) == self._fixed(parts[0])
            if not is_same or part.identity not in ({}, identity):
                raise SearchError(
                    f"{path} and {paths[0].name} belong to different searches: their settings "
                    "differ; keep only the files of one search in a folder"
                )
        order = {key: value for part in parts for key, value in part.order.items()}
        trials = sorted((t for part in parts for t in part.trials), key=lambda t: t.number)
        if not order:
            # Each batch was proposed from the results of all earlier ones, so those after a missing
            # file cannot be proposed again.
            complete = next(i for i in range(len(parts) + 1) if i not in map(_number, paths))
            trials = [t for t in trials if t.batch < complete]
        return parts[-1]._replace(order=order, trials=trials, identity=identity)


def _number(path: Path) -> int:
    """Returns the number of a file's batch."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _write(path: Path, head: Mapping[str, Any], batch: Iterable[Trial]) -> None:
    lines = [json.dumps(head), *(trial_to_json(trial) for trial in batch)]
    with atomic_write(path) as temporary:
        temporary.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def _read(path: Path) -> LoggedSearch:
    """Returns the content of one file.

    Raises:
        SearchError: The file is not a batch of a log.
    """
    try:
        lines = io.StringIO(_unpack(path).decode("utf-8"))
        head = json.loads(lines.readline())
        _check_head(head)
        trials = [trial_from_json(row.strip(), "log") for row in lines]
        if any(t.batch != _number(path) for t in trials):
            raise ValueError("it holds trials of another batch")
        identity = head.get("identity", {})
        return LoggedSearch(head["settings"], head[_ORDER], trials, head["config"], identity)
    except (*_UNREADABLE, SearchError) as error:
        reason = str(error) or type(error).__name__
        raise SearchError(f"{path} is not a batch of a log: {reason}; remove it") from error


def _unpack(path: Path) -> bytes:
    with open_regular(path, _MAX_BYTES) as packed, gzip.open(packed) as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"it holds more than {_MAX_BYTES} bytes")
    return content


def _check_head(head: Mapping[str, Any]) -> None:
    """Raises ValueError or KeyError if the first line of a file does not have this format."""
    if head["format"] != _FORMAT:
        raise ValueError(f"its format is {head['format']!r}, but this program reads {_FORMAT}")
    parts = [head["config"], head["settings"], head[_ORDER], head.get("identity", {})]
    if not all(isinstance(part, dict) for part in parts):
        raise ValueError("a part of its first line is not a mapping")
    for key, value in head[_ORDER].items():
        is_list = isinstance(value, list) and all(isinstance(n, int) for n in value)
        if not re.fullmatch(rf"{RUNNING_AT}\d+", key) or not is_list:
            raise ValueError(f"its note {key[:40]!r} does not describe the order of batches")
