"""Loading state dicts of several layouts, strictly: every tensor is used, every one is given."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from fbnetv3.arch import Arch
from fbnetv3.weights.errors import LoadError
from fbnetv3.weights.layouts import published_names, timm_names

_SHOWN = 3
_PUBLISHED_MARK = "backbone.stages.xif"
_COUNTER = "num_batches_tracked"  # has no part in any output


@dataclass(frozen=True)
class LoadSummary:
    """What a load did.

    Args:
        layout: of the weights: ``"fbnetv3"``, ``"fbnet"``, ``"timm"`` or ``"plain"``.
        loaded: number of tensors taken from the weights.
        derived: tensors of the model that the layout has not, filled with what they stand for.
        skipped: tensors of the classifier left as they were, for another number of classes.
        source: file or address of the weights.
    """

    layout: str
    loaded: int
    derived: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    source: str = "state dict"

    def __str__(self) -> str:
        parts = [f"loaded {self.loaded} tensors ({self.layout} layout) from {self.source}"]
        if self.derived:
            parts.append(f"zero-filled {_some(self.derived)}")
        if self.skipped:
            parts.append(f"new classifier: {_some(self.skipped)} not loaded")
        return "; ".join(parts)


def _some(names: tuple[str, ...] | list[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def detect_layout(model: nn.Module, state_dict: Mapping[str, torch.Tensor]) -> str:
    """Tells whose tensor names a state dict has: fbnet, timm, fbnetv3, or plain for the rest."""
    if not isinstance(getattr(model, "arch", None), Arch):
        return "plain"
    if any(key.startswith(_PUBLISHED_MARK) for key in state_dict):
        return "fbnet"
    return "timm" if "conv_stem.weight" in state_dict else "fbnetv3"


def classifier_of(model: nn.Module) -> str:
    """Returns the name of the layer that gives the logits: the last linear or conv layer."""
    kinds = (nn.Linear, nn.Conv2d)
    layers = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    return layers[-1] if layers else ""


@dataclass
class _Plan:
    """Where each tensor of the model comes from, and what stands in the way."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    derived: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    head: dict[str, tuple[int, int]] = field(default_factory=dict)  # name: (given, wanted) classes


def _names(layout: str, model: nn.Module, keys: list[str], theirs: list[str]) -> dict[str, str]:
    arch = getattr(model, "arch", None)
    if layout == "fbnet":
        return published_names(keys)
    if layout == "timm" and isinstance(arch, Arch):
        return timm_names(arch, keys, theirs)
    return {key: key for key in keys}


def _zero_by_layout(key: str, layout: str) -> bool:
    # timm's stem conv has no bias: a bias of zero is the same function
    stem_bias = layout == "timm" and key == "backbone.stages.0.0.conv.bias"
    return stem_bias or key.endswith(_COUNTER)


def _shaped(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A 1x1 conv on a 1x1 map is a Linear: N, C, 1, 1 -> N, C."""
    if value.dim() == 4 and like.dim() == 2 and value.shape[2:] == (1, 1):
        return value.flatten(1)
    return value


def _is_other_head(key: str, layer: str, value: torch.Tensor, like: torch.Tensor) -> bool:
    return key.rpartition(".")[0] == layer and value.shape[1:] == like.shape[1:]


def _plan(model: nn.Module, given: Mapping[str, torch.Tensor], layout: str) -> _Plan:
    target = model.state_dict()
    names = _names(layout, model, list(target), list(given))
    classifier, plan = classifier_of(model), _Plan()
    for key, like in target.items():
        if (theirs := names[key]) not in given:
            zero = _zero_by_layout(key, layout)
            (plan.derived if zero else plan.missing).append(key)
            if zero:
                plan.tensors[key] = torch.zeros_like(like)
            continue
        value = _shaped(given[theirs], like)
        if value.shape == like.shape:
            plan.tensors[key] = value
        elif _is_other_head(key, classifier, value, like):
            plan.head[key] = (len(value), len(like))
        else:
            plan.misshapen.append(f"{theirs} {tuple(value.shape)}, expected {tuple(like.shape)}")
    used = {names[key] for key in target}
    plan.unexpected = [key for key in given if key not in used]
    return plan


def _complaint(plan: _Plan, model: nn.Module, layout: str) -> str | None:
    groups = {
        "missing": plan.missing,
        "unexpected": plan.unexpected,
        "of another shape": plan.misshapen,
    }
    parts = [f"{len(v)} {what}: {_some(v)}" for what, v in groups.items() if v]
    if not parts:
        return None
    arch = getattr(model, "arch", None)
    wanted = arch.name if isinstance(arch, Arch) else type(model).__name__
    cause = f"the weights are probably not of {wanted}: build the model they belong to"
    return f"weights ({layout} layout) do not fit {wanted}: {'; '.join(parts)}; {cause}"


def _warn_of_paddings(model: nn.Module, layout: str) -> None:
    arch = getattr(model, "arch", None)
    if layout != "timm" or not isinstance(arch, Arch):
        return
    if any(layer.k and layer.padding != layer.k // 2 for layer in arch.layers()):
        warnings.warn(
            f"timm trains with k // 2 paddings, {arch.name} has others: build "
            f"fbnetv3.arch.scaling.aligned(arch) to get timm's outputs",
            stacklevel=3,
        )


def load_state_dict(
    model: nn.Module,
    state_dict: Mapping[str, torch.Tensor],
    *,
    allow_new_head: bool = False,
    source: str = "state dict",
) -> LoadSummary:
    """Loads weights of any known layout; all of them, or none if anything does not fit.

    Args:
        model: an FBNet of ``build_model``, or any module (then the names must be its own).
        state_dict: tensors in this project's layout, the published FBNet one, or timm's.
        allow_new_head: leave the classifier as it is where it has another number of classes.
        source: named in the summary and in errors.

    Returns:
        What was loaded, derived and skipped.

    Raises:
        LoadError: tensors are missing, unexpected or of another shape. The model is unchanged.
    """
    layout = detect_layout(model, state_dict)
    plan = _plan(model, state_dict, layout)
    if complaint := _complaint(plan, model, layout):
        raise LoadError(f"{source}: {complaint}")
    if plan.head and not allow_new_head:
        given, wanted = next(iter(plan.head.values()))
        raise LoadError(
            f"{source}: the weights have {given} classes, the model {wanted}; build it with "
            f"num_classes={given}, or allow a new head (allow_new_head=True)"
        )
    _warn_of_paddings(model, layout)
    model.load_state_dict(plan.tensors, strict=not plan.head)
    return LoadSummary(
        layout=layout,
        loaded=len(plan.tensors) - len(plan.derived),
        derived=tuple(plan.derived),
        skipped=tuple(plan.head),
        source=source,
    )
