"""What is a fault of the place, and what one of a candidate."""

from __future__ import annotations

import errno
import os

import pytest

from fbnetv3.io import WriteError
from fbnetv3.search import SearchError
from fbnetv3.search.errors import PlaceError
from fbnetv3.search.executors.disk_faults import fault_of_place


def _raised_from(cause: Exception) -> RuntimeError:
    error = RuntimeError("could not be saved")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        WriteError("cannot write /a/b: it is full"),
        PlaceError("/a/b is gone"),
        *(OSError(n, os.strerror(n), "/a/b") for n in (errno.ENOSPC, errno.EROFS, errno.EACCES)),
        _raised_from(OSError(errno.EDQUOT, "quota\nexceeded", "/a/b")),
    ],
    ids=repr,
)
def test_of_the_place(error: Exception) -> None:
    found = fault_of_place(error)
    assert found is not None
    assert "/a/b" in found
    assert "\n" not in found


@pytest.mark.parametrize(
    "error",
    [
        SearchError("no number"),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        FileNotFoundError(errno.ENOENT, "No such file", "/a/b"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        OSError("of no number"),
        _raised_from(ValueError("loss is nan")),
    ],
    ids=repr,
)
def test_of_a_candidate(error: Exception) -> None:
    assert fault_of_place(error) is None


def test_a_cause_that_is_its_own() -> None:
    error = RuntimeError("a")
    error.__cause__ = error
    assert fault_of_place(error) is None
