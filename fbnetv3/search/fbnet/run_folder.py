"""A run is a folder: its lock, its config, and what it holds."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fbnetv3.io import atomic_write, refuse_links_out
from fbnetv3.plain_yaml import YamlError, parse_mapping
from fbnetv3.search.errors import SearchError
from fbnetv3.search.storage.study_lock import FileLock

_WINNER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


class RunFolder:
    """Names of the files of a run.

    Args:
        path: of the folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.candidates = self.path / "candidates"
        self.report = self.path / "report.html"
        self.log = self.path / "log"
        self._files = self.path / "files.json"
        self._winners = self.path / "winners.json"
        self.storage = f"sqlite:///{self.path.resolve() / 'search.db'}"

    def require(self) -> None:
        """Raises a SearchError where the folder holds no run, a WriteError as :meth:`locked`."""
        if not self.config.is_file():
            raise SearchError(f"{self.path} holds no search (it has no config.yaml)")
        self._refuse_links()

    def _refuse_links(self) -> None:
        refuse_links_out(self.path, (".lock", ".search.db.lock", "candidates", "log", "search.db*"))
        refuse_links_out(self.candidates, ("*",))

    def winners(self) -> dict[str, list[str]]:
        """Returns what was noted of each winner, by the name of its yaml.

        Raises:
            SearchError: winners.json holds something else, such as the name of another folder.
        """
        found = _read_json(self._winners)
        for name, told in found.items():
            is_told = isinstance(told, list) and all(isinstance(line, str) for line in told)
            if not _WINNER.fullmatch(name) or not is_told:
                raise SearchError(
                    f"{self._winners} holds {name!r}: {str(told)[:80]}; allowed: the name of a "
                    "yaml in the folder, and lines about it; remove the entry"
                )
        return found

    def note_winner(self, name: str, told: Sequence[str]) -> None:
        """Remembers what a winner is, for reports."""
        found = self.winners() | {name: list(told)}
        with atomic_write(self._winners) as temporary:
            temporary.write_text(json.dumps(found, indent=1), encoding="utf-8")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for this process; the system frees it when the process dies.

        Raises:
            SearchError: another process has it; the message names that.
            WriteError: a link in the folder leads out of it.
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

    def keep_config(self, text: str, files: Mapping[str, str]) -> None:
        """Writes config.yaml and what its files hold: from then on this is the folder's search.

        Args:
            text: yaml.
            files: sha256 of each file that the config names, by key.
        """
        with atomic_write(self._files) as temporary:
            temporary.write_text(json.dumps(files, indent=1), encoding="utf-8")
        with atomic_write(self.config) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def check_config(self, text: str, may_change: Sequence[str]) -> None:
        """Checks that config.yaml, if there is one, says the same.

        Args:
            text: yaml.
            may_change: full keys that may differ.

        Raises:
            SearchError: names the keys that differ; or config.yaml can't be read.
        """
        if not self.config.is_file():
            return
        try:
            before = leaves(parse_mapping(self.config.read_text(encoding="utf-8")))
        except (YamlError, UnicodeDecodeError) as error:
            raise SearchError(f"{self.config}: {error}; give another OUTPUT_DIR") from error
        now = leaves(parse_mapping(text))
        differ = [
            f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
            for key in sorted({*before, *now})
            if key not in may_change and before.get(key) != now.get(key)
        ]
        if differ:
            raise SearchError(
                f"{self.path} holds a search with another config: {'; '.join(differ)[:600]}; "
                "give the same, or another OUTPUT_DIR"
            )

    def check_files(self, files: Mapping[str, str]) -> None:
        """Checks that the files that the config names hold what they did when the search began.

        Args:
            files: as for :meth:`keep_config`.

        Raises:
            SearchError: names the keys whose files differ.
        """
        before = _read_json(self._files)
        differ = [
            f"{key} (sha256 was {str(before[key])[:12]}..., is {found[:12]}...)"
            for key, found in files.items()
            if before.get(key, found) != found
        ]
        if differ:
            raise SearchError(
                f"{self.path}: since the search began, the content changed of the file of "
                f"{'; '.join(differ)}; put it back, or give another OUTPUT_DIR"
            )


def _read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a json file, {} where there is no file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SearchError(f"{path} is no json: {error}; remove it") from error
    if not isinstance(found, dict):
        raise SearchError(f"{path} holds a {type(found).__name__}, no names with values; remove it")
    return found


def leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Returns the values of a nested mapping by full key."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= leaves(value, (*path, key))
        else:
            found[".".join((*path, key))] = value
    return found
