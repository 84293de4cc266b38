"""JointNAS: search an architecture and its training recipe together (paper, section 3).

The search itself handles variables, statistics, constraints and scores; the subpackage ``fbnet``
adds networks, images and configs. A candidate passes through these files:

* ``space/feasible.py``: a quasi-random (Sobol) point becomes one value for each variable; what
  meets the constraints joins the pool, from which candidates are chosen.
* ``planner.py``: candidates are chosen by the functions of ``acquisition`` and become trials.
* ``running.py``: trials are handed to an executor, and their results are stored.
* ``fbnet/evaluator.py``: a candidate is trained and reports the score of each epoch.
* ``history.py``: candidates are compared by their scores at the epoch of the early stop if there
  is one, and otherwise by their final scores.
* ``result.py``: the trial with the best score is the winner.
* ``fbnet/winners.py``: the winner's training config is written as yaml.

Names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fbnetv3.requires import naming_extras

# Module of each public name, relative to this package
_HOME_OF = {
    "Choice": "space.space",
    "Constraint": "space.constraints",
    "EvolutionSettings": "acquisition.fine",
    "FloatRange": "space.space",
    "InfeasibleError": "errors",
    "InProcess": "executors.base",
    "IntRange": "space.space",
    "JointNAS": "jointnas",
    "LocalWorkers": "executors.local",
    "RayWorkers": "executors.ray",
    "SearchError": "errors",
    "SearchResult": "result",
    "SearchSettings": "settings",
    "SearchSpace": "space.space",
    "StoredStudy": "storage.earlier_trials",
    "Trial": "trial",
    "When": "space.space",
}
__all__ = [
    "Choice",
    "Constraint",
    "EvolutionSettings",
    "FloatRange",
    "InProcess",
    "InfeasibleError",
    "IntRange",
    "JointNAS",
    "LocalWorkers",
    "RayWorkers",
    "SearchError",
    "SearchResult",
    "SearchSettings",
    "SearchSpace",
    "StoredStudy",
    "Trial",
    "When",
]

if TYPE_CHECKING:
    from fbnetv3.search.acquisition.fine import EvolutionSettings
    from fbnetv3.search.errors import InfeasibleError, SearchError
    from fbnetv3.search.executors.base import InProcess
    from fbnetv3.search.executors.local import LocalWorkers
    from fbnetv3.search.executors.ray import RayWorkers
    from fbnetv3.search.jointnas import JointNAS
    from fbnetv3.search.result import SearchResult
    from fbnetv3.search.settings import SearchSettings
    from fbnetv3.search.space.constraints import Constraint
    from fbnetv3.search.space.space import Choice, FloatRange, IntRange, SearchSpace, When
    from fbnetv3.search.storage.earlier_trials import StoredStudy
    from fbnetv3.search.trial import Trial


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        with naming_extras():
            return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
