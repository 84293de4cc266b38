"""Config keys that this package adds to detectron2's: defaults and meaning."""

from __future__ import annotations

import copy
from typing import Any

from detectron2.config import get_cfg as detectron_get_cfg

from fbnetv3 import imagenet
from fbnetv3.config.node import CfgNode

# Key -> (default, meaning). Where detectron2 has a key for something, that key is used:
# SOLVER.BASE_LR, IMS_PER_BATCH, MOMENTUM, WEIGHT_DECAY, WARMUP_FACTOR, AMP.ENABLED, CLIP_GRADIENTS,
# DATASETS.TRAIN, DATALOADER.NUM_WORKERS, MODEL.WEIGHTS, OUTPUT_DIR, SEED.
KEYS: dict[str, tuple[Any, str]] = {
    "MODEL.ARCH": (
        "fbnetv3_a",
        "network: a name of list_models(), torchvision/NAME, timm/NAME, or the path of a yaml",
    ),
    "MODEL.ARCH_VARIANT": (
        "",
        (
            "'' for the network as published, 'aligned' (paddings of k // 2), 'low_resolution' "
            "(a smaller total stride for images of 32 pixels, paper 4.3: CIFAR), "
            "'low_resolution_scaled' (the same for images of 32 pixels times the network's "
            "resolution / 224, as in the paper)"
        ),
    ),
    "MODEL.WIDTH": (1.0, "factor by which the numbers of channels are multiplied"),
    "MODEL.DEPTH": (1.0, "factor by which the number of blocks in each stage is multiplied"),
    "MODEL.NUM_CLASSES": (
        0,
        "number of classes, which must equal the data set's; 0: taken from the data set",
    ),
    "MODEL.DROP_RATE": (
        0.0,
        "dropout probability before the classifier (p in the paper's Table 7)",
    ),
    "MODEL.DROP_PATH_RATE": (
        0.0,
        (
            "stochastic depth: probability of dropping the last block, less for earlier blocks "
            "(d in Table 7)"
        ),
    ),
    "MODEL.ARCH_NORM": (
        "BN",
        "norms of an FBNet in a detector: 'BN' is trained, 'FrozenBN' keeps the loaded statistics",
    ),
    "MODEL.BN_MOMENTUM": (
        0.0,
        (
            "batch norm's momentum as PyTorch defines it, the weight of the newest batch in the "
            "running statistics (the paper's 0.9, A.3, is 0.1); 0: the momentum that the network "
            "has, 0.1 in FBNets"
        ),
    ),
    "MODEL.SYNC_BN": (
        True,
        "compute batch norm statistics over all processes, not in each process (paper A.3)",
    ),
    "MODEL.FREEZE": (
        "",
        (
            "patterns, separated by commas, of modules or parameters that are not trained: "
            "'stem,stages.[01].*'; batch norms in them keep their running statistics"
        ),
    ),
    "MODEL.TEACHER": (
        "",
        (
            "classifier from which this one is distilled, zoo://NAME or a file that a training "
            "exported; '': none"
        ),
    ),
    "MODEL.COMPILE": (
        False,
        (
            "train the network compiled by torch.compile; if the compiler is missing or fails, the "
            "training goes on without it"
        ),
    ),
    "MODEL_EMA.ENABLED": (
        True,
        "keep an exponential moving average of the weights (paper A.3, eq. 2)",
    ),
    "MODEL_EMA.DECAY": (
        0.99985,
        "decay per step of the averages; paper: 0.99985 ImageNet, 0.999 CIFAR-10, 0.9998 COCO",
    ),
    "MODEL_EMA.WARMUP": (
        False,
        "use a decay of at most (1 + t) / (10 + t) at step t, for short trainings",
    ),
    "SOLVER.OPTIMIZER": (
        "rmsprop",
        (
            "'rmsprop' (as in TensorFlow, with alpha 0.9 and eps 1e-3), 'sgd', 'adamw', 'lion', "
            "'muon' (the last two are timm's), or a registered name"
        ),
    ),
    "SOLVER.BETA2": (
        0.0,
        (
            "second beta of adamw, lion and muon, whose first beta is MOMENTUM; 0: the usual "
            "value, which is 0.999, 0.99 and 0.95 respectively"
        ),
    ),
    "SOLVER.LAYER_DECAY": (
        1.0,
        "lr factor from each block of the network to the block before it; 1: the same lr for all",
    ),
    "SOLVER.HEAD_LR_FACTOR": (
        1.0,
        "lr factor of the classifier, or of all that follows the backbone of a detector",
    ),
    "SOLVER.REFERENCE_BATCH": (
        256,
        (
            "images per optimizer step for which BASE_LR is given: lr = BASE_LR * IMS_PER_BATCH * "
            "ACCUMULATE_STEPS / REFERENCE_BATCH. Detectors also scale iterations and EMA decay; "
            "for them, 0 turns all scaling off, including that of the learning rate"
        ),
    ),
    "SOLVER.ACCUMULATE_STEPS": (
        1,
        (
            "forward and backward passes of IMS_PER_BATCH images per optimizer step, whose "
            "gradients are averaged: k passes with an IMS_PER_BATCH k times smaller take less "
            "memory. Iterations, the schedule, EMA and periods count optimizer steps, not passes"
        ),
    ),
    "SOLVER.AMP.DTYPE": (
        "float16",
        (
            "type of the mixed precision of AMP.ENABLED: 'float16' (CUDA only, with scaled losses) "
            "or 'bfloat16' (also on CPUs)"
        ),
    ),
    "SOLVER.MAX_EPOCHS": (
        400.0,
        (
            "length of the training in epochs; 0: SOLVER.MAX_ITER iterations. STEPS are then "
            "iterations, too, and a detector reads WARMUP_ITERS instead of WARMUP_EPOCHS"
        ),
    ),
    "SOLVER.EPOCH_DECAY": (0.9875, "lr factor per epoch of the exponential schedule"),
    "SOLVER.WARMUP_EPOCHS": (5.0, "epochs of linear lr warm-up, which are part of MAX_EPOCHS"),
    "SOLVER.LABEL_SMOOTHING": (0.1, "label smoothing of the loss; in [0, 1)"),
    "SOLVER.CLASS_WEIGHTS": ([], "weights of the classes in the loss, in their order; []: equal"),
    "SOLVER.CLASS_BALANCE": (
        0.0,
        (
            "power p of further weights 1 / (images of the class) ** p, with mean 1 over the "
            "images; 0: none, 1: each class has the same total weight"
        ),
    ),
    "SOLVER.DISTILL_ALPHA": (
        0.5,
        "share of the distillation in the loss with MODEL.TEACHER; the rest is the labels' loss",
    ),
    "SOLVER.DISTILL_TEMPERATURE": (
        1.0,
        "temperature by which the logits of network and teacher are divided in the distillation",
    ),
    "SOLVER.LOSS": (
        "cross_entropy",
        "loss of a classifier: 'cross_entropy', 'binary_cross_entropy', or a registered name",
    ),
    "SOLVER.CHECKPOINT_EPOCHS": (
        1.0,
        "epochs between checkpoints; 0: SOLVER.CHECKPOINT_PERIOD iterations",
    ),
    "SOLVER.KEEP_CHECKPOINTS": (2, "number of newest checkpoints that are kept"),
    "SOLVER.KEEP_BEST": (
        "",
        (
            "score whose best checkpoint is kept as checkpoint_best.pt in addition to the newest: "
            "val/top1_ema, bbox/AP_ema or another score in metrics.json; '': none"
        ),
    ),
    "SOLVER.EARLY_STOP_PATIENCE": (
        0,
        "evaluations in a row without a better score (KEEP_BEST) that end the training; 0: never",
    ),
    "SOLVER.LOG_PERIOD": (
        20,
        (
            "iterations between lines of metrics.json and of the log; 0: lines only after "
            "evaluations and checkpoints, and at the end"
        ),
    ),
    "INPUT.RESOLUTION": (0, "side of the network's input in pixels; 0: the network's default"),
    "INPUT.RESIZE": (
        0,
        (
            "evaluation: length of the shorter side before the center crop; 0: RESOLUTION / 0.875, "
            "rounded up to a multiple of 8"
        ),
    ),
    "INPUT.INTERPOLATION": (
        "bilinear",
        "resampling of resized images: 'bilinear', 'bicubic', 'lanczos' or 'nearest'",
    ),
    "INPUT.TRAIN_CROP": (
        "resized",
        (
            "training crop: 'resized' (random area and aspect ratio, ImageNet), 'padded' (random "
            "shift, CIFAR) or 'none'"
        ),
    ),
    "INPUT.TRAIN_FLIP": (True, "flip training images horizontally at random"),
    "INPUT.AUTO_AUGMENT": (
        "none",
        (
            "augmentation of training images: 'none', AutoAugment's policy 'imagenet' or "
            "'cifar10', 'randaugment' or 'trivialaugment'"
        ),
    ),
    "INPUT.RANDAUGMENT_OPS": (2, "operations of randaugment per image, 1 to 10"),
    "INPUT.RANDAUGMENT_MAGNITUDE": (9, "strength of the operations of randaugment, 0 to 30"),
    "INPUT.RANDOM_ERASING": (
        0.0,
        "probability with which a rectangle of a training image is erased",
    ),
    "INPUT.REPEATED_AUGMENT": (
        1,
        (
            "copies of an image in a batch, each augmented differently; an epoch has that many "
            "times fewer different images, in the same number of steps"
        ),
    ),
    "INPUT.MIXUP": (0.0, "alpha of mixup's Beta distribution (m in Table 7); 0: no mixup"),
    "INPUT.CUTMIX": (
        0.0,
        "alpha of CutMix's Beta distribution; 0: none. With MIXUP each batch draws one of the two",
    ),
    "INPUT.MEAN": (list(imagenet.MEAN), "RGB mean of pixels in 0..1, subtracted from images"),
    "INPUT.STD": (
        list(imagenet.STD),
        "RGB standard deviation of pixels in 0..1, which divides images",
    ),
    "DATASETS.COCO": (
        [],
        (
            "your own detection data sets, [[name, json, image folder], ...]; paths may be "
            "relative to the folder FBNETV3_DATA"
        ),
    ),
    "DATALOADER.BALANCED_SAMPLING": (
        0.0,
        (
            "power p: an epoch draws images of a class in proportion to their number ** (1 - p); "
            "0: each image once, 1: equally many of each class"
        ),
    ),
    "DATALOADER.PREFETCH": (2, "batches that each loader worker prepares in advance"),
    "DATALOADER.PERSISTENT_WORKERS": (
        True,
        "keep the workers of an evaluation until the next one, which starts faster",
    ),
    "DATALOADER.PIN_MEMORY": (
        True,
        "put batches for a CUDA device into pinned memory, to copy them while the device computes",
    ),
    "DATA.CHECK_IMAGES": (
        True,
        (
            "detectors: decode every image before the training, which detects truncated files; if "
            "False, only their headers are read. Classifiers: decode the images of DATASETS.TEST "
            "before the training, for at most 10 seconds"
        ),
    ),
    "DATA.SKIP_BROKEN": (
        False,
        "leave out images that cannot be decoded, with a warning, instead of stopping",
    ),
    "DATA.TRAIN_LIMIT": (
        0,
        "number of training images to use, about the same fraction of each class's images; 0: all",
    ),
    "INPUT.TRANSFORMS": (
        [],
        "registered transforms of training images after all others, such as 'blur?radius=2'",
    ),
    "HOOKS": ([], "registered hooks of the training loop, see docs/extending.md"),
    "WRITERS": (
        ["tensorboard"],
        (
            "where numbers of a training go besides metrics.json: 'tensorboard', 'csv', 'mlflow', "
            "'wandb', or registered names"
        ),
    ),
    "TEST.EVAL_EPOCHS": (1.0, "epochs between evaluations; 0: TEST.EVAL_PERIOD iterations"),
    "TEST.BATCH_SIZE": (128, "images per step of an evaluation in each process"),
    "TEST.COCO_EVALUATOR": (
        "faster",
        "'faster' (faster-coco-eval) or 'pycocotools'; both compute the same numbers",
    ),
}

