"""Freezing parts of a network: parameters by pattern, and batch norms with frozen parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fbnetv3.config import ConfigError
from fbnetv3.data.errors import some
from fbnetv3.engine.detectron2_loop import HookBase
from fbnetv3.errors import did_you_mean


def freeze(model: nn.Module, patterns: str) -> list[_BatchNorm]:
    """Sets ``requires_grad`` to False for the parameters that patterns select.

    A pattern selects a parameter if it matches the parameter's name, or the name of a module that
    contains the parameter: ``backbone.stages.0`` and ``backbone.stages.[0-2]`` freeze whole stages.

    Args:
        model: Network; its parameters are changed.
        patterns: Shell-style patterns, separated by commas; "" freezes nothing.

    Returns:
        The batch norms all of whose parameters are frozen, for :class:`FrozenNormsHook`; [] without
        patterns.

    Raises:
        ConfigError: A pattern selects no parameter.
    """
    frozen = frozen_names(model, patterns)
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    return _frozen_norms(model) if _listed(patterns) else []


def frozen_names(model: nn.Module, patterns: str) -> set[str]:
    """Returns the names of the parameters that patterns select; see :func:`freeze`.

    Raises:
        ConfigError: A pattern selects no parameter.
    """
    names = {name: set(_names(name)) for name, _ in model.named_parameters()}
    frozen = set[str]()
    for pattern in _listed(patterns):
        matches = {key for key, ns in names.items() if any(fnmatchcase(n, pattern) for n in ns)}
        if not matches:
            raise ConfigError(_unmatched(pattern, model, sorted(set().union(*names.values()))))
        frozen |= matches
    return frozen


def _listed(patterns: str) -> list[str]:
    return [pattern.strip() for pattern in patterns.split(",") if pattern.strip()]


class FrozenNormsHook(HookBase):
    """Keeps batch norms in evaluation mode, in which their statistics do not change.

    An evaluation puts the whole network back into training mode, so this is done before every step.

    Args:
        norms: Batch norms of the network, as :func:`freeze` returned them.
    """

    def __init__(self, norms: Sequence[nn.Module]) -> None:
        self._norms = norms

    def before_step(self) -> None:
        """Puts the norms into evaluation mode."""
        for norm in self._norms:
            norm.eval()


def _frozen_norms(model: nn.Module) -> list[_BatchNorm]:
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [
        norm
        for norm in norms
        if (parameters := list(norm.parameters())) and not any(p.requires_grad for p in parameters)
    ]


def _names(parameter: str) -> Iterator[str]:
    """Yields the name of a parameter, and the names of the modules that contain it."""
    parts = parameter.split(".")
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[:length])


def _unmatched(pattern: str, model: nn.Module, names: Sequence[str]) -> str:
    children = model.named_children()
    parts = [name for name, module in children if next(module.parameters(), None) is not None]
    return (
        f"MODEL.FREEZE: {pattern!r} matches no parameter of the network, whose parts are "
        f"{some(parts)}{did_you_mean(pattern, names)}"
    )
