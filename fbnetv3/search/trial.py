"""A trial: one candidate and its evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fbnetv3.search.checks import MAX_EPOCHS, as_real, as_whole
from fbnetv3.search.errors import SearchError
from fbnetv3.search.outcome import reason_text, result_of

SCORE = "score"
"""Name of the only score of an evaluation that returns a number."""
STUDY = "jointnas"
"""Default name of a search in its storage."""
_NUMBER, _NONE = (int, float), type(None)
_MAX_CHARACTERS = 2**24
"""Largest length of a trial's JSON, as a guard against untrusted storages."""
# Allowed types of each field, since a storage or log may come from an untrusted source
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
    "earlier_reasons": (list,),
    "scores": (dict,),
    "enqueued": (str, _NONE),
    "replicate": (int,),
}


@dataclass
class Trial:
    """A candidate and its evaluation.

    A search hands out copies: what an evaluation does to its trial has no effect on the search,
    except for :meth:`report`. A trial can be pickled; ``on_report`` is left out.

    Attributes:
        id: Hash of the candidate; the same in every search of the space.
        number: Position among the trials of the search, from 0; negative in a warm start.
        batch: Batch in which the trial was proposed, from 0; -1 in a warm start.
        config: Value of each variable; inactive variables have their first value.
        max_epochs: Number of epochs to train, as :meth:`report` counts them; None: the whole
            schedule.
        statistics: Value of each statistic, by name.
        predicted: Predicted score at the time of the proposal; None if there was no predictor.
        stage: ``coarse`` (stage 1 of the search) or ``fine`` (stage 2).
        state: ``running``, ``complete`` or ``failed``.
        score: Score by which the trial is compared; None without a score. It is the final score,
            except in a SearchResult: there it is the score at the epoch of the early stop, if there
            is one, and for a finalist that was trained with several seeds the mean over them.
        final_score: Score that the evaluation returned; None: no score.
        reports: Score by epoch, as the evaluation reported it.
        reason: Reason of a failure; None: no failure.
        earlier_reasons: Reasons of failures after which the trial was put back to run again.
        score_names: Names of the scores that the evaluation returns; (): it returns one number.
        scores: Final scores by name of a complete trial; {} without ``score_names``. The first of
            ``score_names`` is the name of :attr:`final_score`. In a SearchResult, those of a
            finalist that was trained with several seeds are means over them.
        enqueued: Reason for which the candidate was enqueued; None: the search proposed it.
        replicate: Index of this training among the trainings of one finalist with different random
            seeds, from 0; the evaluation adds it to its seed.
        on_report: Function called with epoch and score at each report; None: no function.
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
    earlier_reasons: list[str] = field(default_factory=list)
    score_names: tuple[str, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)
    enqueued: str | None = None
    replicate: int = 0
    on_report: Callable[[int, float], None] | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Name of the training's folder: the candidate's id, and the number of a replicate."""
        return self.id if not self.replicate else f"{self.id}_seed{self.replicate}"

    def report(self, epoch: int, score: float) -> None:
        """Records the score after a number of epochs, for early stopping and reports.

        Args:
            epoch: Number of epochs trained so far, from 0 to ``MAX_EPOCHS``.
            score: Score; NaN and infinity are allowed, but early stopping takes them for missing.

        Raises:
            SearchError: The epoch is no whole number in this range, or the score is no number.
        """
        epoch = as_whole("report: epoch", epoch, low=0, high=MAX_EPOCHS)
        score = as_real("report: score", score, finite=False)
        self.reports[epoch] = score
        if self.on_report is not None:
            self.on_report(epoch, score)

    def finish(self, score: object, reason: str | None = None) -> None:
        """Records the result: the trial is complete with a finite score, and failed otherwise.

        Args:
            score: Score, or scores by name if the trial has ``score_names``; None, NaN, infinity
                and values that are not numbers fail the trial.
            reason: Reason of a failure; None: the score alone decides whether the trial fails.
        """
        value, problem = result_of(score, self.score_names)
        if reason is not None:
            value, problem = None, reason_text(reason)
        if value is None:
            self.state, self.reason = "failed", problem or "no score was returned"
            return
        if self.score_names:
            self.scores, value = value, value[self.score_names[0]]
        self.state, self.score, self.final_score = "complete", value, value

    def score_named(self, name: str) -> float:
        """Returns one of the scores of a complete trial; NaN if the trial lacks it.

        Args:
            name: Name of a score; the score of an evaluation that returns a number is ``score``.
        """
        value = self.final_score if self.score is None else self.score
        if self.scores or name != SCORE or value is None:
            return self.scores.get(name, math.nan)
        return value

    def copy(self) -> Trial:
        """Returns an independent copy, without ``on_report``."""
        return replace(
            self,
            config=dict(self.config),
            statistics=dict(self.statistics),
            reports=dict(self.reports),
            earlier_reasons=list(self.earlier_reasons),
            scores=dict(self.scores),
            on_report=None,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "on_report": None}  # belongs to the process that runs the search

    def unfinished(self) -> Trial:
        """Returns a copy without the result."""
        running = replace(self, state="running", score=None, final_score=None)
        return replace(running, scores={}, reports={}, reason=None)

    def failed(self, reason: str) -> Trial:
        """Returns a copy that has failed for a reason, whatever the state of this trial."""
        return replace(self.unfinished(), state="failed", reason=reason)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain values."""
        return {key: value for key, value in vars(self).items() if key != "on_report"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Trial:
        """Returns the trial with the fields of :meth:`to_dict`; in JSON, epochs are strings."""
        reports = {int(epoch): score for epoch, score in values.get("reports", {}).items()}
        return cls(**{**values, "reports": reports})


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describes how the settings of two searches differ; returns "" if they are equal.

    Nested settings are listed by their full key, such as ``evaluator.SOLVER.MAX_EPOCHS``.
    """
    old, new = _flat(before), _flat(now)
    keys = sorted(k for k in {*new, *old} if old.get(k, _UNSET) != new.get(k, _UNSET))
    return "; ".join(f"{k} was {_shown(old, k)}, is {_shown(new, k)}" for k in keys)[:500]


