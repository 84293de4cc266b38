"""Trials and where they are remembered: in memory, or in an Optuna storage."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fbnetv3.errors import first_line
from fbnetv3.search.errors import SearchError
from fbnetv3.search.space.parameters import CONTINUOUS_LEVELS, FloatRange, IntRange
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.storage.database import open_storage, without_password
from fbnetv3.search.storage.study_lock import study_lock

if TYPE_CHECKING:
    import optuna
from fbnetv3.search.trial import STUDY, Trial, _plain, differences, trial_from_json, trial_to_json

_NOTE = "note."


class OptunaStore:
    """Trials as one study of an Optuna storage, which optuna-dashboard opens.

    Args:
        url: such as ``sqlite:///search.db`` or ``postgresql://host/database``.
        space: of the candidates; its ranges become the study's distributions.
        study: its name; a database holds many.

    Raises:
        SearchError: the storage can't be opened.
    """

    def __init__(self, url: str, space: SearchSpace, study: str = STUDY) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._distributions = {p.name: _distribution(p) for p in space.parameters}
        self._where = without_password(url)
        self._unkept: dict[str, Any] | None = None
        try:
            self._lock = study_lock(url, study)
            self._study = optuna.create_study(
                storage=open_storage(url),
                study_name=study,
                direction="maximize",
                load_if_exists=True,
            )
        except Exception as error:  # Optuna and its database drivers raise all kinds
            raise SearchError(
                f"storage {self._where!r} can't be opened: {first_line(error)}; give an Optuna URL "
                "such as sqlite:///search.db (PostgreSQL's driver: pip install "
                "'fbnetv3[postgres]')"
            ) from error

    def hold(self) -> None:
        with self._reaching("the study can't be held in"):
            self._lock.hold()
        wanted, self._unkept = self._unkept, None
        if wanted is None:
            return
        if "settings" in self._attributes():  # another process has begun the study since
            self.check_settings(wanted)
            return
        with self._reaching("the settings can't be kept in"):
            self._study.set_user_attr("settings", wanted)

    def release(self) -> None:
        self._lock.release()

    def load(self) -> list[Trial]:
        with self._reaching("the trials can't be read from"):
            kept = self._study.get_trials(deepcopy=False)
        found = [
            trial_from_json(trial.user_attrs["trial"])
            for trial in kept
            if "trial" in trial.user_attrs
        ]
        return sorted(found, key=lambda trial: trial.number)

    def add(self, trial: Trial) -> None:
        import optuna

        failed = trial.state == "failed"
        attributes = {"id": trial.id, "batch": trial.batch, "stage": trial.stage}
        attributes |= {f"statistic.{k}": v for k, v in trial.statistics.items()}
        if failed:
            attributes["reason"] = trial.reason
        found = optuna.trial.create_trial(
            state=optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE,
            value=None if failed else trial.final_score,
            params={name: _param(d, trial.config[name]) for name, d in self._items()},
            distributions=self._distributions,
            user_attrs={**attributes, "trial": trial_to_json(trial)},
            intermediate_values={e: s for e, s in trial.reports.items() if math.isfinite(s)},
        )
        with self._reaching(f"trial {trial.id} can't be kept in"):
            self._lock.hold()  # still: a database that was restarted has forgotten who had it
            self._study.add_trial(found)

    @contextmanager
    def _reaching(self, what: str) -> Iterator[None]:
        """Turns what the database refuses into one line.

        Raises:
            SearchError: it is full, read-only, locked for too long or gone.
        """
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (StorageInternalError, SQLAlchemyError) as error:
            cause = error.__cause__ or error
            reason = first_line(getattr(cause, "orig", None) or cause)
            raise SearchError(
                f"{what} {self._where}: {reason}; what was kept before is safe: mend that, and the "
                "same command goes on; trials whose results were not kept are evaluated again (a "
                "training that had ended leaves its score in its folder, where it is read)"
            ) from error

    def _items(self) -> list[tuple[str, optuna.distributions.BaseDistribution]]:
        return list(self._distributions.items())

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        now = json.loads(json.dumps(settings))
        before = self._attributes().get("settings")
        if before is None:
            self._unkept = now  # until this process may write
            return
        different = differences(before, now)
        if different:
            raise SearchError(
                f"the storage holds a search with other settings: {different}; use the same, or "
                "another storage"
            )

    def note(self, name: str, value: Any) -> None:
        plain, key = _plain(value), f"{_NOTE}{name}"
        if self._attributes().get(key) != plain:
            with self._reaching(f"{name} can't be kept in"):
                self._study.set_user_attr(key, plain)

    def _attributes(self) -> dict[str, Any]:
        with self._reaching("the study can't be read from"):
            return self._study.user_attrs

    def notes(self) -> dict[str, Any]:
        attributes = self._attributes()
        return {k.removeprefix(_NOTE): v for k, v in attributes.items() if k.startswith(_NOTE)}


def _distribution(parameter: Any) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(parameter, IntRange):
        step = 1 if parameter.log else parameter.step
        return IntDistribution(parameter.low, parameter.high, log=parameter.log, step=step)
    if isinstance(parameter, FloatRange):
        # not the step: Optuna would warn of every value that misses it by a rounding
        is_log = parameter.log and parameter.size == CONTINUOUS_LEVELS
        return FloatDistribution(parameter.low, parameter.high, log=is_log)
    # texts: Optuna takes 1 and True for the same choice
    return CategoricalDistribution([_text(parameter.value(i)) for i in range(parameter.size)])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _param(distribution: Any, value: Any) -> Any:
    return _text(value) if hasattr(distribution, "choices") else value
