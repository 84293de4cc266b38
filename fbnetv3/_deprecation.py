"""Old names that still work: each use warns, and says since when, until when and what to use.

CONTRIBUTING.md has the policy. The warnings are FutureWarnings, which Python shows by default,
unlike most DeprecationWarnings.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from typing_extensions import ParamSpec
from typing_extensions import deprecated as _pep_702

P = ParamSpec("P")
T = TypeVar("T")


def message(what: str, *, since: str, removed_in: str, instead: str) -> str:
    """Returns the text of a warning.

    Args:
        what: The old name, with its kind: ``the argument depth``, ``the config key MODEL.SIZE``.
        since: Version that deprecated it, such as ``0.2.0``.
        removed_in: Version that will no longer have the old name.
        instead: The new name, or another replacement.
    """
    return f"{what} is deprecated since {since} and is removed in {removed_in}; use {instead}"


def warn_deprecated(
    what: str, *, since: str, removed_in: str, instead: str, stacklevel: int = 2
) -> None:
    """Warns of an old name; the arguments are those of :func:`message`.

    Args:
        stacklevel: See :func:`warnings.warn`; 2 shows the line that calls this function's caller.
    """
    text = message(what, since=since, removed_in=removed_in, instead=instead)
    warnings.warn(text, FutureWarning, stacklevel=stacklevel + 1)


def deprecated(since: str, removed_in: str, instead: str) -> Callable[[T], T]:
    """Returns a decorator for a function or class that warns when it is called.

    Its attribute ``__deprecated__`` has the text of the warning (PEP 702). The arguments are those
    of :func:`message`.

    Example:
        >>> @deprecated("0.3.0", "0.5.0", "fbnetv3.build_model")
        ... def create_model(name): ...
    """

    def decorate(callable_: T) -> T:
        name = f"{getattr(callable_, '__name__', callable_)}"
        text = message(name, since=since, removed_in=removed_in, instead=instead)
        decorated: T = _pep_702(text, category=FutureWarning)(callable_)
        return decorated

    return decorate


def renamed_argument(
    old: str, new: str, *, since: str, removed_in: str
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Returns a decorator for a function that still takes a keyword argument by its old name.

    Args:
        old: Old name of the argument.
        new: Its name in the signature.
        since: Version that renamed it.
        removed_in: Version that will no longer take the old name.

    Raises:
        TypeError: A call gives both names (raised by the decorated function).
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            if old in kwargs:
                if new in kwargs:
                    raise TypeError(f"{old} is the old name of {new}; give {new} alone")
                what = f"the argument {old} of {function.__name__}"
                warn_deprecated(what, since=since, removed_in=removed_in, instead=new)
                renamed: Any = {new if key == old else key: kwargs[key] for key in kwargs}
                return function(*args, **renamed)
            return function(*args, **kwargs)

        return wrapper

    return decorate
