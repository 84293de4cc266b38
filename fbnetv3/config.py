"""The config tree: detectron2's, plus the keys below, in nodes that refuse unknown keys.

A yaml says what differs from the defaults (``_BASE_`` includes another file), the command line
overrides it with ``KEY VALUE`` pairs. A config describes a run; ``Recipe`` and ``Arch`` are the
values made from it, see ``recipe_from_config`` and ``fbnetv3.engine.build``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode as DetectronCfgNode
from detectron2.config import get_cfg as detectron_get_cfg

from fbnetv3.errors import FBNetError, did_you_mean
from fbnetv3.recipe import Recipe


class ConfigError(FBNetError):
    """A config names an unknown key, a value of the wrong type, or a file that can't be read."""


class CfgNode(DetectronCfgNode):
    """detectron2's node, made strict.

    Unknown keys fail with the nearest valid one, whether they come from a file, the command line
    or an assignment in code; values must have the type of the default (an int is taken where a
    float is meant); yaml is read with the safe loader only. ``set_new_allowed(True)`` opens a
    node for keys of one's own.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self:
            value = _coerce(value, self[name], name)
        elif not self.is_new_allowed():
            raise ConfigError(f"no config key {name}{did_you_mean(name, self)}")
        super().__setattr__(name, value)

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = False) -> None:
        """Merges a yaml file and the files named by its ``_BASE_``, which its own keys override.

        Raises:
            ConfigError: the file is missing or no yaml, or has unknown keys or wrong types;
                or ``allow_unsafe`` is asked for, which is never done.
        """
        if allow_unsafe:
            raise ConfigError("configs are read with the safe yaml loader only; drop allow_unsafe")
        try:
            values = _load_yaml(Path(cfg_filename), ())
            self._merge(values, ())
        except ConfigError as error:
            raise ConfigError(f"{cfg_filename}: {error}") from None

    def merge_from_other_cfg(self, cfg_other: Mapping[str, Any]) -> None:
        """Merges another tree, or the part of one."""
        self._merge(cfg_other, ())

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Merges ``[KEY, VALUE, KEY, VALUE, ...]``; strings are read as Python literals."""
        if len(cfg_list) % 2:
            raise ConfigError(f"overrides come in pairs KEY VALUE; {cfg_list[-1]!r} has no value")
        for key, value in zip(cfg_list[0::2], cfg_list[1::2], strict=True):
            nested: Any = self._decode_cfg_value(value)
            for part in reversed(str(key).split(".")):
                nested = {part: nested}
            self._merge(nested, ())

    def _merge(self, values: Mapping[str, Any], path: tuple[str, ...]) -> None:
        for key, value in values.items():
            full_key = ".".join((*path, str(key)))
            if key not in self:
                if self.is_new_allowed():
                    self[key] = CfgNode(value) if isinstance(value, Mapping) else value
                    continue
                raise ConfigError(f"no config key {full_key}{_nearest_key(self, path, str(key))}")
            if isinstance(self[key], CfgNode):
                if not isinstance(value, Mapping):
                    raise ConfigError(f"{full_key} is a group of keys, not a value ({value!r})")
                self[key]._merge(value, (*path, key))
            else:
                self[key] = _coerce(self._decode_cfg_value(value), self[key], full_key)

    def __str__(self) -> str:
        return self.dump()


_LIKE: dict[type, tuple[type, ...]] = {float: (int,), tuple: (list,), list: (tuple,)}


def _coerce(value: Any, default: Any, key: str) -> Any:
    """Returns ``value`` in the type of ``default``, or raises a ConfigError that names the key."""
    wanted = type(default)
    if default is None or value is None or isinstance(default, dict):
        return value
    if type(value) is wanted:
        return value
    if wanted is str and key.endswith("WEIGHTS"):
        return str(value)
    if type(value) in _LIKE.get(wanted, ()):
        return wanted(value)
    if wanted in (tuple, list) and isinstance(value, str):
        return wanted([value])
    raise ConfigError(f"{key} takes a {wanted.__name__} (as {default!r}), not {value!r}")


def _nearest_key(node: CfgNode, path: tuple[str, ...], key: str) -> str:
    here = did_you_mean(key, node)
    if here:
        return here
    inside = ".".join(path) or "the top level"
    return f"; {inside} has {', '.join(sorted(node))}"


