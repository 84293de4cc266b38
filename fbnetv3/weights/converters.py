"""Strict loading of state dicts in several layouts.

Weights are refused if they have a tensor that the model lacks, or lack a tensor that the model has.
Two kinds of tensors may be missing and are then set to zero, which does not change the outputs: the
bias of the stem in timm's layout, and the counters of batch norms.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from fbnetv3.arch import Arch
from fbnetv3.weights.classes import reorder_rows
from fbnetv3.weights.errors import LoadError
from fbnetv3.weights.layouts import published_names, timm_names

_SHOWN = 3  # largest number of names that a message lists
_PUBLISHED_MARK = "backbone.stages.xif"  # see published_names in layouts.py
_COUNTER = "num_batches_tracked"  # of batch norms; no output depends on it


@dataclass(frozen=True)
class LoadSummary:
    """The outcome of loading weights into a model; ``str(summary)`` is one line.

    Attributes:
        layout: How the weights' tensors are named: ``"fbnetv3"`` (as in this project), ``"fbnet"``
            (as in the published FBNet files), ``"timm"``, or ``"plain"`` (as in the state dict of a
            model that is no FBNet).
        loaded: Number of tensors taken from the weights.
        zero_filled: Names of the model's tensors that the weights lack and that are set to zero,
            which does not change the outputs.
        skipped: Names of the classifier's tensors if they were not loaded, because the classes
            differ or the caller keeps the model's classifier.
        source: File or address of the weights.
        other_classes: Description of how the classes of the weights differ from the model's; empty
            if the classifier was loaded. :func:`load_state_dict` compares only the numbers of
            classes; :func:`~fbnetv3.weights.load.load_weights` also compares their names.
        reordered: Whether the rows of the classifier were put into another order of classes.
        other_network: How the network of the weights differs from the model although all tensors
            have the same shapes; empty if the networks do not differ, or if the file does not name
            its network.
    """

    layout: str
    loaded: int
    zero_filled: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    source: str = "state dict"
    other_classes: str = ""
    reordered: bool = False
    other_network: str = ""

    def __str__(self) -> str:
        parts = [f"loaded {self.loaded} tensors ({self.layout} layout) from {self.source}"]
        if self.zero_filled:
            parts.append(f"zero-filled {_some(self.zero_filled)}")
        if self.skipped:
            parts.append(f"new classifier: {_some(self.skipped)} not loaded")
        if self.reordered:
            parts.append("classifier put into the data's order of classes")
        if self.other_network:
            parts.append(self.other_network)
        return "; ".join(parts)


def _some(names: tuple[str, ...] | list[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def detect_layout(model: nn.Module, state_dict: Mapping[str, torch.Tensor]) -> str:
    """Returns how a state dict's tensors are named; see :attr:`LoadSummary.layout`.

    Args:
        model: Model to load into. If it is no FBNet, the layout is ``plain``.
        state_dict: Tensors by name.
    """
    if not isinstance(getattr(model, "arch", None), Arch):
        return "plain"
    if any(key.startswith(_PUBLISHED_MARK) for key in state_dict):
        return "fbnet"
    return "timm" if "conv_stem.weight" in state_dict else "fbnetv3"


def classifier_of(model: nn.Module) -> str:
    """Returns the name of the last linear or conv layer, which usually computes the logits.

    The name is "" if the model has no such layer.
    """
    kinds = (nn.Linear, nn.Conv2d)
    layers = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    return layers[-1] if layers else ""


def heads_of(model: nn.Module) -> set[str]:
    """Returns the names of the layers that compute logits, with one row per class.

    Most networks have one such layer. Distilled networks of timm have two, whose logits they
    average; networks without a classifier have none.
    """
    get_classifier = getattr(model, "get_classifier", None)
    layers = get_classifier() if callable(get_classifier) else None
    layers = layers if isinstance(layers, tuple) else (layers,)
    if all(isinstance(layer, nn.Identity) for layer in layers):
        return set()
    names = {name for name, module in model.named_modules() if any(module is x for x in layers)}
    return names or {classifier_of(model)}


@dataclass
class _Plan:
    """The tensors to load into a model, and the names of tensors that cannot be loaded."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    zero_filled: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    # tensor of the classifier that is not loaded -> classes in the weights, classes in the model
    head: dict[str, tuple[int, int]] = field(default_factory=dict)


def _source_names(
    layout: str, model: nn.Module, keys: list[str], source_keys: list[str]
) -> dict[str, str]:
    """Maps the model's tensor names to the names in the weights."""
    arch = getattr(model, "arch", None)
    if layout == "fbnet":
        return published_names(keys)
    if layout == "timm" and isinstance(arch, Arch):
        return timm_names(arch, keys, source_keys)
    return {key: key for key in keys}


def _is_zero_in_layout(key: str, layout: str) -> bool:
    # timm's stem has no bias, which is equivalent to a bias of zero
    stem_bias = layout == "timm" and key == "backbone.stages.0.0.conv.bias"
    return stem_bias or key.endswith(_COUNTER)


