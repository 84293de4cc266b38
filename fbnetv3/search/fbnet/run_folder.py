"""The folder of a run: its lock, its config, and the names of its files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fbnetv3.config import iter_keys
from fbnetv3.config.changes import completed, full_path
from fbnetv3.io import atomic_write, read_text, refuse_links_out
from fbnetv3.plain_yaml import YamlError, parse_mapping
from fbnetv3.search.checks import as_text
from fbnetv3.search.errors import SearchError
from fbnetv3.search.storage.database import sqlite_url
from fbnetv3.search.storage.study_lock import FileLock
from fbnetv3.user_code import RECORD, record_user_code, user_code_changes

_WINNER = re.compile(r"\w[\w.+-]*")
"""Allowed names of winners: candidates that are written as configs, ``NAME.yaml`` in the folder."""


class RunFolder:
    """The folder of a search.

    Args:
        path: Path of the folder, which need not exist yet.

    Attributes:
        path: Path of the folder.
        config: Path of ``config.yaml``, which is written when the search starts.
        candidates: Path of the folder that holds a folder for each candidate.
        front: Path of the folder with the configs of the trials on the Pareto front.
        report: Path of the html report.
        log: Path of the folder with the log of finished batches.
        costs: Path of the json file with the costs of candidates that are networks of a library or
            a user, which are built and counted one by one.
        storage: URL of the database ``search.db`` in the folder, used if SEARCH.STORAGE is empty.

    Raises:
        SearchError: The path is not valid as UTF-8.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.candidates = self.path / "candidates"
        self.front = self.path / "front"
        self.report = self.path / "report.html"
        self.log = self.path / "log"
        self.costs = self.path / "costs.json"
        self._files = self.path / "files.json"
        self._winners = self.path / "winners.json"
        database = self.path.resolve() / "search.db"
        as_text("OUTPUT_DIR", str(database.parent))  # written to config and log
        self.storage = sqlite_url(database)

    def require(self) -> None:
        """Checks that the folder holds a search.

        Raises:
            SearchError: The folder holds no search.
            WriteError: A link in the folder leads out of it.
        """
        if not self.config.is_file():
            raise SearchError(f"{self.path} holds no search (it has no config.yaml)")
        self._refuse_links()

    def _refuse_links(self) -> None:
        refuse_links_out(
            self.path, (".lock", ".search.db.lock", "candidates", "front", "log", "search.db*")
        )
        refuse_links_out(self.candidates, ("*",))
        refuse_links_out(self.front, ("*",))

    def winners(self) -> dict[str, list[str]]:
        """Returns the facts about each winner, as lines of text, by the name of its yaml.

        Raises:
            SearchError: ``winners.json`` is damaged, or has an entry that is not allowed.
        """
        winners = _read_json(self._winners)
        for name, facts in winners.items():
            is_list = isinstance(facts, list) and all(isinstance(fact, str) for fact in facts)
            if not _WINNER.fullmatch(name) or not is_list:
                raise SearchError(
                    f"{self._winners} has the entry {name!r}: {str(facts)[:80]}; allowed: the name "
                    "of a yaml in the folder, and a list of lines about it; remove the entry"
                )
        return winners

    def record_winner(self, name: str, facts: Sequence[str]) -> None:
        """Adds a winner to ``winners.json``, where reports look for it.

        Args:
            name: Name of the winner's yaml, without suffix.
            facts: Lines about the winner.
        """
        winners = self.winners() | {name: list(facts)}
        with atomic_write(self._winners) as temporary:
            temporary.write_text(json.dumps(winners, indent=1), encoding="utf-8")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder for this process, until the block or the process ends.

        Raises:
            SearchError: Another process holds the folder; the message names the process.
            WriteError: A link in the folder leads out of it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._refuse_links()
        lock = FileLock(
            self.path / ".lock",
            lambda owner: (
                f"{self.path} is in use by {owner}; wait for it, or choose another OUTPUT_DIR"
            ),
        )
        lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def write_config(self, text: str, files: Mapping[str, str], short: str | None = None) -> None:
        """Writes ``config.yaml``, which from then on identifies the folder's search.

        The hashes of the imported code are written, too.

        Args:
            text: The config as yaml.
            files: Sha256 of each file that the config refers to, by key.
            short: The values that differ from the defaults, as yaml. If given, it is written to
                ``config.yaml``, and ``text`` to ``config_full.yaml``. If None, ``text`` is written
                to ``config.yaml``.
        """
        with atomic_write(self._files) as temporary:
            temporary.write_text(json.dumps(files, indent=1), encoding="utf-8")
        record_user_code(self.path)
        if short is not None:
            with atomic_write(full_path(self.config)) as temporary:
                temporary.write_text(text, encoding="utf-8")
        with atomic_write(self.config) as temporary:
            temporary.write_text(text if short is None else short, encoding="utf-8")

    def stored_config(self) -> dict[str, Any]:
        """Returns the value of each key of the folder's config, which must exist.

        Raises:
            SearchError: The config cannot be read.
        """
        full = full_path(self.config)  # missing in folders of version 0.1
        path = full if full.is_file() else self.config
        try:
            return dict(iter_keys(parse_mapping(read_text(path, "config"))))
        except (YamlError, UnicodeDecodeError, OSError) as error:
            raise SearchError(f"cannot read {path}: {error}; give another OUTPUT_DIR") from error

    def check_config(
        self, text: str, resumable_keys: Sequence[str], defaults: Mapping[str, Any] | None = None
    ) -> None:
        """Checks that a config agrees with the folder's; a new folder accepts every config.

        Args:
            text: The config as yaml.
            resumable_keys: Full keys whose values may differ.
            defaults: Default by full key, for keys that the folder's config lacks because an
                earlier version wrote it.

        Raises:
            SearchError: Values of keys that are not in ``resumable_keys`` differ, and the message
                names these keys; or the folder's config cannot be read.
        """
        if not self.config.is_file():
            return
        before = completed(self.stored_config(), defaults or {})
        now = dict(iter_keys(parse_mapping(text)))
        differences = [
            f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
            for key in sorted({*before, *now})
            if key not in resumable_keys and before.get(key) != now.get(key)
        ]
        if differences:
            raise SearchError(
                f"{self.path} holds a search with another config: {'; '.join(differences)[:600]}; "
                "give the same config, or another OUTPUT_DIR"
            )

    def check_files(self, files: Mapping[str, str]) -> None:
        """Checks that the files that the config refers to are the same as when the search started.

        Args:
            files: Sha256 of each file that the config refers to, by key.

        Raises:
            SearchError: A file has changed; the message names its key.
        """
        before = _read_json(self._files)
        differences = [
            f"{key} (sha256 was {str(before[key])[:12]}..., is {now[:12]}...)"
            for key, now in files.items()
            if before.get(key, now) != now
        ]
        if differences:
            raise SearchError(
                f"{self.path}: the content of a file has changed since the search started: "
                f"{'; '.join(differences)}; restore the file, or give another OUTPUT_DIR"
            )

    def check_code(self) -> None:
        """Checks that the imported code is the same as when the search started.

        Raises:
            SearchError: Code has changed, or is not imported now.
            UserCodeError: The record of the imported code is damaged.
        """
        changes = user_code_changes(self.path)
        if changes:
            raise SearchError(
                f"{self.path}: the imported code is not that of the search: {changes}; restore it, "
                f"give another OUTPUT_DIR, or remove {RECORD} there if results do not depend on it"
            )


def _read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a json file, or {} if the file does not exist.

    Raises:
        SearchError: The file cannot be read, or does not contain an object.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(read_text(path, "record"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise SearchError(f"cannot read {path}: {reason}; remove it") from error
    except (ValueError, RecursionError) as error:
        raise SearchError(f"{path} is not valid json: {error}; remove it") from error
    if not isinstance(content, dict):
        raise SearchError(f"{path} holds a {type(content).__name__}, not an object; remove it")
    return content
