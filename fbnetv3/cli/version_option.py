"""The option ``--version``, which all commands have."""

from __future__ import annotations

import argparse
from typing import Any

from fbnetv3.version import package_version


class _PrintVersion(argparse.Action):
    """Prints the version, which is looked up on demand, and ends the command."""

    def __call__(self, parser: argparse.ArgumentParser, *values: Any) -> None:
        print(f"{parser.prog} {package_version()}")
        parser.exit()


def version_option() -> argparse.ArgumentParser:
    """Returns a parent parser with ``--version``, for the parsers of all commands."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--version", action=_PrintVersion, nargs=0, help="print the version and exit"
    )
    return parser