def _as_linear(value: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Returns the weight of a 1x1 conv, (N, C, 1, 1), as (N, C) if the target is linear."""
    if value.dim() == 4 and target.dim() == 2 and value.shape[2:] == (1, 1):
        return value.flatten(1)
    return value


def _plan(model: nn.Module, weights: Mapping[str, torch.Tensor], layout: str) -> _Plan:
    targets = model.state_dict()
    names = _source_names(layout, model, list(targets), list(weights))
    heads, plan = heads_of(model), _Plan()
    for key, target in targets.items():
        if names[key] not in weights:
            if _is_zero_in_layout(key, layout):
                plan.zero_filled.append(key)
                plan.tensors[key] = torch.zeros_like(target)
            else:
                plan.missing.append(key)
            continue
        value = _as_linear(weights[names[key]], target)
        if value.shape == target.shape:
            plan.tensors[key] = value
        elif key.rpartition(".")[0] in heads and value.shape[1:] == target.shape[1:]:
            plan.head[key] = (len(value), len(target))
        else:
            shapes = f"{tuple(value.shape)}, expected {tuple(target.shape)}"
            plan.misshapen.append(f"{names[key]} {shapes}")
    used = {names[key] for key in targets}
    plan.unexpected = [key for key in weights if key not in used]
    return plan


def _model_name(model: nn.Module) -> str:
    arch = getattr(model, "arch", None)
    return arch.name if isinstance(arch, Arch) else type(model).__name__


def _check_fit(plan: _Plan, model: nn.Module, layout: str, source: str) -> None:
    problems = {
        "missing": plan.missing,
        "unexpected": plan.unexpected,
        "of another shape": plan.misshapen,
    }
    parts = [f"{len(v)} {problem}: {_some(v)}" for problem, v in problems.items() if v]
    if parts:
        name = _model_name(model)
        raise LoadError(
            f"{source}: weights ({layout} layout) do not fit {name}: {'; '.join(parts)}; they "
            "probably belong to another network: build that one"
        )


def _check_classes(plan: _Plan, source: str) -> None:
    if plan.head:
        in_weights, in_model = next(iter(plan.head.values()))
        raise LoadError(
            f"{source}: the weights have {in_weights} classes, the model has {in_model}; use data "
            f"of {in_weights} classes (in Python: num_classes={in_weights}), or train a new "
            "classifier (in Python: allow_new_head=True)"
        )


def _other_num_classes(plan: _Plan) -> str:
    in_weights, in_model = next(iter(plan.head.values()), (0, 0))
    if in_weights == in_model:
        return ""
    return f"the weights have {in_weights} classes, the model has {in_model}"


def _fit_head(plan: _Plan, heads: set[str], order: Sequence[int] | None, new_head: bool) -> bool:
    """Leaves out the tensors of the classifier, or puts their rows into another order.

    Returns:
        Whether the order of the rows changed.
    """
    reordered = False
    for key in [key for key in plan.tensors if key.rpartition(".")[0] in heads]:
        rows = len(plan.tensors[key])
        if new_head:
            plan.head[key] = (rows, rows)
            del plan.tensors[key]
        elif order is not None and rows == len(order):
            plan.tensors[key] = reorder_rows(plan.tensors[key], order)
            reordered = list(order) != sorted(order)
    return reordered


def _warn_about_paddings(model: nn.Module, layout: str) -> None:
    arch = getattr(model, "arch", None)
    if layout != "timm" or not isinstance(arch, Arch):
        return
    if any(layer.k and layer.padding != layer.k // 2 for layer in arch.layers()):
        warnings.warn(
            f"timm's weights were trained with paddings of k // 2, but {arch.name} has other ones; "
            "build fbnetv3.arch.scaling.aligned(arch) to get timm's outputs",
            stacklevel=3,
        )


def load_state_dict(
    model: nn.Module,
    state_dict: Mapping[str, torch.Tensor],
    *,
    allow_new_head: bool = False,
    new_head: bool = False,
    order: Sequence[int] | None = None,
    source: str = "state dict",
) -> LoadSummary:
    """Loads weights in any known layout into a model; if one tensor does not fit, none is loaded.

    Args:
        model: Network of ``build_model``, or any other module, if the tensors have that module's
            own names.
        state_dict: Tensors in this project's layout, the published FBNet layout or timm's.
        allow_new_head: Whether to keep the model's classifier if its number of classes differs
            from that of the weights.
        new_head: Whether to keep the model's classifier in any case.
        order: For each class of the model, its row in the classifier of the weights; None if the
            order is the same.
        source: File or address of the weights, for the summary and error messages.

    Returns:
        A summary of the loaded, zero-filled and skipped tensors.

    Raises:
        LoadError: Tensors are missing, unexpected or have another shape, for example because the
            number of classes differs. The model is unchanged.
    """
    layout = detect_layout(model, state_dict)
    plan = _plan(model, state_dict, layout)
    _check_fit(plan, model, layout, source)
    if not allow_new_head:
        _check_classes(plan, source)
    reordered = _fit_head(plan, heads_of(model), order, new_head)
    _warn_about_paddings(model, layout)
    model.load_state_dict(plan.tensors, strict=not plan.head)
    return _summary(plan, layout, source, reordered)


def _summary(plan: _Plan, layout: str, source: str, reordered: bool) -> LoadSummary:
    return LoadSummary(
        layout=layout,
        loaded=len(plan.tensors) - len(plan.zero_filled),
        zero_filled=tuple(plan.zero_filled),
        skipped=tuple(plan.head),
        source=source,
        other_classes=_other_num_classes(plan),
        reordered=reordered,
    )
