"""Our keys: defaults and meaning."""

from __future__ import annotations

import copy
from typing import Any

from detectron2.config import get_cfg as detectron_get_cfg

from fbnetv3 import imagenet
from fbnetv3.config.node import CfgNode

# Our keys with their defaults and meaning. Where detectron2 has a key for a thing, it is used
# (SOLVER.BASE_LR, IMS_PER_BATCH, MOMENTUM, WEIGHT_DECAY, WARMUP_FACTOR, AMP.ENABLED,
# CLIP_GRADIENTS, DATASETS.TRAIN, DATALOADER.NUM_WORKERS, MODEL.WEIGHTS, OUTPUT_DIR, SEED).
KEYS: dict[str, tuple[Any, str]] = {
    "MODEL.ARCH": (
        "fbnetv3_a",
        "network: a name of list_models(), torchvision/NAME, timm/NAME, or an arch yaml",
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
    "MODEL.ARCH_NORM": (
        "BN",
        "detectors on FBNets: 'BN', or 'FrozenBN' for the loaded statistics as constants",
    ),
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
        (
            "images a step that BASE_LR is meant for: lr = BASE_LR * IMS_PER_BATCH / this; "
            "detectors' iterations and EMA decay follow too, unless it is 0"
        ),
    ),
    "SOLVER.MAX_EPOCHS": (
        400.0,
        "length of the schedule; 0: SOLVER.MAX_ITER counts (for detectors STEPS, WARMUP_ITERS too)",
    ),
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
    "INPUT.MEAN": (list(imagenet.MEAN), "RGB mean of pixels scaled to 0..1"),
    "INPUT.STD": (list(imagenet.STD), "RGB standard deviation of pixels scaled to 0..1"),
    "DATASETS.COCO": (
        [],
        "detection sets of one's own, [[name, json, image folder], ...]; also below FBNETV3_DATA",
    ),
    "DATA.CHECK_IMAGES": (
        True,
        "detection: decode every image before training, which finds truncated ones; else headers",
    ),
    "DATA.SKIP_BROKEN": (False, "count and leave out unreadable images instead of stopping"),
    "DATA.TRAIN_LIMIT": (0, "train on a stratified part of so many images; 0: all"),
    "TEST.EVAL_EPOCHS": (1.0, "evaluation period; 0: TEST.EVAL_PERIOD iterations"),
    "TEST.BATCH_SIZE": (128, "images a step of the evaluation, over all processes"),
    "TEST.COCO_EVALUATOR": (
        "faster",
        "'faster' (faster-coco-eval) or 'pycocotools'; equal numbers",
    ),
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


def get_cfg() -> CfgNode:
    """Returns the default config: detectron2's tree, our keys, and defaults for classifiers."""
    cfg = CfgNode(detectron_get_cfg())
    cfg.set_new_allowed(True)
    for full_key, (value, _) in KEYS.items():
        *path, key = full_key.split(".")
        node = cfg
        for part in path:
            if part not in node:
                node[part] = CfgNode(new_allowed=True)
            node = node[part]
        node[key] = copy.deepcopy(value)
    cfg.set_new_allowed(False)
    cfg.merge_from_list([x for pair in _CHANGED_DEFAULTS.items() for x in pair])
    return cfg
