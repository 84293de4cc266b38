"""``fbnetv3.train``: a training with a caller's network, data sets, hooks and writers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from fbnetv3 import training
from fbnetv3.classification.own import OwnParts
from fbnetv3.config import CfgNode
from fbnetv3.engine.additions import Additions
from fbnetv3.engine.detectron2_loop import HookBase
from fbnetv3.engine.result import TrainingResult


def train(
    cfg: CfgNode,
    model: nn.Module | None = None,
    train_set: object = None,
    test_set: object = None,
    hooks: Sequence[HookBase] = (),
    writers: Sequence[Any] = (),
    *,
    resume: bool = False,
    **options: Any,
) -> TrainingResult:
    """Trains a network; with ``resume``, continues from the last checkpoint in OUTPUT_DIR.

    Args:
        cfg: Config of a classifier or a detector.
        model: Network in place of MODEL.ARCH, a classifier: images (N, 3, H, W) to logits
            (N, classes). It is trained in place.
        train_set: Data set in place of DATASETS.TRAIN: a map-style torch Dataset of (image, label),
            a Hugging Face ``datasets.Dataset``, or a ``fbnetv3.data.ImageStream``; see
            ``fbnetv3.data.as_image_dataset``.
        test_set: Data set in place of DATASETS.TEST.
        hooks: detectron2's hooks, in addition to those that HOOKS names.
        writers: Objects with methods ``log(values, iteration)`` and ``close()``, or detectron2's
            event writers, in addition to those that WRITERS names.
        resume: Whether to continue from the last checkpoint, if there is one.
        options: Further arguments of ``fbnetv3.training.train``, such as ``stop_after``.

    Returns:
        A mapping of the last scores by name, empty on ranks other than 0. Its attributes are the
        paths of the exported weights (``weights``) and of the run (``folder``).

    Raises:
        FBNetError: The config or data are invalid, a loss is not finite, or a signal arrived.
    """
    own, additions = OwnParts(model, train_set, test_set), Additions(hooks, writers)
    return training.train(cfg, resume=resume, own=own, additions=additions, **options)
