"""Where the log goes."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from fbnetv3.engine.launch import is_lost_connection
from fbnetv3.errors import FBNetError
from fbnetv3.io import WriteError, refuse_links_out

_LOGGERS = ("fbnetv3", "detectron2", "fvcore")


class _Terminal(logging.Handler):
    """Prints to what ``sys.stderr`` is at that moment: a progress bar puts itself in between."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one line."""
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except OSError:  # as logging does: a closed terminal does not end the training
            self.handleError(record)


class _LogFile(logging.FileHandler):
    """A log file that gives up in silence: a full disk is told by what really needs it."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Leaves the line out."""


def setup_logging(folder: Path | None, rank: int) -> None:
    """Sends our log and detectron2's to the terminal and, from rank 0, to ``log.txt``.

    Args:
        folder: of the run; None writes no file.
        rank: of this process; others than 0 log warnings only.

    Raises:
        WriteError: the folder can't be written, or its log.txt is a link out of it.
    """
    handlers: list[logging.Handler] = [_Terminal()]
    if folder is not None and rank == 0:
        handlers.append(_log_file(folder))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        handler.addFilter(_without_our_tracebacks)
    for name in _LOGGERS:
        _redirect(logging.getLogger(name), handlers, rank)


def _log_file(folder: Path) -> logging.Handler:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        refuse_links_out(folder, ("log.txt",))
        return _LogFile(folder / "log.txt", encoding="utf-8")
    except OSError as error:
        raise WriteError(
            f"cannot write in OUTPUT_DIR {folder}: {error.strerror or error}; choose a folder "
            "that is writable"
        ) from error


def _redirect(logger: logging.Logger, handlers: list[logging.Handler], rank: int) -> None:
    for old in logger.handlers:
        if isinstance(old, _LogFile):
            old.close()
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    logger.handlers = list(handlers)
    logger.propagate = False


def _without_our_tracebacks(record: logging.LogRecord) -> bool:
    """detectron2's loop logs every exception with its traceback; ours are told in one line.

    So is the end of another rank, which has told why.
    """
    error = record.exc_info[1] if record.exc_info else None
    return error is None or not (isinstance(error, FBNetError) or is_lost_connection(error))
