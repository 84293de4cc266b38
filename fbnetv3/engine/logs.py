"""Logging to the terminal and to log.txt."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from fbnetv3.engine.launch import is_lost_connection
from fbnetv3.errors import FBNetError
from fbnetv3.io import WriteError, refuse_links_out

_LOGGERS = ("fbnetv3", "detectron2", "fvcore")


class _Terminal(logging.Handler):
    """Prints to the current ``sys.stderr``, which a progress bar replaces while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one line."""
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except OSError:  # a closed terminal does not end the training
            self.handleError(record)


class _LogFile(logging.FileHandler):
    """A log file whose write errors are ignored: a full disk fails the next checkpoint anyway."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignores the error; the line is lost."""


def setup_logging(folder: Path | None, rank: int) -> None:
    """Sends the log of this package and of detectron2 to the terminal and to ``log.txt``.

    Args:
        folder: Folder of the run, in which rank 0 writes ``log.txt``; None: no file.
        rank: Rank of this process; ranks other than 0 log warnings only.

    Raises:
        WriteError: The folder cannot be written to, or its log.txt is a link that leads out of it.
    """
    handlers: list[logging.Handler] = [_Terminal()]
    if folder is not None and rank == 0:
        handlers.append(_log_file(folder))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        handler.addFilter(_is_no_handled_error)
    for name in _LOGGERS:
        _redirect(logging.getLogger(name), handlers, rank)


def _log_file(folder: Path) -> logging.Handler:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        refuse_links_out(folder, ("log.txt",))
        return _LogFile(folder / "log.txt", encoding="utf-8")
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


def _is_no_handled_error(record: logging.LogRecord) -> bool:
    """Returns False for tracebacks, logged by detectron2's loop, of errors that are handled.

    Errors that a user can act on, and lost connections to other ranks, are printed in one line
    elsewhere.
    """
    error = record.exc_info[1] if record.exc_info else None
    return error is None or not (isinstance(error, FBNetError) or is_lost_connection(error))
