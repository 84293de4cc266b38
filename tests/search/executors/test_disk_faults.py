"""Which errors are disk faults, and which are the fault of a candidate."""

from __future__ import annotations

import errno
import os

import pytest

from fbnetv3.io import WriteError
from fbnetv3.search import SearchError
from fbnetv3.search.errors import StorageUnavailableError
from fbnetv3.search.executors.disk_faults import disk_fault


def _raised_from(cause: Exception) -> RuntimeError:
    error = RuntimeError("could not be saved")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        WriteError("cannot write /a/b: it is full"),
        StorageUnavailableError("/a/b is gone"),
        *(OSError(n, os.strerror(n), "/a/b") for n in (errno.ENOSPC, errno.EROFS, errno.EACCES)),
        _raised_from(OSError(errno.EDQUOT, "quota\nexceeded", "/a/b")),
    ],
    ids=repr,
)
def test_a_disk_fault_is_described_on_one_line(error: Exception) -> None:
    text = disk_fault(error)
    assert text is not None
    assert "/a/b" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "error",
    [
        SearchError("no number"),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        FileNotFoundError(errno.ENOENT, "No such file", "/a/b"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        OSError("without an errno"),
        _raised_from(ValueError("loss is nan")),
    ],
    ids=repr,
)
def test_other_errors_are_no_disk_faults(error: Exception) -> None:
    assert disk_fault(error) is None


def test_an_error_that_is_its_own_cause() -> None:
    error = RuntimeError("a")
    error.__cause__ = error
    assert disk_fault(error) is None
