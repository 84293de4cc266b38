"""Names of the winners of budgets, which differ for different budgets."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from decimal import Decimal

from fbnetv3.search.space.constraints import Constraint

_LETTER = r"[^\W\d_]"
_PLAIN_STATISTIC = re.compile(rf"{_LETTER}[^\W_]*(_{_LETTER}[^\W_]*)*")
"""Statistics whose names do not read as a part of a number: parts that begin with a letter."""
_WORDS = frozenset(("from", "to", "drop", "evolved"))
"""Words between the parts of a winner's name."""
_LIKE_NUMBER = re.compile(r"m|e\d.*", re.IGNORECASE)
"""Units that read as the end of a number: the M of millions, or an exponent."""
_LONGEST = 150
"""Longest name in bytes; file systems allow 255, and suffixes such as ``_full.yaml`` follow."""
_KEPT = 40
"""Characters that are kept of a longer name."""


def winner_name(bounds: Sequence[Constraint], drop: Sequence[str] = ()) -> str:
    """Returns the name of the winner for a budget, which no other budget has.

    Examples are ``best_macs_1.5M``, ``best_latency_2ms``, ``best_macs_450M_latency_5ms``,
    ``best_macs_1M_params_from_0.1M``, ``best_macs_from_1M_to_2M`` and ``best_macs_2M_drop_params``.
    Without bounds, the name is ``best_evolved``. A name that could be read in two ways, because of
    the names of the statistics, and a long name end with a hash of the budget.

    Args:
        bounds: Bounds of the budget.
        drop: Statistics whose constraint in SEARCH.CONSTRAINTS does not apply to the winner.
    """
    texts = [_bound_text(bound) for bound in bounds if (bound.lower, bound.upper) != (None, None)]
    dropped = [f"drop_{name}" for name in sorted(set(drop))]
    name = re.sub(r"[^\w.+-]", "_", "_".join(["best", *(texts or ["evolved"]), *dropped]))
    is_plain = all(map(_is_plain, [*(bound.name for bound in bounds), *drop]))
    if is_plain and len(name.encode()) <= _LONGEST:
        return name
    budget = repr(([(b.name, b.lower, b.upper) for b in bounds], sorted(set(drop))))
    return f"{name[:_KEPT]}_{hashlib.sha256(budget.encode()).hexdigest()[:8]}"


def _is_plain(statistic: str) -> bool:
    """Returns whether the end of a statistic's name is clear within the name of a winner."""
    unit = statistic.partition("_")[2]
    is_number = _LIKE_NUMBER.fullmatch(unit) is not None
    parts = _WORDS.intersection(statistic.split("_"))
    return _PLAIN_STATISTIC.fullmatch(statistic) is not None and not is_number and not parts


def _bound_text(bound: Constraint) -> str:
    """Returns bounds as text: ``macs_2M``, ``macs_from_1M`` or ``macs_from_1M_to_2M``."""
    statistic, _, unit = bound.name.partition("_")
    lower, upper = (
        None if value is None else _number(value, 0 if unit else 6) + (unit or "M")
        for value in (bound.lower, bound.upper)
    )
    if lower is None:
        return f"{statistic}_{upper}"
    return f"{statistic}_from_{lower}" + ("" if upper is None else f"_to_{upper}")


def _number(value: float, exponent: int) -> str:
    """Returns a value divided by 10 to the power of ``exponent``, with all of its digits."""
    exact = Decimal(repr(value)).scaleb(-exponent)
    short = f"{value / 10**exponent:g}"
    return short if Decimal(short) == exact else str(exact.normalize()).lower()
