"""torchvision's classifiers behind ``build_model("torchvision/NAME")``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any

import torch
import torchvision
from torch import nn

from fbnetv3.arch import ArchError
from fbnetv3.arch.table import SCALARS
from fbnetv3.errors import did_you_mean

PREFIX = "torchvision/"

# build_model's argument -> the argument of torchvision's builders
_RATES = {"drop_rate": "dropout", "drop_path_rate": "stochastic_depth_prob"}
# whose builders set the rate themselves
_FIXED_DROP_PATH = ("swin", "maxvit")
# their auxiliary classifiers would make forward return more than logits
_EXTRA = {
    name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")
}


def name_in(name: Any) -> str | None:
    """Returns NAME of ``torchvision/NAME``, else None."""
    return name[len(PREFIX) :] if isinstance(name, str) and name.startswith(PREFIX) else None


def build(
    name: str, num_classes: int, pretrained: bool, drop_rate: float, drop_path_rate: float
) -> nn.Module:
    """Makes a torchvision classifier in channels_last memory format.

    Raises:
        ArchError: the name is unknown, the network has no such rate, or a weight is asked for.
    """
    _check(name, pretrained)
    num_classes = SCALARS["num_classes"].clean("num_classes", num_classes)
    given = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    arguments = _EXTRA.get(name, {}) | _rates(name, given)
    model = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **arguments)
    return model.to(memory_format=torch.channels_last)


def _check(name: str, pretrained: bool) -> None:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        problem = f"unknown torchvision model{did_you_mean(name, known)}"
        allowed = "what torchvision.models.list_models(module=torchvision.models) lists"
        raise ArchError(problem, key="name", value=name, allowed=allowed)
    if pretrained:
        problem = "torchvision networks have no weights here"
        raise ArchError(problem, key="pretrained", value=True, allowed="false")


def _rates(name: str, given: Mapping[str, float]) -> dict[str, float]:
    """Returns torchvision's arguments for the rates, of which the network may lack some.

    Raises:
        ArchError: a rate is not in [0, 1), or is above 0 and the network has none.
    """
    takes = _parameters(name)
    rates = {}
    for key, rate in given.items():
        if not 0 <= rate < 1:
            raise ArchError("not allowed", key=key, value=rate, allowed="a number in [0, 1)")
        if _RATES[key] in takes:
            rates[_RATES[key]] = rate
        elif rate:
            problem = f"torchvision/{name} has no such rate"
            raise ArchError(problem, key=key, value=rate, allowed="0")
    return rates


def _parameters(name: str) -> set[str]:
    """Returns the arguments of the network's class that its builder leaves open."""
    builder = torchvision.models.get_model_builder(name)
    home = sys.modules[inspect.unwrap(builder).__module__]
    classes = inspect.getmembers(home, inspect.isclass)
    own = [
        cls for _, cls in classes if issubclass(cls, nn.Module) and cls.__module__ == home.__name__
    ]
    takes = [set(inspect.signature(cls).parameters) for cls in own]
    fixed = {"stochastic_depth_prob"} if name.startswith(_FIXED_DROP_PATH) else set()
    return set().union(*(names for names in takes if "num_classes" in names)) - fixed


def reset_classifier(model: nn.Module, num_classes: int) -> nn.Module:
    """Replaces the last linear layer (or SqueezeNet's last conv) by a new one, in place."""
    named = dict(model.named_modules())
    kinds = (nn.Linear, nn.Conv2d)
    path, old = [(n, m) for n, m in named.items() if isinstance(m, kinds)][-1]
    new: nn.Module
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, num_classes)
    else:
        new = nn.Conv2d(old.in_channels, num_classes, 1)
    parent, _, leaf = path.rpartition(".")
    setattr(named[parent], leaf, new.to(old.weight))
    return model
