"""FBNetV3: a model zoo, a training loop, and JointNAS, the joint search of network and recipe.

Public names are imported on first use. So ``import fbnetv3.arch`` needs no torch, and
``build_model`` needs no detectron2.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

_REGISTRATIONS = (
    "register_dataset",
    "register_evaluator",
    "register_executor",
    "register_hook",
    "register_loss",
    "register_network",
    "register_optimizer",
    "register_schedule",
    "register_space",
    "register_statistic",
    "register_transform",
    "register_writer",
)
_MODULE_OF = {
    "Arch": "fbnetv3.arch",
    "Block": "fbnetv3.arch",
    "Cost": "fbnetv3.arch",
    "count_cost": "fbnetv3.arch",
    "get_arch": "fbnetv3.arch",
    "list_archs": "fbnetv3.arch",
    "build_model": "fbnetv3.zoo",
    "deploy": "fbnetv3.modeling",
    "register_op": "fbnetv3.modeling",
    "list_models": "fbnetv3.zoo",
    "package_version": "fbnetv3.version",
    **dict.fromkeys(_REGISTRATIONS, "fbnetv3.registries"),
    "Recipe": "fbnetv3.recipe",
    "get_cfg": "fbnetv3.config",
    "train": "fbnetv3.own_training",
    "evaluate": "fbnetv3.training",
}
_SUBPACKAGES = (
    "arch",
    "classification",
    "config",
    "data",
    "detection",
    "engine",
    "errors",
    "modeling",
    "recipe",
    "search",
    "training",
    "weights",
    "zoo",
)

__all__ = [
    "Arch",
    "Block",
    "Cost",
    "Recipe",
    "__version__",
    "build_model",
    "count_cost",
    "deploy",
    "evaluate",
    "get_arch",
    "get_cfg",
    "list_archs",
    "list_models",
    "register_dataset",
    "register_evaluator",
    "register_executor",
    "register_hook",
    "register_loss",
    "register_network",
    "register_op",
    "register_optimizer",
    "register_schedule",
    "register_space",
    "register_statistic",
    "register_transform",
    "register_writer",
    "train",
]

if TYPE_CHECKING:
    __version__: str
    from fbnetv3.arch import Arch, Block, Cost, count_cost, get_arch, list_archs
    from fbnetv3.config import get_cfg
    from fbnetv3.modeling import register_op
    from fbnetv3.modeling.deploy import deploy
    from fbnetv3.own_training import train
    from fbnetv3.recipe import Recipe
    from fbnetv3.registries import (
        register_dataset,
        register_evaluator,
        register_executor,
        register_hook,
        register_loss,
        register_network,
        register_optimizer,
        register_schedule,
        register_space,
        register_statistic,
        register_transform,
        register_writer,
    )
    from fbnetv3.training import evaluate
    from fbnetv3.zoo import build_model, list_models


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return __getattr__("package_version")()
    if name in _MODULE_OF:
        return getattr(_imported(_MODULE_OF[name]), name)
    if name in _SUBPACKAGES:
        return _imported(f"fbnetv3.{name}")
    raise AttributeError(f"module 'fbnetv3' has no attribute {name!r}")


def _imported(module: str) -> ModuleType:
    from fbnetv3.requires import naming_extras

    with naming_extras():
        return importlib.import_module(module)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, *_SUBPACKAGES])
