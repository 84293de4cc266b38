"""The config tree: the keys of detectron2 and of :data:`KEYS`; unknown keys are refused.

A yaml file states the keys that differ from the defaults (its ``_BASE_`` includes other files), and
``KEY VALUE`` pairs of the command line override it. A config describes a run; the values made from
it are a ``Recipe`` (:func:`recipe_from_config`) and, for an FBNet, an ``Arch``
(:mod:`fbnetv3.config.archs`).
"""

from __future__ import annotations

from fbnetv3.config.errors import ConfigError
from fbnetv3.requires import naming_extras

with naming_extras():  # the error names the extra that installs detectron2 if that is missing
    from fbnetv3.config.keys import KEYS, get_cfg
    from fbnetv3.config.node import CfgNode, get_value, iter_keys
    from fbnetv3.config.recipes import recipe_from_config, recipe_to_config

__all__ = [
    "KEYS",
    "CfgNode",
    "ConfigError",
    "get_cfg",
    "get_value",
    "iter_keys",
    "recipe_from_config",
    "recipe_to_config",
]
