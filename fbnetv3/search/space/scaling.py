"""Scaling by powers of two: only the exponents of the numbers change.

This is exact unless a product overflows, or is so small that float64 has fewer digits for it.

Scores and statistics may have any unit: they may be probabilities of 1e-13 or counts of 1e160.
Squares may overflow or underflow, and a fixed tolerance fits one unit only. Values are therefore
scaled to a largest magnitude between 0.5 and 1 before they are squared or compared with a
tolerance. If the squares of the values neither overflow nor underflow, this changes only the
outcomes of these comparisons, and no bit of any other result.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_LARGEST = float(np.finfo(np.float64).max)


def binary_exponent(*values: npt.ArrayLike) -> int:
    """Returns e such that the largest magnitude of the values is in [2^(e-1), 2^e).

    e is 0 if there are no values, or if all values are 0.

    Args:
        *values: Finite values, as numbers or arrays.
    """
    largest = max((float(np.abs(v).max(initial=0.0)) for v in values), default=0.0)
    return int(np.frexp(largest)[1])


def scaled(values: npt.ArrayLike, exponent: int) -> Floats:
    """Returns values times 2^exponent, as finite numbers.

    Args:
        values: Finite values.
        exponent: Exponent of two. Products beyond the largest float64 are clipped to it.
    """
    with np.errstate(over="ignore", under="ignore"):
        products = np.ldexp(np.asarray(values, dtype=np.float64), exponent)
    return np.clip(products, -_LARGEST, _LARGEST)


def to_unit(values: npt.ArrayLike) -> Floats:
    """Returns values divided by the power of two above their largest magnitude."""
    return scaled(values, -binary_exponent(values))
