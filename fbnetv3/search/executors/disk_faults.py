"""Faults of the place in which candidates train: no candidate is to fail for them."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from fbnetv3.io import WriteError
from fbnetv3.search.errors import PlaceError

# full, forbidden, broken or gone; a file that is not there may be the candidate's fault
_ERRNOS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ESTALE,
    errno.ENOTCONN,
)


def fault_of_place(error: BaseException) -> str | None:
    """Returns what is wrong with the place, and what to do, on one line; None: nothing.

    Args:
        error: that ended an evaluation, perhaps because of another (``raise ... from``).
    """
    for cause in _causes(error):
        if isinstance(cause, WriteError | PlaceError):
            return _one_line(cause)
        if isinstance(cause, OSError) and cause.errno in _ERRNOS:
            return f"{_one_line(cause)}; free space, or allow it there"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error, and those that it was raised from."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]
