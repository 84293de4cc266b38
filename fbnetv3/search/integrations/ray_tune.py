"""A searcher of Ray Tune that proposes the trials of a two-stage search."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from fbnetv3.io import atomic_write, read_text
from fbnetv3.requires import require
from fbnetv3.search.direction import MAXIMIZE, MINIMIZE
from fbnetv3.search.errors import SearchError
from fbnetv3.search.jointnas import JointNAS
from fbnetv3.search.outcome import short
from fbnetv3.search.settings import SearchSettings
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import SCORE, Trial

require("ray.tune", "tune")

from ray.tune.search import Searcher  # noqa: E402

_DIRECTIONS = {"max": MAXIMIZE, "min": MINIMIZE}
_FIXED = {
    "direction": "mode= sets it",
    "executor": "Ray Tune evaluates the trials",
    "ahead": "a saved state does not have the order of the results",
    "rungs": "a trainable is not told the epoch at which to stop; use a scheduler of Ray Tune",
    "final_seeds": "a trainable is not told the seed, so that all of a finalist would be the same",
}
"""Arguments of :class:`JointNAS` that are not allowed, and why."""
_IN_SETTINGS = ("ahead", "rungs", "final_seeds")
"""Those of them that ``settings`` may have, too; the searcher replaces the direction there."""


class JointNASSearcher(Searcher):
    """Proposes the trials of a :class:`~fbnetv3.search.JointNAS` to Ray Tune.

    A batch is proposed once all trials of the batch before have ended; until then, Tune waits. The
    tuning ends with the last batch: give Tune ``num_samples=-1`` (no limit). The values of the
    metric that a trial reports are its scores by ``training_iteration``, for early stopping; the
    last value is its final score. If ``objectives`` or ``score_constraints`` name several scores,
    the metrics of these names in the last result are the scores; the metric itself is the first
    one, also under the name ``score``. ``param_space`` of the tuner may hold constants only.

    Args:
        space: Space of the candidates.
        metric: Name of the metric; None: that of the tuner.
        mode: ``max`` or ``min``; None: that of the tuner.
        **arguments: Further arguments of :class:`~fbnetv3.search.JointNAS`, except ``executor``,
            ``direction``, ``ahead``, ``rungs`` and ``final_seeds``. The epoch of the early stop is
            not passed on to Ray Tune, which trains to the end or until a scheduler stops a trial.

    Raises:
        SearchError: An argument is not allowed.
        MissingPackageError: Ray Tune is not installed; raised when the module is imported.
    """

    def __init__(
        self,
        space: SearchSpace,
        metric: str | None = None,
        mode: str | None = None,
        **arguments: Any,
    ) -> None:
        for name in _set_in(arguments):
            raise SearchError(
                f"JointNASSearcher: {name}= is not allowed, since {_FIXED[name]}; leave it out"
            )
        if mode not in (None, *_DIRECTIONS):
            raise SearchError(f"JointNASSearcher: mode={short(mode)} is unknown; allowed: max, min")
        super().__init__(metric=metric, mode=mode)
        self._space, self._arguments = space, arguments
        self._search: JointNAS | None = None
        self._numbers: dict[str, int] = {}  # numbers of trials by Tune's ids
        # Both by number of the trial: the scores by training_iteration, and the result of a trial
        # that has ended, a pair (score, reason of a failure).
        self._reports: dict[int, dict[int, float]] = {}
        self._results: dict[int, tuple[float | dict[str, float] | None, str | None]] = {}

    @property
    def search(self) -> JointNAS:
        """The search, whose :meth:`~JointNAS.result` has trials and predictor.

        Raises:
            SearchError: Metric and mode are not known yet.
        """
        if self._search is None:
            if not self._metric or self._mode not in _DIRECTIONS:
                raise SearchError(
                    "JointNASSearcher needs metric= and mode='max' or 'min': as arguments, or in "
                    "TuneConfig"
                )
            direction = _DIRECTIONS[self._mode]
            self._search = JointNAS(self._space, direction=direction, **self._arguments)
            self._replay(self._search)
        return self._search

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        if self._search is None:
            self._metric = self._metric or metric
            self._mode = self._mode or mode
        return False  # Tune then refuses variables in param_space, and accepts constants

    def suggest(self, trial_id: str) -> Any:
        waiting = self.search.ask()
        if not waiting:
            return str(Searcher.FINISHED)
        self._check_metric(waiting[0].score_names)
        taken = {*self._numbers.values()}
        trial = next((t for t in waiting if t.number not in taken), None)
        if trial is None:
            return None
        self._numbers[trial_id] = trial.number
        return dict(trial.config)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        number, score = self._numbers.get(trial_id), _finite(result, self._metric)
        step = result.get("training_iteration")
        if number is not None and score is not None and isinstance(step, int):
            self._reports.setdefault(number, {})[step] = score

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        number = self._numbers.get(trial_id)
        if number is None or number in self._results:
            return
        if result:
            self.on_trial_result(trial_id, result)
        self._results[number] = self._result(trial_id, result or {}, error)
        self._tell(self.search)

    def _check_metric(self, score_names: tuple[str, ...]) -> None:
        """Checks that the metric is the first of several scores.

        Args:
            score_names: Names of the scores; () if there is one.

        Raises:
            SearchError: It is another one, whose values would be taken for those of the first.
        """
        if score_names and score_names[0] not in (SCORE, self._metric):
            raise SearchError(
                f"JointNASSearcher: metric={short(self._metric)} is not the first score of the "
                f"objectives; give metric={score_names[0]!r}, or name the metric first there"
            )

    def _result(
        self, trial_id: str, result: dict[str, Any], error: bool
    ) -> tuple[float | dict[str, float] | None, str | None]:
        """Returns the score, or scores by name, of a waiting trial, and the reason of a failure."""
        if error:
            return None, f"Ray Tune: the trial {trial_id} ended with an error"
        names = self.search.ask()[0].score_names
        metrics = {name: self._metric if name == SCORE else name for name in names or (SCORE,)}
        scores: dict[str, float] = {}
        for name, metric in metrics.items():
            score = _finite(result, metric)
            if score is None:
                return None, f"Ray Tune: the trial {trial_id} ended without a finite {metric}"
            scores[name] = score
        return (scores if names else scores[SCORE]), None

    def _tell(self, search: JointNAS) -> int:
        """Stores the results of waiting trials, and returns their number."""
        trials: list[Trial] = [t for t in search.ask() if t.number in self._results]
        for trial in trials:
            trial.reports = dict(self._reports.get(trial.number, {}))
        results = [self._results[trial.number] for trial in trials]
        search.tell(trials, [score for score, _ in results], [reason for _, reason in results])
        return len(trials)

    def _replay(self, search: JointNAS) -> None:
        """Stores the results of a restored state; the search proposes the same trials again."""
        while self._results and self._tell(search):
            pass

    def save(self, checkpoint_path: str) -> None:
        state = {
            "metric": self._metric,
            "mode": self._mode,
            "numbers": self._numbers,
            "reports": self._reports,
            "results": self._results,
        }
        with atomic_write(Path(checkpoint_path)) as temporary:
            temporary.write_text(json.dumps(state), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        try:
            state = json.loads(read_text(checkpoint_path, "record"))
            self._numbers = {str(key): int(n) for key, n in state["numbers"].items()}
            self._reports = {
                int(n): {int(step): float(score) for step, score in reports.items()}
                for n, reports in state["reports"].items()
            }
            self._results = {int(n): (r[0], r[1]) for n, r in state["results"].items()}
            self._metric, self._mode = state["metric"], state["mode"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise SearchError(
                f"{checkpoint_path} is no state of a JointNASSearcher "
                f"({type(error).__name__}: {short(str(error))}); give a file that save() wrote"
            ) from error
        self._search = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_search": None}  # made again from the results


def _finite(result: dict[str, Any], metric: str | None) -> float | None:
    """Returns the value of a metric of a result; None if it has no finite number."""
    value: Any = result.get(metric or "")
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        return None
    return float(value) if math.isfinite(float(value)) else None


def _set_in(arguments: dict[str, Any]) -> list[str]:
    """Returns the arguments that are not allowed but given, by themselves or in ``settings``."""
    settings, defaults = arguments.get("settings"), SearchSettings()
    given = [name for name in _FIXED if name in arguments]
    if isinstance(settings, SearchSettings):
        given += [n for n in _IN_SETTINGS if getattr(settings, n) != getattr(defaults, n)]
    return given
