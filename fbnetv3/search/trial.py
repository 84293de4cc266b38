"""A trial: one candidate and its evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fbnetv3.search.errors import SearchError

STUDY = "jointnas"
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


@dataclass(frozen=True)
class Event:
    """An event of a running search.

    Attributes:
        kind: ``start`` (the trial is submitted to the executor), ``report`` (it has reported the
            score of an epoch) or ``finish`` (its result is stored).
        trial: Trial that the event is about.
    """

    kind: str
    trial: Trial
