"""Names of networks that have no architecture table: ``LIBRARY/NAME?KEY=VALUE&...``.

LIBRARY is ``torchvision`` or ``timm``. A network that ``fbnetv3.register_network`` has registered
has such a name, too, with any LIBRARY or none. NAME may be followed by arguments of the network's
builder (numbers, or tuples of numbers), and by ``low_resolution=True`` for the paper's variant for
small images: ``timm/resnet18?channels=(16,32,64,128)&low_resolution=True``. The whole string is the
name of the network in configs, checkpoints and exported weights.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from fbnetv3.arch.errors import ArchError
from fbnetv3.registries import NETWORKS

LIBRARIES = ("torchvision", "timm")
REGISTERED = ""
"""Value of :attr:`LibraryName.library` for a registered network."""
LOW_RESOLUTION_KEY = "low_resolution"
DEFAULT_RESOLUTION = 224
"""Side of the input in pixels if a config does not set it."""

# A name may come from an untrusted weights file, so its arguments cannot be strings, or numbers
# large enough to exhaust the memory.
_MAX_NUMBER, _MAX_LENGTH = 4096, 64
_ALLOWED = (
    f"a bool, a number of magnitude at most {_MAX_NUMBER}, or a (nested) tuple of up to "
    f"{_MAX_LENGTH} of them"
)


@dataclass(frozen=True)
class LibraryName:
    """The parts of a name ``LIBRARY/NAME?KEY=VALUE&...``.

    Attributes:
        library: ``torchvision``, ``timm``, or :data:`REGISTERED`.
        name: Name of the network in its library, or its registered name.
        arguments: Arguments of the library's builder.
        low_resolution: Whether the network is the variant for small images.
    """

    library: str
    name: str
    arguments: dict[str, Any]
    low_resolution: bool


def is_library_name(name: object) -> bool:
    """Returns whether a name begins with ``torchvision/`` or ``timm/``, or is a registered one."""
    if not isinstance(name, str):
        return False
    return name.partition("?")[0] in NETWORKS or (
        name.partition("/")[0] in LIBRARIES and "/" in name
    )


def parse_library_name(text: str) -> LibraryName:
    """Returns the parts of the name of a library's network.

    Raises:
        ArchError: An argument is not of the form ``KEY=VALUE``, or its value is not a
            bool, a number of magnitude at most 4096, or a (nested) tuple of up to 64 of these.
    """
    name, _, query = text.partition("?")
    library = REGISTERED
    if name not in NETWORKS:
        library, _, name = name.partition("/")
    arguments = dict(_argument(text, pair) for pair in query.split("&") if pair)
    low_resolution = arguments.pop(LOW_RESOLUTION_KEY, False)
    if not isinstance(low_resolution, bool):
        raise ArchError(
            "not allowed",
            arch=text,
            key=LOW_RESOLUTION_KEY,
            value=low_resolution,
            allowed="True or False",
        )
    return LibraryName(library, name, arguments, low_resolution)


def with_low_resolution(text: str) -> str:
    """Returns the name of the network's variant for small images."""
    if parse_library_name(text).low_resolution:
        return text
    return f"{text}{'&' if '?' in text else '?'}{LOW_RESOLUTION_KEY}=True"


def _argument(text: str, pair: str) -> tuple[str, Any]:
    key, equals, value = pair.partition("=")
    if not (equals and key.isidentifier()):
        problem = "arguments must have the form KEY=VALUE"
        raise ArchError(problem, arch=text, key="name", value=pair)
    try:
        argument = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        argument = None
    if not _is_numbers(argument):
        raise ArchError("not allowed", arch=text, key=key, value=value, allowed=_ALLOWED)
    return key, argument


def _is_numbers(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return 0 < len(value) <= _MAX_LENGTH and all(_is_numbers(v) for v in value)
    return isinstance(value, (bool, int, float)) and abs(value) <= _MAX_NUMBER