def settings_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describes how the settings of two searches differ; ``iterations`` is not compared.

    The text is "" if they do not differ.

    Args:
        before: Settings that a storage or log holds, as ``SearchSettings.describe`` returned them.
        now: Settings of the search that opens it.
    """
    return differences(*(_readable(without_iterations(part)) for part in (before, now)))


def _readable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings with " or " between the conditions of each variable of the space.

    :meth:`SearchSpace.describe` writes "; if " before each condition.
    """
    space = settings.get("space")
    if not isinstance(space, Mapping):
        return dict(settings)
    return {**settings, "space": {name: _with_or(text) for name, text in space.items()}}


def _with_or(text: object) -> object:
    if not isinstance(text, str) or "; if " not in text:
        return text
    values, *conditions = text.split("; if ")
    return f"{values}; if {' or '.join(conditions)}"


def identity_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describes how two identities (all that scores depend on) differ; returns "" if they do not.

    Parts that only one of them has are ignored. ``sha256``, the hash of all parts, is compared only
    if both have the same parts and these are equal.

    Args:
        before: Identity as :meth:`SearchSettings.identify` returned it; {} from earlier versions.
        now: Identity of another search.
    """
    has_same_parts = {*before} == {*now}
    shared = ({*before} & {*now}) - {"sha256"}
    different = differences({k: before[k] for k in shared}, {k: now[k] for k in shared})
    if different or not has_same_parts or before.get("sha256") == now.get("sha256"):
        return different
    return differences({"sha256": before["sha256"]}, {"sha256": now["sha256"]})


_UNSET = object()


def _shown(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "not set"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values of nested mappings by their full key."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def refuse_other_settings(before: tuple[Any, Any], now: tuple[Any, Any]) -> None:
    """Checks that a storage holds a search with the same settings.

    Args:
        before: Settings and identity that the storage holds, as plain values.
        now: Settings and identity of the search that opens it.

    Raises:
        SearchError: The settings or the identity differ; the message names their keys.
    """
    for part in before:
        if not isinstance(part, Mapping):
            raise SearchError(
                f"the storage has the settings {str(part)[:60]!r} instead of those of a search; "
                "use another storage"
            )
    different = [
        settings_differences(before[0], now[0]),
        identity_differences(before[1], now[1]),
    ]
    if any(different):
        raise SearchError(
            "the storage holds a search with other settings: "
            f"{'; '.join(filter(None, different))}; use the same settings or another storage"
        )


def without_iterations(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings without ``iterations``, which may be raised to continue a search."""
    return {key: value for key, value in settings.items() if key != "iterations"}


