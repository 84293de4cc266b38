"""Turns the return value of an evaluation into a score or the reason of a failure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fbnetv3.errors import one_line

_MAX_REASON, _MAX_VALUE = 500, 80  # characters of a reason, and of a value in a message
_CONTAINERS = (tuple, list, dict, set, frozenset)


def score_of(value: object) -> tuple[float | None, str | None]:
    """Returns (score, None) for a finite number, and (None, reason of the failure) otherwise.

    Both are plain Python values, so that a worker can send them. NumPy's numbers and tensors with
    one element are accepted as scores.

    Args:
        value: Return value of an evaluation.
    """
    if value is None:
        return None, "no score was returned"
    if isinstance(value, _CONTAINERS):
        return None, (
            f"the score is the {type(value).__name__} {short(value)}, not a number; return the "
            "score alone, or name several scores by objectives= and return them as a dict; "
            "a function given as statistics= computes costs that need no evaluation"
        )
    try:
        number = float(scalar(value))
    except KeyboardInterrupt:
        raise
    except BaseException:  # float() of a foreign object may raise anything
        return None, f"the score is {short(value)}, not a number"
    if not math.isfinite(number):
        return None, f"the score is {number}"
    return number, None


def result_of(value: object, names: Sequence[str] = ()) -> tuple[Any, str | None]:
    """Returns (score, None) or (scores by name, None), and (None, reason of the failure) otherwise.

    Args:
        value: Return value of an evaluation.
        names: Names of the scores that the search needs; (): a single number is the score.
    """
    if not names or value is None:
        return score_of(value)
    if not isinstance(value, Mapping):
        text = f"the evaluation returned {short(value)}, not a mapping of scores by name"
        return None, f"{text}; the objectives need {', '.join(names)}"
    missing = [name for name in names if name not in value]
    if missing:
        has = f"returned the scores {short(list(value))}"
        return None, f"the evaluation {has}; the objectives also need {', '.join(missing)}"
    scores = {}
    for name in names:
        scores[name], problem = score_of(value[name])
        if problem is not None:
            return None, f"{name}: {problem}"
    return scores, None


def scalar(value: object) -> Any:
    """Returns the element of an array or tensor of shape (); any other value as it is."""
    item = getattr(value, "item", None)
    return item() if getattr(value, "shape", None) == () and callable(item) else value


def short(value: object) -> str:
    """Returns the representation of a value on one line of at most 80 characters."""
    try:
        text = reason_text(repr(value))
    except Exception:  # repr() of a foreign object may raise anything
        text = f"a {type(value).__name__}"
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 3]}..."


def reason_text(text: object) -> str:
    """Returns one line of at most 500 characters, which every storage can hold.

    White space is collapsed. Lone surrogates, as in names of files that are not UTF-8, and control
    characters are escaped.
    """
    return one_line(" ".join(str(text).split()), _MAX_REASON)
