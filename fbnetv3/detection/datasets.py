"""Detection data sets by name, each an annotation file in COCO's format and a folder of images.

There are four ways to add a data set:

* Name it in a config, together with its annotation file and image folder::

      DATASETS:
        COCO: [[cats_train, cats/train.json, cats/images], [cats_val, cats/val.json, cats/images]]
        TRAIN: [cats_train]
        TEST: [cats_val]

* Register it in detectron2's ``DatasetCatalog``, for example in Python with
  ``detectron2.data.datasets.register_coco_instances("cats_train", {}, json_file, image_folder)``.
* Register a function in ``DETECTION_DATASETS`` that gets the config and returns the data set, as
  ``search/fbnet/detectors.py`` does for held-out images.
* To make it built-in, add its annotation file and image folder to ``_UNDER_DATA_ROOT``. Its files
  are then expected below the folder in the environment variable ``FBNETV3_DATA``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.data.datasets import DATA_ROOT_ENV
from fbnetv3.data.errors import DataError, MissingDataError, some
from fbnetv3.detection.coco import CocoDataset, read_coco
from fbnetv3.detection.detectron2_parts import DatasetCatalog, MetadataCatalog
from fbnetv3.detection.evaluation import count_scored_boxes
from fbnetv3.detection.images import check_images
from fbnetv3.detection.scenes import COUNTS, make_scenes, scenes_folder
from fbnetv3.detection.split import split_images
from fbnetv3.errors import did_you_mean
from fbnetv3.registry import Registry
from fbnetv3.weights.download import cache_dir

_log = logging.getLogger("fbnetv3")

# Name -> annotation file and image folder, relative to the folder in FBNETV3_DATA.
_UNDER_DATA_ROOT = {
    "bccd_train": ("bccd/annotations/instances_train.json", "bccd/images"),
    "bccd_val": ("bccd/annotations/instances_val.json", "bccd/images"),
    "bccd_test": ("bccd/annotations/instances_test.json", "bccd/images"),
    "coco_subset_train": (
        "coco_subset/annotations/instances_train.json",
        "coco_subset/images",
    ),
    "coco_subset_val": ("coco_subset/annotations/instances_val.json", "coco_subset/images"),
}
DETECTION_DATASETS: Registry[Callable[[CfgNode], CocoDataset]] = Registry(
    "detection data set", error=DataError
)
"""Functions that get a config and open a data set, by the name of the data set."""
# Name -> split of the scenes of handwritten digits (detection/scenes.py)
_SCENES = {f"digits_scenes_{split}": split for split in COUNTS}


def list_detection_datasets() -> list[str]:
    """Returns the names of the built-in and registered data sets, sorted.

    detectron2's catalog has further data sets, such as ``coco_2017_train``.
    """
    return sorted([*DETECTION_DATASETS, *_SCENES, *_UNDER_DATA_ROOT])


def build_detection_dataset(name: str, cfg: CfgNode) -> CocoDataset:
    """Opens a data set.

    Args:
        name: Name in DATASETS.COCO, name of a built-in or registered data set, or name of a data
            set with COCO annotations in detectron2's catalog, such as ``coco_2017_train``, whose
            files detectron2 expects below the folder in the environment variable
            DETECTRON2_DATASETS.
        cfg: Config with the key DATASETS.COCO.

    Raises:
        ConfigError: DATASETS.COCO is malformed.
        DataError: The name is unknown, or the data set is missing or invalid.
        WriteError: The cache folder, in which the scenes of digits are generated, is not writable.
    """
    from_config = _datasets_coco(cfg)
    if name in DETECTION_DATASETS:
        return DETECTION_DATASETS.get(name)(cfg)
    if name in from_config:
        return read_coco(name, *from_config[name])
    if name in _SCENES:
        return read_coco(name, *make_scenes(scenes_folder(cache_dir()), _SCENES[name]))
    if name in _UNDER_DATA_ROOT:
        return read_coco(name, *(_under_data_root(name, p) for p in _UNDER_DATA_ROOT[name]))
    paths = _in_catalog(name)
    if paths is None:
        known = [*from_config, *list_detection_datasets(), "coco_2017_train", "coco_2017_val"]
        raise DataError(
            f"unknown detection data set {name!r}{did_you_mean(name, known)}; add your own with "
            "DATASETS.COCO [[name, json, image folder], ...]"
        )
    return read_coco(name, *paths)


def _datasets_coco(cfg: CfgNode) -> dict[str, tuple[Path, Path]]:
    """Returns the annotation file and image folder of each name in DATASETS.COCO."""
    datasets: dict[str, tuple[Path, Path]] = {}
    for entry in cfg.DATASETS.COCO:
        is_triple = isinstance(entry, (list, tuple)) and len(entry) == 3
        if not is_triple or not all(isinstance(part, str) for part in entry):
            raise ConfigError(
                f"DATASETS.COCO holds {entry!r}; each entry must be [name, json, image folder]"
            )
        name, *paths = entry
        if name in datasets:
            raise ConfigError(f"DATASETS.COCO has the name {name!r} twice")
        json_file, folder = (_located(path) for path in paths)
        datasets[name] = json_file, folder
    return datasets


def _located(path: str) -> Path:
    """Returns the path below FBNETV3_DATA if it exists, and otherwise the path itself."""
    given, root = Path(path).expanduser(), os.environ.get(DATA_ROOT_ENV)
    below = Path(root, path) if root and not given.is_absolute() else given
    return below if below.exists() else given


def _under_data_root(name: str, path: str) -> Path:
    root = os.environ.get(DATA_ROOT_ENV)
    if not root:
        raise MissingDataError(f"{name}: set {DATA_ROOT_ENV} to the folder that contains {path}")
    return Path(root, path)


def _in_catalog(name: str) -> tuple[Path, Path] | None:
    if name not in DatasetCatalog:
        return None
    metadata: Any = MetadataCatalog.get(name)
    files = (metadata.get("json_file"), metadata.get("image_root"))
    if not all(files):
        raise DataError(
            f"{name}: detectron2's catalog has no COCO annotations for this data set; register it "
            "with register_coco_instances, or add it to DATASETS.COCO under another name"
        )
    return Path(str(files[0])), Path(str(files[1]))


def open_datasets(cfg: CfgNode) -> tuple[CocoDataset, CocoDataset]:
    """Opens and checks DATASETS.TRAIN and DATASETS.TEST.

    The training set is reduced as in :func:`images_to_train_on`.

    Raises:
        ConfigError: DATASETS.TRAIN or TEST does not hold exactly one name, DATASETS.COCO is
            malformed, or DATA.TRAIN_LIMIT is out of range.
        DataError: A data set cannot be opened, or has broken images (with DATA.SKIP_BROKEN:
            no intact ones), the two have different classes, or no training image has a box.
        WriteError: The cache folder, in which the scenes of digits are generated, is not writable.
    """
    train_set, test_set = _open_dataset(cfg, "TRAIN"), open_evaluation_set(cfg)
    if train_set.classes != test_set.classes:
        raise DataError(
            f"{train_set.name} has the classes {some(train_set.classes)}, {test_set.name} has "
            f"{some(test_set.classes)}; DATASETS.TRAIN and TEST must have the same classes"
        )
    return images_to_train_on(train_set, cfg), test_set


def records_with_boxes(train_set: CocoDataset) -> list[dict[str, Any]]:
    """Returns the images of a training set that have a box; a crowd does not count as one.

    Raises:
        DataError: No image has a box.
    """
    records = [r for r in train_set.records if count_scored_boxes(r["annotations"])]
    if not records:
        raise DataError(
            f"DATASETS.TRAIN {train_set.name}: no image has a box to train on (crowds do not count)"
        )
    return records


def images_to_train_on(train_set: CocoDataset, cfg: CfgNode) -> CocoDataset:
    """Returns the part of a training set that a config trains on.

    If DATALOADER.FILTER_EMPTY_ANNOTATIONS is set, images without a box are left out. A box that is
    marked as a crowd does not count as a box. Of the remaining images, DATA.TRAIN_LIMIT are drawn
    with SEED, or all are taken if it is 0.

    Raises:
        ConfigError: DATA.TRAIN_LIMIT is out of range.
        DataError: No image has a box.
    """
    with_boxes = records_with_boxes(train_set)
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        train_set = train_set.replace_records(with_boxes)
    limit = cfg.DATA.TRAIN_LIMIT
    if not 0 <= limit <= len(train_set):
        raise ConfigError(
            f"DATA.TRAIN_LIMIT={limit} is out of range: {train_set.name} has {len(train_set)} "
            f"images to train on; allowed: 1 to {len(train_set)}, or 0 for all"
        )
    if limit in (0, len(train_set)):
        return train_set
    return split_images(train_set, limit, cfg.SEED)[1]


def open_evaluation_set(cfg: CfgNode) -> CocoDataset:
    """Opens and checks DATASETS.TEST; warns if it has no box to score.

    Raises:
        ConfigError: DATASETS.TEST does not hold exactly one name, or DATASETS.COCO is malformed.
        DataError: The data set cannot be opened, or has broken images (with DATA.SKIP_BROKEN: no
            intact ones).
        WriteError: The cache folder, in which the scenes of digits are generated, is not writable.
    """
    dataset = _open_dataset(cfg, "TEST")
    if not any(count_scored_boxes(record["annotations"]) for record in dataset.records):
        _log.warning(
            "DATASETS.TEST %s has no box that counts (crowds do not): evaluations will have no "
            "average precision; name a data set with boxes",
            dataset.name,
        )
    return dataset


def _open_dataset(cfg: CfgNode, split: str) -> CocoDataset:
    names = cfg.DATASETS[split]
    if len(names) != 1:
        raise ConfigError(f"DATASETS.{split} is {names}; it must name one data set")
    dataset = build_detection_dataset(names[0], cfg)
    for note in dataset.notes:
        _log.info("%s: %s", dataset.name, note)
    return check_images(dataset, decode=cfg.DATA.CHECK_IMAGES, skip_broken=cfg.DATA.SKIP_BROKEN)
