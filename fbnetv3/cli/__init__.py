"""Console scripts: parsing of command lines and printing. ``tools/*.py`` call them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from fbnetv3.errors import FBNetError, one_line
from fbnetv3.requires import naming_extras
from fbnetv3.streams import guarded_streams


def run_main(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Runs a command; an error that the user can act on becomes one line on standard error.

    Closed or full standard output is such an error, too, even if the command itself succeeded.

    Args:
        main: Function of the command, from arguments to the exit status.
        argv: Command-line arguments; None: those of the process.

    Returns:
        The exit status: that of ``main``, 2 after an error, 130 after Ctrl-C.
    """
    with guarded_streams():
        try:
            with naming_extras():
                return _flushed(main, argv)
        except FBNetError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except MemoryError:
            print("error: the memory is full; free some, or use smaller batches", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130


def _flushed(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Calls a command's function and flushes standard output, also before a SystemExit."""
    try:
        status = main(argv)
    except SystemExit:  # after --help, or a wrong option
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return status


def printable(text: str) -> str:
    """Returns lines with control characters escaped, so that untrusted names are safe to print."""
    return "\n".join(one_line(line, limit=len(line)) for line in text.split("\n"))
