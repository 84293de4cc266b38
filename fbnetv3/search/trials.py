"""Trials and where they are remembered: in memory, or in an Optuna storage."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from fbnetv3.search.database import first_line, open_storage, without_password
from fbnetv3.search.errors import SearchError
from fbnetv3.search.parameters import CONTINUOUS_LEVELS, FloatRange, IntRange
from fbnetv3.search.space import SearchSpace
from fbnetv3.search.study_lock import study_lock

if TYPE_CHECKING:
    import optuna

STUDY = "jointnas"
_NOTE = "note."
_NUMBER, _NONE = (int, float), type(None)
# of what a storage, perhaps of others, holds of a trial
_KINDS: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "number": (int,),
    "batch": (int,),
    "config": (dict,),
    "max_epochs": (int, _NONE),
    "statistics": (dict,),
    "predicted": (*_NUMBER, _NONE),
    "stage": (str,),
    "state": (str,),
    "score": (*_NUMBER, _NONE),
    "final_score": (*_NUMBER, _NONE),
    "reports": (dict,),
    "reason": (str, _NONE),
}


@dataclass
class Trial:
    """One candidate and what came of it.

    Attributes:
        id: canonical; the same candidate has the same id in every search of the space.
        number: counts up from 0 over the whole search.
        batch: in which it was proposed, from 0; trials of ``warm_start`` have -1.
        config: value by variable; inactive variables are in it at their first value.
        max_epochs: train so long; None: in full.
        statistics: by name.
        predicted: score that the predictor gave it when it was proposed, None at first.
        stage: ``coarse`` or ``fine``.
        state: ``running``, ``complete`` or ``failed``.
        score: what the search compares: the returned score, or with early stopping the score
            at the chosen epoch.
        final_score: as returned by the evaluation.
        reports: score by epoch, as reported.
        reason: of a failure.
    """

    id: str
    number: int
    batch: int
    config: dict[str, Any]
    max_epochs: int | None = None
    statistics: dict[str, float] = field(default_factory=dict)
    predicted: float | None = None
    stage: str = "coarse"
    state: str = "running"
    score: float | None = None
    final_score: float | None = None
    reports: dict[int, float] = field(default_factory=dict)
    reason: str | None = None
    on_report: Callable[[int, float], None] | None = field(default=None, repr=False, compare=False)

    def report(self, epoch: int, score: float) -> None:
        """Records the score after ``epoch`` epochs (the first is 1), for early stopping."""
        self.reports[int(epoch)] = float(score)
        if self.on_report is not None:
            self.on_report(int(epoch), float(score))

    def finish(self, score: float | None, reason: str | None = None) -> None:
        """Completes the trial with a score, or fails it: None, NaN and infinity are no scores."""
        if score is None or reason is not None:
            self.state, self.reason = "failed", reason or "no score was returned"
            return
        try:
            value = float(score)
        except (TypeError, ValueError):
            self.state, self.reason = "failed", f"the score is {score!r}, not a number"
            return
        if not math.isfinite(value):
            self.state, self.reason = "failed", f"the score is {value}"
            return
        self.state, self.score, self.final_score = "complete", value, value

    def unfinished(self) -> Trial:
        """Returns the trial as it was before it had a result."""
        return replace(self, state="running", score=None, final_score=None, reports={}, reason=None)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values; epochs become texts in JSON and are read back as numbers."""
        hidden = ("on_report",)
        return {key: value for key, value in vars(self).items() if key not in hidden}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Trial:
        """Makes a trial of what :meth:`to_dict` gave, also after a way through JSON."""
        reports = {int(epoch): score for epoch, score in values.get("reports", {}).items()}
        return cls(**{**values, "reports": reports})


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
            reason = str(getattr(cause, "orig", None) or cause).strip().splitlines()[0]
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


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Returns what two searches' settings differ in, as a text for a person; empty: nothing."""
    keys = sorted(k for k in {*now, *before} if now.get(k) != before.get(k))
    return "; ".join(f"{k} was {before.get(k)!r}, is {now.get(k)!r}" for k in keys)[:500]


def _plain(value: Any) -> Any:
    """Returns what a way through JSON leaves; NaN becomes None, which every reader takes."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def trial_to_json(trial: Trial) -> str:
    """Returns a finished trial as it was told: the score at an early epoch follows from others."""
    return json.dumps({**trial.to_dict(), "score": trial.final_score})


def trial_from_json(text: Any, where: str = "storage") -> Trial:
    """Reads a finished trial that a storage or a log, as ``where`` says, holds.

    Raises:
        SearchError: it is none. A running one would be trained, under the id that it gives itself.
    """
    try:
        values = json.loads(text)
        wrong = [key for key, value in values.items() if not isinstance(value, _KINDS[key])]
        numbers = [*values["statistics"].values(), *values["reports"].values()]
        needed = values["score"] if values["state"] == "complete" else values["reason"]
        is_finished = values["state"] in ("complete", "failed") and needed is not None
        if wrong or not is_finished or not all(isinstance(n, _NUMBER) for n in numbers):
            raise ValueError(f"wrong are {', '.join(wrong) or 'its state or numbers'}")
        return Trial.from_dict(values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SearchError(
            f"the {where} holds a trial that this program did not write ({str(text)[:60]}...: "
            f"{type(error).__name__} {error}); give another {where}"
        ) from error


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


def open_store(url: str | None, space: SearchSpace, study: str = STUDY) -> TrialStore:
    """Returns an Optuna storage, or for None one in memory."""
    return MemoryStore() if url is None else OptunaStore(url, space, study)
