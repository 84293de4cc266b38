"""Finds the tensors in the objects that training programs save, and removes name prefixes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]

# Key of averaged weights -> key of the raw weights, in files of this project, torchvision, timm
# and others
_AVERAGES = {
    "ema": "model",
    "model_ema": "model",
    "state_dict_ema": "state_dict",
    "ema_state_dict": "state_dict",
    "model_ema_state_dict": "model_state_dict",
    "ema_model": "model",
    "params_ema": "params",
}
WRAPPERS = (
    *_AVERAGES,
    "state_dict",
    "model",
    "model_state_dict",
    "params",
    "tensors",
    "module",
)
"""Keys of a saved dict under which programs put the tensors, in the order of preference."""
# Prefixes that DistributedDataParallel, AveragedModel and Lightning put before every name
_PREFIXES = ("module.", "model.")
# Modules that torch.compile, FSDP and activation checkpointing insert, around any part of a network
_WRAPPER_MODULES = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_AVERAGE_COUNT = "n_averaged"  # counter that AveragedModel keeps among its tensors


def unwrap(saved: object) -> tuple[Tensors, dict[str, Any]] | None:
    """Returns the tensors in a saved object, and metadata; None if there are no tensors.

    Averaged weights are preferred to raw weights. If the object has both, and every raw weight
    other than a batch-norm statistic has an average, then the averages get the dtypes of the raw
    weights, and averages without a raw weight of the same name are dropped: they may be of
    non-persistent buffers, which a state dict leaves out. Prefixes of wrappers are removed from the
    names.

    The metadata of a plain state dict are {}. Those of a dict that contains a state dict are its
    entries whose key is not in ``WRAPPERS``, and ``"weights"``, the key of the tensors.

    Args:
        saved: State dict, or a dict that contains one under one of ``WRAPPERS``.
    """
    if not isinstance(saved, Mapping):
        return None
    if _is_tensors(saved):
        return without_prefixes(dict(saved)), {}
    rest = {str(k): v for k, v in saved.items() if k not in WRAPPERS}
    for key in WRAPPERS:
        if (inner := saved.get(key)) is not None and (unwrapped := unwrap(inner)):
            tensors, metadata = unwrapped
            if key in _AVERAGES:
                tensors = _match_model(saved.get(_AVERAGES[key]), tensors)
            return tensors, metadata | rest | {"weights": key}
    return None


def _is_tensors(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(k, str) and torch.is_tensor(v) for k, v in value.items())
    )


def _match_model(model: object, averages: Tensors) -> Tensors:
    """Returns averages with the names and dtypes of the saved model, if there is one.

    Batch-norm statistics that were not averaged are taken from the model. If averages of other
    tensors are missing, the averages are returned unchanged, so that loading reports these tensors.
    """
    if not isinstance(model, Mapping) or not _is_tensors(model):
        return averages
    saved = without_prefixes(dict(model))
    if any(key not in averages and not key.endswith(_STATISTICS) for key in saved):
        return averages
    return {key: averages.get(key, value).to(value.dtype) for key, value in saved.items()}


def without_prefixes(tensors: Tensors) -> Tensors:
    """Removes the names of wrapper modules from tensor names, however they are nested.

    Args:
        tensors: Tensors by name. The prefixes ``module.`` and ``model.`` are removed if all names
            begin with them. The names of torch's own wrappers are removed wherever they occur,
            unless two tensors would then have the same name. The counter of an AveragedModel is
            removed, too.
    """
    names = {key: _without_wrappers(key) for key in tensors}
    if len(set(names.values())) == len(names):
        tensors = {names[key]: value for key, value in tensors.items()}
    if _AVERAGE_COUNT in tensors and len(tensors) > 1:
        tensors = {key: value for key, value in tensors.items() if key != _AVERAGE_COUNT}
    for prefix in _PREFIXES:
        if tensors and all(key.startswith(prefix) for key in tensors):
            return without_prefixes({k.removeprefix(prefix): v for k, v in tensors.items()})
    return tensors


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPER_MODULES)
