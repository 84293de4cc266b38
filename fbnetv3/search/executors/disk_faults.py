"""Errors of disks and cloud storage, which must not fail the candidate that hit them."""

from __future__ import annotations

from collections.abc import Iterator

from fbnetv3.io import WriteError, is_disk_fault
from fbnetv3.search.errors import StorageUnavailableError


def disk_fault(error: BaseException) -> str | None:
    """Returns the disk fault behind an error and its remedy, on one line; None if there is none.

    Args:
        error: Exception that ended an evaluation. Its causes (``raise ... from``) are examined too.
    """
    for cause in _causes(error):
        if isinstance(cause, WriteError | StorageUnavailableError):
            return _one_line(cause)
        if is_disk_fault(cause):  # False for a missing file, which may be the evaluation's mistake
            return f"{_one_line(cause)}; free space, or grant write access"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and the errors that it was raised from."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]
