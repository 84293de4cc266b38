"""Standard output and error that may be closed, or lead to a full disk or a dead terminal.

Results go to standard output: a failed write raises an error. Failed writes of logs and error
messages, which go to standard error, and of progress displays (:func:`quiet`) are ignored.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast

from fbnetv3.errors import FBNetError


class OutputError(FBNetError):
    """Standard output is closed or cannot be written to."""


class _Wrapper:
    """A text stream that takes attributes it does not define (encoding etc.) from another one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        raise NotImplementedError

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)


class _CheckedStream(_Wrapper):
    """A text stream that raises an OutputError at the first failed write and all later writes."""

    def __init__(self, stream: TextIO, problem: str = "") -> None:
        super().__init__(stream)
        self._problem = problem

    def write(self, text: str) -> int:
        if self._problem and text:
            raise OutputError(self._problem)
        try:
            return self._stream.write(text)
        except OSError as error:
            raise self._failure(error) from error

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> OutputError:
        self._problem = f"cannot write to standard output: {error.strerror or error}"
        # Python flushes the stream again at exit, where a failure would change the exit status. So
        # the text that is still in the buffer goes to the null device.
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
        return OutputError(self._problem)


class _QuietStream(_Wrapper):
    """A text stream that ignores failed writes."""

    def write(self, text: str) -> int:
        with suppress(OSError, OutputError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, OutputError):
            self._stream.flush()


def quiet(stream: TextIO) -> TextIO:
    """Returns a stream that writes to another one and ignores failures, for progress displays."""
    return cast(TextIO, _QuietStream(stream))


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Turns failed writes to ``sys.stdout`` into OutputErrors, and ignores those to ``sys.stderr``.

    Flush ``sys.stdout`` before the block ends: text that is still in a buffer is written after the
    block, where a failure is no OutputError.
    """
    _open_descriptors()
    if sys.stdout is None:  # closed when Python started
        checked = _CheckedStream(io.StringIO(), "cannot write to standard output: it is closed")
    else:
        checked = _CheckedStream(sys.stdout)
    stderr = quiet(sys.stderr or io.StringIO())
    with redirect_stdout(cast(TextIO, checked)), redirect_stderr(stderr):
        yield


def _open_descriptors() -> None:
    """Opens the null device for each closed standard descriptor.

    Otherwise the next opened file would get this number, and C libraries would write into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # os.open returns the lowest free number, which is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
