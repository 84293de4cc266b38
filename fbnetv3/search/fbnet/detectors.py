"""A search over detectors: its data, its scores, and the trainings of its candidates."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from fbnetv3.config import CfgNode, recipe_from_config, recipe_to_config
from fbnetv3.config.recipes import RECIPE_KEYS
from fbnetv3.data.datasets import DATA_ROOT_ENV
from fbnetv3.detection.coco import CocoDataset
from fbnetv3.detection.datasets import (
    DETECTION_DATASETS,
    build_detection_dataset,
    images_to_train_on,
    records_with_boxes,
)
from fbnetv3.detection.evaluation import count_scored_boxes, evaluate_boxes
from fbnetv3.detection.images import check_images
from fbnetv3.detection.recipe import step_batch
from fbnetv3.detection.split import split_images
from fbnetv3.recipe import Recipe
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.detector_fields import FIELDS
from fbnetv3.search.fbnet.space import FBNetSpace
from fbnetv3.search.fbnet.space_conditions import is_active
from fbnetv3.search.fbnet.space_table import Ref, resolve

_CHANCE_DRAWS = 5
"""Number of random detectors that are drawn to estimate the AP that chance reaches."""
_STANDARD_DEVIATIONS = 3
"""The AP of chance is this many standard deviations above the mean AP of these detectors."""
_BOXES = 100
"""Boxes per image that COCO's evaluation counts."""


def num_detector_classes(cfg: CfgNode, train: str) -> int:
    """Returns the number of classes of a detection data set.

    Raises:
        DataError: The data set cannot be opened.
    """
    return len(_source(train, _context(cfg)).classes)


def register_detector_split(cfg: CfgNode, train: str, test: str) -> tuple[str, str]:
    """Registers the two parts of the training set that SEARCH.HOLD_OUT describes.

    The images are divided by :func:`~fbnetv3.detection.split.split_images` with the seed of the
    search, and are checked once in each process.

    Args:
        cfg: Config of the search.
        train: Name of the training set.
        test: Name of the test set.

    Returns:
        The names of the data sets that candidates are trained and scored on: ``train`` and
        ``test`` if SEARCH.HOLD_OUT is 0.
    """
    held = cfg.SEARCH.HOLD_OUT
    if not held:
        return train, test
    stratified = cfg.SEARCH.HOLD_OUT_SAMPLING == "stratified"
    drawn = "held_out" if stratified else "held_out_at_random"
    stem = f"{train}:{held}_{drawn}:seed_{cfg.SEED}"
    names = (f"{stem}:train", f"{stem}:test")
    for part, name in enumerate(names):
        if name not in DETECTION_DATASETS:
            make = functools.partial(_part, train, held, cfg.SEED, stratified, part)
            DETECTION_DATASETS.register(name)(make)
    return names


def _part(
    source: str, held: int, seed: int, stratified: bool, part: int, cfg: CfgNode
) -> CocoDataset:
    """Returns a part of a data set: 0 the images to train on, 1 those that are held out."""
    return _parts(source, held, seed, stratified, _context(cfg))[part]


_Context = tuple[tuple[tuple[str, ...], ...], bool, bool, str]


def _context(cfg: CfgNode) -> _Context:
    """Returns the values on which a data set depends, in a form that can be a key of a cache.

    They are DATASETS.COCO, DATA.CHECK_IMAGES, DATA.SKIP_BROKEN and the root of the data sets.
    """
    entries = tuple(tuple(map(str, entry)) for entry in cfg.DATASETS.COCO)
    check, skip = bool(cfg.DATA.CHECK_IMAGES), bool(cfg.DATA.SKIP_BROKEN)
    return entries, check, skip, os.environ.get(DATA_ROOT_ENV, "")


@functools.lru_cache(maxsize=4)
def _source(name: str, context: _Context) -> CocoDataset:
    """Opens a data set once per process."""
    cfg = CfgNode({"DATASETS": {"COCO": [list(entry) for entry in context[0]]}})
    return build_detection_dataset(name, cfg)


@functools.lru_cache(maxsize=4)
def _parts(
    source: str, held: int, seed: int, stratified: bool, context: _Context
) -> tuple[CocoDataset, CocoDataset]:
    _, check, skip, _ = context
    dataset = check_images(_source(source, context), decode=check, skip_broken=skip)
    train, test = split_images(dataset, held, seed, stratified=stratified)
    return (
        dataclasses.replace(train, name=f"{source} without {held} images"),
        dataclasses.replace(test, name=f"{held} images of {source}"),
    )


def check_detector_data(cfg: CfgNode, train: str, test: str) -> None:
    """Checks that a search's data set has the images that it needs.

    Raises:
        FBNetError: The data set cannot be opened, has too few images, or no box is left to score;
            or SEARCH.CLASSES selects classes.
    """
    if cfg.SEARCH.CLASSES:
        raise SearchError(
            f"SEARCH.CLASSES={cfg.SEARCH.CLASSES} is not allowed for a detector, whose images have "
            "several classes; set it to 0, and train on fewer images by DATA.TRAIN_LIMIT"
        )
    held, count = cfg.SEARCH.HOLD_OUT, len(_source(train, _context(cfg)))
    if held >= count:
        raise SearchError(
            f"SEARCH.HOLD_OUT={held}: {train} has {count} images; allowed: 1 to {count - 1}, or 0 "
            "to score on DATASETS.TEST"
        )
    scored = build_detection_dataset(register_detector_split(cfg, train, test)[1], cfg)
    if not any(count_scored_boxes(record["annotations"]) for record in scored.records):
        raise SearchError(
            f"{scored.name} has no box that counts (crowds do not), so that candidates have no "
            "average precision; raise SEARCH.HOLD_OUT, or name another DATASETS.TEST"
        )