ADDED_KEYS = (
    "DATALOADER.BALANCED_SAMPLING",
    "DATALOADER.PERSISTENT_WORKERS",
    "DATALOADER.PIN_MEMORY",
    "DATALOADER.PREFETCH",
    "HOOKS",
    "INPUT.CUTMIX",
    "INPUT.RANDAUGMENT_MAGNITUDE",
    "INPUT.RANDAUGMENT_OPS",
    "INPUT.RANDOM_ERASING",
    "INPUT.REPEATED_AUGMENT",
    "INPUT.TRANSFORMS",
    "MODEL.BN_MOMENTUM",
    "MODEL.COMPILE",
    "MODEL.FREEZE",
    "MODEL.TEACHER",
    "SOLVER.ACCUMULATE_STEPS",
    "SOLVER.AMP.DTYPE",
    "SOLVER.BETA2",
    "SOLVER.CLASS_BALANCE",
    "SOLVER.CLASS_WEIGHTS",
    "SOLVER.DISTILL_ALPHA",
    "SOLVER.DISTILL_TEMPERATURE",
    "SOLVER.EARLY_STOP_PATIENCE",
    "SOLVER.HEAD_LR_FACTOR",
    "SOLVER.KEEP_BEST",
    "SOLVER.LAYER_DECAY",
    "SOLVER.LOSS",
    "WRITERS",
)
"""Keys that version 0.1 did not have. With their defaults, trainings are as in version 0.1."""

# detectron2's keys with other defaults, which suit classifiers
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
    """Returns the default config: detectron2's keys and :data:`KEYS`, for a classifier."""
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
    # None: True for classifiers, False for detectors. detectron2's default, False, would look like
    # a False that the user gave. CfgNode refuses a change of type, but dict's method does not.
    dict.__setitem__(cfg.SOLVER, "NESTEROV", None)
    cfg.merge_from_list([x for pair in _CHANGED_DEFAULTS.items() for x in pair])
    cfg.forget_given_keys()
    return cfg