def to_plain(value: object) -> Any:
    """Returns a value as JSON represents it, with None for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def trial_to_json(trial: Trial) -> str:
    """Returns a finished trial as JSON.

    The final score takes the place of ``score``, which may depend on other trials.
    """
    values = {**trial.to_dict(), "score": trial.final_score}
    del values["score_names"]  # the same in all trials of a search
    # Defaults of these fields are left out, as in storages of earlier versions.
    for name in ("earlier_reasons", "scores", "enqueued", "replicate"):
        if values[name] in ([], {}, None, 0):
            del values[name]
    return json.dumps(values)


def trial_from_json(text: str | bytes, where: str = "storage") -> Trial:
    """Returns a finished trial from its JSON.

    Args:
        text: JSON, perhaps from an untrusted source.
        where: Source of the text, for the error message: ``storage`` or ``log``.

    Raises:
        SearchError: The text is not a finished trial. A running one is refused, since it would be
            trained in a folder whose name is its untrusted id.
    """
    try:
        if len(text) > _MAX_CHARACTERS:
            raise ValueError(f"{len(text)} characters")
        values = json.loads(text)
        wrong = _wrong_keys(values)
        if wrong:
            raise ValueError(f"bad value of {', '.join(wrong)}")
        return Trial.from_dict(values)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise SearchError(
            f"the {where} holds a trial that this program did not write: {str(text)[:60]}... "
            f"({type(error).__name__}: {error}); use another {where}"
        ) from error


def _wrong_keys(values: Mapping[str, Any]) -> list[str]:
    """Returns the keys of a trial's JSON whose values no finished trial has.

    Raises:
        KeyError: A key is missing or unknown.
    """
    wrong = [
        key
        for key, value in values.items()
        if not isinstance(value, _KINDS[key]) or isinstance(value, bool)
    ]
    if wrong:
        return wrong
    is_complete = values["state"] == "complete"
    epochs = [int(epoch) for epoch in values["reports"]]
    checks = {
        "number": 0 <= values["number"] < 2**31,
        "batch": 0 <= values["batch"] < 2**31,
        "max_epochs": 0 <= (values["max_epochs"] or 0) <= MAX_EPOCHS,  # 0: an early stop of 0.1.0
        "statistics": all(map(_is_finite, values["statistics"].values())),
        "predicted": values["predicted"] is None or _is_finite(values["predicted"]),
        "stage": values["stage"] in ("coarse", "fine"),
        "state": is_complete or values["state"] == "failed",
        "score": _is_finite(values["score"]) if is_complete else values["score"] is None,
        "final_score": values["final_score"] == values["score"],
        # an evaluation may report NaN
        "reports": all(0 <= epoch <= MAX_EPOCHS for epoch in epochs)
        and all(_is_float(value) for value in values["reports"].values()),
        "reason": is_complete or values["reason"] is not None,
        "earlier_reasons": all(isinstance(r, str) for r in values.get("earlier_reasons", ())),
        "replicate": 0 <= values.get("replicate", 0) < 2**31,
        "scores": all(map(_is_finite, values.get("scores", {}).values())),
    }
    return [key for key, is_right in checks.items() if not is_right]


def _is_float(value: Any) -> bool:
    """Returns whether a value is a number in the range of floats, infinity and NaN included."""
    if isinstance(value, bool) or not isinstance(value, _NUMBER):
        return False
    return isinstance(value, float) or abs(value) < 2**1023


def _is_finite(value: Any) -> bool:
    return _is_float(value) and math.isfinite(value)


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
