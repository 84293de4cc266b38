"""Names of networks that have no architecture table: ``LIBRARY/NAME?KEY=VALUE&...``.

LIBRARY is ``torchvision`` or ``timm``. A network that ``fbnetv3.register_network`` has registered
has such a name, too, with any LIBRARY or none. NAME may be followed by arguments of the network's
builder (numbers, true or false, words, or lists of these), and by ``low_resolution=True`` for the
paper's variant for small images: ``timm/resnet18?channels=(16,32,64,128)&low_resolution=True``. The
whole string is the name of the network in configs, checkpoints and exported weights.

:func:`parse_query` and :func:`format_name` serve every network whose name may carry arguments.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fbnetv3.arch.errors import ArchError
from fbnetv3.registries import NETWORKS

LIBRARIES = ("torchvision", "timm")
REGISTERED = ""
"""Value of :attr:`LibraryName.library` for a registered network."""
LOW_RESOLUTION_KEY = "low_resolution"
DEFAULT_RESOLUTION = 224
"""Side of the input of such a network in pixels if a config does not set it."""

# A name may come from an untrusted weights file. So its words have no characters of paths and
# addresses, and its numbers are not large enough to exhaust the memory.
_MAX_NUMBER, _MAX_LENGTH = 4096, 64
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_FLAGS = {"true": True, "false": False}
# values that are refused as words, in lower case
_NO_WORDS = ("true", "false", "none", "null", "nan", "inf", "infinity")
_ALLOWED = (
    f"a bool, a number of magnitude at most {_MAX_NUMBER}, a word (a letter, then letters, digits, "
    "_ and -, at most 64 characters; not none, null, nan or inf), or a (nested) list of 1 to "
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
        ArchError: An argument is not of the form ``KEY=VALUE``, is given twice, or its value is not
            allowed (see :func:`parse_query`).
    """
    name = text.partition("?")[0]
    library = REGISTERED
    if name not in NETWORKS:
        library, _, name = name.partition("/")
    arguments = parse_query(text)
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
    name, _, query = text.partition("?")
    # low_resolution=False may stand there already, and no key may be given twice
    pairs = [p for p in query.split("&") if p and p.partition("=")[0] != LOW_RESOLUTION_KEY]
    return f"{name}?{'&'.join([*pairs, f'{LOW_RESOLUTION_KEY}=True'])}"


def parse_query(text: str) -> dict[str, Any]:
    """Returns the arguments after the ``?`` of a network's name; {} if there are none.

    ``2`` is an int, ``0.5`` and ``1e-5`` are floats, ``true`` and ``False`` bools, ``[1, 2]`` and
    ``(1, 2)`` tuples. Anything else must be a word, with or without quotes, such as ``gelu``.

    Args:
        text: Name of a network, ``NAME?KEY=VALUE&KEY=VALUE``.

    Raises:
        ArchError: An argument is not of the form ``KEY=VALUE``, is given twice, or its value is not
            a bool, a number of magnitude at most 4096, a word, or a (nested) list of 1 to 64 of
            these.
    """
    arguments: dict[str, Any] = {}
    for pair in text.partition("?")[2].split("&"):
        if not pair:
            continue
        key, equals, value = pair.partition("=")
        if not (equals and key.isidentifier()):
            problem = "arguments must have the form KEY=VALUE"
            raise ArchError(problem, arch=text, key="name", value=pair)
        if key in arguments:
            raise ArchError("given twice", arch=text, key=key, value=value, allowed="one value")
        arguments[key] = _value(text, key, value)
    return arguments


def format_name(base: str, arguments: Mapping[str, Any]) -> str:
    """Returns the name of a network with arguments, which :func:`parse_query` reads back.

    Args:
        base: Name without arguments, such as ``timm/resnet18``.
        arguments: Value by argument; the order is kept.

    Raises:
        ArchError: A value cannot be part of a name.
    """
    for key, value in arguments.items():
        if not _is_plain(value):
            raise ArchError("not allowed", arch=base, key=key, value=value, allowed=_ALLOWED)
    query = "&".join(f"{key}={_text(value)}" for key, value in arguments.items())
    return f"{base}?{query}" if query else base


def _text(value: Any) -> str:
    """Returns a value as text without spaces."""
    if isinstance(value, (tuple, list)):
        return f"[{','.join(map(_text, value))}]"
    return str(value)


def _value(text: str, key: str, value: str) -> Any:
    plain: Any = value
    if value.lower() in _FLAGS:
        plain = _FLAGS[value.lower()]
    elif not _WORD.fullmatch(value):
        # Python joins adjacent strings, such as ['a' 'b'], which are not allowed here.
        is_joined = re.search(r"['\"\w]\s+['\"\w]|''|\"\"", value) is not None
        try:
            plain = _with_tuples(ast.literal_eval("" if is_joined else _quoted(value)))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            plain = None
    if not _is_plain(plain):
        raise ArchError("not allowed", arch=text, key=key, value=value, allowed=_ALLOWED)
    return plain


def _quoted(value: str) -> str:
    """Quotes the words of a list, and writes its bools as Python's, so that Python can parse it.

    Args:
        value: Text of an argument; one that is no list is returned unchanged.
    """
    if value[:1] not in ("[", "("):
        return value

    def quote(match: re.Match[str]) -> str:
        word = match[0]
        return str(_FLAGS[word.lower()]) if word.lower() in _FLAGS else f"'{word}'"

    return re.sub(r"(?<![\w.+'\"-])[A-Za-z][A-Za-z0-9_-]*(?!['\"\w])", quote, value)


def _with_tuples(value: Any) -> Any:
    return tuple(map(_with_tuples, value)) if isinstance(value, (tuple, list)) else value


def _is_plain(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return 0 < len(value) <= _MAX_LENGTH and all(_is_plain(v) for v in value)
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None and value.lower() not in _NO_WORDS
    return isinstance(value, (bool, int, float)) and abs(value) <= _MAX_NUMBER
