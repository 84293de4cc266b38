"""A user's network and data sets in place of those that a config names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fbnetv3.arch import Arch
from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.config.archs import arch_from_config
from fbnetv3.config.node import get_value, same_value
from fbnetv3.data import ImageDataset, ImageStream, MapDataset, as_image_dataset
from fbnetv3.data.own import named_classes

AnyDataset = ImageDataset | ImageStream
MODULE_PREFIX = "module:"
"""Prefix of the name that a given network without an ``Arch`` has in checkpoints and weights."""
# Keys of the config's network, which are not read if a network is given.
_NETWORK_KEYS = (
    *("MODEL.ARCH", "MODEL.ARCH_VARIANT", "MODEL.WIDTH", "MODEL.DEPTH"),
    *("MODEL.DROP_RATE", "MODEL.DROP_PATH_RATE"),
)


@dataclass(frozen=True)
class OwnParts:
    """The network and data sets that a caller gives; a part that is None comes from the config.

    Attributes:
        model: Network in place of MODEL.ARCH: images (N, 3, H, W) to logits (N, classes).
        train_set: Data set in place of DATASETS.TRAIN, see :func:`as_image_dataset`.
        test_set: Data set in place of DATASETS.TEST.

    Raises:
        ConfigError: The model is no module.
    """

    model: Any = None
    train_set: Any = None
    test_set: Any = None

    def __post_init__(self) -> None:
        if self.model is not None and not isinstance(self.model, nn.Module):
            kind = type(self.model).__name__
            raise ConfigError(f"model: a {kind} is no network; allowed: a torch.nn.Module, or None")

    def __bool__(self) -> bool:
        return any(part is not None for part in (self.model, self.train_set, self.test_set))

    def network_name(self, cfg: CfgNode) -> Arch | str:
        """Returns the architecture of the network, or its name if it has no ``Arch``."""
        if self.model is None:
            return arch_from_config(cfg)
        arch = getattr(self.model, "arch", None)
        if isinstance(arch, Arch):
            return arch
        kind = type(self.model)
        return f"{MODULE_PREFIX}{kind.__module__}.{kind.__qualname__}"

    def unread_keys(self, cfg: CfgNode, defaults: CfgNode) -> dict[str, str]:
        """Returns the keys that the caller's parts replace, each with the reason.

        Keys at their defaults are left out.
        """
        given = self.model is not None
        replaced = dict.fromkeys(_NETWORK_KEYS, "model= is given") if given else {}
        for key, part in (("train_set", self.train_set), ("test_set", self.test_set)):
            if part is not None:
                name = f"DATASETS.{key.partition('_')[0].upper()}"
                replaced[name] = f"{key}= is given"
        return {
            key: reason
            for key, reason in replaced.items()
            if not same_value(get_value(cfg, key), get_value(defaults, key))
        }

    def datasets(self, cfg: CfgNode) -> tuple[AnyDataset | None, AnyDataset | None]:
        """Returns the training and test set as data sets of this project; None if not given.

        A set without names of classes gets the names of the other set. If no given set has
        names, the names are the numbers below MODEL.NUM_CLASSES or, if that is 0, up to the largest
        label.

        Raises:
            DataError: A data set is not allowed.
        """
        given = {"train_set": self.train_set, "test_set": self.test_set}
        named = [names for key, part in given.items() if (names := named_classes(part, key))]
        made = [
            None if part is None else self._made(part, key, named, cfg.MODEL.NUM_CLASSES)
            for key, part in given.items()
        ]
        maps = [part for part in made if isinstance(part, MapDataset)]
        if len(maps) == 2 and not named:  # the largest labels of the two sets may differ
            most = max((part.classes for part in maps), key=len)
            maps[0].classes, maps[1].classes = list(most), list(most)
        return made[0], made[1]

    @staticmethod
    def _made(part: Any, key: str, named: list[list[str]], count: int) -> AnyDataset:
        classes = named_classes(part, key) or (named[0] if named else None)
        return as_image_dataset(part, key, classes, count)


def placed(model: nn.Module, device: torch.device, bn_momentum: float) -> nn.Module:
    """Returns a network on a device, in the channels-last format, with a momentum of batch norms.

    Args:
        model: Network; it is changed in place.
        device: Device of the network.
        bn_momentum: Weight of a new batch in the running statistics; 0 keeps the network's values.
    """
    for module in model.modules() if bn_momentum else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = bn_momentum
    return model.to(device).to(memory_format=torch.channels_last)
