"""Ids of images and categories from a COCO json, for files of results. torch is not imported."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from fbnetv3.errors import did_you_mean, one_line
from fbnetv3.io import read_file
from fbnetv3.predictions.errors import PredictError
from fbnetv3.predictions.inputs import ImageFile


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
        PredictError: The file cannot be read, is not COCO json, or has none of the images.
    """
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
    by_name = dict(names)
    pairs = [(image, _id(image, by_name)) for image in images]
    kept = [(image, number) for image, number in pairs if number is not None]
    if not kept:
        raise PredictError(
            f"{path} has none of the images, such as {images[0]}; give the json of these images, "
            "or leave out --annotations"
        )
    if len(kept) < len(pairs):
        note = f"{path}: {len(pairs) - len(kept)} of {len(pairs)} images are not in it: left out"
        print(one_line(note), file=sys.stderr)
    return [image for image, _ in kept], CocoIds([number for _, number in kept], categories)


def _parts(file_name: Any) -> tuple[str, ...]:
    return PurePath(str(file_name)).parts


def _id(image: ImageFile, by_name: dict[tuple[str, ...], int]) -> int | None:
    parts = _parts(str(image))
    return next((by_name[parts[i:]] for i in range(len(parts)) if parts[i:] in by_name), None)
