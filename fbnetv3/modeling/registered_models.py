"""Networks that programs have registered, for ``build_model("my/net?width=32")``."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from fbnetv3.arch import ArchError
from fbnetv3.registries import NETWORKS

# Arguments that build_model sets itself, so that the name of a network must not set them
_RESERVED = ("num_classes", "drop_rate", "drop_path_rate")


def build(
    name: str,
    num_classes: int,
    drop_rate: float,
    drop_path_rate: float,
    arguments: dict[str, Any],
) -> nn.Module:
    """Returns the network that a registered function builds and initialises.

    Args:
        name: Registered name of the network.
        num_classes: Number of logits.
        drop_rate: Dropout rate in [0, 1); passed on unless it is 0.
        drop_path_rate: Rate of stochastic depth in [0, 1); passed on unless it is 0.
        arguments: Keyword arguments from the name after ``?``.

    Raises:
        ArchError: The function does not accept an argument or rate, or returns no module; or the
            arguments set the number of classes or a rate.
        RegistryError: No network has this name.
    """
    make = NETWORKS.get(name)
    accepted = _accepted(make)
    rates = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    given = arguments | {key: rate for key, rate in rates.items() if rate}
    for key, value in given.items():
        is_reserved = key in arguments and key in _RESERVED
        if is_reserved or (accepted is not None and key not in accepted):
            problem = f"network {name} has no such {'rate' if key in rates else 'argument'}"
            if is_reserved:
                problem = f"network {name}: this argument cannot be set in the name of a network"
            allowed = ", ".join(a for a in accepted or () if a not in _RESERVED) or "none"
            if key in rates and not is_reserved:
                allowed = f"0, unless the network's function accepts the argument {key}"
            raise ArchError(problem, key=key, value=value, allowed=allowed)
    model = make(num_classes, **given)
    if not isinstance(model, nn.Module):
        problem = f"network {name}: its function returned a {type(model).__name__}"
        raise ArchError(problem, key="name", value=name, allowed="an nn.Module")
    return model


def _accepted(make: Any) -> list[str] | None:
    """Returns the names of the arguments after the number of classes; None: any are accepted."""
    try:
        parameters = list(inspect.signature(make).parameters.values())
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
