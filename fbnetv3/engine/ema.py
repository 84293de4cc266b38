"""Exponential moving average of a model's weights (paper, A.3, equation 2)."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fbnetv3.errors import FBNetError


class EMAError(FBNetError):
    """An average is used wrongly.

    Its decay is out of range, it does not fit a model or a state, or it is updated, loaded or
    swapped while it is already swapped into a model.
    """


def unwrap(model: nn.Module) -> nn.Module:
    """Returns the network inside DistributedDataParallel, DataParallel or torch.compile."""
    parallel = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    while isinstance(model, parallel) or "_orig_mod" in model._modules:
        model = getattr(model, "_orig_mod" if "_orig_mod" in model._modules else "module")
    return model


def _named_tensors(model: nn.Module) -> dict[str, Tensor]:
    named: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    named.update(model.named_buffers(remove_duplicate=False))
    return named


def _first_names(named: Mapping[str, Tensor]) -> dict[str, str]:
    """Maps each name to the first name of the same tensor; tied weights have several names."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in named.items()}


def _shadow_dtype(tensor: Tensor) -> torch.dtype:
    # With a decay near 1, a change by (1 - decay) would be rounded away in 16 bits.
    small = tensor.is_floating_point() and tensor.element_size() < 4
    return torch.float32 if small else tensor.dtype


def _kind(tensor: Tensor) -> tuple[torch.dtype, torch.device, tuple[int, ...]]:
    return tensor.dtype, tensor.device, tensor.stride()


@dataclass(frozen=True)
class _Plan:
    """The tensors of one model, listed once and used until one of them is replaced.

    Attributes:
        model: The model.
        registries: Pairs (dict, its values when the plan was made), for each module's dicts of
            parameters, buffers and children.
        tensors: Tensors by name; a tied tensor is listed under its first name only.
        kinds: dtype, device and strides of each of ``tensors``.
        averaged: Pairs (averages, tensors of the model), updated together; the tensors of a pair
            have one dtype and device.
        widened: Pairs (float32 average, 16-bit tensor of the model).
        copied: Pairs (averages, tensors of the model) of tensors that are not floating-point.
    """

    model: nn.Module
    registries: list[tuple[dict[str, Any], list[Any]]]
    tensors: dict[str, Tensor]
    kinds: list[tuple[torch.dtype, torch.device, tuple[int, ...]]]
    averaged: list[tuple[list[Tensor], list[Tensor]]]
    widened: list[tuple[Tensor, Tensor]]
    copied: list[tuple[list[Tensor], list[Tensor]]]

    def holds_for(self, model: nn.Module) -> bool:
        """Returns whether ``model`` still has the listed tensor objects, of the listed kinds."""
        return (
            model is self.model
            and all(
                len(registry) == len(values) and all(map(operator.is_, registry.values(), values))
                for registry, values in self.registries
            )
            and all(map(operator.eq, map(_kind, self.tensors.values()), self.kinds))
        )


