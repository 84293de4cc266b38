"""Registers the FBNets of the zoo with timm: ``import fbnetv3.timm``.

Then ``timm.create_model("fbnetv3_a")`` builds one of them, with timm's arguments ``pretrained``,
``num_classes``, ``in_chans``, ``global_pool``, ``features_only``, ``out_indices``, ``drop_rate``
and ``drop_path_rate``. Libraries that build their encoders with timm can use the names, too. Names
that timm has itself (``fbnetv3_b``, ``efficientnet_b0``) stay timm's.

With ``features_only``, the aligned variant is built, in which every padding is half the kernel
size: the sides of its feature maps differ by factors of 2, as decoders expect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from fbnetv3.arch import ArchError, list_archs
from fbnetv3.requires import require
from fbnetv3.weights.records import all_records
from fbnetv3.zoo.api import build_model
from fbnetv3.zoo.preprocess import preprocessing

default_cfgs: dict[str, Any] = {}
"""Preprocessing and weights of each model in timm's form, which timm reads from this module."""
__all__: list[str] = []
_CHANNELS = 3  # of the images


def _register_all() -> None:
    """Registers each architecture whose name timm does not have."""
    registry = require("timm.models", "timm")
    names = [name for name in list_archs() if not registry.is_model(name)]
    default_cfgs.update(registry.generate_default_cfgs(_configs(names)))
    for name in names:
        registry.register_model(_entry_point(name))


def _configs(names: list[str]) -> dict[str, dict[str, Any]]:
    """Returns timm's default configs of weights records, and of architectures without a record."""
    configs = {name: _config(name) for name in names}
    for record in all_records():
        if record.name in names:
            source = {"url": record.url} if record.url else {"file": record.path}
            config = _config(record.full_name) | source
            configs[record.full_name] = config | {"num_classes": record.num_classes}
            # for a name without a tag, timm takes the first weights of the architecture
            configs.pop(record.name, None)
    return configs


def _config(name: str) -> dict[str, Any]:
    rule = preprocessing(name)
    return {
        "input_size": (_CHANNELS, rule.resolution, rule.resolution),
        "crop_pct": rule.resolution / rule.resize,
        "interpolation": rule.interpolation,
        "mean": rule.mean,
        "std": rule.std,
        "first_conv": "backbone.stages.0.0.conv",
        "classifier": "head.fc",
    }


def _entry_point(name: str) -> Callable[..., nn.Module]:
    """Returns timm's entry point for an architecture: a function with the architecture's name."""

    def create(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
        features_only: bool = False,
        **arguments: Any,
    ) -> nn.Module:
        ignored = {"pretrained_cfg_overlay": pretrained_cfg_overlay, "cache_dir": cache_dir}
        for key, value in ignored.items():
            if value is not None:
                raise ArchError("not supported here; leave it out", arch=name, key=key, value=value)
        config = default_cfgs[name]
        tag = _tag(pretrained_cfg) or (config.tags[0] if pretrained else "")
        model = build_model(
            f"{name}.{tag}" if tag else name,
            pretrained=pretrained,
            features_only=features_only,
            aligned=features_only,
            **arguments,
        )
        model.pretrained_cfg = model.default_cfg = config.cfgs[tag or config.tags[0]].to_dict()
        return model

    create.__name__ = create.__qualname__ = name
    create.__module__ = __name__
    return create


def _tag(pretrained_cfg: Any) -> str:
    """Returns the tag in timm's argument ``pretrained_cfg``: a tag, a dict or a PretrainedCfg."""
    if isinstance(pretrained_cfg, str):
        return pretrained_cfg
    if isinstance(pretrained_cfg, dict):
        return str(pretrained_cfg.get("tag") or "")
    return str(getattr(pretrained_cfg, "tag", None) or "")


_register_all()