def _load_yaml(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Reads a yaml and merges it over its ``_BASE_`` files (one name or a list of names)."""
    if path.resolve() in seen:
        raise ConfigError(f"_BASE_ goes round in a circle at {path}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} is no yaml that can be read safely: {reason}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no KEY: VALUE pairs")
    base = values.pop("_BASE_", [])
    merged: dict[str, Any] = {}
    for name in [base] if isinstance(base, str) else base:
        _merge_dict(merged, _load_yaml(path.parent / name, (*seen, path.resolve())))
    _merge_dict(merged, values)
    _check_version(merged, path)
    return merged


def _check_version(values: Mapping[str, Any], path: Path) -> None:
    version = values.get("VERSION", 2)
    if version != 2:
        raise ConfigError(
            f"{path} has config VERSION {version}; this program reads 2 (detectron2's second "
            "format, in which keys were renamed); write the keys of get_cfg() and VERSION: 2"
        )


def _merge_dict(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge_dict(into[key], value)
        else:
            into[key] = value


def iter_keys(node: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yields ``("SOLVER.BASE_LR", value)`` for every leaf of the tree."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from iter_keys(value, (*path, key))
        else:
            yield ".".join((*path, key)), value


# Our keys with their defaults and meaning. Where detectron2 has a key for a thing, it is used
# (SOLVER.BASE_LR, IMS_PER_BATCH, MOMENTUM, WEIGHT_DECAY, WARMUP_FACTOR, AMP.ENABLED,
# CLIP_GRADIENTS, DATASETS.TRAIN, DATALOADER.NUM_WORKERS, MODEL.WEIGHTS, OUTPUT_DIR, SEED).
KEYS: dict[str, tuple[Any, str]] = {
    "MODEL.ARCH": (
        "fbnetv3_a",
        "network: a name of list_models(), torchvision/NAME, or the path of an arch yaml",
    ),
    "MODEL.ARCH_VARIANT": (
        "",
        "'' as published; 'aligned' (k // 2 paddings) or 'low_resolution' (paper 4.3, CIFAR)",
    ),
    "MODEL.WIDTH": (1.0, "channel multiplier of the network"),
    "MODEL.DEPTH": (1.0, "multiplier of the blocks per stage"),
    "MODEL.NUM_CLASSES": (0, "classes of the classifier; 0: as many as the training set has"),
    "MODEL.DROP_RATE": (0.0, "dropout before the classifier (p in the paper's Table 7)"),
    "MODEL.DROP_PATH_RATE": (0.0, "stochastic depth of the last block (d in Table 7)"),
    "MODEL.SYNC_BN": (True, "synchronise batch norm over processes (paper A.3)"),
    "MODEL_EMA.ENABLED": (True, "keep an exponential moving average of the weights (A.3, eq. 2)"),
    "MODEL_EMA.DECAY": (
        0.99985,
        "its decay per step; paper: 0.99985 ImageNet, 0.999 CIFAR-10, 0.9998 COCO",
    ),
    "MODEL_EMA.WARMUP": (False, "begin with (1 + t) / (10 + t) at step t, for short runs"),
    "SOLVER.OPTIMIZER": ("rmsprop", "'rmsprop' (TensorFlow form: alpha 0.9, eps 1e-3) or 'sgd'"),
    "SOLVER.REFERENCE_BATCH": (
        256,
        "images a step for which BASE_LR is meant; lr = BASE_LR * IMS_PER_BATCH / this",
    ),
    "SOLVER.MAX_EPOCHS": (400.0, "length of the schedule; 0: SOLVER.MAX_ITER counts"),
    "SOLVER.EPOCH_DECAY": (0.9875, "lr factor per epoch of the exponential schedule"),
    "SOLVER.WARMUP_EPOCHS": (5.0, "linear warm-up, counted in MAX_EPOCHS"),
    "SOLVER.LABEL_SMOOTHING": (0.1, "label smoothing, in [0, 1)"),
    "SOLVER.CHECKPOINT_EPOCHS": (1.0, "checkpoint period; 0: SOLVER.CHECKPOINT_PERIOD iterations"),
    "SOLVER.KEEP_CHECKPOINTS": (2, "how many checkpoints are kept"),
    "SOLVER.LOG_PERIOD": (20, "iterations between lines of metrics.json and the log"),
    "INPUT.RESOLUTION": (0, "pixels a side of network inputs; 0: the network's own"),
    "INPUT.RESIZE": (0, "evaluation: shorter side before the center crop; 0: RESOLUTION / 0.875"),
    "INPUT.INTERPOLATION": ("bilinear", "evaluation resize: 'bilinear' or 'bicubic'"),
    "INPUT.TRAIN_CROP": (
        "resized",
        "'resized': random area and aspect (ImageNet); 'padded': shifts (CIFAR); 'none'",
    ),
    "INPUT.TRAIN_FLIP": (True, "mirror training images at random"),
    "INPUT.AUTO_AUGMENT": ("none", "'none', or AutoAugment's policy of 'imagenet' or 'cifar10'"),
    "INPUT.MIXUP": (0.0, "alpha of mixup's Beta distribution (m in Table 7); 0: off"),
    "INPUT.MEAN": ([0.485, 0.456, 0.406], "RGB mean of pixels scaled to 0..1"),
    "INPUT.STD": ([0.229, 0.224, 0.225], "RGB standard deviation of pixels scaled to 0..1"),
    "DATA.SKIP_BROKEN": (False, "count and leave out unreadable images instead of stopping"),
    "DATA.TRAIN_LIMIT": (0, "train on a stratified part of so many images; 0: all"),
    "TEST.EVAL_EPOCHS": (1.0, "evaluation period; 0: TEST.EVAL_PERIOD iterations"),
    "TEST.BATCH_SIZE": (128, "images a step of the evaluation, over all processes"),
}

# Where detectron2's default does not suit a classifier
_CHANGED_DEFAULTS: dict[str, Any] = {
    "MODEL.META_ARCHITECTURE": "ImageClassifier",
    "MODEL.DEVICE": "auto",
    "SOLVER.BASE_LR": 0.026,
    "SOLVER.IMS_PER_BATCH": 256,
    "SOLVER.LR_SCHEDULER_NAME": "exponential",
    "SOLVER.WARMUP_FACTOR": 0.1,
    "SOLVER.WEIGHT_DECAY": 7e-6,
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "norm",
    "DATALOADER.NUM_WORKERS": 2,
    "OUTPUT_DIR": "",
    "SEED": 0,
}

_RECIPE_KEYS = {
    "optimizer": "SOLVER.OPTIMIZER",
    "lr": "SOLVER.BASE_LR",
    "reference_batch": "SOLVER.REFERENCE_BATCH",
    "batch_size": "SOLVER.IMS_PER_BATCH",
    "epochs": "SOLVER.MAX_EPOCHS",
    "schedule": "SOLVER.LR_SCHEDULER_NAME",
    "decay": "SOLVER.EPOCH_DECAY",
    "warmup_epochs": "SOLVER.WARMUP_EPOCHS",
    "warmup_factor": "SOLVER.WARMUP_FACTOR",
    "momentum": "SOLVER.MOMENTUM",
    "weight_decay": "SOLVER.WEIGHT_DECAY",
    "weight_decay_norm": "SOLVER.WEIGHT_DECAY_NORM",
    "ema": "MODEL_EMA.ENABLED",
    "ema_decay": "MODEL_EMA.DECAY",
    "ema_warmup": "MODEL_EMA.WARMUP",
    "dropout": "MODEL.DROP_RATE",
    "drop_path": "MODEL.DROP_PATH_RATE",
    "mixup": "INPUT.MIXUP",
    "label_smoothing": "SOLVER.LABEL_SMOOTHING",
    "auto_augment": "INPUT.AUTO_AUGMENT",
    "amp": "SOLVER.AMP.ENABLED",
}


def get_cfg() -> CfgNode:
    """Returns the default config: detectron2's tree, our keys, and defaults for classifiers."""
    cfg = CfgNode(detectron_get_cfg())
    for full_key, (value, _) in KEYS.items():
        *path, key = full_key.split(".")
        node = cfg
        for part in path:
            if part not in node:
                node[part] = CfgNode()
            node = node[part]
        node[key] = value
    cfg.merge_from_list([x for pair in _CHANGED_DEFAULTS.items() for x in pair])
    return cfg


def get_value(cfg: CfgNode, full_key: str) -> Any:
    """Returns ``cfg.SOLVER.BASE_LR`` for ``"SOLVER.BASE_LR"``."""
    node: Any = cfg
    for part in full_key.split("."):
        node = node[part]
    return node


def recipe_from_config(cfg: CfgNode, iters_per_epoch: int | None = None) -> Recipe:
    """Makes the Recipe that a config describes.

    Args:
        cfg: a config.
        iters_per_epoch: needed where SOLVER.MAX_EPOCHS is 0 and SOLVER.MAX_ITER counts.

    Raises:
        ConfigError: the length can't be told, or CLIP_GRADIENTS asks for another type than norm.
        RecipeError: a value is out of its range.
    """
    values = {field: get_value(cfg, key) for field, key in _RECIPE_KEYS.items()}
    if cfg.SOLVER.MAX_EPOCHS == 0:
        if iters_per_epoch is None:
            raise ConfigError("SOLVER.MAX_EPOCHS is 0: the length in epochs needs the data set")
        values["epochs"] = cfg.SOLVER.MAX_ITER / iters_per_epoch
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if clip.ENABLED:
        if clip.CLIP_TYPE != "norm" or clip.NORM_TYPE != 2.0:
            raise ConfigError(
                "SOLVER.CLIP_GRADIENTS clips by the 2-norm: set CLIP_TYPE norm and NORM_TYPE 2.0"
            )
        values["clip_grad_norm"] = clip.CLIP_VALUE
    return Recipe.from_dict(values)


def recipe_to_config(recipe: Recipe) -> dict[str, Any]:
    """Returns ``{"SOLVER.BASE_LR": ...}``: the keys that make a config describe ``recipe``."""
    values = {key: getattr(recipe, field) for field, key in _RECIPE_KEYS.items()}
    values["SOLVER.CLIP_GRADIENTS.ENABLED"] = recipe.clip_grad_norm > 0
    if recipe.clip_grad_norm > 0:
        values["SOLVER.CLIP_GRADIENTS.CLIP_VALUE"] = recipe.clip_grad_norm
    return values
