"""The trial store in an Optuna storage."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fbnetv3.errors import data_errors, first_line
from fbnetv3.search.direction import MAXIMIZE
from fbnetv3.search.errors import SearchError
from fbnetv3.search.space.parameters import CONTINUOUS_LEVELS, FloatRange, IntRange
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.storage.database import (
    is_missing,
    is_new_database,
    open_storage,
    without_password,
)
from fbnetv3.search.storage.study_lock import study_lock
from fbnetv3.search.trial import (
    STUDY,
    Trial,
    refuse_other_settings,
    to_plain,
    trial_from_json,
    trial_to_json,
)

if TYPE_CHECKING:
    import optuna

_SETTINGS, _IDENTITY, _PREFIX = "settings", "identity", "note."
"""Names of a study's user attributes: settings and identity, and the prefix of all others."""

_CREATIONS, _PAUSE_S = 20, 0.25
"""Number of attempts to create a study in a new database, and seconds between two attempts."""


class OptunaStore:
    """Stores the trials as a study of an Optuna storage, which optuna-dashboard can show.

    Args:
        url: URL of the storage, such as ``sqlite:///search.db`` or
            ``postgresql://host/database``.
        space: Space of the candidates; its ranges become the distributions of the study.
        study: Name of the study; a storage may hold several.
        name: Name of the storage in messages; None: its URL.
        direction: ``maximize`` or ``minimize``.
        full_epochs: Number of epochs of a full training in a search with rungs, which stops most
            trainings after fewer epochs; complete trials with fewer are stored as pruned trials.
            None: every trial trains in full.
        creates: Whether the study is created if the storage lacks it.

    Raises:
        SearchError: The storage cannot be opened, lacks a study that is not to be created, or the
            study has several directions, or another one than ``direction``.
    """

    def __init__(
        self,
        url: str,
        space: SearchSpace,
        study: str = STUDY,
        name: str | None = None,
        direction: str = MAXIMIZE,
        full_epochs: int | None = None,
        *,
        creates: bool = True,
    ) -> None:
        self._distributions = {p.name: _distribution(p) for p in space.parameters}
        self._name = without_password(name or url)
        self._full_epochs = full_epochs
        self._unsaved: dict[str, dict[str, Any]] = {}
        try:
            self._lock = study_lock(url, study)
            with _without_news_of_studies():
                open_study = _create_study if creates else _load_study
                self._study = open_study(url, study, direction)
        except SearchError:
            raise
        except Exception as error:  # Optuna and its database drivers may raise anything
            raise SearchError(
                f"cannot open storage {self._name!r}: {first_line(error)}; give an Optuna URL such "
                "as sqlite:///search.db (driver of PostgreSQL: pip install 'fbnetv3[postgres]')"
            ) from error
        _check_study(self._study, self._name, study, direction)

    def acquire(self) -> None:
        with self._database("lock the study"):
            self._lock.acquire()
        unsaved, self._unsaved = self._unsaved, {}
        if not unsaved:
            return
        if _SETTINGS in self._user_attrs():  # Another process has started the study meanwhile.
            self.check_settings(unsaved[_SETTINGS], unsaved[_IDENTITY])
            return
        with self._database("store the settings"):
            for name in (_IDENTITY, _SETTINGS):  # the settings last: they mark a complete start
                self._study.set_user_attr(name, unsaved[name])

    def release(self) -> None:
        self._lock.release()

    def start(self) -> None:
        if self._unsaved and _SETTINGS in self._user_attrs():  # another process has started it
            self.check_settings(self._unsaved[_SETTINGS], self._unsaved[_IDENTITY])
            self._unsaved = {}
        elif self._unsaved:
            self.acquire()

    def load(self) -> list[Trial]:
        with self._database("read the trials"):
            frozen_trials = self._study.get_trials(deepcopy=False)
        trials = [
            trial_from_json(frozen.user_attrs["trial"])
            for frozen in frozen_trials
            if "trial" in frozen.user_attrs
        ]
        return sorted(trials, key=lambda trial: trial.number)

    def add(self, trial: Trial) -> None:
        frozen = self._frozen(trial)
        with self._database(f"store trial {trial.id}"):
            self._lock.acquire()  # A restarted database has forgotten who held the lock.
            self._study.add_trial(frozen)

    def _frozen(self, trial: Trial) -> optuna.trial.FrozenTrial:
        """Returns a finished trial in Optuna's form."""
        import optuna

        failed, states = trial.state == "failed", optuna.trial.TrialState
        is_part = self._full_epochs is not None and trial.max_epochs != self._full_epochs
        complete = states.PRUNED if is_part else states.COMPLETE
        attributes = {"id": trial.id, "batch": trial.batch, "stage": trial.stage}
        attributes |= {f"statistic.{k}": v for k, v in trial.statistics.items()}
        if failed:
            attributes["reason"] = trial.reason
        if trial.enqueued is not None:
            attributes["enqueued"] = trial.enqueued
        distributions = self._distributions
        return optuna.trial.create_trial(
            state=states.FAIL if failed else complete,
            value=None if failed else trial.final_score,
            params={name: _param(d, trial.config[name]) for name, d in distributions.items()},
            distributions=distributions,
            user_attrs={**attributes, "trial": trial_to_json(trial)},
            intermediate_values={e: s for e, s in trial.reports.items() if math.isfinite(s)},
        )

    @contextmanager
    def _database(self, action: str) -> Iterator[None]:
        """Turns an error of the database into a SearchError with a message on one line.

        Args:
            action: Description of the block for the message, such as ``read the trials``.

        Raises:
            SearchError: The database is full, read-only, locked for too long, gone or damaged.
        """
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with data_errors(SearchError, f"the content of storage {self._name}"):
                yield
        except (StorageInternalError, SQLAlchemyError) as error:
            cause = error.__cause__ or error
            reason = first_line(getattr(cause, "orig", None) or cause)
            raise SearchError(
                f"cannot {action} in storage {self._name}: {reason}. Once the problem is solved, "
                "the same command continues the search with the trials that the storage has. "
                "Trials without a stored result are evaluated again, except trainings whose folder "
                "already has the final score"
            ) from error

    def check_settings(self, settings: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        now = json.loads(json.dumps({_SETTINGS: settings, _IDENTITY: identity}))
        before = self.description()
        if before is None:
            self._unsaved = now  # acquire() stores them: only the holder of the lock writes.
        else:
            refuse_other_settings(before, (now[_SETTINGS], now[_IDENTITY]))

    def description(self) -> tuple[Any, Any] | None:
        """Returns the settings and the identity of the search; None if it has not started.

        The identity has the values on which scores depend. It is {} for a search of an earlier
        version of this project, which stored none.
        """
        attributes = self._user_attrs()
        if attributes.get(_SETTINGS) is None:
            return None
        return attributes[_SETTINGS], attributes.get(_IDENTITY, {})

    def set_attr(self, name: str, value: object) -> None:
        plain, key = to_plain(value), f"{_PREFIX}{name}"
        if self._user_attrs().get(key) != plain:
            with self._database(f"store {name}"):
                self._study.set_user_attr(key, plain)

    def attrs(self) -> dict[str, Any]:
        attributes = self._user_attrs()
        return {k.removeprefix(_PREFIX): v for k, v in attributes.items() if k.startswith(_PREFIX)}

    def _user_attrs(self) -> dict[str, Any]:
        with self._database("read the study"):
            return self._study.user_attrs


class _NoNews(logging.Filter):
    """Drops the messages below warnings of the thread that made the filter."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread or record.levelno >= logging.WARNING


@contextmanager
def _without_news_of_studies() -> Iterator[None]:
    """Drops Optuna's messages that this thread has created a study, or uses one.

    Optuna's verbosity stays as it is, since it is a setting of the user's program.
    """
    import optuna
    from optuna.storages import RDBStorage

    news = _NoNews()
    loggers = [logging.getLogger(kind.__module__) for kind in (optuna.Study, RDBStorage)]
    for logger in loggers:
        logger.addFilter(news)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(news)


def _load_study(url: str, study: str, direction: str) -> optuna.Study:
    """Returns a study of a storage, to which nothing is written."""
    import optuna

    return optuna.load_study(study_name=study, storage=open_storage(url))


def _create_study(url: str, study: str, direction: str) -> optuna.Study:
    """Returns a study of a storage, which is created if the storage lacks it.

    If two processes create the tables of a new database, or the study in it, at the same time, one
    of the two attempts fails half-way and is repeated. :meth:`OptunaStore.acquire` then decides
    which process coordinates the study.
    """
    import optuna

    is_new = is_new_database(url)
    for attempts_left in reversed(range(_CREATIONS if is_new else 1)):
        try:
            return optuna.create_study(
                storage=open_storage(url),
                study_name=study,
                direction=optuna.study.StudyDirection[direction.upper()],
                load_if_exists=True,
            )
        except Exception:  # drivers may raise anything
            if not attempts_left or is_missing(url):
                raise
            time.sleep(_PAUSE_S)
    raise AssertionError("unreachable")


def _check_study(study: optuna.Study, storage: str, name: str, direction: str) -> None:
    """Checks that a study has one objective, and the direction of the search.

    Raises:
        SearchError: The study has several directions, or another one than the search.
    """
    directions = [direction.name.lower() for direction in study.directions]
    if directions != [direction]:
        raise SearchError(
            f"the study {name!r} of storage {storage} has the directions {directions}, but a "
            f"search with direction={direction!r} needs a study with this direction only; use the "
            "direction of the study, another study name (SEARCH.STUDY, study=...), or another "
            "storage"
        )


def _distribution(parameter: Any) -> optuna.distributions.BaseDistribution:
    """Returns Optuna's distribution for a parameter."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(parameter, IntRange):
        step = 1 if parameter.log else parameter.step
        return IntDistribution(parameter.low, parameter.high, log=parameter.log, step=step)
    if isinstance(parameter, FloatRange):
        # The step is left out: Optuna warns about each value that rounding moves off the grid.
        is_log = parameter.log and parameter.size == CONTINUOUS_LEVELS
        return FloatDistribution(parameter.low, parameter.high, log=is_log)
    # Choices are stored as strings, because Optuna considers 1 and True equal.
    return CategoricalDistribution([_text(parameter.value(i)) for i in range(parameter.size)])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _param(distribution: Any, value: Any) -> Any:
    return _text(value) if hasattr(distribution, "choices") else value
