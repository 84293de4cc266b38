"""The errors of data sets, images and loaders, and helpers for messages about them."""

from __future__ import annotations

from collections.abc import Sequence

from fbnetv3.errors import FBNetError


class DataError(FBNetError):
    """A data set is missing or malformed, or does not fit the request."""


class MissingDataError(DataError):
    """A data set is missing: none of the paths at which it may be exists."""


def some(names: Sequence[str], limit: int = 5) -> str:
    """Returns the first ``limit`` names, joined by commas, and the number of the others."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def plural(count: int, noun: str, suffix: str = "s") -> str:
    """Returns a count with its noun, such as ``1 image`` and ``2 images``."""
    return f"{count} {noun}{'' if count == 1 else suffix}"


def class_counts(classes: Sequence[str], counts: Sequence[int], limit: int = 10) -> str:
    """Returns the number of classes and the count of each, such as ``2 classes: lily 8, rose 9``.

    Args:
        classes: Names of the classes, which may repeat.
        counts: Number of images or boxes of each class.
        limit: Largest number of classes to list; the others are summarised.
    """
    listed = [f"{name} {count}" for name, count in zip(classes, counts, strict=True)][:limit]
    rest = counts[limit:]
    if rest:
        least, most = min(rest), max(rest)
        each = f"{least}" if least == most else f"{least} to {most}"
        listed.append(f"{len(rest)} more with {each} each")
    return f"{plural(len(classes), 'class', 'es')}: {', '.join(listed)}"


def all_problems(problems: Sequence[str], limit: int = 5) -> str:
    """Returns the only problem, or the number of problems and the first ``limit`` on one line."""
    if len(problems) == 1:
        return problems[0]
    more = f" | and {len(problems) - limit} more" if len(problems) > limit else ""
    return f"{len(problems)} problems: {' | '.join(problems[:limit])}{more}"