def iterations_per_epoch(cfg: CfgNode) -> int:
    """Returns the steps per epoch of a candidate's training.

    Args:
        cfg: Config of the training, with the names of the search's data sets.
    """
    train_set = build_detection_dataset(cfg.DATASETS.TRAIN[0], cfg)
    return max(1, len(images_to_train_on(train_set, cfg)) // step_batch(cfg))


def chance_ap(cfg: CfgNode, train: str, test: str) -> float:
    """Estimates the highest AP, in percent, that a detector reaches without looking at the images.

    Such a detector knows how boxes are distributed: in each image it predicts the boxes of training
    images that are drawn at random, scaled to the size of the image. The result is the mean AP of
    five such detectors plus three standard deviations.

    Raises:
        DataError: A data set cannot be opened, or no training image has a box.
    """
    names = register_detector_split(cfg, train, test)
    train_set, scored = (build_detection_dataset(name, cfg) for name in names)
    truth, backend = scored.ground_truth(), cfg.TEST.COCO_EVALUATOR
    draws = (
        evaluate_boxes(truth, _blind_boxes(train_set, scored, np.random.default_rng(i)), backend)
        for i in range(_CHANCE_DRAWS)
    )
    scores = [draw.overall.get("AP", 0.0) for draw in draws]
    return float(np.mean(scores) + _STANDARD_DEVIATIONS * np.std(scores))


def _blind_boxes(
    train_set: CocoDataset, scored: CocoDataset, generator: np.random.Generator
) -> list[dict[str, Any]]:
    """Returns the boxes of random training images as detections, 100 in each scored image."""
    sources = records_with_boxes(train_set)
    results = []
    for record in scored.records:
        boxes: list[tuple[list[float], int]] = []
        while len(boxes) < _BOXES:
            source = sources[generator.integers(len(sources))]
            scale = [record[k] / source[k] for k in ("width", "height", "width", "height")]
            boxes += [
                ([x * s for x, s in zip(item["bbox"], scale, strict=True)], item["category_id"])
                for item in source["annotations"]
                if not item["iscrowd"]
            ]
        results += [
            {
                "image_id": record["image_id"],
                "category_id": scored.category_ids[label],
                "bbox": box,
                "score": float(generator.random()),
            }
            for box, label in boxes[:_BOXES]
        ]
    return results


def detector_values(cfg: CfgNode, space: FBNetSpace, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config keys and values of a candidate, besides those of its backbone.

    Keys that the space does not set are left out, so that they keep their values in the config:
    converting the whole recipe into keys would turn lengths in iterations into epochs. A field of
    the recipe is left out, too, if its variable is inactive (the condition ``when`` does not hold).

    Args:
        cfg: Config of the search.
        space: Space of the candidates.
        config: Value by variable.
    """
    values = _recipe_values(cfg, space, config)
    for name, value in space.detector.items():
        if not _matters(name, value, space, config):
            continue
        key, setting = FIELDS[name].key, resolve(value, config)
        if name == "anchor_scale":
            sizes = cfg.MODEL.ANCHOR_GENERATOR.SIZES
            setting = [[size * setting for size in level] for level in sizes]
        values[key] = setting
    if "SOLVER.MAX_ITER" in values:
        values["SOLVER.MAX_EPOCHS"] = 0.0
    if space.sets_resolution:
        values |= _input_values(cfg, resolve(space.resolution, config))
    return values


def _matters(name: str, value: Any, space: FBNetSpace, config: Mapping[str, Any]) -> bool:
    """Returns whether a field applies to a candidate.

    A field of the part ``recipe`` does not apply if its variable is inactive (the condition
    ``when`` does not hold). All other fields always apply.
    """
    if not isinstance(value, Ref) or FIELDS[name].part == "architecture":
        return True
    return is_active(value.name, space.space, config)


def _recipe_values(cfg: CfgNode, space: FBNetSpace, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config keys and values of a candidate's recipe that differ from the config's."""
    base = recipe_from_config(cfg, iters_per_epoch=1)
    recipe = space.recipe(config, base)
    fields = [f.name for f in dataclasses.fields(Recipe)]
    changed = {f for f in fields if getattr(recipe, f) != getattr(base, f)}
    keys = {RECIPE_KEYS[f] for f in changed if f in RECIPE_KEYS}
    clips = "SOLVER.CLIP_GRADIENTS." if "clip_grad_norm" in changed else None
    return {
        key: value
        for key, value in recipe_to_config(recipe).items()
        if key in keys or (clips and key.startswith(clips))
    }


def _input_values(cfg: CfgNode, side: int) -> dict[str, Any]:
    """Returns the sizes of images for a resolution, in the config's ratios to MIN_SIZE_TEST."""
    node = cfg.INPUT
    ratio = side / node.MIN_SIZE_TEST
    sizes = tuple(round(size * ratio) for size in node.MIN_SIZE_TRAIN)
    return {
        "INPUT.MIN_SIZE_TEST": side,
        "INPUT.MIN_SIZE_TRAIN": sizes,
        "INPUT.MAX_SIZE_TRAIN": max(1, round(node.MAX_SIZE_TRAIN * ratio)),
        "INPUT.MAX_SIZE_TEST": max(1, round(node.MAX_SIZE_TEST * ratio)),
    }
