"""Extension of griffe that shows the roles of docstrings, such as ``:func:`name```, as code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):`[~.]?([^`]+)`")


class Roles(Extension):
    """Replaces roles in the docstrings of all objects."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrites the docstring of an object when it is loaded."""
        if obj.docstring:
            obj.docstring.value = _ROLE.sub(r"`\1`", obj.docstring.value)
