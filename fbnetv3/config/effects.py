"""Keys that a config gives, but that its training does not read."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping

from fbnetv3.config.archs import is_detector
from fbnetv3.config.keys import KEYS, get_cfg
from fbnetv3.config.node import CfgNode, get_value, iter_keys, same_value
from fbnetv3.config.precedence import EXCLUSIVE_KEYS
from fbnetv3.config.recipes import BETA2_OPTIMIZERS, NESTEROV_OPTIMIZERS, RECIPE_KEYS

_BUILT_IN_OPTIMIZERS = ("rmsprop", "sgd", "adamw", "lion", "muon")
Condition = Callable[[CfgNode], bool]

# Keys of this package that only detectors, only classifiers, or (in detectors) only FBNets read
_ONLY_DETECTORS = ("MODEL.ARCH_NORM", "DATASETS.COCO", "TEST.COCO_EVALUATOR")
_ONLY_CLASSIFIERS = (
    "MODEL.BN_MOMENTUM",
    "MODEL.COMPILE",
    "MODEL.DROP_RATE",
    "SOLVER.LABEL_SMOOTHING",
    "SOLVER.LOSS",
    "INPUT.RESOLUTION",
    "INPUT.RESIZE",
    "INPUT.INTERPOLATION",
    "INPUT.TRAIN_*",
    "INPUT.AUTO_AUGMENT",
    "INPUT.TRANSFORMS",
    "INPUT.MIXUP",
    "INPUT.MEAN",
    "INPUT.STD",
    "INPUT.CUTMIX",
    "INPUT.RANDAUGMENT_*",
    "INPUT.RANDOM_ERASING",
    "INPUT.REPEATED_AUGMENT",
    "MODEL.TEACHER",
    "SOLVER.CLASS_*",
    "SOLVER.DISTILL_*",
    "DATALOADER.BALANCED_SAMPLING",
)
_ONLY_FBNETS = ("MODEL.ARCH", "MODEL.ARCH_*", "MODEL.WIDTH", "MODEL.DEPTH", "MODEL.DROP_PATH_RATE")
# Keys that detectron2 reads only for two-stage detectors and segmentation
_ONLY_TWO_STAGES = (
    "MODEL.PROPOSAL_GENERATOR.*",
    "MODEL.RPN.*",
    "MODEL.ROI_*",
    "MODEL.ANCHOR_GENERATOR.ANGLES",
    "MODEL.SEM_SEG_HEAD.*",
    "MODEL.PANOPTIC_FPN.*",
)
_ONE_STAGE = ("RetinaNet", "FCOS")
# Keys that detectron2 reads only for its ResNets
_ONLY_RESNETS = ("MODEL.RESNETS.*",)
# Keys of detectron2 that classifiers and detectors read. Keys of this package (``KEYS``), which
# RECIPE_KEYS also contains, are not looked up here: both tasks read a key of this package unless it
# is in one of the lists above.
_DETECTRON2_COMMON_KEYS = (
    "VERSION",
    "SEED",
    "CUDNN_BENCHMARK",
    "OUTPUT_DIR",
    "DATASETS.TRAIN",
    "DATASETS.TEST",
    "DATALOADER.NUM_WORKERS",
    "MODEL.META_ARCHITECTURE",
    "MODEL.DEVICE",
    "MODEL.WEIGHTS",
    "SOLVER.GAMMA",
    "SOLVER.CLIP_GRADIENTS.*",
    "SOLVER.MAX_ITER",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_PERIOD",
    *RECIPE_KEYS.values(),
)
# Keys of detectron2 that detectors read in addition; classifiers do not
_DETECTRON2_DETECTOR_KEYS = (
    "MODEL.*",
    "INPUT.*",
    "VIS_PERIOD",
    "TEST.DETECTIONS_PER_IMAGE",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS",
    "SOLVER.WARMUP_ITERS",
)


def _counts_epochs(cfg: CfgNode) -> bool:
    return bool(cfg.SOLVER.MAX_EPOCHS > 0)


def _uses_step_schedule(cfg: CfgNode) -> bool:
    return bool(cfg.SOLVER.LR_SCHEDULER_NAME == "steps")


def _has_workers(cfg: CfgNode) -> bool:
    return bool(cfg.DATALOADER.NUM_WORKERS > 0)


def _is_zero(key: str) -> Condition:
    return lambda cfg: bool(get_value(cfg, key) == 0)


def _with_optimizer(names: tuple[str, ...]) -> tuple[Condition, str]:
    others = {*_BUILT_IN_OPTIMIZERS} - {*names}  # a registered optimizer may read any key
    words = f"SOLVER.OPTIMIZER {' or '.join(names)}"
    return lambda cfg: cfg.SOLVER.OPTIMIZER not in others, words


# Pattern of keys -> condition under which they are read, and the condition in words
_CONDITIONS: Mapping[str, tuple[Condition, str]] = {
    **{
        iterations: (_is_zero(epochs), f"{epochs} 0")
        for epochs, iterations in EXCLUSIVE_KEYS.items()
    },
    "SOLVER.STEPS": (_uses_step_schedule, "SOLVER.LR_SCHEDULER_NAME steps"),
    "SOLVER.GAMMA": (_uses_step_schedule, "SOLVER.LR_SCHEDULER_NAME steps"),
    "SOLVER.EPOCH_DECAY": (
        lambda cfg: bool(cfg.SOLVER.LR_SCHEDULER_NAME == "exponential"),
        "SOLVER.LR_SCHEDULER_NAME exponential",
    ),
    "SOLVER.WARMUP_ITERS": (lambda cfg: not _counts_epochs(cfg), "SOLVER.MAX_EPOCHS 0"),
    # A classifier warms up by epochs even if SOLVER.MAX_ITER sets the length of its training.
    "SOLVER.WARMUP_EPOCHS": (
        lambda cfg: _counts_epochs(cfg) or not is_detector(cfg),
        "SOLVER.MAX_EPOCHS above 0",
    ),
    "DATALOADER.PREFETCH": (_has_workers, "DATALOADER.NUM_WORKERS above 0"),
    "DATALOADER.PERSISTENT_WORKERS": (_has_workers, "DATALOADER.NUM_WORKERS above 0"),
    "SOLVER.NESTEROV": _with_optimizer(NESTEROV_OPTIMIZERS),
    "SOLVER.BETA2": _with_optimizer(BETA2_OPTIMIZERS),
    "SOLVER.DISTILL_*": (lambda cfg: bool(cfg.MODEL.TEACHER), "MODEL.TEACHER"),
    "INPUT.RANDAUGMENT_*": (
        lambda cfg: bool(cfg.INPUT.AUTO_AUGMENT == "randaugment"),
        "INPUT.AUTO_AUGMENT randaugment",
    ),
    "MODEL_EMA.DECAY": (lambda cfg: bool(cfg.MODEL_EMA.ENABLED), "MODEL_EMA.ENABLED True"),
    "MODEL_EMA.WARMUP": (lambda cfg: bool(cfg.MODEL_EMA.ENABLED), "MODEL_EMA.ENABLED True"),
    # all keys of the group but ENABLED
    "INPUT.CROP.[!E]*": (lambda cfg: bool(cfg.INPUT.CROP.ENABLED), "INPUT.CROP.ENABLED True"),
    "SOLVER.AMP.DTYPE": (lambda cfg: bool(cfg.SOLVER.AMP.ENABLED), "SOLVER.AMP.ENABLED True"),
    "SOLVER.CLIP_GRADIENTS.*": (
        lambda cfg: bool(cfg.SOLVER.CLIP_GRADIENTS.ENABLED),
        "SOLVER.CLIP_GRADIENTS.ENABLED True",
    ),
}


def unread_keys(cfg: CfgNode) -> dict[str, str]:
    """Returns the given keys that have no effect in the training of a config, with the reason.

    A key counts as given if a config file, the command line or code gives it a value other than the
    default. Keys that come only from a ``_BASE_`` file do not count, since other configs share it.

    Args:
        cfg: Config of a classifier or a detector.
    """
    defaults = dict(iter_keys(get_cfg()))  # keys that others have added are not judged
    return {
        key: reason
        for key in sorted(cfg.given_keys(bases=False) & defaults.keys())
        if not same_value(get_value(cfg, key), defaults[key])
        if (reason := unread_reason(cfg, key))
    }


def unread_reason(cfg: CfgNode, key: str) -> str:
    """Returns why the training of a config does not read a key; "" if it does.

    Args:
        cfg: Config of a classifier or a detector.
        key: Full key, such as ``SOLVER.STEPS``.
    """
    is_read, reader = _is_read_by_task(cfg, key)
    if not is_read:
        return f"not read for {reader}"
    for pattern, (condition, words) in _CONDITIONS.items():
        if fnmatch.fnmatchcase(key, pattern) and not condition(cfg):
            return f"read only with {words}"
    return ""


def tasks_that_read(key: str) -> tuple[str, ...]:
    """Returns the tasks that read a key: ``classifiers``, ``detectors``, both or, rarely, none.

    Args:
        key: Full name of a key of a training. A key that only some detectors read counts as read by
            detectors.
    """
    if key in KEYS:
        reads = {
            "classifiers": not _matches(key, _ONLY_DETECTORS),
            "detectors": not _matches(key, _ONLY_CLASSIFIERS),
        }
    else:
        is_common = _matches(key, _DETECTRON2_COMMON_KEYS)
        reads = {
            "classifiers": is_common,
            "detectors": is_common or _matches(key, _DETECTRON2_DETECTOR_KEYS),
        }
    return tuple(task for task, is_read in reads.items() if is_read)


def _is_read_by_task(cfg: CfgNode, key: str) -> tuple[bool, str]:
    """Returns whether the task of a config, its backbone and its meta-architecture read a key.

    Returns:
        Whether they read it, and the reader in words: the task, such as ``a classifier``, or the
        part that does not read the key, such as ``the backbone build_fbnet_backbone``.
    """
    if not is_detector(cfg):
        if key in KEYS:
            is_read = not _matches(key, _ONLY_DETECTORS)
        else:
            is_read = _matches(key, _DETECTRON2_COMMON_KEYS)
        return is_read, "a classifier"
    if _matches(key, _ONLY_FBNETS) and "fbnet" not in cfg.MODEL.BACKBONE.NAME:
        return False, f"the backbone {cfg.MODEL.BACKBONE.NAME}"
    if _matches(key, _ONLY_RESNETS) and "resnet" not in cfg.MODEL.BACKBONE.NAME:
        return False, f"the backbone {cfg.MODEL.BACKBONE.NAME}"
    if _matches(key, _ONLY_TWO_STAGES) and cfg.MODEL.META_ARCHITECTURE in _ONE_STAGE:
        return False, f"the meta-architecture {cfg.MODEL.META_ARCHITECTURE}"
    if key in KEYS:
        return not _matches(key, _ONLY_CLASSIFIERS), "a detector"
    return _matches(key, (*_DETECTRON2_COMMON_KEYS, *_DETECTRON2_DETECTOR_KEYS)), "a detector"


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)
