"""The data sets of a search: selected classes, and images held out to score candidates on."""

from __future__ import annotations

import functools
import math
from collections import Counter

import numpy as np

from fbnetv3.config import CfgNode
from fbnetv3.config.archs import is_detector
from fbnetv3.data import ImageDataset, build_dataset, list_datasets, register_dataset
from fbnetv3.errors import FBNetError
from fbnetv3.search.errors import SearchError

_STANDARD_ERRORS = 3
"""Number of standard errors above chance up to which an accuracy counts as chance.

For the mAP, these are standard deviations of the mAPs of random scores.
"""
_DRAWS = 5
"""Number of classifiers with random scores from which the mAP of chance is estimated."""


def open_training_set(cfg: CfgNode) -> ImageDataset:
    """Returns DATASETS.TRAIN, before classes are selected and images held out.

    Raises:
        FBNetError: DATASETS.TRAIN or TEST does not name exactly one data set, or the training set
            cannot be opened.
    """
    return _dataset(dataset_names(cfg)[0])


def num_classes_from_config(cfg: CfgNode) -> int:
    """Returns the number of classes for which the costs of candidates are computed.

    This is SEARCH.FINAL_CLASSES, the number of classes of the final networks. If it is 0, this is
    the number of classes on which candidates train. The key is 0 if the final networks have the
    same number of classes, or if the run was started by an earlier version of fbnetv3, which lacked
    the key.

    Raises:
        FBNetError: The number depends on the training set, which cannot be opened.
    """
    number = cfg.SEARCH.FINAL_CLASSES or cfg.SEARCH.CLASSES or cfg.MODEL.NUM_CLASSES
    return int(number) or _training_classes(cfg)


def _training_classes(cfg: CfgNode) -> int:
    """Returns the number of classes of DATASETS.TRAIN."""
    if not is_detector(cfg):
        return len(open_training_set(cfg).classes)
    # Imported late, as in register_search_split.
    from fbnetv3.search.fbnet.detectors import num_detector_classes

    return num_detector_classes(cfg, dataset_names(cfg)[0])


def final_classes(cfg: CfgNode) -> int:
    """Returns SEARCH.FINAL_CLASSES, or the number of classes of DATASETS.TRAIN if it is 0.

    Returns:
        The number of classes. 0 in a search over classifiers with SEARCH.FINAL_CLASSES and
        SEARCH.CLASSES of 0: candidates and final networks then have the same classes.

    Raises:
        FBNetError: The number depends on the training set, which cannot be opened.
    """
    if cfg.SEARCH.FINAL_CLASSES or not (cfg.SEARCH.CLASSES or is_detector(cfg)):
        return int(cfg.SEARCH.FINAL_CLASSES)
    return _training_classes(cfg)


def register_search_split(cfg: CfgNode) -> tuple[str, str]:
    """Registers the training and validation set that SEARCH.CLASSES and HOLD_OUT describe.

    Returns:
        The names of the training and the validation set. They are DATASETS.TRAIN and TEST if
        SEARCH.CLASSES and HOLD_OUT are both 0.

    Raises:
        SearchError: DATASETS.TRAIN or TEST does not name exactly one data set.
    """
    train, test = dataset_names(cfg)
    if is_detector(cfg):
        # Imported late: a search over classifiers needs neither detectors nor COCO's evaluation.
        from fbnetv3.search.fbnet.detectors import register_detector_split

        return register_detector_split(cfg, train, test)
    classes, held = cfg.SEARCH.CLASSES, cfg.SEARCH.HOLD_OUT
    if not classes and not held:
        return train, test
    stratified = cfg.SEARCH.HOLD_OUT_SAMPLING == "stratified"
    drawn = "held_out" if stratified else "held_out_at_random"
    # Each name identifies its images: another search in this process may have other data sets.
    how = f"{classes or 'all'}_classes:{held}_{drawn}:seed_{cfg.SEED}"
    sources = (train, train if held else test)
    names = (f"{sources[0]}:{how}:train", f"{sources[1]}:{how}:test")
    for part, (name, source) in enumerate(zip(names, sources, strict=True)):
        if name not in list_datasets():
            make = functools.partial(_part, source, classes, held, cfg.SEED, stratified, part)
            register_dataset(name)(make)
    return names


