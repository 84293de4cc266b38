"""Options of a command line that have no effect."""

from __future__ import annotations

import argparse
from collections.abc import Collection


def given_without_effect(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace, effective: Collection[str]
) -> str | None:
    """Returns the name of an argument that was given but has no effect; None if there is none.

    Args:
        parser: Parser of the command line, which has the default values. An argument with its
            default value counts as not given.
        arguments: Command line.
        effective: Names of the arguments that have an effect.
    """
    for name, value in vars(arguments).items():
        if value != parser.get_default(name) and name not in effective:
            return name
    return None


def no_effect(name: str, kind: str) -> str:
    """Returns the error message about an option that has no effect.

    Args:
        name: Name of the argument, such as ``top_k``.
        kind: What it has no effect with, such as ``a detector``.
    """
    return f"--{name.replace('_', '-')} has no effect with {kind}; leave it out"
