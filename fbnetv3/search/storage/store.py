"""The protocol of trial stores, and the store in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from fbnetv3.requires import require
from fbnetv3.search.checks import as_name
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import STUDY, Trial, to_plain

if TYPE_CHECKING:
    from sqlalchemy.engine import URL


class TrialStore(Protocol):
    """Stores the finished trials of a study. A trial is written once, when it has finished."""

    def acquire(self) -> None:
        """Makes this process the coordinator of the study until it ends or releases the study.

        Raises:
            SearchError: Another process coordinates the study; the message names it.
        """

    def release(self) -> None:
        """Lets another process coordinate the study."""

    def load(self) -> list[Trial]:
        """Returns the finished trials, by number."""

    def add(self, trial: Trial) -> None:
        """Stores a finished trial."""

    def check_settings(self, settings: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        """Checks the settings and the identity of a search against those of the study.

        A study that has no settings yet gets both when it is acquired. A study of an earlier
        version has no identity, and is checked by its settings alone.

        Args:
            settings: Settings, as :meth:`SearchSettings.describe` returns them.
            identity: What decides the scores, as :meth:`SearchSettings.identify` returns it.

        Raises:
            SearchError: The settings or identities differ; the message names their keys.
        """

    def set_attr(self, name: str, value: Any) -> None:
        """Stores an attribute of the study, and replaces an earlier value of it.

        Args:
            name: Name of the attribute.
            value: Value made of dicts, lists, strings, numbers, booleans and None.
        """

    def attrs(self) -> dict[str, Any]:
        """Returns the attributes of the study, by name."""


class MemoryStore:
    """Trials and attributes in the memory of this process."""

    def __init__(self) -> None:
        self._trials: list[Trial] = []
        self._attrs: dict[str, Any] = {}

    def acquire(self) -> None:
        return

    def release(self) -> None:
        return

    def load(self) -> list[Trial]:
        return sorted(self._trials, key=lambda trial: trial.number)

    def add(self, trial: Trial) -> None:
        self._trials.append(trial)

    def check_settings(self, settings: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        return

    def set_attr(self, name: str, value: Any) -> None:
        self._attrs[name] = to_plain(value)

    def attrs(self) -> dict[str, Any]:
        return dict(self._attrs)


def open_store(url: str | URL | None, space: SearchSpace, study: str = STUDY) -> TrialStore:
    """Returns a store in an Optuna storage, or in memory if ``url`` is None."""
    if url is None:
        return MemoryStore()
    for package in ("optuna", "sqlalchemy"):
        require(package, "search")
    # Imported here, because a search in memory needs neither package.
    from fbnetv3.search.storage.database import url_text
    from fbnetv3.search.storage.optuna_store import OptunaStore

    return OptunaStore(url_text(url), space, as_name("study", study))
