"""The option ``--import`` of all commands but ``fbnetv3-install-detectron2``."""

from __future__ import annotations

import argparse

from fbnetv3.user_code import import_user_code


def import_option() -> argparse.ArgumentParser:
    """Returns a parent parser with ``--import``, for the parsers of commands."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="first import this module or FILE.py, which may register networks, data sets, "
        "optimizers and more (docs/extending.md); may be given several times",
    )
    return parser


def import_code(arguments: argparse.Namespace) -> None:
    """Imports what ``--import`` names.

    Raises:
        UserCodeError: A module or file cannot be imported; the message names its file and line.
    """
    import_user_code(arguments.imports)
