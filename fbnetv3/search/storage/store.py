"""What a trial store is, and the one in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from fbnetv3.requires import require
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import STUDY, Trial, _plain


class TrialStore(Protocol):
    """Remembers finished trials; each is written once and survives a kill from then on."""

    def hold(self) -> None:
        """Makes this process the one that coordinates the study, until it ends or releases it.

        Raises:
            SearchError: another process does; the message names that.
        """

    def release(self) -> None:
        """Lets another process coordinate the study."""

    def load(self) -> list[Trial]:
        """Returns the finished trials so far, by number."""

    def add(self, trial: Trial) -> None:
        """Remembers a finished trial."""

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Refuses other settings than the study's; where it has none, ``hold`` keeps these.

        Raises:
            SearchError: names the keys that differ.
        """

    def note(self, name: str, value: Any) -> None:
        """Keeps what the search has concluded, plain values; the last of a name counts."""

    def notes(self) -> dict[str, Any]:
        """Returns what was noted, by name."""


class MemoryStore:
    """Trials of this process only."""

    def __init__(self) -> None:
        self._trials: list[Trial] = []
        self._notes: dict[str, Any] = {}

    def hold(self) -> None:
        return

    def release(self) -> None:
        return

    def load(self) -> list[Trial]:
        return sorted(self._trials, key=lambda trial: trial.number)

    def add(self, trial: Trial) -> None:
        self._trials.append(trial)

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        return

    def note(self, name: str, value: Any) -> None:
        self._notes[name] = _plain(value)

    def notes(self) -> dict[str, Any]:
        return dict(self._notes)


def open_store(url: str | None, space: SearchSpace, study: str = STUDY) -> TrialStore:
    """Returns an Optuna storage, or for None one in memory."""
    if url is None:
        return MemoryStore()
    for package in ("optuna", "sqlalchemy"):
        require(package, "search")
    # optional packages stay unimported where trials are kept in memory
    from fbnetv3.search.storage.optuna_store import OptunaStore

    return OptunaStore(url, space, study)
