"""Ids of images and categories from a COCO json, for files of results. torch is not imported."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from fbnetv3.errors import did_you_mean, one_line
from fbnetv3.io import read_file
from fbnetv3.predictions.errors import PredictError
from fbnetv3.predictions.inputs import ImageFile

Parts = tuple[str, ...]
"""Folders and name of a file."""


@dataclass(frozen=True)
class CocoIds:
    """The ids that COCO results refer to.

    Attributes:
        image_ids: Id of each image, in the order of the images.
        categories: Name of a category -> its id; None: the ids are the numbers of the classes,
            counted from 1.
    """

    image_ids: Sequence[int]
    categories: dict[str, int] | None = None

    @property
    def known(self) -> bool:
        """Whether the ids come from a COCO json."""
        return self.categories is not None

    def of_classes(self, classes: Sequence[str]) -> list[int]:
        """Returns the category id of each class of a detector.

        Raises:
            PredictError: The json has no category with the name of a class.
        """
        if self.categories is None:
            return list(range(1, len(classes) + 1))
        for name in classes:
            if name not in self.categories:
                raise PredictError(
                    f"the COCO json has no category {name!r}, a class of the detector"
                    f"{did_you_mean(name, self.categories)}; give the json of the detector's data"
                )
        return [self.categories[name] for name in classes]


def ids_without_json(images: Sequence[ImageFile]) -> CocoIds:
    """Returns the numbers of the images from 1 on as their ids."""
    return CocoIds(range(1, len(images) + 1))


def read_ids(path: Path, images: Sequence[ImageFile]) -> tuple[list[ImageFile], CocoIds]:
    """Returns the images that are in a COCO json, and the ids of images and categories.

    An image is found by the end of its path: ``photos/a/1.jpg`` is the image whose ``file_name``
    is ``a/1.jpg`` or, if there is none, ``1.jpg``. Other images are left out, with a note on
    standard error.

    Raises:
        PredictError: The file cannot be read, is not COCO json, has a name or an id of an image
            twice, has none of the images, or has one entry for several of them.
    """
    by_name, categories = _read_json(path)
    entries = [(image, _entry(image, by_name)) for image in images]
    kept = [(image, entry) for image, entry in entries if entry is not None]
    if not kept:
        raise PredictError(
            f"{path} has none of the images, such as {images[0]}; give the json of these images, "
            "or leave out --annotations"
        )
    _refuse_shared_entries(path, kept)
    if len(kept) < len(images):
        note = f"{path}: {len(images) - len(kept)} of {len(images)} images are not in it: left out"
        print(one_line(note), file=sys.stderr)
    return [image for image, _ in kept], CocoIds([by_name[entry] for _, entry in kept], categories)


def _read_json(path: Path) -> tuple[dict[Parts, int], dict[str, int]]:
    """Returns the ids of the images by the parts of their names, and of the categories by name."""
    try:
        tree = json.loads(read_file(path, "annotations"))
        names = [(_parts(item["file_name"]), int(item["id"])) for item in tree["images"]]
        categories = {str(item["name"]): int(item["id"]) for item in tree["categories"]}
    except OSError as error:
        reason = error.strerror or str(error)
        raise PredictError(f"cannot read {path}: {reason}; check the path") from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise PredictError(
            f"{path} is not COCO json with images (id, file_name) and categories (id, name); give "
            "the annotations of the images"
        ) from error
    _refuse_repetitions(path, names)
    return dict(names), categories


def _refuse_repetitions(path: Path, names: Sequence[tuple[Parts, int]]) -> None:
    """Refuses a json in which two images have the same name or the same id.

    Raises:
        PredictError: Two images have the same name or the same id.
    """
    ids: dict[Parts, int] = {}
    parts_of: dict[int, Parts] = {}
    for parts, number in names:
        if parts in ids:
            raise PredictError(
                f"{path}: images {ids[parts]} and {number} have the same file_name "
                f"{_name(parts)}; each image needs a file_name of its own: correct the json"
            )
        if number in parts_of:
            raise PredictError(
                f"{path}: the images {_name(parts_of[number])} and {_name(parts)} have the same id "
                f"{number}; each image needs an id of its own: correct the json"
            )
        ids[parts], parts_of[number] = number, parts


def _refuse_shared_entries(path: Path, images: Sequence[tuple[ImageFile, Parts]]) -> None:
    """Refuses images that are found under the same name, whose boxes would be those of one image.

    Raises:
        PredictError: Two images have the same name in the json.
    """
    image_of: dict[Parts, ImageFile] = {}
    for image, entry in images:
        if entry in image_of:
            raise PredictError(
                f"{path}: {image_of[entry]} and {image} are both the image {_name(entry)} of the "
                "json; each image needs an entry of its own: leave one of them out, or write the "
                "folder into file_name"
            )
        image_of[entry] = image


def _parts(file_name: Any) -> Parts:
    return PurePath(str(file_name)).parts


def _name(parts: Parts) -> str:
    return str(PurePath(*parts))


def _entry(image: ImageFile, by_name: Mapping[Parts, int]) -> Parts | None:
    """Returns the longest end of an image's path that is the name of an image of the json."""
    parts = _parts(str(image))
    return next((parts[i:] for i in range(len(parts)) if parts[i:] in by_name), None)
