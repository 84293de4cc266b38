"""Entry points of ``torch.hub``: ``torch.hub.load(REPOSITORY, "fbnetv3_a", pretrained=True)``.

There is an entry point for each architecture of the zoo, with the arguments of
``fbnetv3.build_model``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from fbnetv3.arch import list_archs
from fbnetv3.zoo import build_model

dependencies = ["torch", "torchvision", "numpy", "yaml", "safetensors", "PIL"]


def _entry_point(name: str) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **arguments: Any) -> nn.Module:
        return build_model(name, pretrained=pretrained, **arguments)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"Builds {name}; see ``fbnetv3.build_model`` for the arguments."
    return create


globals().update({name: _entry_point(name) for name in list_archs()})