class ModelEMA:
    """Keeps ``w_ema = decay * w_ema + (1 - decay) * w`` of all parameters and float buffers.

    Integer buffers (``num_batches_tracked``) are copied. Averages of 16-bit tensors are kept in
    float32. The averages follow the model to another device or memory format.

    Args:
        model: Network, bare or wrapped in DistributedDataParallel; the average starts as a copy of
            its tensors.
        decay: Share of the average that an update keeps; in [0, 1).
        warmup: Whether update t (from 0) uses ``min(decay, (1 + t) / (10 + t))``, so that a short
            training forgets its random start.

    Raises:
        EMAError: ``decay`` is out of its range.
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool = False) -> None:
        if not 0.0 <= decay < 1.0:
            raise EMAError(f"EMA decay={decay!r} is out of range; allowed: in [0, 1)")
        self.decay = float(decay)
        self.warmup = bool(warmup)
        self.num_updates = 0
        named = _named_tensors(unwrap(model))
        self._first = _first_names(named)
        self._shadow = {
            name: tensor.detach().to(_shadow_dtype(tensor), copy=True)
            for name, tensor in named.items()
            if self._first[name] == name
        }
        self._saved_dtypes = self._dtypes_of_saved(unwrap(model))
        self._plan: _Plan | None = None
        self._swapped = False

    def current_decay(self) -> float:
        """Returns the decay that the next update uses."""
        if not self.warmup:
            return self.decay
        return min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average towards the model's present weights; call it once after each step.

        Args:
            model: The network.

        Raises:
            EMAError: The model has other tensors, or other tied weights, than the average, or the
                average is swapped into a model.
        """
        self._require_not_swapped("update")
        plan = self._plan_for(unwrap(model))
        weight = 1.0 - self.current_decay()
        for average, current in plan.averaged:
            torch._foreach_lerp_(average, current, weight)
        for wide, narrow in plan.widened:
            wide.lerp_(narrow.to(wide.dtype), weight)
        for average, current in plan.copied:
            torch._foreach_copy_(average, current)
        self.num_updates += 1

    @contextmanager
    def swapped_into(self, model: nn.Module) -> Iterator[nn.Module]:
        """Puts the averaged weights into ``model`` for the length of the ``with`` block.

        The tensor objects of the model stay the same. Their values are restored bit for bit at the
        end, also after an error; changes that the block makes to them are lost.

        Args:
            model: The network.

        Yields:
            ``model``.

        Raises:
            EMAError: The model has other tensors, or other tied weights, than the average, or the
                average is already swapped into a model.
        """
        self._require_not_swapped("swapped_into")
        tensors = dict(self._plan_for(unwrap(model)).tensors)
        backup = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        self._swapped = True
        try:
            _copy_into(tensors, self._shadow)
            yield model
        finally:
            _copy_into(tensors, backup)
            self._swapped = False

    def state_dict(self) -> dict[str, Any]:
        """Returns decay, warmup, num_updates, and the averages themselves (not copies) by name."""
        tensors = {name: self._shadow[first] for name, first in self._first.items()}
        settings = {"decay": self.decay, "warmup": self.warmup, "num_updates": self.num_updates}
        return {**settings, "tensors": tensors}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads averages and settings, decay and warmup included.

        Args:
            state: State as :meth:`state_dict` returns it.

        Raises:
            EMAError: A key or tensor is missing, unexpected or of another shape, or the average
                is swapped into a model. The average is then unchanged.
        """
        self._require_not_swapped("load_state_dict")
        _require_same_names("EMA state", {"decay", "warmup", "num_updates", "tensors"}, state)
        tensors = state["tensors"]
        _require_same_names("EMA state", self._first, tensors)
        for name, first in self._first.items():
            _require_same_shape("EMA state", name, self._shadow[first], tensors[name])
        for name, average in self._shadow.items():
            average.copy_(tensors[name])
        self.decay, self.warmup = float(state["decay"]), bool(state["warmup"])
        self.num_updates = int(state["num_updates"])

    def model_state_dict(self) -> dict[str, Tensor]:
        """Returns copies of the averaged weights under the names of ``model.state_dict()``."""
        return {
            name: self._shadow[self._first[name]].to(dtype, copy=True)
            for name, dtype in self._saved_dtypes.items()
        }

    def _dtypes_of_saved(self, model: nn.Module) -> dict[str, torch.dtype]:
        saved = model.state_dict()
        return {name: saved[name].dtype for name in saved if name in self._first}

    def _require_not_swapped(self, call: str) -> None:
        if self._swapped:
            raise EMAError(
                f"ModelEMA.{call} was called while the average is swapped into a model; "
                "leave the swapped_into block first"
            )

    def _plan_for(self, model: nn.Module) -> _Plan:
        if self._plan is None or not self._plan.holds_for(model):
            self._plan = self._make_plan(model)
        return self._plan

    def _make_plan(self, model: nn.Module) -> _Plan:
        named = _named_tensors(model)
        _require_same_names("the model", self._first, named)
        if _first_names(named) != self._first:
            raise EMAError(
                "the model's tied weights have changed since its ModelEMA was created; create "
                "a new one"
            )
        tensors = {name: named[name] for name in self._shadow}
        for name, tensor in tensors.items():
            _require_same_shape("the model", name, self._shadow[name], tensor)
        for name, tensor in tensors.items():
            self._shadow[name] = _laid_out_like(self._shadow[name], tensor)
        self._saved_dtypes = self._dtypes_of_saved(model)
        return _plan(model, tensors, self._shadow)


@torch.no_grad()
def _laid_out_like(average: Tensor, tensor: Tensor) -> Tensor:
    if average.device == tensor.device and average.stride() == tensor.stride():
        return average
    return torch.empty_like(tensor, dtype=average.dtype, requires_grad=False).copy_(average)


def _plan(model: nn.Module, tensors: dict[str, Tensor], shadow: Mapping[str, Tensor]) -> _Plan:
    averaged: dict[Any, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
    copied: dict[Any, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
    widened: list[tuple[Tensor, Tensor]] = []
    for name, tensor in tensors.items():
        average = shadow[name]
        if average.is_floating_point() and average.dtype != tensor.dtype:
            widened.append((average, tensor))
            continue
        groups = averaged if average.is_floating_point() else copied
        averages, currents = groups[tensor.dtype, tensor.device]
        averages.append(average)
        currents.append(tensor)
    registries = [
        (registry, list(registry.values()))
        for module in model.modules()
        for registry in (module._parameters, module._buffers, module._modules)
    ]
    kinds = [_kind(tensor) for tensor in tensors.values()]
    return _Plan(
        model, registries, tensors, kinds, list(averaged.values()), widened, list(copied.values())
    )


@torch.no_grad()
def _copy_into(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        tensor.copy_(values[name])


def _require_same_names(what: str, expected: Any, actual: Mapping[str, Any]) -> None:
    missing = [name for name in expected if name not in actual]
    extra = [name for name in actual if name not in expected]
    if missing or extra:
        parts = [f"lacks {', '.join(missing[:3])}"] * bool(missing)
        parts += [f"has unexpected {', '.join(extra[:3])}"] * bool(extra)
        raise EMAError(
            f"{what} does not fit the average: it {' and '.join(parts)} "
            f"({len(missing)} missing, {len(extra)} unexpected); use the model that the average "
            "was created from"
        )


def _require_same_shape(what: str, name: str, average: Tensor, actual: Tensor) -> None:
    if average.shape != actual.shape:
        raise EMAError(
            f"{what} does not fit the average: {name} has shape {tuple(actual.shape)}, "
            f"expected {tuple(average.shape)}"
        )
