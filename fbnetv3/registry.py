"""The class :class:`Registry`: objects of one kind by the names that configs give them.

The registries themselves (optimizers, data sets, networks, losses, executors, ...) are in
``fbnetv3/registries.py``. Ops have tables of their own, in ``arch/ops.py`` (costs) and
``modeling/registry.py`` (modules), and so have architectures, in ``arch/registry.py``.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from fbnetv3.errors import FBNetError, did_you_mean

T = TypeVar("T")
Registered = TypeVar("Registered", bound=Any)


class RegistryError(FBNetError):
    """A name is not allowed, registered already or unknown, or has a malformed argument."""


class Registry(Generic[T]):
    """Objects of one kind by name, such as the functions that build optimizers.

    Example::

        OPTIMIZERS: Registry[OptimizerFactory] = Registry("optimizer", declared=("sgd",))

        @OPTIMIZERS.register("sgd")
        def sgd(params, recipe): ...

    Args:
        kind: What an entry is, as messages name it: "optimizer", "data set".
        declared: Names that are known before the module that registers them is imported, so that
            a layer without torch can check a name. Each is registered once later, by a module of
            this package.
        error: Class of the errors, a RegistryError by default.

    Attributes:
        kind: What an entry is.
        registrations: Number of registrations so far.
    """

    def __init__(
        self,
        kind: str,
        declared: Iterable[str] = (),
        error: type[FBNetError] = RegistryError,
    ) -> None:
        self.kind = kind
        self._declared = tuple(declared)
        self._entries: dict[str, T] = {}
        self._error = error
        self.registrations = 0

    def register(self, name: str) -> Callable[[Registered], Registered]:
        """Returns a decorator that registers an object under a name and returns it unchanged.

        Args:
            name: Name in configs and on the command line; a non-empty string without spaces.

        Raises:
            FBNetError: The name is not allowed (raised here), is one of ``declared`` although the
                object is not of this package, or is registered already (both raised by the
                decorator). A definition that is run again, for example in a cell of a notebook,
                replaces the earlier one.
        """
        if not isinstance(name, str) or not name or any(c.isspace() for c in name):
            raise self._error(
                f"{self.kind} name {name!r} is not allowed; give a string without spaces"
            )

        def add(entry: Registered) -> Registered:
            if name in self._declared and not _is_of_package(entry):
                raise self._error(f"{self.kind} {name!r} is built in; choose another name")
            if name in self._entries and not _is_same_definition(entry, self._entries[name]):
                place = _place(self._entries[name])
                raise self._error(
                    f"{self.kind} {name!r} is already registered{place}; choose another name"
                )
            self._entries[name] = entry
            self.registrations += 1
            return entry

        return add

    def get(self, name: str) -> T:
        """Returns the entry of a name.

        Raises:
            FBNetError: No entry is registered under this name; the message lists the known names.
        """
        if name not in self._entries:
            raise self._error(f"{self.kind} {name!r} is unknown; {self.allowed(name)}")
        return self._entries[name]

    def allowed(self, name: object) -> str:
        """Returns the end of a message about an unknown name: what is allowed, and similar names.

        The message mentions ``--import``, because the names that a file registers are unknown until
        that file is imported.
        """
        known = self.names()
        parts = [*known, f"{'or ' if known else ''}a name that a file of --import registers"]
        return f"allowed: {', '.join(parts)}{did_you_mean(str(name), known)}"

    def names(self) -> list[str]:
        """Returns the known names: declared ones, then others in the order of registration."""
        return list(dict.fromkeys((*self._declared, *self._entries)))

    def __contains__(self, name: object) -> bool:
        return name in self._declared or name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """Returns the name and the arguments of ``NAME?KEY=VALUE&...``.

    Values are bools, numbers, tuples or words.

    Raises:
        RegistryError: An argument is not ``KEY=VALUE``, or its value is of another type.
    """
    name, _, query = str(text).partition("?")
    return name, dict(_argument(text, pair) for pair in query.split("&") if pair)


def _argument(text: str, pair: str) -> tuple[str, Any]:
    key, _, value = pair.partition("=")
    if key.isidentifier() and value.isidentifier() and value not in ("True", "False", "None"):
        return key, value
    try:
        argument = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        argument = None
    if not key.isidentifier() or not isinstance(argument, (bool, int, float, tuple)):
        raise RegistryError(
            f"{text}: {pair!r} is not allowed; write KEY=VALUE with a number, True, False, a tuple "
            "of numbers, or a word"
        )
    return key, argument


def _is_of_package(entry: Any) -> bool:
    return str(getattr(entry, "__module__", "")).startswith("fbnetv3.")


def _is_same_definition(entry: Any, other: Any) -> bool:
    """Returns whether two distinct classes or functions have the same module and name.

    They then count as one definition that was run twice. Lambdas have no name of their own.
    """
    names = [
        (getattr(e, "__module__", None), getattr(e, "__qualname__", None)) for e in (entry, other)
    ]
    is_named = None not in names[0] and "<lambda>" not in str(names[0][1])
    return entry is not other and names[0] == names[1] and is_named


def _place(entry: Any) -> str:
    """Returns " in FILE, line N" for an entry that has source code, else ""."""
    try:
        file, line = inspect.getsourcefile(entry), inspect.getsourcelines(entry)[1]
    except (TypeError, OSError):
        return ""
    return f" in {file}, line {line}"
