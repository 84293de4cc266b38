"""Logging to the terminal and to log.txt."""

from __future__ import annotations

import errno
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fbnetv3.engine.launch import is_lost_connection
from fbnetv3.errors import FBNetError
from fbnetv3.io import WriteError, refuse_links_out

_LOGGERS = ("fbnetv3", "detectron2", "fvcore")  # whose lines are shown and kept


class _Terminal(logging.Handler):
    """Prints to the current ``sys.stderr``, which a progress bar replaces while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one line."""
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except OSError:  # a closed terminal does not end the training
            self.handleError(record)


class _LogFile(logging.FileHandler):
    """A log file, which begins with the lines that were logged before it was opened.

    Errors in writing a line are ignored: on a full disk, the next checkpoint reports the error.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", delay=True)
        self._waiting: list[logging.LogRecord] | None = []

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line, or keeps it until the file is opened."""
        if self._waiting is None:
            super().emit(record)
        else:
            self._waiting.append(record)

    def start(self) -> None:
        """Opens the file and writes the lines that were kept; without effect on an open file."""
        if self._waiting is None:
            return
        self.stream = self._open()
        waiting, self._waiting = self._waiting, None
        for record in waiting:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignores the error; the line is lost."""


def setup_logging(folder: Path | None, rank: int) -> None:
    """Sends the logs of this package, detectron2 and fvcore to the terminal and to ``log.txt``.

    The file is created by :func:`start_log_file`: a training that is refused leaves no file behind.

    Args:
        folder: Folder of the run, in which rank 0 writes ``log.txt``; None: no file.
        rank: Rank of this process; ranks other than 0 log warnings only.

    Raises:
        WriteError: The folder cannot be written to, or its log.txt is a link that leads out of it,
            a pipe or a device.
    """
    handlers: list[logging.Handler] = [_Terminal()]
    if folder is not None and rank == 0:
        handlers.append(_log_file(folder))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        handler.addFilter(_is_logged)
    for name in _LOGGERS:
        _redirect(logging.getLogger(name), handlers, rank)


def start_log_file() -> None:
    """Creates the ``log.txt`` that :func:`setup_logging` was asked for, with the lines so far.

    Raises:
        WriteError: The folder of the run cannot be written to.
    """
    for handler in logging.getLogger(_LOGGERS[0]).handlers:
        if isinstance(handler, _LogFile):
            folder = Path(handler.baseFilename).parent
            with _write_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                handler.start()


def _log_file(folder: Path) -> logging.Handler:
    with _write_errors(folder):
        _check_writable(folder)
        refuse_links_out(folder, ("log.txt",))
        return _LogFile(folder / "log.txt")


def _check_writable(folder: Path) -> None:
    """Raises an OSError if a folder (if missing: its nearest existing parent) is not writable."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    with tempfile.TemporaryFile(dir=place):
        pass


@contextmanager
def _write_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"cannot write in OUTPUT_DIR {folder}: {error.strerror or error}; choose a writable "
            "folder"
        ) from error


def _redirect(logger: logging.Logger, handlers: list[logging.Handler], rank: int) -> None:
    for old in logger.handlers:
        if isinstance(old, _LogFile):
            old.close()
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    others = [old for old in logger.handlers if not isinstance(old, (_Terminal, _LogFile))]
    logger.handlers = [*others, *handlers]  # a caller's own handlers stay
    logger.propagate = False


def _is_logged(record: logging.LogRecord) -> bool:
    """Returns whether to log a record; False for the traceback of an expected error.

    detectron2's loop logs the traceback of each error. Errors that a user can act on (FBNetError),
    and lost connections to other ranks, are printed elsewhere in one line.
    """
    error = record.exc_info[1] if record.exc_info else None
    return error is None or not (isinstance(error, FBNetError) or is_lost_connection(error))
