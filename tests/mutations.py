"""Seeded mutations of valid documents, and the promise that every reader of them keeps."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from fbnetv3.errors import FBNetError

ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 3, 2**31, -(2**63), 2**63, 2**64, 10**30, 10**400, -(10**400)),
    *(0.0, -0.5, 0.5, 1e9, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), 1e-320),
    *("", "x", "1", "1e400", "nan", "a\nb", "\x1b[2J\u202e", "\ud800", "\0", "x" * 5000, "../x"),
    *([], [1], [[1], [2], [3]], [None], ["x"] * 4, [10**400] * 4, {}, {"x": 1}, {"": None}),
    *([1] * 2000, {str(i): i for i in range(500)}, [[[[[[[[1]]]]]]]], {"a": {"b": {"c": {}}}}),
]


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yields each (container, key) of a document."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(items):
        yield tree, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


def mutations(tree: Any, count: int, seed: int = 0) -> Iterator[Any]:
    """Yields copies of a document with one or two values replaced, removed or doubled.

    Args:
        tree: Document of dicts and lists.
        count: Number of copies.
        seed: Seed of the choices.
    """
    source = random.Random(seed)
    for _ in range(count):
        changed = copy.deepcopy(tree)
        for _ in range(source.choice((1, 1, 2))):
            places = list(_places(changed))
            if not places:
                break
            container, key = source.choice(places)
            action = source.random()
            if action < 0.1:
                del container[key]
            elif action < 0.2 and isinstance(container, list):
                container.append(copy.deepcopy(container[key]))
            elif action < 0.25 and isinstance(container, dict):
                container[source.choice(["unknown", "", "\n"])] = container.pop(key)
            else:
                container[key] = copy.deepcopy(source.choice(ODD))
        yield changed


def assert_refused_or_read(read: Callable[[], Any], document: Any, seconds: float = 20.0) -> bool:
    """Asserts that a reader succeeds or raises an FBNetError of one line, within seconds.

    Args:
        read: Function that reads the document.
        document: The document, for the message of a failure.
        seconds: Time limit, generous for a busy machine.

    Returns:
        Whether the document was read.
    """
    began, error = time.monotonic(), None
    try:
        read()
    except FBNetError as refusal:
        error = refusal
        message = str(refusal)
        assert message.isprintable(), (message, str(document)[:500])
        assert len(message) < 5000
    except BaseException as failure:
        raise AssertionError(f"{failure!r} for {str(document)[:1500]}") from failure
    assert time.monotonic() - began < seconds, str(document)[:500]
    return error is None
