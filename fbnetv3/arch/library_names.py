"""Names of other libraries' networks: ``LIBRARY/NAME?KEY=VALUE&...``.

LIBRARY is ``torchvision`` or ``timm``. NAME may be followed by arguments of the library's builder,
which are numbers or tuples of them, and by ``low_resolution=True`` for the paper's form for small
images: ``timm/resnet18?channels=(16,32,64,128)&low_resolution=True``. The whole text is the
network's name everywhere: in configs, checkpoints and exported weights.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from fbnetv3.arch.errors import ArchError

LIBRARIES = ("torchvision", "timm")
FORM = "low_resolution"
RESOLUTION = 224
"""Side of the input in pixels where nothing else is told."""

# names may come with the weights of others: no text, and nothing that could fill the memory
_MOST, _LONGEST = 4096, 64
_NUMBERS = f"numbers up to {_MOST}, or tuples of up to {_LONGEST}"


@dataclass(frozen=True)
class LibraryName:
    """What ``LIBRARY/NAME?KEY=VALUE&...`` says."""

    library: str
    name: str
    arguments: dict[str, Any]
    low_resolution: bool


def is_library_name(name: object) -> bool:
    """Tells whether a name begins with that of a library and a slash."""
    return isinstance(name, str) and name.partition("/")[0] in LIBRARIES and "/" in name


def parse(text: str) -> LibraryName:
    """Takes the name of a library's network apart.

    Raises:
        ArchError: An argument is no ``KEY=VALUE``, or its value is not of numbers.
    """
    library, _, rest = text.partition("/")
    name, _, query = rest.partition("?")
    arguments = dict(_argument(text, pair) for pair in query.split("&") if pair)
    form = arguments.pop(FORM, False)
    if not isinstance(form, bool):
        raise ArchError(f"{text}: not allowed", key=FORM, value=form, allowed="True or False")
    return LibraryName(library, name, arguments, form)


def with_low_resolution(text: str) -> str:
    """Returns the name of a network's form for small images."""
    if parse(text).low_resolution:
        return text
    return f"{text}{'&' if '?' in text else '?'}{FORM}=True"


def _argument(text: str, pair: str) -> tuple[str, Any]:
    key, equals, value = pair.partition("=")
    if not (equals and key.isidentifier()):
        problem = f"{text}: an argument is not understood"
        raise ArchError(problem, key="name", value=pair, allowed="KEY=VALUE")
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if not _is_numbers(found):
        problem = f"{text}: an argument has no such values"
        raise ArchError(problem, key=key, value=value, allowed=_NUMBERS)
    return key, found


def _is_numbers(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return 0 < len(value) <= _LONGEST and all(_is_numbers(v) for v in value)
    return isinstance(value, (bool, int, float)) and abs(value) <= _MOST