def chance_score(cfg: CfgNode) -> float:
    """Returns the highest score, in percent, that counts as reached without learning.

    This is a top-1 accuracy (:func:`chance_top1`), a mean average precision of images with several
    labels (:func:`chance_map`), or a detector's AP
    (:func:`~fbnetv3.search.fbnet.detectors.chance_ap`).

    Raises:
        FBNetError: A data set cannot be opened.
    """
    if not is_detector(cfg):
        scored = build_dataset(register_search_split(cfg)[1])
        return chance_map(scored) if scored.is_multi_label else chance_top1(scored)
    # Imported late, as in register_search_split.
    from fbnetv3.search.fbnet.detectors import chance_ap

    return chance_ap(cfg, *dataset_names(cfg))


def chance_top1(dataset: ImageDataset) -> float:
    """Returns the highest top-1 accuracy, in percent, that counts as reached without learning.

    This is the accuracy of always predicting the most frequent class or of guessing, whichever is
    higher, plus three standard errors of an accuracy on the images that score candidates.

    Args:
        dataset: Images that score candidates.
    """
    counts, images = Counter(dataset.targets), max(1, len(dataset.targets))
    rate = max(1 / max(1, len(dataset.classes)), max(counts.values(), default=0) / images)
    return 100 * (rate + _STANDARD_ERRORS * math.sqrt(rate * (1 - rate) / images))


def chance_map(dataset: ImageDataset) -> float:
    """Returns the highest mAP, in percent, that counts as reached without learning.

    This is the mean mAP of five classifiers with random scores, plus three standard deviations.

    Args:
        dataset: Images with several labels that score candidates.
    """
    # Imported late, since it imports torch's layers.
    from fbnetv3.classification.multi_label import mean_average_precision

    truth = np.zeros((len(dataset), len(dataset.classes)), np.float32)
    for row, labels in zip(truth, dataset.targets, strict=True):
        row[list(labels)] = 1
    draws = (np.random.default_rng(i).random(truth.shape, np.float32) for i in range(_DRAWS))
    scores = [mean_average_precision(truth, draw) for draw in draws]
    return 100 * float(np.mean(scores) + _STANDARD_ERRORS * np.std(scores))


def score_name(cfg: CfgNode) -> str:
    """Returns the name of the scores of a search's candidates, with their unit.

    It is ``score`` with a registered evaluator, since the unit of its scores is unknown. In a
    search over classifiers, it is ``score (%)`` if the training set cannot be opened, since it is
    unknown whether images have several labels.
    """
    if cfg.SEARCH.EVALUATOR != "train":
        return "score"
    if is_detector(cfg):
        return "box AP (%)"
    try:
        return "mAP (%)" if open_training_set(cfg).is_multi_label else "top-1 (%)"
    except FBNetError:
        return "score (%)"


def counts_iterations(cfg: CfgNode) -> bool:
    """Returns whether scores are recorded by iteration instead of by epoch.

    This is so for detectors unless TEST.EVAL_EPOCHS is a whole number above 0.
    """
    epochs = cfg.TEST.EVAL_EPOCHS
    return is_detector(cfg) and not (epochs > 0 and float(epochs).is_integer())


def dataset_names(cfg: CfgNode) -> tuple[str, str]:
    """Returns the name in DATASETS.TRAIN and the name in DATASETS.TEST.

    Raises:
        SearchError: One of the keys does not contain exactly one name.
    """
    for part in ("TRAIN", "TEST"):
        names = list(cfg.DATASETS[part])
        if len(names) != 1:
            raise SearchError(f"DATASETS.{part}={names} must name exactly one data set")
    return cfg.DATASETS.TRAIN[0], cfg.DATASETS.TEST[0]


@functools.lru_cache(maxsize=4)
def _dataset(name: str) -> ImageDataset:
    """Opens a data set once per process, so that candidates share its decoded pixels."""
    return build_dataset(name)


@functools.lru_cache(maxsize=4)
def _part(
    source: str, classes: int, held: int, seed: int, stratified: bool, part: int
) -> ImageDataset:
    dataset = _dataset(source)
    if classes:
        dataset = dataset.select_classes(classes, seed)
    return dataset.split(held, seed, stratified=stratified)[part] if held else dataset
