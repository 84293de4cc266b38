"""The task of a classifier, built from a config: loss, augmentation of batches, and teacher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fbnetv3.classification.class_weights import class_weights
from fbnetv3.classification.distillation import Distillation, teacher_from_config
from fbnetv3.classification.multi_label import MultiLabelTask
from fbnetv3.classification.own import AnyDataset
from fbnetv3.classification.task import ClassificationTask
from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.data import EvalLoader, ImageDataset, Normalize
from fbnetv3.data.batch_augment import BatchAugment
from fbnetv3.data.labels import class_counts_of
from fbnetv3.engine.precision import amp_dtype
from fbnetv3.engine.process import RuntimeContext
from fbnetv3.recipe import Recipe


def task_from_config(
    cfg: CfgNode,
    context: RuntimeContext,
    recipe: Recipe,
    test_set: AnyDataset,
    eval_loader: EvalLoader,
    training: dict[str, Any],
) -> ClassificationTask:
    """Returns the task for images with one label each, or for images with several.

    Args:
        cfg: Config of a classifier.
        context: Process, device and console to run on.
        recipe: Training recipe.
        test_set: Evaluation set.
        eval_loader: Evaluation batches of this process.
        training: Arguments that :func:`training_parts` returned.

    Raises:
        FBNetError: The loss is unknown, or INPUT.MEAN or INPUT.STD is not allowed.
    """
    kind = MultiLabelTask if has_several_labels(test_set) else ClassificationTask
    return kind(
        num_classes=len(test_set.classes),
        eval_loader=eval_loader,
        device=context.device,
        amp_dtype=amp_dtype(recipe, context.device),
        progress=context.shows_progress,
        normalize=Normalize(cfg.INPUT.MEAN, cfg.INPUT.STD),
        **training,
    )


def training_parts(
    cfg: CfgNode,
    context: RuntimeContext,
    recipe: Recipe,
    train_set: AnyDataset | None,
    side: int,
    ignore_class_names: bool = False,
) -> dict[str, Any]:
    """Returns those arguments of the task's constructor that only a training needs.

    Args:
        cfg: Config of a classifier.
        context: Process, device and console to run on.
        recipe: Training recipe.
        train_set: Training set; None in an evaluation, for which the result is empty.
        side: Side of the images in pixels.
        ignore_class_names: Whether the teacher's classes may have other names than the data's.

    Raises:
        ConfigError: The class weights or the teacher do not fit the data or the loss.
    """
    if train_set is None:
        return {}
    classes, process = train_set.classes, context.process
    return {
        "augment": BatchAugment(
            len(classes),
            recipe.mixup,
            recipe.cutmix,
            recipe.label_smoothing,
            recipe.random_erasing,
            cfg.SEED,
            process.rank,
            process.world_size,
        ),
        "loss": recipe.loss,
        "class_weights": class_weights(recipe, _counts(recipe, train_set)),
        "distillation": _distillation(cfg, context, recipe, classes, side, ignore_class_names),
    }


def has_several_labels(dataset: AnyDataset) -> bool:
    """Returns whether images may have several labels; in a stream, each image has one label."""
    return isinstance(dataset, ImageDataset) and dataset.is_multi_label


def _counts(recipe: Recipe, train_set: AnyDataset) -> list[int]:
    """Returns the number of images per class, or 1 for each class if the recipe needs no counts."""
    if not recipe.class_balance:
        return [1] * len(train_set.classes)
    if not isinstance(train_set, ImageDataset):
        raise ConfigError(
            "SOLVER.CLASS_BALANCE counts the images of each class, which a stream does not know; "
            "allowed for streams: 0, with SOLVER.CLASS_WEIGHTS in its place"
        )
    return class_counts_of(train_set)


def _distillation(
    cfg: CfgNode,
    context: RuntimeContext,
    recipe: Recipe,
    classes: Sequence[str],
    side: int,
    ignore_class_names: bool,
) -> Distillation | None:
    if not cfg.MODEL.TEACHER:
        return None
    teacher = teacher_from_config(cfg, classes, side, context.device, ignore_class_names)
    return Distillation(teacher, recipe.distill_alpha, recipe.distill_temperature)


def recipe_rows(cfg: CfgNode, recipe: Recipe) -> list[tuple[str, str]]:
    """Returns rows (name, text) of the printed training plan for the optional parts in use."""
    rows = {
        "teacher": cfg.MODEL.TEACHER
        and f"{cfg.MODEL.TEACHER}: {recipe.distill_alpha:g} of the loss, temperature "
        f"{recipe.distill_temperature:g}",
        "frozen": recipe.freeze,
        "class weights": ", ".join(_class_weights(recipe)),
        "sampling": recipe.balanced_sampling and f"balanced by {recipe.balanced_sampling:g}",
    }
    return [(name, str(text)) for name, text in rows.items() if text]


def _class_weights(recipe: Recipe) -> Iterator[str]:
    """Yields the sources of the weights of classes in the loss, as the plan shows them."""
    if recipe.class_weights:
        yield f"{len(recipe.class_weights)} given"
    if recipe.class_balance:
        yield f"balance {recipe.class_balance:g}"
