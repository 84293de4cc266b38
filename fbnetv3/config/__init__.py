"""The config tree: detectron2's, plus the keys below, in nodes that refuse unknown keys.

A yaml says what differs from the defaults (``_BASE_`` includes another file), the command line
overrides it with ``KEY VALUE`` pairs. A config describes a run; ``Recipe`` and ``Arch`` are the
values made from it, see ``recipe_from_config`` and ``fbnetv3.classification.build``.
"""

from __future__ import annotations

from fbnetv3.config.errors import ConfigError
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
