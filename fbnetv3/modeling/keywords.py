"""The keyword arguments of a network's class."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def constructor_keywords(network: type) -> Mapping[str, inspect.Parameter]:
    """Returns the keyword arguments with defaults of a class, by name.

    If the constructor takes ``**kwargs``, the keyword arguments of the base class are included.

    Args:
        network: The class, such as ``timm.models.resnet.ResNet``.
    """
    keywords: dict[str, inspect.Parameter] = {}
    for cls in network.__mro__:
        if "__init__" not in cls.__dict__:
            continue
        parameters = list(inspect.signature(cls.__dict__["__init__"]).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind not in _VARIADIC:
                keywords.setdefault(parameter.name, parameter)
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return {k: p for k, p in keywords.items() if p.default is not inspect.Parameter.empty}
