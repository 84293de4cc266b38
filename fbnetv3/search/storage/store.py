"""The protocol of trial stores, and the store in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from fbnetv3.requires import require
from fbnetv3.search.checks import as_name
from fbnetv3.search.direction import MAXIMIZE
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import STUDY, Trial, refuse_other_settings, to_plain

if TYPE_CHECKING:
    from sqlalchemy.engine import URL


_NOT_WRITTEN = (
    "that a search with read_only=True could read, and such a search writes none; give the storage "
    "and the study of a search that has begun, or leave out read_only"
)
"""End of the message about a storage without a study; see ``stored_study`` in ``database.py``."""


class TrialStore(Protocol):
    """Stores the finished trials of a study, which is one search. Each result is written once."""

    def acquire(self) -> None:
        """Makes this process the coordinator of the study until it ends or releases the study.

        Raises:
            SearchError: Another process coordinates the study; the message names it.
        """

    def release(self) -> None:
        """Lets another process coordinate the study."""

    def start(self) -> None:
        """Acquires a study without settings, and gives it those passed to :meth:`check_settings`.

        Raises:
            SearchError: The study has no settings, and another process coordinates it; or another
                process has stored other settings since they were checked.
        """

    def load(self) -> list[Trial]:
        """Returns the finished trials, sorted by number.

        A failed trial that was evaluated again occurs once for each result, in their order.
        """

    def add(self, trial: Trial) -> None:
        """Stores a finished trial."""

    def check_settings(self, settings: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        """Checks that a search has the settings and the identity of the study.

        A study without settings gets settings and identity when it is acquired. A study of an
        earlier version has no identity, so that only its settings are checked.

        Args:
            settings: Settings, as :meth:`SearchSettings.describe` returns them.
            identity: Values on which the scores depend, as :meth:`SearchSettings.identify` returns
                them.

        Raises:
            SearchError: The settings or identities differ; the message names their keys.
        """

    def set_attr(self, name: str, value: object) -> None:
        """Stores an attribute of the study; replaces its earlier value, if any.

        Args:
            name: Name of the attribute.
            value: Value made of dicts, lists, strings, numbers, booleans and None.
        """

    def attrs(self) -> dict[str, Any]:
        """Returns the attributes of the study, by name."""


class MemoryStore:
    """Trials and attributes in the memory of this process.

    Args:
        trials: Finished trials.
        attrs: Attributes of the study, by name.
        description: Settings and identity that :meth:`check_settings` requires. If None, all
            settings and identities are accepted.
    """

    def __init__(
        self,
        trials: Sequence[Trial] = (),
        attrs: Mapping[str, Any] | None = None,
        description: tuple[Any, Any] | None = None,
    ) -> None:
        self._trials: list[Trial] = list(trials)
        self._attrs: dict[str, Any] = dict(attrs or {})
        self._description = description

    def acquire(self) -> None:
        return

    def release(self) -> None:
        return

    def start(self) -> None:
        return

    def load(self) -> list[Trial]:
        return sorted(self._trials, key=lambda trial: trial.number)

    def add(self, trial: Trial) -> None:
        self._trials.append(trial)

    def check_settings(self, settings: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        if self._description is not None:
            now = json.loads(json.dumps([settings, identity]))
            refuse_other_settings(self._description, (now[0], now[1]))

    def set_attr(self, name: str, value: object) -> None:
        self._attrs[name] = to_plain(value)

    def attrs(self) -> dict[str, Any]:
        return dict(self._attrs)


def open_store(
    url: str | URL | None,
    space: SearchSpace,
    study: str = STUDY,
    read_only: bool = False,
    direction: str = MAXIMIZE,
    full_epochs: int | None = None,
) -> TrialStore:
    """Returns a store in an Optuna storage, or in memory if ``url`` is None.

    Args:
        url: URL of the storage.
        space: Space of the candidates.
        study: Name of the study.
        read_only: Whether to return a copy of the storage's content in memory. A SQLite file, which
            may be untrusted, is then read from a private copy. Nothing is written, and a storage
            without the study is refused.
        direction: Direction of the study: ``maximize`` or ``minimize``.
        full_epochs: Number of epochs of a whole training in a search with rungs; a trial with fewer
            is stored as a pruned trial of Optuna. None: every training is whole.

    Raises:
        SearchError: The storage cannot be opened, or ``read_only`` is set and it lacks the study.
        MissingPackageError: Optuna or SQLAlchemy is not installed.
    """
    if url is None:
        return MemoryStore()
    for package in ("optuna", "sqlalchemy"):
        require(package, "search")
    # Imported here, because a search in memory needs neither package.
    from fbnetv3.search.storage.database import stored_study, url_text
    from fbnetv3.search.storage.optuna_store import OptunaStore

    text, study = url_text(url), as_name("study", study)
    if read_only:
        with stored_study(text, study, _NOT_WRITTEN) as copy:
            store = OptunaStore(copy, space, study, text, direction, full_epochs, creates=False)
            return MemoryStore(store.load(), store.attrs(), store.description())
    return OptunaStore(text, space, study, None, direction, full_epochs)
